# SPDX-License-Identifier: Apache-2.0
"""A volume as a coarse map of classes: what a scan line would meet there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ...data.types import Volume
from ...errors import NoOverlapError

Array = npt.NDArray[Any]
AIR, GAS, BONE, FIRST = 0, 1, 2, 3
HU_EDGES = (-130, -60, -15, 20, 42, 60, 78, 95, 112, 130, 150, 185)  # between fat, fluid, muscle, organs, vessels
BINS = len(HU_EDGES) + 1
SHADOW_GAS, SHADOW_BONE, SHADOW_CARTILAGE = range(FIRST + 2 * BINS, FIRST + 2 * BINS + 3)
CLASSES = SHADOW_CARTILAGE + 1
UNKNOWN = 255
OUTSIDE_HU, GAS_HU, BONE_HU = -850.0, -350.0, 200.0
GAS_SHARE, BONE_SHARE = 0.4, 0.3  # of a coarse voxel: a rib is thinner than some of them
SKIN_MM = 7.0  # skin and what partial volume makes of it
FAT_MM = 45.0  # the fat below the skin is not deeper than this
WALL_MM = 13.0  # muscle, ribs and cartilage below that fat; the liver begins deeper
CARTILAGE_HU = 22.0  # above the muscle of the same wall
LEAST_AIR = 300  # voxels; smaller pockets at the border are gas


@dataclass(frozen=True, eq=False)
class TissueMap:
    """Classes on a coarse grid.

    Args:
        classes: (D, H, W) uint8; UNKNOWN where nothing is known.
        hard: (D, H, W) uint8, 1 where the wall of the body holds what may be cartilage.
        index_T_ct, ct_T_index: (4, 4) between mm and the index of this grid.
        outside: (D, H, W) bool, air about the body.
        physical: whether classes are tissues of a CT, so that a scan line casts shadows.
    """

    classes: Array
    hard: Array
    index_T_ct: Array
    ct_T_index: Array
    voxel_mm: float
    outside: Array
    physical: bool


def tissue_map(volume: Volume, voxel_mm: float) -> TissueMap:
    """The map of a volume: tissues by Hounsfield units for a CT, brightness in equal shares for others.

    Raises:
        NoOverlapError: nothing in the volume is known.
    """
    data = volume.data[0].to(dtype=volume.data.dtype).numpy().astype(np.float32)
    known = np.isfinite(data)
    if volume.mask is not None:
        known &= volume.mask.numpy()
    if not known.any():
        raise NoOverlapError("no voxel of the volume is known: there is nothing to look for")
    thin = _Thinning(volume, voxel_mm)
    unknown = thin(known.astype(np.float32)) < 0.5
    low = float(data[known].min())
    filled = np.where(known, data, np.float32(-1000.0 if volume.modality == "CT" else low))
    classes, hard, outside = (
        _ct_classes(filled, thin, voxel_mm) if volume.modality == "CT" else _plain_classes(filled, known, thin)
    )
    classes[unknown] = UNKNOWN
    return TissueMap(
        classes, hard, np.linalg.inv(thin.ct_T_index), thin.ct_T_index, voxel_mm, outside, volume.modality == "CT"
    )


class _Thinning:
    """Smoothing and sampling of a volume's data on a coarser grid along its own axes."""

    def __init__(self, volume: Volume, voxel_mm: float) -> None:
        spacing = np.array(volume.grid.spacing_mm)
        factor = np.maximum(voxel_mm / spacing, 1.0)
        shape = volume.data.shape[1:]
        counts = [int((n - 1) // f) + 1 for n, f in zip(shape, factor[::-1], strict=True)]
        self._at = np.meshgrid(*[np.arange(n) * f for n, f in zip(counts, factor[::-1], strict=True)], indexing="ij")
        self._sigma = [0.45 * f if f > 1.0 else 0.0 for f in factor[::-1]]
        self.ct_T_index = volume.grid.ct_T_index.numpy().copy()
        self.ct_T_index[:3, :3] *= factor

    def __call__(self, data: Array) -> Array:
        smooth = ndimage.gaussian_filter(data, self._sigma, mode="nearest")
        return np.asarray(ndimage.map_coordinates(smooth, self._at, order=1, mode="nearest"))


def _plain_classes(data: Array, known: Array, thin: _Thinning) -> tuple[Array, Array, Array]:
    """Brightness in as many equally large shares as a CT has soft classes."""
    coarse = thin(data)
    edges = np.unique(np.quantile(data[known], np.linspace(0, 1, BINS + 1)[1:-1]))
    classes = (FIRST + np.digitize(coarse, edges)).astype(np.uint8)
    return classes, np.zeros_like(classes), np.zeros(classes.shape, bool)


def _ct_classes(hu: Array, thin: _Thinning, voxel_mm: float) -> tuple[Array, Array, Array]:
    """Air, gas, bone, and bins of Hounsfield units, those of the body's wall apart from those below it."""
    coarse = thin(hu)
    bone, gas = thin((hu > BONE_HU).astype(np.float32)), thin((hu < GAS_HU).astype(np.float32))
    outside = outside_air(coarse)
    fat = _fat_below_skin(coarse, outside, voxel_mm)
    below_fat_mm = _distance_mm(fat, voxel_mm)
    wall = below_fat_mm < WALL_MM
    bins = np.digitize(coarse, HU_EDGES)
    classes = (FIRST + bins + BINS * ~wall).astype(np.uint8)
    classes[bone > BONE_SHARE] = BONE
    classes[gas > GAS_SHARE] = GAS
    classes[outside] = AIR
    muscle = coarse[wall & (below_fat_mm > 4.0) & (coarse > 30) & (coarse < 90)]
    limit = CARTILAGE_HU + (float(np.median(muscle)) if muscle.size else 60.0)
    return classes, ((coarse > limit) & wall & ~fat).astype(np.uint8), outside


def outside_air(hu: Array) -> Array:
    """(D, H, W) bool: air that reaches the border of the volume, and the voxels that the skin shares with it."""
    parts, count = ndimage.label(hu < OUTSIDE_HU)
    border = np.concatenate([np.take(parts, [0, -1], axis=axis).ravel() for axis in range(3)])
    keep = np.zeros(count + 1, bool)
    keep[border] = True
    keep &= np.bincount(parts.ravel(), minlength=count + 1) > LEAST_AIR
    keep[0] = False
    return np.asarray(ndimage.binary_dilation(keep[parts]) & (hu < -500))


def _fat_below_skin(hu: Array, outside: Array, voxel_mm: float) -> Array:
    """(D, H, W) bool: outside, skin and the fat that is reached from there, not through gaps of a voxel or two."""
    if not outside.any():
        return outside
    depth_mm = _distance_mm(outside, voxel_mm)
    soft = ((hu < -25) & (hu > -200)) | (depth_mm < SKIN_MM) | outside
    core = ndimage.binary_erosion(soft, border_value=1) | outside
    reached = ndimage.binary_propagation(outside, mask=core & (depth_mm < FAT_MM))
    return np.asarray((ndimage.binary_dilation(reached) & soft) | outside)


def _distance_mm(inside: Array, voxel_mm: float) -> Array:
    """Distance (D, H, W) to a set of voxels; far away where it is empty."""
    if not inside.any():
        return np.full(inside.shape, 1e3)
    return np.asarray(ndimage.distance_transform_edt(~inside)) * voxel_mm
