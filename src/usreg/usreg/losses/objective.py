# SPDX-License-Identifier: Apache-2.0
"""What a trainer minimises, in steps: it owns one optimiser per step and knows nothing of papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError

Losses = Callable[[nn.Module, Any], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Step:
    """One of the optimisers' turns.

    Args:
        name: for logs, and for the optimiser's state in a checkpoint.
        losses: (network, batch) -> named scalars. The network is handed in, not held, so that the trainer may wrap it
            (distributed training must see the call of the outermost module).
        weights: of each loss in the sum that is minimised; a loss without a weight is only logged.
        group: names of parameters that this step moves begin with it; empty = all.
    """

    name: str
    losses: Losses
    weights: Mapping[str, float]
    group: str = ""

    def __post_init__(self) -> None:
        if not self.name or not self.weights:
            raise ConfigError("a step of an objective needs a name and at least one weighted loss")
        if not all(math.isfinite(w) and w >= 0 for w in self.weights.values()):
            raise ConfigError(f"weights of step '{self.name}' must be finite and not negative: {dict(self.weights)}")

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum.

        Raises:
            ConfigError: a loss that has a weight is missing.
        """
        missing = sorted(set(self.weights) - set(losses))
        if missing:
            raise ConfigError(f"step '{self.name}' weighs {missing}, but its losses are {sorted(losses)}")
        terms = [weight * losses[name] for name, weight in self.weights.items()]
        return sum(terms[1:], terms[0])

    def parameters(self, network: nn.Module) -> list[nn.Parameter]:
        """What this step moves: the group's parameters that are not frozen, of the network before it is wrapped.

        Raises:
            ConfigError: there are none.
        """
        found = [p for n, p in network.named_parameters() if n.startswith(self.group) and p.requires_grad]
        if not found:
            raise ConfigError(f"step '{self.name}': no parameter to train has a name that begins with '{self.group}'")
        return found


@dataclass(frozen=True)
class Objective:
    """Steps that alternate within one batch; most objectives have one."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"an objective has steps with names of their own, got {names}")


def to_sum_one(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights in the same proportion, with sum 1.

    Raises:
        ConfigError: their sum is not above zero.
    """
    whole = math.fsum(weights.values())
    if not (math.isfinite(whole) and whole > 0):
        raise ConfigError(f"weights must have a sum above zero, got {dict(weights)}")
    return {name: weight / whole for name, weight in weights.items()}
