# SPDX-License-Identifier: Apache-2.0
"""Registration of one organ: only what is in it, or near it, counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from ..data.types import Volume
from ..errors import ConfigError, ShapeError


def within(volume: Volume, structures: Sequence[str], margin_mm: float) -> Volume:
    """The volume with everything unknown that lies farther than a margin from the named structures.

    In breathing the abdominal wall stays while the liver slides along it: a rigid pose can follow only one of them.

    Raises:
        ShapeError: the volume has no labels. ConfigError: a name that its labels do not have.
    """
    if volume.labels is None:
        raise ShapeError(f"registration is to use {list(structures)} only, but the volume comes without labels")
    values = {name: value for value, name in volume.label_names.items()}
    missing = sorted(set(structures) - set(values))
    if missing:
        raise ConfigError(f"the volume's labels have no {missing}; they have {sorted(values)}")
    wanted = torch.tensor([values[name] for name in structures], dtype=volume.labels.dtype)
    inside = torch.isin(volume.labels, wanted)
    if not bool(inside.any()):
        raise ConfigError(f"no voxel of the volume is labelled {list(structures)}: there is nothing to register")
    near = inside if margin_mm <= 0 else _near(inside, volume.grid.spacing_mm, margin_mm)
    return replace(volume, mask=near if volume.mask is None else near & volume.mask)


def _near(inside: torch.Tensor, spacing_mm: tuple[float, float, float], margin_mm: float) -> torch.Tensor:
    distance = distance_transform_edt(~inside.numpy(), sampling=spacing_mm[::-1])
    return torch.from_numpy(np.asarray(distance <= margin_mm))
