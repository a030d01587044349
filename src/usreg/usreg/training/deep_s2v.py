# SPDX-License-Identifier: Apache-2.0
"""`usreg train deep_s2v`: a run of one mode, from bodies by seed to weights with the figures they reached.

A folder of a run holds run.json (what was asked for), log.jsonl, checkpoint.safetensors, curve.png, and the best
weights so far with their card: weights.safetensors, weights.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import from_mapping, load_yaml, to_mapping
from ..data.atomic import write_text
from ..data.share import share_dir
from ..errors import ConfigError, FileFormatError
from ..registration.learned.weights import load_weights, save_weights
from ..simulation.subject_files import SUBJECT, read_subject
from ..simulation.subjects import Subject
from .checkpoint import NAME as CHECKPOINT
from .curve import RULE, draw_curve, is_undertrained
from .distributed import Processes, seeded
from .pairs import PairConfig, Pairs
from .recipe import Recipe, mean_figures
from .schedule import TrainerConfig
from .trainer import Report, State, Trainer, Validate

WEIGHTS, CARD, CURVE, RUN = "weights.safetensors", "weights.md", "curve.png", "run.json"
VALIDATION_SEED = 1_000_000  # pairs of the validation are other draws than those of the training
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainingConfig:
    """A file of `config/training`.

    Args:
        trainer, pairs: budget and data, the same for all modes that are compared.
        network, and `options` of the mode: keys of its recipe.
        validation_pairs: drawn from each run's validation subjects, the same for all modes.
        device: "" takes a GPU where there is one.
    """

    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    network: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    validation_pairs: int = 64
    device: str = ""


def paper(network: Mapping[str, Any], options: Mapping[str, Any]) -> Recipe:
    """DeepRS2V as published."""
    from ..networks.dot_fusion_regressor import DotFusionConfig, DotFusionRegressor
    from .regression import crop_and_loss, recipe

    config = from_mapping(DotFusionConfig, network, "network")
    return recipe(DotFusionRegressor(config), config, *crop_and_loss(options))


def fvr(network: Mapping[str, Any], options: Mapping[str, Any]) -> Recipe:
    """FVR-Net."""
    from ..networks.frame_volume_regressor import FrameVolumeConfig, FrameVolumeRegressor
    from .regression import crop_and_loss, recipe

    config = from_mapping(FrameVolumeConfig, network, "network")
    return recipe(FrameVolumeRegressor(config), config, *crop_and_loss(options))


def usreg(network: Mapping[str, Any], options: Mapping[str, Any]) -> Recipe:
    """Correspondences: what is better here."""
    from .correspond import recipe

    return recipe(network, options)


MODES: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Recipe]] = {
    "paper": paper,
    "usreg": usreg,
    "fvr": fvr,
}


@dataclass(frozen=True)
class Run:
    """What is asked for.

    Args:
        bodies, validation: seeds of subjects to train on, and to validate on; no body is in both.
        out: folder of the run. data: folder of the subjects, made where they are missing.
        command: for the record.
    """

    mode: str
    bodies: Sequence[int]
    out: Path
    data: Path
    config: TrainingConfig
    validation: Sequence[int] = ()
    resume: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"there is no mode '{self.mode}'; choose one of {sorted(MODES)}")
        if not len(self.bodies):
            raise ConfigError("no bodies to train on: name their seeds, for example --bodies 3000:3040")
        both = sorted(set(self.bodies) & set(self.validation))
        if both:
            raise ConfigError(f"bodies {both} are asked for to train on and to validate on: a split is by subject")

    @property
    def what(self) -> dict[str, Any]:
        """What must be the same when the run is resumed."""
        config = to_mapping(self.config)
        for key in ("trainer", "device"):
            config.pop(key)  # the checkpoint knows its trainer's
        return {
            "mode": self.mode, "bodies": list(self.bodies), "validation": list(self.validation), "config": config
        }  # fmt: skip


def load_config(mode: str, full: bool = False, path: Path | None = None, **trainer: Any) -> TrainingConfig:
    """The configuration that ships for a mode, or a file's, with values of the trainer replaced where not None."""
    if mode not in MODES:
        raise ConfigError(f"there is no mode '{mode}'; choose one of {sorted(MODES)}")
    path = path or share_dir() / "config" / "training" / f"deep_s2v_{mode}{'_full' if full else ''}.yaml"
    config = from_mapping(TrainingConfig, load_yaml(path), path.name)
    given = {name: value for name, value in trainer.items() if value is not None}
    return replace(config, trainer=from_mapping(TrainerConfig, {**to_mapping(config.trainer), **given}, "trainer"))


