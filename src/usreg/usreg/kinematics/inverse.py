# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics by damped least squares within the joint limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import check_range
from ..errors import KinematicsError
from ..geometry import se3
from .chain import Chain


@dataclass(frozen=True)
class InverseConfig:
    """Limits of the search.

    Args:
        max_iterations: steps before it gives up.
        tolerance_mm, tolerance_rad: what counts as reached.
        length_mm: how many mm one radian of orientation error weighs.
        max_step_rad: largest joint step of one iteration; keeps the solution in the branch of the start.
        margin_rad: distance kept from the position limits.
    """

    max_iterations: int = 200
    tolerance_mm: float = 1e-6
    tolerance_rad: float = 1e-8
    length_mm: float = 200.0
    max_step_rad: float = 0.3
    margin_rad: float = 0.01

    def __post_init__(self) -> None:
        check_range("max_iterations", self.max_iterations, 1, 100_000)
        for name in ("tolerance_mm", "tolerance_rad", "length_mm", "max_step_rad"):
            check_range(name, getattr(self, name), 1e-12, 1e6)
        check_range("margin_rad", self.margin_rad, 0.0, 1.0)


def inverse(chain: Chain, base_T_flange: Tensor, start: Tensor, config: InverseConfig | None = None) -> Tensor:
    """Joint positions (n,) near `start` that bring the flange to a pose.

    Args:
        base_T_flange: (4, 4), mm.
        start: (n,), rad; the solution stays in its neighbourhood, so a path followed point by point stays smooth.

    Raises:
        KinematicsError: not reached within the limits; the message says by how much.

    Source: Nakamura and Hanafusa 1986 (damped least squares), damping by success as Levenberg-Marquardt does.
    """
    config = config or InverseConfig()
    low, high = _bounds(chain, config.margin_rad)
    q = chain._checked(start).clamp(low, high)
    error = _error(chain, q, base_T_flange)
    damping = 1e-3
    for _ in range(config.max_iterations):
        if _reached(error, config):
            return q
        trial = (q + _step(chain, q, error, damping, config)).clamp(low, high)
        trial_error = _error(chain, trial, base_T_flange)
        better = _cost(trial_error, config) < _cost(error, config)
        damping = max(damping / 10, 1e-12) if better else damping * 10
        if better:
            q, error = trial, trial_error
        elif damping > 1e6:
            break
    if _reached(error, config):
        return q
    raise KinematicsError(
        f"the flange cannot reach the pose within the joint limits: {error[:3].norm():.3f} mm and "
        f"{math.degrees(error[3:].norm()):.3f} deg remain; choose another pose or another start"
    )


def _bounds(chain: Chain, margin: float) -> tuple[Tensor, Tensor]:
    low = torch.tensor(chain.limits.lower, dtype=torch.float64) + margin
    return low, torch.tensor(chain.limits.upper, dtype=torch.float64) - margin


def _error(chain: Chain, q: Tensor, target: Tensor) -> Tensor:
    """Twist (6,) in base axes at the flange's origin that leads from the present pose to the target."""
    pose = chain.forward(q)
    shift = target[:3, 3] - pose[:3, 3]
    turn = se3.log(se3.from_parts(target[:3, :3] @ pose[:3, :3].T, torch.zeros(3, dtype=torch.float64)))[3:]
    return torch.cat([shift, turn])


def _weights(config: InverseConfig) -> Tensor:
    return torch.tensor([1.0] * 3 + [config.length_mm] * 3, dtype=torch.float64)


def _cost(error: Tensor, config: InverseConfig) -> float:
    return float((error * _weights(config)).square().sum())


def _step(chain: Chain, q: Tensor, error: Tensor, damping: float, config: InverseConfig) -> Tensor:
    weights = _weights(config)
    j = chain.jacobian(q) * weights[:, None]
    normal = j @ j.T
    normal = normal + damping * normal.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    step = j.T @ torch.linalg.solve(normal, error * weights)
    return step * min(1.0, config.max_step_rad / max(float(step.abs().max()), 1e-12))


def _reached(error: Tensor, config: InverseConfig) -> bool:
    return bool(error[:3].norm() <= config.tolerance_mm and error[3:].norm() <= config.tolerance_rad)
