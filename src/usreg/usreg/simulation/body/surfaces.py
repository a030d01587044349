# SPDX-License-Identifier: Apache-2.0
"""Closed triangle meshes of a body's organs: smooth, outward, of the voxels' volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects, gaussian_filter
from scipy.sparse import coo_matrix, diags

from ...config import check_range
from ...errors import ConfigError
from ...geometry.grid import VoxelGrid
from .decimate import Points, Triangles, decimate
from .sampling import Field, structure_values
from .tetrahedra import isosurface
from .types import ORGANS, STRUCTURES, VALUE, Body, Surface

VESSELS_IN_LIVER = ("portal_vein", "hepatic_vein")
LIVER = ("liver", "lesion_hypoechoic", "lesion_hyperechoic", "lesion_cyst")
# Name of a surface: its structures. The liver also takes the vessels that its tissue surrounds.
GROUPS: dict[str, tuple[str, ...]] = {
    "skin": tuple(name for name in VALUE if name != "outside"),
    "liver": LIVER,
    "portal_vein": ("portal_vein",),
    "hepatic_vein": ("hepatic_vein",),
    "lesions": LIVER[1:],
    "gallbladder": ("gallbladder",),
    "kidney_right": ORGANS["kidney_right"],
    "kidney_left": ORGANS["kidney_left"],
    "spleen": ("spleen",),
    "pancreas": ("pancreas",),
    "aorta": ("aorta",),
    "inferior_vena_cava": ("inferior_vena_cava",),
    "spine": ("spine",),
    "ribs": ("ribs", "costal_cartilage"),
}
TAUBIN = (0.5, -0.53)
TRIANGLES_PER_CELL = 6.0  # that marching tetrahedra give for a cell's face of surface


@dataclass(frozen=True)
class SurfaceConfig:
    """How fine the meshes are.

    Args:
        triangles: at most, an organ.
        raw_triangles: before decimation, about: a large organ is cut at a coarser step, never coarser than its
            thickness (volume over area).
        blur_steps: standard deviation of the smoothing before the cut, in steps.
        iterations: of Taubin's smoothing.
    """

    triangles: int = 20_000
    raw_triangles: int = 80_000
    blur_steps: float = 0.7
    iterations: int = 12

    def __post_init__(self) -> None:
        check_range("triangles", self.triangles, 100, 10**6)
        check_range("raw_triangles", self.raw_triangles, self.triangles, 10**7)
        check_range("blur_steps", self.blur_steps, 0.3, 3.0)
        check_range("iterations", self.iterations, 0, 200)


def surfaces(
    body: Body, organs: Sequence[str] | None = None, config: SurfaceConfig | None = None
) -> dict[str, Surface]:
    """Meshes of a body.

    The volume that a mesh encloses is that of its voxels: smoothing shrinks round things, so the cut is made at the
    level that keeps the volume, and what decimation takes is given back along the normals.

    Args:
        organs: names in GROUPS; None: all that the body has.

    Returns:
        Name -> closed two-manifold in `ct`, mm, for any direction matrix; open at no side, also where the volume ends.

    Raises:
        ConfigError: no such surface, or the body has none of it.
    """
    config = config or SurfaceConfig()
    labels = structure_values(body)
    boxes = find_objects(labels, max_label=max(STRUCTURES))
    found = {}
    for name in GROUPS if organs is None else organs:
        if name not in GROUPS:
            raise ConfigError(f"there is no surface '{name}'; choose from {', '.join(GROUPS)}")
        mask, corner = _mask(labels, boxes, name)
        if mask.size and mask.any():
            found[name] = mesh(mask, corner, body.labels.grid, config)
        elif organs is not None:
            raise ConfigError(f"the body has no '{name}' to make a surface of")
    return found


def _mask(labels: NDArray[np.uint8], boxes: list, name: str) -> tuple[NDArray[np.bool_], tuple[int, int, int]]:
    """Voxels of a group in their box, and the box's first corner (z, y, x)."""
    group = [VALUE[s] for s in GROUPS[name]]
    own = [boxes[v - 1] for v in group if boxes[v - 1] is not None]
    if not own:
        return np.zeros((0, 0, 0), bool), (0, 0, 0)
    box = tuple(slice(min(b[a].start for b in own), max(b[a].stop for b in own)) for a in range(3))
    table = np.zeros(256, bool)
    table[group] = True
    mask = table[labels[box]]
    if name == "liver":
        mask = _with_vessels(mask, labels[box])
    return mask, (box[0].start, box[1].start, box[2].start)


