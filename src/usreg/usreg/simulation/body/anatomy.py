# SPDX-License-Identifier: Apache-2.0
"""A procedural body: every organ from one seed, painted onto a voxel grid."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from ...config import check_range
from ...geometry import rotation
from ...geometry.grid import VoxelGrid
from .bowel import put_bowel
from .config import BodyConfig
from .frame import Frame
from .great_vessels import GreatVessels, great_vessels
from .kidneys import build_kidney, put_kidney
from .landmarks import landmarks
from .liver import build_liver, put_lesions
from .liver_vessels import LiverVessels, grow_liver_vessels
from .measures import achieved
from .organs import crura_and_psoas, lifted, pancreas, spleen, stomach
from .raster import Canvas
from .shapes import Array, Field, Points, tube
from .skeleton import put_skeleton
from .trunk import build_trunk, put_trunk
from .types import Body, Tube

Progress = Callable[[int, int], None]
STEPS = 12
SOFT = ("visceral_fat", "muscle", "diaphragm")


def make_body(seed: int, config: BodyConfig | None = None, progress: Progress | None = None) -> Body:
    """Make the body of a seed.

    Args:
        seed: 0 or above; sizes and shapes follow from it to the bit, whatever the grid.
        config: sampling.
        progress: called with (done, total) after every group of structures.

    Raises:
        ConfigError: a seed below zero or above 2^31, or a configuration out of range.
    """
    check_range("seed", seed, 0, 2**31)
    config = config or BodyConfig()
    done = iter(range(1, STEPS + 1))

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
    great = great_vessels(frame)
    for structure, curve in crura_and_psoas(frame):
        canvas.put_tubes(chain(curve), structure, ("visceral_fat",))
    _put_named(canvas, great.tubes(), ("visceral_fat", "diaphragm", "muscle", "lung_right", "lung_left"))
    step()
    kidneys = {"right": build_kidney(frame, -1.0), "left": build_kidney(frame, 1.0)}
    for side, kidney in kidneys.items():
        put_kidney(canvas, kidney, 1.0 if side == "left" else -1.0)
    step()
    pan, _ = pancreas(frame, trunk.lattice)
    bulk = _vessel_field(great, trunk.lattice)
    right = lifted(kidneys["right"].capsule, trunk.lattice)
    liver = build_liver(frame, trunk, np.minimum(np.minimum(right - 4.0, bulk - 3.0), pan.values - 3.0))
    canvas.put(liver.gallbladder, "gallbladder", SOFT[:1])
    canvas.put(liver.field, "liver", ("visceral_fat", "diaphragm"))
    step()
    vessels = grow_liver_vessels(frame, liver.field, great, config.terminals)
    canvas.put_tubes(vessels.portal_tubes, "portal_vein", ("liver", "visceral_fat"))
    canvas.put_tubes(vessels.hepatic_tubes, "hepatic_vein", ("liver",))
    step()
    measures = put_lesions(canvas, frame, liver, np.vstack([vessels.portal_tubes, vessels.hepatic_tubes]))
    step()
    milt = spleen(frame, trunk, kidneys["left"].capsule)
    canvas.put(milt, "spleen", ("visceral_fat",))
    canvas.put(pan, "pancreas", ("visceral_fat",))
    step()
    belly, curve = stomach(frame, trunk, liver.field)
    canvas.put(belly, "stomach", ("visceral_fat",))
    step()
    left = lifted(kidneys["left"].capsule, trunk.lattice)
    taken: Array = np.minimum.reduce(
        [belly.values, milt.values, pan.values, liver.field.values, liver.gallbladder.values, right - 3, left - 3, bulk]
    )
    put_bowel(canvas, frame, trunk, (belly, curve), taken)
    step()
    points = landmarks(frame, liver, vessels, kidneys, milt)
    sizes = {**frame.measures, "trunk_width_mm": frame.width_mm, "trunk_depth_mm": frame.depth_mm, **measures}
    sizes |= achieved(canvas, liver.field, kidneys, milt)
    body = Body(canvas.volume(), points, _tubes(great, vessels), sizes, seed)
    step()
    return body


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


def chain(curve: Points) -> Points:
    """Tubes (N - 1, 8) along a curve (N, 4)."""
    return np.column_stack([curve[:-1, :3], curve[1:, :3], curve[:-1, 3], curve[1:, 3]])


def _put_named(canvas: Canvas, tubes: list[Tube], over: tuple[str, ...]) -> None:
    for t in tubes:
        row = np.array([[*t.start_mm, *t.stop_mm, t.start_radius_mm, t.stop_radius_mm]])
        canvas.put_tubes(row, t.structure, over)


def _vessel_field(great: GreatVessels, lattice) -> Array:  # type: ignore[no-untyped-def]
    """Field of aorta, veins and branches together."""
    curves = [great.aorta, *(curve for _, curve in great.others)]
    return np.minimum.reduce([tube(lattice, curve) for curve in curves])


def _tubes(great: GreatVessels, vessels: LiverVessels) -> tuple[Tube, ...]:
    found = great.tubes()
    for name, rows in (("portal_vein", vessels.portal_tubes), ("hepatic_vein", vessels.hepatic_tubes)):
        for row in rows.tolist():
            found.append(Tube((row[0], row[1], row[2]), (row[3], row[4], row[5]), row[6], row[7], name))
    return tuple(found)
