# SPDX-License-Identifier: Apache-2.0
"""How long a training runs and how its learning rate goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..config import check_range
from ..errors import ConfigError


@dataclass(frozen=True)
class TrainerConfig:
    """Budget, optimiser and habits of a training.

    Args:
        steps: of the optimisers. minutes: of wall-clock time, which ends the run if it is earlier; 0: no limit. With a
            limit the learning rate follows whichever budget is used up more, and a run repeats only as the clock does.
        seed: of the pairs, of the first weights and of what the network itself draws.
        schedule: "cosine" to zero, "step" (times `decay` every `decay_share` of the run) or "constant".
        warmup_steps: over which the rate rises from zero.
        accumulate: batches of a step; their mean counts. Two processes with one batch each do the same.
        clip_norm: of the gradient, 0: not clipped. ema: decay of the mean of the weights that is validated and kept; 0:
            the weights themselves.
        precision: of the forward pass; bfloat16 where the processor or GPU has it, float16 on GPUs.
        checkpoint_steps, validate_steps, log_steps: how often.
        ahead: whether the next step's batches are drawn in a thread of their own while the network works: worth it with
            a GPU, or where processors idle.
        most_skipped: steps in a row whose gradient is not finite before the run is given up.
    """

    steps: int = 2000
    minutes: float = 0.0
    seed: int = 0
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    warmup_steps: int = 50
    decay: float = 0.8
    decay_share: float = 1.0 / 15.0
    accumulate: int = 1
    clip_norm: float = 1.0
    ema: float = 0.99
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpoint_steps: int = 200
    validate_steps: int = 500
    log_steps: int = 20
    ahead: bool = False
    most_skipped: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "checkpoint_steps", "validate_steps", "log_steps", "most_skipped"):
            check_range(name, getattr(self, name), 1, 1_000_000_000)
        check_range("minutes", self.minutes, 0.0, 1e6)
        check_range("seed", self.seed, 0, 2**31 - 1)
        check_range("warmup_steps", self.warmup_steps, 0, 1_000_000_000)
        check_range("learning_rate", self.learning_rate, 1e-12, 10.0)
        check_range("weight_decay", self.weight_decay, 0.0, 10.0)
        check_range("decay", self.decay, 1e-6, 1.0)
        check_range("decay_share", self.decay_share, 1e-6, 1.0)
        check_range("clip_norm", self.clip_norm, 0.0, 1e9)
        if not 0.0 <= self.ema < 1.0:
            raise ConfigError(f"'ema' is {self.ema}; it must lie in [0, 1)")


def used_share(config: TrainerConfig, step: int, wall_s: float) -> float:
    """Share of the budget that is used up, of steps or of time, whichever is more; 1 ends the run."""
    by_time = wall_s / (60.0 * config.minutes) if config.minutes > 0 else 0.0
    return min(1.0, max(step / config.steps, by_time))


def rate_factor(config: TrainerConfig, step: int, used: float) -> float:
    """Factor on the learning rate of step number `step`, when a share `used` of the budget is used up."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        return warm * 0.5 * (1.0 + math.cos(math.pi * used))
    if config.schedule == "step":
        return warm * config.decay ** int(used / config.decay_share + 1e-9)
    return warm


def ema_decay(config: TrainerConfig, step: int) -> float:
    """Decay of the mean of the weights: short at first, so that the first weights are forgotten."""
    return min(config.ema, (1.0 + step) / (10.0 + step))
