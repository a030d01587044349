# SPDX-License-Identifier: Apache-2.0
"""Objectives: weighted sums, groups of parameters, refusals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from usreg.errors import ConfigError
from usreg.losses.objective import Objective, Step, to_sum_one


def losses(network: nn.Module, batch: Any) -> Mapping[str, Tensor]:
    error = network(batch)
    return {"first": error.square().mean(), "second": error.abs().mean(), "seen": error.detach().max()}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def test_total_is_the_weighted_sum() -> None:
    step = Step("train", losses, {"first": 0.25, "second": 2.0})
    found = losses(network(), torch.ones(4, 2))
    torch.testing.assert_close(step.total(found), 0.25 * found["first"] + 2.0 * found["second"])
    assert step.total(found).requires_grad


def test_a_loss_that_is_weighed_must_be_there() -> None:
    with pytest.raises(ConfigError, match="weighs"):
        Step("train", losses, {"third": 1.0}).total(losses(network(), torch.ones(4, 2)))


def test_group_names_what_is_moved() -> None:
    net = network()
    assert len(Step("train", losses, {"first": 1.0}).parameters(net)) == 4
    assert [p.shape for p in Step("head", losses, {"first": 1.0}, "1.").parameters(net)] == [(1, 3), (1,)]
    net[1].requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter"):
        Step("head", losses, {"first": 1.0}, "1.").parameters(net)


@pytest.mark.parametrize(("name", "weights"), [("", {"a": 1.0}), ("a", {}), ("a", {"a": -1.0}), ("a", {"a": math.nan})])
def test_steps_are_checked(name: str, weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Step(name, losses, weights)


def test_objectives_are_checked() -> None:
    step = Step("train", losses, {"first": 1.0})
    assert Objective((step,)).steps == (step,)
    for steps in ((), (step, step)):
        with pytest.raises(ConfigError, match="names of their own"):
            Objective(steps)


def test_sum_one_keeps_the_proportion() -> None:
    assert to_sum_one({"a": 1.0, "b": 3.0}) == {"a": 0.25, "b": 0.75}
    with pytest.raises(ConfigError, match="above zero"):
        to_sum_one({"a": 0.0})
