# SPDX-License-Identifier: Apache-2.0
"""Covariance of a refined pose: H^-1 M H^-1 of normal matrix H and covariance M of the gradient.

Liang & Zeger 1986, "sandwich"; M is measured on the residual, see `noise`. With white noise M = c H, and this is the
textbook c H^-1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..data.types import TrackedFrame
from ..geometry import se3
from .noise import Noise

FLAT_MM, FLAT_RAD = 1000.0, 3.0  # standard deviations of what is not seen at all


def ref_covariance(noises: list[Noise]) -> Tensor:
    """Covariance (6, 6) of the twist in reference axes.

    A prior of FLAT_MM and FLAT_RAD bounds directions that cannot be seen: neither zero nor infinite.
    """
    h = sum(n.weight * n.matrix for n in noises)
    m = sum(n.weight**2 * n.spread for n in noises)
    grey = sum(n.weight * n.variance * n.cell_samples for n in noises) / len(noises)
    flat = grey * torch.diag(torch.tensor([FLAT_MM**-2] * 3 + [FLAT_RAD**-2] * 3, dtype=torch.float64))
    inverse = torch.linalg.inv(h + flat)
    c = inverse @ (m + grey * flat) @ inverse
    return 0.5 * (c + c.T)


def world_covariance(covariance: Tensor, world_T_ref: Tensor, pivot: Tensor) -> Tensor:
    """From the twist of ct_T_ref (right, reference axes) to world_T_ct (left, world axes, about the pivot)."""
    a = se3.adjoint(se3.translation(-pivot) @ world_T_ref)
    c = a @ covariance @ a.T
    return 0.5 * (c + c.T)


def tracking_covariance(
    frames: tuple[TrackedFrame, ...], noises: list[Noise], world_T_ref: Tensor, pivot: Tensor
) -> Tensor:
    """What the frames' own pose covariances add, about the pivot: independent errors, shared by information."""
    a = se3.adjoint(se3.inverse(world_T_ref) @ se3.translation(pivot))
    information = [a.T @ (n.weight * n.matrix) @ a for n in noises]
    total = torch.linalg.pinv(sum(information), hermitian=True) if len(frames) > 1 else None
    out = torch.zeros(6, 6, dtype=torch.float64)
    for frame, info in zip(frames, information, strict=True):
        moved = se3.move_pivot(frame.covariance, pivot - frame.world_T_image[:3, 3])
        share = torch.eye(6, dtype=torch.float64) if total is None else total @ info
        out = out + share @ moved @ share.T
    return 0.5 * (out + out.T)


def point_sigma_mm(covariance: Tensor, points: Tensor) -> float:
    """Largest standard deviation, mm, of points (N, 3) under a twist covariance in the same axes about their origin."""
    jacobian = se3.adjoint(se3.translation(points))[:, :3]
    moved = jacobian @ covariance @ jacobian.transpose(-1, -2)
    worst = torch.linalg.eigvalsh(0.5 * (moved + moved.transpose(-1, -2)))[:, -1].max()
    return math.sqrt(max(0.0, float(worst)))
