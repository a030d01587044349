# SPDX-License-Identifier: Apache-2.0
"""A procedural body: every organ from one seed, painted onto a voxel grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...config import check_range
from ...geometry import rotation
from ...geometry.grid import VoxelGrid
from .bowel import put_bowel
from .config import BodyConfig
from .frame import Frame
from .great_vessels import GreatVessels, great_vessels
from .kidneys import Kidney, build_kidney, put_kidney
from .landmarks import landmarks
from .liver import Lesion, Liver, build_liver, draw_lesions
from .liver_vessels import LiverVessels, grow_liver_vessels
from .measures import sizes
from .organs import crura_and_psoas, lifted, pancreas, spleen, stomach
from .raster import Canvas
from .shapes import Array, Field, Lattice, tube, tubes_along
from .skeleton import put_skeleton
from .trunk import Trunk, build_trunk, put_trunk
from .types import Body, Tube

Progress = Callable[[int, int], None]
STEPS = 8
FAT = ("visceral_fat",)


def make_body(seed: int, config: BodyConfig | None = None, progress: Progress | None = None) -> Body:
    """Make the body of a seed.

    Args:
        seed: 0 or above; sizes and shapes follow from it to the bit, whatever the grid.
        config: sampling.
        progress: called with (done, total) after every group of structures.

    Returns:
        Labels on the configured grid, landmarks, vessels as tubes, and measures: drawn sizes by their names in
        `config.RANGES`, what came of them with "achieved" in the name.

    Raises:
        ConfigError: a seed below zero or above 2^31, or a configuration out of range.
    """
    check_range("seed", seed, 0, 2**31)
    config, done = config or BodyConfig(), iter(range(1, STEPS + 1))

    def step() -> None:
        number = next(done)
        if progress is not None:
            progress(number, STEPS)

    frame = Frame.draw(seed)
    canvas, trunk = Canvas(body_grid(frame, config)), build_trunk(frame)
    step()
    put_trunk(canvas, frame, trunk)
    step()
    put_skeleton(canvas, frame)
    step()
    great, kidneys = _put_behind(canvas, frame)
    step()
    glands = _Glands.build(frame, trunk, great, kidneys)
    glands.put(canvas)
    step()
    vessels = grow_liver_vessels(frame, glands.liver.field, great, config.terminals)
    lesions = _put_inside_liver(canvas, frame, glands.liver, vessels)
    step()
    _put_gut(canvas, frame, trunk, great, kidneys, glands)
    step()
    points = landmarks(frame, glands.liver, vessels, kidneys, glands.spleen, lesions)
    measures = sizes(frame, canvas, glands.liver.field, kidneys, glands.spleen, lesions)
    body = Body(canvas.volume(), points, _tubes(great, vessels), measures, seed)
    step()
    return body


def _put_behind(canvas: Canvas, frame: Frame) -> tuple[GreatVessels, dict[str, Kidney]]:
    """What lies on the back wall: psoas and crura, great vessels, kidneys."""
    great = great_vessels(frame)
    for structure, curve in crura_and_psoas(frame):
        canvas.put_tubes(tubes_along(curve), structure, FAT)
    for t in great.tubes():
        row = np.array([[*t.start_mm, *t.stop_mm, t.start_radius_mm, t.stop_radius_mm]])
        canvas.put_tubes(row, t.structure, (*FAT, "diaphragm", "muscle", "lung_right", "lung_left"))
    kidneys = {"right": build_kidney(frame, -1.0), "left": build_kidney(frame, 1.0)}
    for kidney, side in zip(kidneys.values(), (-1.0, 1.0), strict=True):
        put_kidney(canvas, kidney, side)
    return great, kidneys


@dataclass(frozen=True, eq=False)
class _Glands:
    """Liver with gallbladder, pancreas, spleen."""

    liver: Liver
    pancreas: Field
    spleen: Field

    @staticmethod
    def build(frame: Frame, trunk: Trunk, great: GreatVessels, kidneys: dict[str, Kidney]) -> _Glands:
        lattice = trunk.lattice
        gland = pancreas(frame, lattice)
        kidney = lifted(kidneys["right"].capsule, lattice)
        press = np.minimum.reduce([kidney - 4.0, _vessel_field(great, lattice) - 3.0, gland.values - 3.0])
        return _Glands(build_liver(frame, trunk, press), gland, spleen(frame, trunk, kidneys["left"].capsule))

    def put(self, canvas: Canvas) -> None:
        """Paint them over fat."""
        canvas.put(self.liver.gallbladder, "gallbladder", FAT)
        canvas.put(self.liver.field, "liver", FAT)
        canvas.put(self.pancreas, "pancreas", FAT)
        canvas.put(self.spleen, "spleen", FAT)


def _put_inside_liver(canvas: Canvas, frame: Frame, liver: Liver, vessels: LiverVessels) -> tuple[Lesion, ...]:
    canvas.put_tubes(vessels.portal_tubes, "portal_vein", ("liver", *FAT))
    canvas.put_tubes(vessels.hepatic_tubes, "hepatic_vein", ("liver",))
    lesions = draw_lesions(frame, liver, np.vstack([vessels.portal_tubes, vessels.hepatic_tubes]))
    for lesion in lesions:
        canvas.put(lesion.field, lesion.structure, ("liver", "portal_vein", "hepatic_vein"))
    return lesions


def _put_gut(
    canvas: Canvas, frame: Frame, trunk: Trunk, great: GreatVessels, kidneys: dict[str, Kidney], glands: _Glands
) -> None:
    """Stomach, then bowel in the room that is left."""
    field, curve = stomach(frame, trunk, glands.liver.field)
    canvas.put(field, "stomach", FAT)
    taken = [field, glands.spleen, glands.pancreas, glands.liver.field, glands.liver.gallbladder]
    fields = [f.values for f in taken] + [lifted(k.capsule, trunk.lattice) - 3.0 for k in kidneys.values()]
    put_bowel(canvas, frame, trunk, (field, curve), np.minimum.reduce([*fields, _vessel_field(great, trunk.lattice)]))


def body_grid(frame: Frame, config: BodyConfig) -> VoxelGrid:
    """Cubic voxels about the middle of the trunk, turned by the configured rotation."""
    turn = rotation.exp(torch.tensor([math.radians(a) for a in config.tilt_deg], dtype=torch.float64))
    extent = (frame.width_mm + 2 * config.margin_mm, frame.depth_mm + 2 * config.margin_mm, config.length_mm)
    size = [math.ceil(e / config.spacing_mm) for e in extent]
    half = torch.tensor([(n - 1) / 2 * config.spacing_mm for n in size], dtype=torch.float64)
    centre = torch.tensor([0.0, 0.0, frame.z("L1", 4.0)], dtype=torch.float64)
    origin = (centre - turn @ half).tolist()
    return VoxelGrid(
        (size[0], size[1], size[2]), (config.spacing_mm,) * 3, (origin[0], origin[1], origin[2]),
        tuple(turn.flatten().tolist()),
    )  # fmt: skip


def _vessel_field(great: GreatVessels, lattice: Lattice) -> Array:
    """Field of aorta, veins and branches together."""
    curves = [great.aorta, *(curve for _, curve in great.others)]
    return np.minimum.reduce([tube(lattice, curve) for curve in curves])


def _tubes(great: GreatVessels, vessels: LiverVessels) -> tuple[Tube, ...]:
    found = great.tubes()
    for name, rows in (("portal_vein", vessels.portal_tubes), ("hepatic_vein", vessels.hepatic_tubes)):
        for row in rows.tolist():
            found.append(Tube((row[0], row[1], row[2]), (row[3], row[4], row[5]), row[6], row[7], name))
    return tuple(found)