def _with_vessels(liver: NDArray[np.bool_], labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The liver and the vessels inside it: not those that leave it at the hilum."""
    around = gaussian_filter(liver.astype(np.float32), 5.0, mode="constant", truncate=2.5)
    return liver | (np.isin(labels, [VALUE[v] for v in VESSELS_IN_LIVER]) & (around > 0.3))


def mesh(mask: NDArray[np.bool_], corner: tuple[int, int, int], grid: VoxelGrid, config: SurfaceConfig) -> Surface:
    """Closed mesh of a mask (D, H, W) whose first voxel lies at index `corner` (z, y, x) of a grid."""
    step = _step(mask, grid, config)
    field, volume = _field(mask, step, config.blur_steps)
    points, triangles = isosurface(field, _level(field, volume))
    first = np.array(corner[::-1]) - 2 * step + (step - 1) / 2  # voxel index of the first step's centre
    index = first + step * points
    matrix = grid.ct_T_index.numpy()
    points = index @ matrix[:3, :3].T + matrix[:3, 3]
    if np.linalg.det(matrix[:3, :3]) < 0:
        triangles = triangles[:, ::-1].copy()
    points = taubin(points, triangles, config.iterations)
    points, triangles = decimate(points, triangles, config.triangles)
    points = _keep_volume(points, triangles, mask.sum() * float(np.prod(grid.spacing_mm)))
    return Surface(torch.from_numpy(points.astype(np.float32)), torch.from_numpy(triangles))


def _step(mask: NDArray[np.bool_], grid: VoxelGrid, config: SurfaceConfig) -> int:
    """Voxels that are taken together for the cut: from the area of the mask's faces and from its thickness."""
    x, y, z = grid.spacing_mm
    faces = [np.count_nonzero(np.diff(mask, axis=a)) for a in range(3)]
    area = (faces[0] * x * y + faces[1] * x * z + faces[2] * y * z) / 1.5 + 1e-6  # stairs are 1.5 times the surface
    thickness = np.count_nonzero(mask) * x * y * z / area
    wanted = np.sqrt(TRIANGLES_PER_CELL * area / config.raw_triangles)
    return max(1, int(min(np.ceil(wanted / max(x, y, z)), thickness // max(x, y, z))))


def _field(mask: NDArray[np.bool_], step: int, blur_steps: float) -> tuple[Field, float]:
    """Smoothed share of the mask in cells of `step` voxels with two empty cells around, and its sum."""
    shape = [-(-n // step) for n in mask.shape]
    padded = np.pad(mask, [(0, s * step - n) for s, n in zip(shape, mask.shape, strict=True)])
    cells = padded.reshape(shape[0], step, shape[1], step, shape[2], step)
    share = np.pad(cells.mean(axis=(1, 3, 5), dtype=np.float32), 2)
    return gaussian_filter(share, blur_steps, mode="constant", truncate=2.5), float(share.sum(dtype=np.float64))


def _level(field: Field, volume: float) -> float:
    """Level at which as many cells lie above as the volume says (between two values, so that no cell lies on it)."""
    positive = np.sort(field[field > 0.02])[::-1]
    at = int(np.clip(round(volume), 1, len(positive) - 1))
    return float(np.clip(0.5 * (positive[at - 1] + positive[at]), 0.1, 0.6))


def taubin(points: Points, triangles: Triangles, iterations: int) -> Points:
    """Smooth without shrinking. Source: Taubin, SIGGRAPH 1995, p. 351, with equal weights."""
    a = np.concatenate([triangles[:, 0], triangles[:, 1], triangles[:, 2]])
    b = np.concatenate([triangles[:, 1], triangles[:, 2], triangles[:, 0]])
    links = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(points), len(points))).tocsr()
    mean = diags(1.0 / np.asarray(links.sum(axis=1)).ravel()) @ links
    for _ in range(iterations):
        for factor in TAUBIN:
            points = points + factor * (mean @ points - points)
    return points


def enclosed_volume(points: Points, triangles: Triangles) -> float:
    """Volume inside a closed mesh; negative where it is inside out."""
    a, b, c = (points[triangles[:, i]] - points.mean(axis=0) for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def _keep_volume(points: Points, triangles: Triangles, volume: float) -> Points:
    """Move all points along their normals until the mesh encloses the volume."""
    for _ in range(20):
        lacking = volume - enclosed_volume(points, triangles)
        if abs(lacking) < 1e-6 * volume:
            break
        a, b, c = (points[triangles[:, i]] for i in range(3))
        normals = np.cross(b - a, c - a)
        at = np.zeros_like(points)
        for corner in range(3):
            for axis in range(3):
                at[:, axis] += np.bincount(triangles[:, corner], normals[:, axis], len(points))
        at /= np.maximum(np.linalg.norm(at, axis=1, keepdims=True), 1e-12)
        area = np.linalg.norm(normals, axis=1).sum() / 2
        points = points + at * lacking / area
    return points
