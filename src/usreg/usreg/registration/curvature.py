# SPDX-License-Identifier: Apache-2.0
"""How sharp an optimum of any similarity is, and how far noise spreads its gradient, where there are no residuals.

Curvature: central differences of the gradient. Spread: the gradient is a sum over tiles of the image, and what tiles
disagree by holds noise and wrong models alike (cluster-robust covariance, Liang and Zeger 1986).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..geometry import se3
from .image_objective import ImageObjective
from .levenberg import move
from .noise import Noise
from .normal import View

STEP_MM = 0.5  # of the differences, at least: below the samples' distance the interpolation's kinks show
TILE_MM = 15.0
RIDGE = 1e-9


def frame_noises(objective: ImageObjective, views: list[View], ct_T_ref: Tensor) -> list[Noise]:
    """For each frame, in the order of `views`: see `noise.Noise`; the matrix is the score's negative Hessian."""
    out: dict[int, Noise] = {}
    counts = {id(v): float(objective.frames([v], ct_T_ref[None], False).count) for v in views}
    total = max(1.0, sum(counts.values()))
    for view in views:
        matrix = _curvature(objective, view, ct_T_ref)
        spread = _spread(objective, view, ct_T_ref)
        share = max(counts[id(view)] / total, 1e-6)
        out[id(view)] = Noise(matrix, spread, 1.0, _scale(matrix, spread), share, 1.0)
    return [out[id(v)] for v in views]


def _scale(matrix: Tensor, spread: Tensor) -> float:
    """Spread in units of the matrix, mean over directions; 1 where nothing is seen."""
    if not bool(matrix.any()):
        return 1.0
    ridge = RIDGE * torch.diag(matrix.diagonal() + RIDGE * matrix.diagonal().max())
    return max(1e-12, float(torch.linalg.solve(matrix + ridge, spread).diagonal().sum()) / 6.0)


def _curvature(objective: ImageObjective, view: View, ct_T_ref: Tensor) -> Tensor:
    """(6, 6) in reference axes, not negative."""
    centre = view.ref_T_centre
    radius = float((view.level.x_mm**2 + view.level.y_mm**2).double().mean().sqrt())
    step = max(STEP_MM, 0.5 * max(view.level.spacing_mm))
    steps = torch.tensor([step] * 3 + [step / max(radius, 1.0)] * 3, dtype=torch.float64)
    twists = torch.cat([torch.diag(steps), -torch.diag(steps)])
    # about the image's own centre, where turns and shifts are least alike
    poses = move((ct_T_ref @ centre).expand(12, 4, 4), twists) @ se3.inverse(centre)
    gradient = objective.frames([view], poses, True).gradient
    assert gradient is not None
    g = gradient[0]
    h = -(g[:6] - g[6:]) / (2.0 * steps[:, None])
    values, vectors = torch.linalg.eigh(0.5 * (h + h.T))
    a = se3.adjoint(se3.inverse(centre))
    return a.T @ (vectors * values.clamp_min(0.0)) @ vectors.T @ a


def _spread(objective: ImageObjective, view: View, ct_T_ref: Tensor) -> Tensor:
    """(6, 6) in reference axes: products of the tiles' gradients; six parameters were fitted to the tiles."""
    parts = objective.pixel_gradients(view, ct_T_ref)
    rows, columns = (max(1, round(TILE_MM / mm)) for mm in reversed(view.level.spacing_mm))
    h, w = view.level.shape
    across = math.ceil(w / columns)
    cell = view.level.cell
    tile = (cell // w) // rows * across + (cell % w) // columns
    sums = torch.zeros(math.ceil(h / rows) * across, 6, dtype=torch.float64).index_add_(0, tile, parts)
    sums = sums[sums.abs().sum(1) > 0]
    count = float(len(sums))
    a = se3.adjoint(se3.inverse(view.ref_T_centre))
    return a.T @ (sums.T @ sums) @ a * max(1.0, count / max(1.0, count - 6.0))
