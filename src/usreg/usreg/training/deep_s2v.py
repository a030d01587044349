# SPDX-License-Identifier: Apache-2.0
"""`usreg train deep_s2v`: its modes, from bodies by seed to weights with the figures they reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..config import from_mapping, load_yaml, to_mapping
from ..data.share import share_dir
from ..errors import ConfigError
from ..simulation.subject_files import SUBJECT, read_subject
from ..simulation.subjects import Subject
from .distributed import Processes, seeded
from .pairs import Pairs
from .recipe import Recipe, mean_figures
from .run import Run, TrainingConfig, close_folder, keeper, open_folder
from .schedule import TrainerConfig
from .trainer import Report, Trainer, Validate

VALIDATION_SEED = 1_000_000  # pairs of the validation are other draws than those of the training
Progress = Callable[[int, int], None]


def paper(network: Mapping[str, Any], options: Mapping[str, Any], seed: int = 0) -> Recipe:
    """DeepRS2V as published."""
    from ..networks.dot_fusion_regressor import DotFusionConfig, DotFusionRegressor
    from .regression import crop_and_loss, recipe

    config = from_mapping(DotFusionConfig, {"seed": seed, **network}, "network")
    return recipe(DotFusionRegressor(config), config, *crop_and_loss(options))


def fvr(network: Mapping[str, Any], options: Mapping[str, Any], seed: int = 0) -> Recipe:
    """FVR-Net."""
    from ..networks.frame_volume_regressor import FrameVolumeConfig, FrameVolumeRegressor
    from .regression import crop_and_loss, recipe

    config = from_mapping(FrameVolumeConfig, {"seed": seed, **network}, "network")
    return recipe(FrameVolumeRegressor(config), config, *crop_and_loss(options))


def usreg(network: Mapping[str, Any], options: Mapping[str, Any], seed: int = 0) -> Recipe:
    """Correspondences: what is better here. Its first weights are torch's own, drawn under the run's seed."""
    from .correspond import recipe

    return recipe(network, options)


MODES: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], int], Recipe]] = {
    "paper": paper,
    "usreg": usreg,
    "fvr": fvr,
}


def check_mode(mode: str) -> None:
    """Raise ConfigError unless there is such a mode."""
    if mode not in MODES:
        raise ConfigError(f"there is no mode '{mode}'; choose one of {sorted(MODES)}")


def load_config(mode: str, full: bool = False, path: Path | None = None, **trainer: Any) -> TrainingConfig:
    """The configuration that ships for a mode, or a file's, with values of the trainer replaced where not None."""
    check_mode(mode)
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
    check_mode(run.mode)
    if processes.first:
        open_folder(run)
    with seeded(config.trainer.seed, 0):
        recipe = MODES[run.mode](config.network, config.options, config.trainer.seed)
    device = None if processes.device.type == "cpu" else processes.device
    pairs = Pairs(Stored(run.bodies, run.data), config.pairs, config.trainer.seed, reading, device)
    figures = _validation(run, recipe, device)
    trainer = Trainer(
        config.trainer, recipe.network, recipe.objective, pairs, run.out,
        validate=figures, keep=keeper(run, recipe), progress=progress, processes=processes,
    )  # fmt: skip
    trainer.run(run.resume)
    return close_folder(run, trainer) if processes.first else {}


def _validation(run: Run, recipe: Recipe, device: torch.device | None) -> Validate | None:
    if not run.validation:
        return None
    config = replace(run.config.pairs, augment=None)
    pairs = Pairs(Stored(run.validation, run.data), config, VALIDATION_SEED, device=device)
    count = max(1, round(run.config.validation_pairs / config.batch))
    batches = [pairs.batch(i) for i in range(count)]
    return mean_figures(recipe.figures, batches if device is None else [b.to(device) for b in batches])