class Stored(Sequence[Subject]):
    """Subjects in a folder, read when they are looked at."""

    def __init__(self, seeds: Sequence[int], folder: Path) -> None:
        self.paths = [folder / str(seed) for seed in seeds]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: Any) -> Any:
        return read_subject(self.paths[number])


def missing_subjects(run: Run) -> list[int]:
    """Seeds whose subjects the folder lacks."""
    return [s for s in (*run.bodies, *run.validation) if not (run.data / str(s) / SUBJECT).is_file()]


def train(
    run: Run, reading: Progress | None = None, progress: Callable[[Report], None] | None = None,
    processes: Processes | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train, and leave the weights in the folder of the run.

    Args:
        reading: told how many subjects are in memory. progress: told of every step.

    Returns:
        What the weights' header says of the run.

    Raises:
        ConfigError: the folder holds a run already, or one of something else. FileFormatError: its files are damaged.
        UsregError: the run diverged.
    """
    processes, config = processes or Processes(), run.config
    _open(run, processes)
    with seeded(config.trainer.seed, 0):
        recipe = MODES[run.mode](config.network, config.options)
    device = None if processes.device.type == "cpu" else processes.device
    pairs = Pairs(Stored(run.bodies, run.data), config.pairs, config.trainer.seed, reading, device)
    figures = _validation(run, recipe, device)
    trainer = Trainer(
        config.trainer, recipe.network, recipe.objective, pairs, run.out,
        validate=figures, keep=_keeper(run, recipe), progress=progress, processes=processes,
    )  # fmt: skip
    trainer.run(run.resume)
    return _closed(run, trainer) if processes.first else {}


def _open(run: Run, processes: Processes) -> None:
    """Check the folder and say in it what runs."""
    if not processes.first:
        return
    run.out.mkdir(parents=True, exist_ok=True)
    path = run.out / RUN
    if path.is_file():
        _check_same(run, path)
    if (run.out / CHECKPOINT).is_file() and not run.resume:
        raise ConfigError(f"'{run.out.name}' holds a training already: add --resume to go on, or choose another folder")
    write_text(path, json.dumps(run.what, indent=1, sort_keys=True) + "\n")


def _check_same(run: Run, path: Path) -> None:
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"'{path.name}' in '{run.out.name}' is damaged: choose another folder") from error
    if before.get("mode") != run.mode:
        raise ConfigError(
            f"'{run.out.name}' holds a training of mode '{before.get('mode')}', not '{run.mode}': choose another folder"
        )
    now = json.loads(json.dumps(run.what))
    changed = sorted(k for k in now if before.get(k) != now[k])
    if changed and (run.out / CHECKPOINT).is_file():
        raise ConfigError(
            f"'{run.out.name}' holds a training with another {' and '.join(changed)}: resume it with what stands in "
            f"its {RUN}, or choose another folder"
        )


def _validation(run: Run, recipe: Recipe, device: torch.device | None) -> Validate | None:
    if not run.validation:
        return None
    config = replace(run.config.pairs, augment=None)
    pairs = Pairs(Stored(run.validation, run.data), config, VALIDATION_SEED, device=device)
    count = max(1, round(run.config.validation_pairs / config.batch))
    batches = [pairs.batch(i) for i in range(count)]
    return mean_figures(recipe.figures, batches if device is None else [b.to(device) for b in batches])


def _keeper(run: Run, recipe: Recipe) -> Callable[[nn.Module, Trainer], None]:
    """Writes the weights whenever they are the best so far."""

    def keep(network: nn.Module, trainer: Trainer) -> None:
        about = describe(run, recipe, trainer)
        save_weights(run.out / WEIGHTS, run.mode, recipe.network_mapping, network.state_dict(), about)

    return keep


def describe(run: Run, recipe: Recipe, trainer: Trainer) -> dict[str, Any]:
    """What the header of the weights says."""
    return {
        **recipe.metadata,
        "pairs": to_mapping(run.config.pairs),
        "command": run.command,
        "bodies": list(run.bodies),
        "validation": list(run.validation),
        "parameters": recipe.parameters,
        "trainer": to_mapping(run.config.trainer),
        "kept_at_step": trainer.state.step,
        **progress_of(trainer),
    }


def progress_of(trainer: Trainer) -> dict[str, Any]:
    """How far a run has come: what was spent, what was reached, whether its curve still falls."""
    state: State = trainer.state
    entries = trainer.log.entries if trainer.log is not None else []
    figures: dict[str, float] = next((e["validation"] for e in reversed(entries) if "validation" in e), {})
    curve = trainer.log.curve(next(iter(figures))) if trainer.log is not None and figures else []
    spent = {
        n: getattr(state, n) for n in ("samples", "wall_s", "cpu_s", "data_s", "network_s", "validation_s", "skipped")
    }
    return {
        "steps": state.step,
        **{n: round(v, 2) for n, v in spent.items()},
        "processes": trainer.processes.world,
        "figures": _finite(figures),
        "best": None if state.best_step < 0 else {"step": state.best_step, "value": state.best},
        "curve": [point for point in curve if math.isfinite(point[1])],
        "undertrained": is_undertrained(curve),
        "rule": RULE,
    }


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures for JSON, which has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _closed(run: Run, trainer: Trainer) -> dict[str, Any]:
    """The last word: weights with the whole run in their header, their card, the curve."""
    assert trainer.log is not None
    kept = load_weights(run.out / WEIGHTS, run.mode)
    found = [e for e in trainer.log.entries if "validation" in e and e["step"] == trainer.state.best_step]
    best = found[-1]["validation"] if found else {}
    about = {
        **kept.metadata,
        **progress_of(trainer),
        "figures": _finite(best),
        "trainer": to_mapping(run.config.trainer),
        "command": run.command,
    }
    save_weights(run.out / WEIGHTS, run.mode, kept.network, kept.tensors, about)
    write_text(run.out / CARD, card(run.mode, about, (run.out / WEIGHTS).stat().st_size))
    name = next(iter(best), "loss")
    draw_curve(trainer.log.entries, name, run.out / CURVE, f"deep_s2v {run.mode}")
    return about


def card(mode: str, about: Mapping[str, Any], size: int) -> str:
    """A page about weights, Markdown."""
    span, other = _span(about["bodies"]), _span(about["validation"])
    rows = "\n".join(
        f"| {name} | {'none' if value is None else format(value, '.3f')} |" for name, value in about["figures"].items()
    )
    mark = "**undertrained**: the curve still falls" if about["undertrained"] else "the curve is flat"
    return f"""# deep_s2v, mode {mode}

Research use only. Trained on simulated bodies.

    {about["command"]}

{about["parameters"]} parameters, {size / 1e6:.1f} MB. Bodies {span}, validation {other}.
{about["samples"]} samples in {about["steps"]} steps, {about["wall_s"]:.0f} s of wall-clock time
({about["cpu_s"]:.0f} s of the processor) in {about["processes"]} process(es).
The weights are those of step {about["kept_at_step"]}, the best on the validation.
Learning curve: {mark}. ({about["rule"]}.)

| validation, mean | |
|---|---|
{rows}
"""


def _span(seeds: Sequence[int]) -> str:
    whole = list(range(seeds[0], seeds[-1] + 1)) == list(seeds) if seeds else False
    return f"{seeds[0]}:{seeds[-1] + 1}" if whole else ", ".join(map(str, seeds)) or "none"
