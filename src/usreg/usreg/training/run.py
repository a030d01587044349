# SPDX-License-Identifier: Apache-2.0
"""What is asked of a training, and the folder it leaves.

A folder holds run.json (what was asked for), log.jsonl, checkpoint.safetensors, curve.png, and the best weights so far
with their card: weights.safetensors, weights.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..config import to_mapping
from ..data.atomic import write_text
from ..errors import ConfigError, FileFormatError
from ..registration.learned.weights import load_weights, save_weights
from .checkpoint import NAME as CHECKPOINT
from .curve import RULE, draw_curve, is_undertrained
from .pairs import PairConfig
from .recipe import Recipe
from .schedule import TrainerConfig
from .trainer import State, Trainer

WEIGHTS, CARD, CURVE, RUN = "weights.safetensors", "weights.md", "curve.png", "run.json"


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
    system: str = "deep_s2v"

    def __post_init__(self) -> None:
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


def open_folder(run: Run) -> None:
    """Check the folder and say in it what runs.

    Raises:
        ConfigError: it holds a run already, or one of something else. FileFormatError: its files are damaged.
    """
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


def keeper(run: Run, recipe: Recipe) -> Callable[[nn.Module, Trainer], None]:
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


def close_folder(run: Run, trainer: Trainer) -> dict[str, Any]:
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
    write_text(run.out / CARD, card(f"{run.system}, mode {run.mode}", about, (run.out / WEIGHTS).stat().st_size))
    name = next(iter(best), "loss")
    draw_curve(trainer.log.entries, name, run.out / CURVE, f"{run.system} {run.mode}")
    return about


def card(title: str, about: Mapping[str, Any], size: int) -> str:
    """A page about weights, Markdown."""
    span, other = _span(about["bodies"]), _span(about["validation"])
    rows = "\n".join(
        f"| {name} | {'none' if value is None else format(value, '.3f')} |" for name, value in about["figures"].items()
    )
    mark = "**undertrained**: the curve still falls" if about["undertrained"] else "the curve is flat"
    return f"""# {title}

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
