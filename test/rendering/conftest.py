# SPDX-License-Identifier: Apache-2.0
"""Small analytic bodies and probes for the ultrasound renderer."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from usreg.data.tissues import TissueTable, load_tissues, with_values
from usreg.data.types import Volume
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry

NAMES = {
    0: "outside", 1: "liver", 2: "spleen", 3: "ribs", 4: "muscle", 5: "bowel_gas", 6: "subcutaneous_fat",
    7: "portal_vein", 8: "gallbladder", 9: "soft tissue",
}  # fmt: skip


def probe(kind: str, pixel_mm: float = 0.3, scale: float = 1.0) -> SectorGeometry:
    """A linear (38 x 50 mm), convex (105 mm deep) or phased probe (118 mm), scaled."""
    if kind == "linear":
        w, h = (int(n * scale / pixel_mm) + 1 for n in (38, 50))
        x, y = (w - 1) * pixel_mm, (h - 1) * pixel_mm
        plane = PlaneGrid(h, w, ((pixel_mm, 0.0), (0.0, pixel_mm)))
        return SectorGeometry("linear", plane, (x / 2, 0.0), (0.0, y), (0.0, 0.0), (0.0, 0.0, x, y), y)
    near, far, degrees = (50.0, 155.0, 28.0) if kind == "convex" else (2.0, 120.0, 42.0)
    near, far, angle = near * scale, far * scale, math.radians(degrees)
    half, top = far * math.sin(angle), near * math.cos(angle)
    w, h = int(2 * half / pixel_mm) + 1, int((far - top) / pixel_mm) + 1
    plane = PlaneGrid(h, w, ((pixel_mm, 0.0), (0.0, pixel_mm)))
    clip = (0.0, 0.0, (w - 1) * pixel_mm, (h - 1) * pixel_mm)
    return SectorGeometry(kind, plane, (half, -top), (near, far), (-angle, angle), clip, far - near)


def body(
    fill: Callable[[Tensor], Tensor | int],
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    turn: Tensor | None = None,
    centre: Tensor | None = None,
) -> Volume:
    """A label volume about a centre (3,): fill maps places (D, H, W, 3) mm to labels."""
    turn = torch.eye(3, dtype=torch.float64) if turn is None else turn
    half = torch.tensor([(n - 1) / 2 * s for n, s in zip(size, spacing_mm, strict=True)], dtype=torch.float64)
    origin = (torch.zeros(3, dtype=torch.float64) if centre is None else centre) - turn @ half
    grid = VoxelGrid(size, spacing_mm, tuple(origin.tolist()), tuple(turn.reshape(-1).tolist()))
    k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in size[::-1]), indexing="ij")
    places = torch.stack([i, j, k], -1) @ grid.ct_T_index[:3, :3].T + grid.ct_T_index[:3, 3]
    filled = fill(places)
    labels = torch.full(places.shape[:3], filled) if isinstance(filled, int) else filled
    return Volume(labels.to(torch.uint8)[None], grid, label_names=dict(NAMES))


def centred(geometry: SectorGeometry, tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """ct_T_image with the image's middle at the origin of the body."""
    turn = rotation.exp(torch.tensor([math.radians(a) for a in tilt_deg], dtype=torch.float64))
    middle = se3.from_parts(turn, torch.zeros(3, dtype=torch.float64))
    return middle @ se3.translation(-geometry.plane.centre_mm)


def changed(**factors: dict[str, float]) -> TissueTable:
    """The shipped table with single numbers replaced: property -> {tissue or "*": value}."""
    table = load_tissues()
    columns = {}
    for field, values in factors.items():
        column = table.column(field)
        for name, value in values.items():
            column[slice(None) if name == "*" else table.names.index(name)] = value
        columns[field] = column
    return with_values(table, columns)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Makers of probes, bodies, poses and tissue tables."""
    return SimpleNamespace(probe=probe, body=body, centred=centred, changed=changed, names=dict(NAMES))
