# SPDX-License-Identifier: Apache-2.0
"""What a refinement can say of its own result, by name: the material of `confidence`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .normal import Normal, View
from .pyramid import VolumeLevel
from .scene import Scene

Evaluate = Callable[[VolumeLevel, list[View], Tensor], Normal]  # score and normal equations at poses (B, 4, 4)


def look_closer(evaluate: Evaluate, scene: Scene, level: int, ct_T_ref: Tensor, ct_T_start: Tensor) -> dict[str, float]:
    """Evidence beyond score and covariance, a few evaluations each.

    Args:
        evaluate: the similarity that was climbed. level: at which it is asked, as a rule the gate's structure level.
        ct_T_ref: the optimum (4, 4). ct_T_start: where the search began, as a pose of the same reference frame.

    Returns:
        moved_mm: largest distance by which a point of the images moved from the start.
    """
    return {"moved_mm": float(scene.apart_mm(ct_T_start, ct_T_ref[None])[0])}
