# SPDX-License-Identifier: Apache-2.0
"""Organs of a labelled volume for a 3D view: which, how they look, and their surfaces, light enough for software GL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..compiled import njit
from ..data.types import Volume
from ..geometry import se3
from ..geometry.grid import VoxelGrid
from ..rendering.surface import Surface, SurfaceConfig, closed_mesh, mask_area, vertex_normals
from .organ_cache import OrganCache, surfaces_key
from .palette import Colour, label_colour

FINEST, COARSEST = 4000, 300  # triangles of a surface
TRIANGLE_MM2 = 12.0  # of surface that a triangle is spent on
RAW = 6  # times as many before decimation
LEAST_VOXELS = 8
WIDE_CELLS, THIN_VOXELS = 40_000, 2.5  # a sheet: surface in faces of voxels, and volume over surface in voxels
OPACITY = 0.5  # of what has no entry below
# Words in a name, how opaque, and rank: what matters comes first. The first entry that fits counts.
LOOKS: tuple[tuple[tuple[str, ...], float, int], ...] = (
    (("skin", "body"), 0.12, 3),
    (("lesion", "tumor", "tumour", "cyst", "gallbladder"), 1.0, 0),
    (("vein", "veins", "vena", "cava", "artery", "arteries", "aorta", "vessel", "vessels"), 1.0, 0),
    (("liver",), 0.25, 0),
    (("lung", "diaphragm"), 0.15, 2),
    (("rib", "ribs", "costal", "spine", "vertebra", "vertebrae", "sternum", "sacrum", "hip", "bone"), 0.5, 2),
    (("stomach", "bowel", "colon", "duodenum"), 0.3, 1),
)
FILLING = {"fat", "muscle", "tissue", "outside", "background", "air"}  # between organs: not drawn
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Look:
    """A label in a 3D view.

    Args:
        value: of the label. colour: as in every view. opacity: 1 hides what is behind.
    """

    value: int
    name: str
    colour: Colour
    opacity: float


@dataclass(frozen=True, eq=False)
class Organ:
    """A surface in `ct`: vertices (V, 3) mm and normals (V, 3) float32, outward; triangles (T, 3) int64."""

    look: Look
    vertices_mm: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray


def organ_looks(volume: Volume) -> list[Look]:
    """The labels of a volume that get a surface: what matters first, then by size. Empty without labels.

    Tissue that fills the room between organs is left out.
    """
    return [look for look, _ in _listed(volume)]


def organ_meshes(volume: Volume, cache: OrganCache | None = None) -> Iterator[Organ]:
    """Closed surfaces in the order of `organ_looks`, one at a time: some tenths of a second each the first time.

    Args:
        cache: on disk; None: the user's. One that cannot be read or written only costs time.
    """
    for look, surface, _ in _surfaces(volume, cache or OrganCache()):
        vertices, triangles = surface.vertices_mm.numpy(), surface.triangles.numpy()
        normals = vertex_normals(vertices.astype(np.float64), triangles).astype(np.float32)
        yield Organ(look, vertices, normals, triangles)


def organ_files(volume: Volume, cache: OrganCache | None = None) -> Iterator[tuple[Look, Path]]:
    """The same surfaces as binary STL files in metres, which RViz takes by URI (`path.as_uri()`).

    Raises:
        WriteError: the cache cannot be written.
    """
    cache = cache or OrganCache()
    for look, surface, key in _surfaces(volume, cache):
        yield look, cache.stl(key, look.value, surface)


def _surfaces(volume: Volume, cache: OrganCache) -> Iterator[tuple[Look, Surface, str]]:
    """Each with the key of its volume in the cache."""
    listed = _listed(volume)
    key = surfaces_key(volume, FINEST, COARSEST, TRIANGLE_MM2, RAW) if listed else ""
    for look, box in listed:
        surface = cache.get(key, look.value)
        if surface is None:
            surface = _surface(volume, look, box)
            cache.put(key, look.value, surface)
        yield look, surface, key


def _surface(volume: Volume, look: Look, box: Box) -> Surface:
    assert volume.labels is not None
    grid, mask = volume.grid, volume.labels.numpy()[box] == look.value
    corner, area = (box[0].start, box[1].start, box[2].start), mask_area(mask, grid)
    cells = area / max(grid.spacing_mm) ** 2
    if cells > WIDE_CELLS and np.count_nonzero(mask) < THIN_VOXELS * cells:
        mask, corner, grid = _pooled(mask, corner, grid, 2 if cells < 2 * WIDE_CELLS else 3)
    triangles = int(np.clip(area / TRIANGLE_MM2, COARSEST, FINEST))
    return closed_mesh(mask, corner, grid, SurfaceConfig(triangles=triangles, raw_triangles=RAW * triangles))


def _pooled(
    mask: np.ndarray, corner: tuple[int, int, int], grid: VoxelGrid, step: int
) -> tuple[np.ndarray, tuple[int, int, int], VoxelGrid]:
    """Blocks of `step` voxels that hold any of a mask, on a grid of their own.

    A wide thin sheet (skin, diaphragm) gives a million triangles to take away, and a mean over blocks would tear it: it
    becomes thicker by a voxel, which a view does not show.
    """
    shape = [-(-n // step) for n in mask.shape]
    padded = np.pad(mask, [(0, s * step - n) for s, n in zip(shape, mask.shape, strict=True)])
    blocks = np.asarray(padded.reshape(shape[0], step, shape[1], step, shape[2], step).any(axis=(1, 3, 5)))
    first = torch.tensor([[n + (step - 1) / 2 for n in corner[::-1]]], dtype=torch.float64)
    origin = se3.transform_points(grid.ct_T_index, first)[0].tolist()
    x, y, z = (s * step for s in grid.spacing_mm)
    size = (shape[2], shape[1], shape[0])
    return blocks, (0, 0, 0), VoxelGrid(size, (x, y, z), tuple(origin), grid.direction)


def _listed(volume: Volume) -> list[tuple[Look, Box]]:
    """Labels that get a surface, in order, with their boxes."""
    if volume.labels is None:
        return []
    extents = np.zeros((int(volume.labels.max().clamp_min(0)) + 1, 7), np.int64)
    _extents(volume.labels.numpy(), extents)
    found = []
    for value in np.flatnonzero(extents[:, 0] >= LEAST_VOXELS):
        name = volume.label_names.get(int(value), f"label {value}")
        words = set(re.split(r"[^a-z]+", name.lower()))
        if not words & FILLING:
            opacity, rank = _entry(words)
            count, *ends = extents[value].tolist()
            box = (slice(ends[0], ends[1]), slice(ends[2], ends[3]), slice(ends[4], ends[5]))
            found.append((rank, -count, Look(int(value), name, label_colour(int(value)), opacity), box))
    return [(look, box) for _, _, look, box in sorted(found, key=lambda f: f[:2])]


def _entry(words: set[str]) -> tuple[float, int]:
    """Opacity and rank of a name in these words."""
    fitting = (entry for entry in LOOKS if not words.isdisjoint(entry[0]))
    return next(((opacity, rank) for _, opacity, rank in fitting), (OPACITY, 1))


@njit()
def _extents(labels: Any, out: Any) -> None:
    """For each label: voxels, then first and last + 1 along z, y, x."""
    for value in range(out.shape[0]):
        for axis in range(3):
            out[value, 1 + 2 * axis] = labels.shape[axis]
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                v = labels[z, y, x]
                if v > 0:
                    out[v, 0] += 1
                    out[v, 1], out[v, 2] = min(out[v, 1], z), z + 1
                    out[v, 3], out[v, 4] = min(out[v, 3], y), max(out[v, 4], y + 1)
                    out[v, 5], out[v, 6] = min(out[v, 5], x), max(out[v, 6], x + 1)
