# SPDX-License-Identifier: Apache-2.0
"""Probes, bodies and poses for the benchmark of the ultrasound renderer."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from usreg.data.tissues import TissueTable, load_tissues, with_values
from usreg.data.types import Volume
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry

NAMES = {1: "liver", 2: "subcutaneous_fat", 3: "ribs", 4: "muscle", 5: "bowel_gas", 7: "portal_vein", 9: "soft tissue"}


def probe(kind: str, px: float = 0.3) -> SectorGeometry:
    """A linear (38 x 50 mm), convex (105 mm deep) or phased probe (118 mm deep)."""
    if kind == "linear":
        w, h = int(38 / px) + 1, int(50 / px) + 1
        x, y = (w - 1) * px, (h - 1) * px
        plane = PlaneGrid(h, w, ((px, 0.0), (0.0, px)))
        return SectorGeometry("linear", plane, (x / 2, 0.0), (0.0, y), (0.0, 0.0), (0.0, 0.0, x, y), y)
    near, far, angle = (50.0, 155.0, math.radians(28)) if kind == "convex" else (2.0, 120.0, math.radians(42))
    half, top = far * math.sin(angle), near * math.cos(angle)
    w, h = int(2 * half / px) + 1, int((far - top) / px) + 1
    plane, clip = PlaneGrid(h, w, ((px, 0.0), (0.0, px))), (0.0, 0.0, (w - 1) * px, (h - 1) * px)
    return SectorGeometry(kind, plane, (half, -top), (near, far), (-angle, angle), clip, far - near)  # type: ignore[arg-type]


def label_body(fill: Callable[[Tensor], Tensor], size: tuple[int, int, int], spacing: float, centre: Tensor) -> Volume:
    """Labels of places (D, H, W, 3), mm, about a centre."""
    origin = centre - torch.tensor([(n - 1) / 2 * spacing for n in size], dtype=torch.float64)
    grid = VoxelGrid(size, (spacing,) * 3, tuple(origin.tolist()))
    k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size[::-1]), indexing="ij")
    return Volume(fill(torch.stack([i, j, k], -1) * spacing + origin).to(torch.uint8)[None], grid, label_names=NAMES)


def centred(geometry: SectorGeometry, tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """ct_T_image with the image's middle at the origin."""
    turn = rotation.exp(torch.tensor([math.radians(a) for a in tilt], dtype=torch.float64))
    return se3.from_parts(turn, torch.zeros(3, dtype=torch.float64)) @ se3.translation(-geometry.plane.centre_mm)


def changed(**factors: dict[str, float]) -> TissueTable:
    """The shipped table with numbers replaced: property -> {tissue or "*": value}."""
    table, columns = load_tissues(), {}
    for field, values in factors.items():
        columns[field] = table.column(field)
        for name, value in values.items():
            columns[field][slice(None) if name == "*" else table.names.index(name)] = value
    return with_values(table, columns)


def at_share(geometry: SectorGeometry, depth: float, aside: float) -> Tensor:
    """A point (3,) of the image at a share of the depth and of the half width."""
    if geometry.kind == "linear":
        return torch.tensor([geometry.apex_mm[0] * (1 + aside), depth * geometry.depth_mm, 0.0], dtype=torch.float64)
    r, a = geometry.radius_mm[0] + depth * geometry.depth_mm, aside * geometry.angle_rad[1]
    x, y = geometry.apex_mm[0] + r * math.sin(a), geometry.apex_mm[1] + r * math.cos(a)
    return torch.tensor([x, y, 0.0], dtype=torch.float64)


def abdomen(seed: int) -> tuple[Volume, Tensor, SectorGeometry]:
    """A procedural body and a subcostal view of its liver: image pose and probe."""
    from usreg.simulation.body import make_body
    from usreg.simulation.body.types import VALUE

    volume = make_body(seed).labels
    at = (volume.data[0] == VALUE["liver"]).nonzero().double().mean(0).flip(0)
    target = volume.grid.ct_T_index[:3, :3] @ at + volume.grid.ct_T_index[:3, 3]
    target = target + torch.tensor([10.0, -10.0, -25.0], dtype=torch.float64)
    y = torch.tensor([-0.1, 1.0, 0.25], dtype=torch.float64)
    y = y / y.norm()
    x = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    x = (x - (x @ y) * y) / (x - (x @ y) * y).norm()
    turn = torch.stack([x, y, torch.linalg.cross(x, y)], 1)
    plane = PlaneGrid(192, 256, ((0.58, 0.0), (0.0, 0.58)))
    geometry = SectorGeometry("convex", plane, (73.95, -44.3), (50.0, 155.0), (-0.4886921905584123, 0.4886921905584123),
                              (0.0, 0.0, 147.9, 110.78), 105.0)  # fmt: skip
    skin = target - y * max(k for k in range(300) if _labelled(volume, target - y * k))
    face = torch.tensor([73.95, 5.7, 0.0], dtype=torch.float64)
    return volume, se3.from_parts(turn, skin + 4.0 * y - turn @ face), geometry


def _labelled(volume: Volume, place: Tensor) -> bool:
    index = (volume.grid.index_T_ct[:3, :3] @ place + volume.grid.index_T_ct[:3, 3]).round().long()
    inside = bool((index >= 0).all()) and all(int(i) < n for i, n in zip(index, volume.grid.size, strict=True))
    return inside and int(volume.data[0, index[2], index[1], index[0]]) > 0


def cube() -> tuple[Volume, Tensor, SectorGeometry]:
    """A body of 256^3 voxels with 80 balls of nine structures, and a 256x256 image."""
    from usreg.simulation.body.types import STRUCTURES

    n, rng = 256, np.random.default_rng(0)
    labels = np.full((n, n, n), 10, np.uint8)
    labels[:, :20], labels[:, 20:23], labels[:, 23:35], labels[:, 35:45] = 0, 1, 2, 3
    for _ in range(80):
        r, c = int(rng.uniform(4, 14)), rng.integers(60, 196, 3)
        k, j, i = np.ogrid[-r : r + 1, -r : r + 1, -r : r + 1]
        view = labels[tuple(slice(a - r, a + r + 1) for a in c)]
        view[k * k + j * j + i * i < r * r] = rng.choice([11, 12, 13, 14, 18, 27, 28, 20, 3])
    labels[:, 38:46, 60:72] = 5
    volume = Volume(
        torch.from_numpy(labels)[None], VoxelGrid((n,) * 3, (1.0,) * 3, (-128.0,) * 3), label_names=STRUCTURES
    )
    plane = PlaneGrid(256, 256, ((0.58, 0.0), (0.0, 0.44)))
    geometry = SectorGeometry("convex", plane, (73.95, -44.3), (50.0, 155.0), (-0.4886921905584123, 0.4886921905584123),
                              (0.0, 0.0, 147.9, 112.2), 105.0)  # fmt: skip
    return volume, se3.translation(torch.tensor([-73.95, -111.0, 3.3], dtype=torch.float64)), geometry
