# SPDX-License-Identifier: Apache-2.0
"""Triangle meshes: binary PLY in LPS mm, as 3D Slicer, MeshLab and VTK read them; binary STL in metres for RViz."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import FileFormatError, MissingFileError, ShapeError
from .atomic import atomic_file

HEADER = """ply
format binary_little_endian 1.0
comment SPACE=LPS
element vertex {vertices}
property float x
property float y
property float z
element face {triangles}
property list uchar int vertex_indices
end_header
"""
STL_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
STL_HEAD = 84
MAX_BYTES = 256 * 1024 * 1024


def write_mesh(path: str | Path, vertices_mm: Tensor, triangles: Tensor) -> None:
    """Write vertices (V, 3) in mm and triangles (T, 3).

    Raises:
        ShapeError: other shapes, or a triangle without its vertices. WriteError: the file cannot be written.
    """
    _check(vertices_mm.shape, triangles, "the mesh")
    faces = np.empty(len(triangles), _face())
    faces["count"], faces["index"] = 3, triangles.numpy()
    head = HEADER.format(vertices=len(vertices_mm), triangles=len(triangles))
    with atomic_file(path) as stream:
        stream.write(head.encode("ascii"))
        stream.write(vertices_mm.numpy().astype("<f4").tobytes())
        stream.write(faces.tobytes())


def read_mesh(path: str | Path) -> tuple[Tensor, Tensor]:
    """Vertices (V, 3) float32 in mm and triangles (T, 3) int64 of a file that `write_mesh` wrote.

    Raises:
        MissingFileError: no such file. FileFormatError: another kind of PLY, cut off, or not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    if path.stat().st_size > MAX_BYTES:
        raise FileFormatError(f"'{path.name}' has more than {MAX_BYTES} bytes")
    content = path.read_bytes()
    head, end, body = content.partition(b"end_header\n")
    counts = [int(n) for n in re.findall(rb"^element \w+ (\d{1,9})$", head, re.MULTILINE)]
    wanted = HEADER.format(vertices=counts[0], triangles=counts[1]) if len(counts) == 2 else ""
    if not end or (head + end).decode("ascii", errors="replace") != wanted:
        raise FileFormatError(f"'{path.name}' is no mesh that usreg wrote: expected binary PLY with triangles alone")
    split = 12 * counts[0]
    if len(body) != split + _face().itemsize * counts[1]:
        raise FileFormatError(f"'{path.name}' is cut off: {len(body)} bytes after its header; write it again")
    vertices = torch.from_numpy(np.frombuffer(body[:split], "<f4").reshape(-1, 3).astype(np.float32))
    faces = np.frombuffer(body[split:], _face())
    triangles = torch.from_numpy(faces["index"].astype(np.int64))
    if not bool(torch.isfinite(vertices).all()) or bool((faces["count"] != 3).any()):
        raise FileFormatError(f"'{path.name}' holds vertices that are not finite, or faces that are no triangles")
    try:
        _check(vertices.shape, triangles, f"'{path.name}'")
    except ShapeError as error:
        raise FileFormatError(str(error)) from error
    return vertices, triangles


def write_stl(path: str | Path, vertices_mm: Tensor, triangles: Tensor) -> None:
    """Write a mesh, given in mm, as binary STL in metres: the unit of ROS, which RViz takes a mesh file to be in.

    Raises:
        As `write_mesh`.
    """
    _check(vertices_mm.shape, triangles, "the mesh")
    corners = vertices_mm.numpy().astype(np.float64)[triangles.numpy()] * 1e-3
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    facets = np.zeros(len(corners), STL_FACET)
    facets["normal"], facets["corners"] = normals, corners
    with atomic_file(path) as stream:
        stream.write(b"usreg, LPS, metres".ljust(STL_HEAD - 4) + len(facets).to_bytes(4, "little"))
        stream.write(facets.tobytes())


def stl_bytes(triangles: int) -> int:
    """Size of the file that `write_stl` writes."""
    return STL_HEAD + STL_FACET.itemsize * triangles


def _face() -> np.dtype:
    return np.dtype([("count", "u1"), ("index", "<i4", (3,))])


def _check(vertices: torch.Size, triangles: Tensor, what: str) -> None:
    low, high = (int(triangles.min()), int(triangles.max())) if triangles.numel() else (0, -1)
    if len(vertices) != 2 or vertices[1] != 3 or triangles.shape[1:] != (3,) or low < 0 or high >= vertices[0]:
        raise ShapeError(
            f"{what} needs vertices (V, 3) and triangles (T, 3) of them, got {tuple(vertices)}, "
            f"{tuple(triangles.shape)} with indices {low} to {high}"
        )
