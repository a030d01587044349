# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics along a path: damped least squares, warm-started, with the free joints led towards the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import check_range
from ..errors import KinematicsError
from .chain import Chain
from .path_kernels import follow_poses


@dataclass(frozen=True)
class PathIkConfig:
    """Limits of the search.

    Args:
        max_iterations: Newton steps per pose. tolerance_mm, tolerance_rad: what counts as reached.
        length_mm: how many mm one radian of orientation error weighs.
        margin_rad: distance kept from the position limits. speed_share: share of the velocity limits that may be used.
        centring_per_s: rate at which joints that the pose leaves free go to the middle of their range.
    """

    max_iterations: int = 40
    tolerance_mm: float = 1e-4
    tolerance_rad: float = 1e-7
    length_mm: float = 200.0
    margin_rad: float = 0.03
    speed_share: float = 0.95
    centring_per_s: float = 0.5

    def __post_init__(self) -> None:
        check_range("max_iterations", self.max_iterations, 1, 10_000)
        for name in ("tolerance_mm", "tolerance_rad", "length_mm"):
            check_range(name, getattr(self, name), 1e-12, 1e6)
        check_range("margin_rad", self.margin_rad, 0.0, 1.0)
        check_range("speed_share", self.speed_share, 0.05, 1.0)
        check_range("centring_per_s", self.centring_per_s, 0.0, 10.0)


def inverse_path(
    chain: Chain, base_T_flange: NDArray[np.float64], stamps_s: NDArray[np.float64], start: Tensor,
    config: PathIkConfig | None = None, given: NDArray[np.float64] | None = None,
) -> Tensor:  # fmt: skip
    """Joint positions (N, n) along poses (N, 4, 4), mm, at ascending stamps (N,).

    Args:
        start: (n,), near the solution of the first pose.
        given: (N, n), finite where a joint's position is not to be solved for (a motor with a plan of its own).

    Raises:
        KinematicsError: a pose is out of reach, or takes a joint beyond its limits of position or velocity; the message
            says when, which joint, and what to change.

    Source: Siciliano et al., Robotics, 3.5 and 3.7: inverse differential kinematics with a nullspace task, corrected by
    Newton steps at every pose; damped as in Nakamura and Hanafusa 1986.
    """
    config = config or PathIkConfig()
    low, high, speed = (np.array(v) for v in (chain.limits.lower, chain.limits.upper, chain.limits.velocity))
    span = np.where(np.isfinite(high - low), high - low, 2 * math.pi)
    middle = np.where(np.isfinite(high + low), 0.5 * (high + low), 0.0)
    margin = np.array([0.0 if kind == "prismatic" else config.margin_rad for kind in chain.kinds])
    q = np.empty((len(stamps_s), chain.count))
    fixed = np.full_like(q, np.nan) if given is None else given
    at, reason, joint, left = follow_poses(
        *kernel_terms(chain), np.ascontiguousarray(base_T_flange), stamps_s, chain._checked(start).numpy().copy(),
        fixed, low + margin, high - margin, config.speed_share * speed, middle, span, config.centring_per_s,
        config.max_iterations, config.tolerance_mm, config.tolerance_rad, config.length_mm, q,
    )  # fmt: skip
    if reason:
        raise _error(chain, stamps_s, q, int(at), int(reason), int(joint), float(left), config)
    return torch.from_numpy(q)


def kernel_terms(chain: Chain) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Origins and tails (n, 4, 4), axes (n, 3), which joints slide (n,), tip (4, 4), as the kernels take them."""
    tails = (
        torch.eye(4, dtype=torch.float64).repeat(chain.count, 1, 1) if chain.links_tail is None else chain.links_tail
    )
    slides = np.array([kind == "prismatic" for kind in chain.kinds])
    return chain.origins.numpy(), tails.numpy(), chain.axes.numpy(), slides, chain.tip.numpy()


def _error(
    chain: Chain, stamps_s: NDArray[Any], q: NDArray[Any], at: int, reason: int, joint: int, left: float,
    config: PathIkConfig,
) -> KinematicsError:  # fmt: skip
    name, when = chain.joint_names[joint], f"at {stamps_s[at]:.3f} s"
    remain = f"{left:.2f} mm remain"
    if reason == 1:
        return KinematicsError(
            f"the path is out of reach {when}: {remain}, joint '{name}' is nearest to its limit: "
            "move the arm's foot or the bed, or choose another path"
        )
    if reason == 2:
        return KinematicsError(
            f"the path takes joint '{name}' to its position limit {when} ({remain}): move the arm's foot or the bed, "
            "turn the probe in its holder, or choose another path"
        )
    needed = abs(q[at, joint] - q[at - 1, joint]) / (stamps_s[at] - stamps_s[at - 1])
    return KinematicsError(
        f"the path needs {needed:.3f} per second of joint '{name}' {when}, {config.speed_share:.0%} of its limit "
        f"{chain.limits.velocity[joint]:.3f} are allowed: give the path more time, or move the arm's foot away from "
        "where it is stretched"
    )
