# SPDX-License-Identifier: Apache-2.0
"""Closed triangle meshes of masks: smooth, outward, where the voxels end, of the voxels' volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix, diags
from torch import Tensor

from ...config import check_range
from ...errors import ShapeError
from ...geometry.grid import VoxelGrid
from .decimate import Points, Triangles, decimate
from .tetrahedra import Field, isosurface

TAUBIN = (0.5, -0.53)
TRIANGLES_PER_CELL = 6.0  # that marching tetrahedra give for a cell's face of surface


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed triangle mesh in `ct`.

    Args:
        vertices_mm: (V, 3) float32. triangles: (T, 3) int64, normals point outwards.
    """

    vertices_mm: Tensor
    triangles: Tensor

    def __post_init__(self) -> None:
        if self.vertices_mm.dim() != 2 or self.vertices_mm.shape[1] != 3 or self.triangles.shape[1:] != (3,):
            raise ShapeError(
                f"a surface needs vertices (V, 3) and triangles (T, 3), got {tuple(self.vertices_mm.shape)}, "
                f"{tuple(self.triangles.shape)}"
            )


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


def closed_mesh(
    mask: NDArray[np.bool_], corner: tuple[int, int, int], grid: VoxelGrid, config: SurfaceConfig
) -> Surface:
    """Closed two-manifold of a mask, open at no side, also where the volume ends.

    The volume that it encloses is that of the voxels: smoothing shrinks round things, so the cut is made at the level
    that keeps the volume, and what decimation takes is given back along the normals.

    Args:
        mask: (D, H, W), not empty; its first voxel lies at index `corner` (z, y, x) of a grid, of any direction.
    """
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
    coarsest, area = max(grid.spacing_mm), mask_area(mask, grid) + 1e-6
    thickness = np.count_nonzero(mask) * float(np.prod(grid.spacing_mm)) / area
    wanted = np.sqrt(TRIANGLES_PER_CELL * area / config.raw_triangles)
    return max(1, int(min(np.ceil(wanted / coarsest), thickness // coarsest)))


def mask_area(mask: NDArray[np.bool_], grid: VoxelGrid) -> float:
    """Surface of a mask (D, H, W) inside its array, mm^2, about: stairs are 1.5 times the surface."""
    x, y, z = grid.spacing_mm
    faces = [np.count_nonzero(np.diff(mask, axis=a)) for a in range(3)]
    return (faces[0] * x * y + faces[1] * x * z + faces[2] * y * z) / 1.5


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
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
        points = points + vertex_normals(points, triangles) * lacking / area
    return points


def vertex_normals(points: Points, triangles: Triangles) -> Points:
    """Outward unit normals (V, 3): means over a vertex's triangles, weighted by their areas."""
    a, b, c = (points[triangles[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    at = np.zeros_like(points)
    for corner in range(3):
        for axis in range(3):
            at[:, axis] += np.bincount(triangles[:, corner], normals[:, axis], len(points))
    return at / np.maximum(np.linalg.norm(at, axis=1, keepdims=True), 1e-12)
