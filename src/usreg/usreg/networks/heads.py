# SPDX-License-Identifier: Apache-2.0
"""From features to a correction: translation in mm and a rotation, smoothly bounded, near zero at the start."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError, GeometryError
from ..geometry import rotation
from .delta import Delta

UNIT_MM, UNIT_RAD = 10.0, 0.2  # what an output of one stands for, while it is small
SPAN_6D = 0.45  # below 0.5 the two columns can never become parallel: Gram-Schmidt always has a solution
FIRST_SCALE = 0.01  # of the last layer's first weights: the first corrections are close to none


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers with leaky ReLU between them; the last begins small."""
    sizes, layers = [inputs, *hidden], []
    for a, b in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(a, b), nn.LeakyReLU(0.1)]
    last = nn.Linear(sizes[-1], outputs)
    last.start_scale = FIRST_SCALE  # type: ignore[assignment]
    return nn.Sequential(*layers, last)


def bounded(x: Tensor, limit: float) -> Tensor:
    """Within plus and minus the limit, smoothly, with slope one at zero."""
    return limit * torch.tanh(x / limit)


class PoseHead(nn.Module):
    """Six numbers of rotation (two columns, Zhou et al. 2019) beside three of translation (DeepRS2V).

    Args:
        inputs: features. hidden: widths between. limit_mm: largest correction along each axis.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], limit_mm: float = 60.0) -> None:
        super().__init__()
        check_limit("limit_mm", limit_mm)
        self.limit_mm = limit_mm
        self.layers = mlp(inputs, hidden, 9)

    def forward(self, features: Tensor) -> Delta:
        """(B, inputs) to translation (B, 3) mm and rotation (B, 3, 3); single precision.

        Each element of the two columns is within 0.45 of the identity's: about an axis of the image that is 39 degrees.
        """
        out = self.layers(features).float()
        columns = rotation.to_6d(torch.eye(3, dtype=out.dtype, device=out.device))
        turn = rotation.from_6d(columns + bounded(UNIT_RAD * out[:, 3:], SPAN_6D))
        return bounded(UNIT_MM * out[:, :3], self.limit_mm), turn


class EulerHead(nn.Module):
    """Three translations and three angles (FVR-Net): about the fixed axes z, then y, then x.

    Args:
        inputs: features. hidden: widths between. limit_mm, limit_deg: largest correction along and about each axis.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], limit_mm: float = 60.0, limit_deg: float = 45.0) -> None:
        super().__init__()
        check_limit("limit_mm", limit_mm)
        check_limit("limit_deg", limit_deg)
        self.limit_mm, self.limit_rad = limit_mm, math.radians(limit_deg)
        self.layers = mlp(inputs, hidden, 6)

    def forward(self, features: Tensor) -> Delta:
        """(B, inputs) to translation (B, 3) mm and rotation (B, 3, 3); single precision."""
        out = self.layers(features).float()
        angles = bounded(UNIT_RAD * out[:, 3:], self.limit_rad)
        axes = torch.eye(3, dtype=out.dtype, device=out.device)
        x, y, z = (rotation.exp(angles[:, i, None] * axes[i]) for i in range(3))
        return bounded(UNIT_MM * out[:, :3], self.limit_mm), x @ y @ z


def check_limit(name: str, value: float) -> None:
    """Raise ConfigError unless finite and above zero."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"'{name}' is {value}; it must be finite and above zero")


def check_finite(delta: Delta) -> Delta:
    """The same correction.

    Raises:
        GeometryError: it holds NaN or infinity.
    """
    if not all(bool(torch.isfinite(part).all()) for part in delta):
        raise GeometryError("the network's correction is not finite: check its input for NaN, and its weights")
    return delta
