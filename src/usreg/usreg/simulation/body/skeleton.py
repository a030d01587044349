# SPDX-License-Identifier: Apache-2.0
"""Spine, ribs, costal cartilage, sternum; the costal margin as a line."""

from __future__ import annotations

import numpy as np

from .frame import LEVELS, Frame, Outline
from .raster import ANY, Canvas
from .shapes import Array, Field, Lattice, Points, spline

RIB_MM, CARTILAGE_MM = (3.2, 6.3), (3.6, 6.0)  # half thickness, half height
RIB_DEPTH_MM = 5.5  # of the middle of a rib, outside the pleura
# rib: (angle of its bony end / pi, height of that end at stature 1); angle from the back.
RIB_ENDS = {
    5: (0.80, 152.0), 6: (0.775, 120.0), 7: (0.745, 86.0), 8: (0.705, 49.0), 9: (0.665, 15.0), 10: (0.62, -14.0),
    11: (0.50, -16.0), 12: (0.30, -2.0),
}  # fmt: skip
# rib: its cartilage from the bony end to the sternum or to the cartilage above, (angle / pi, height).
CARTILAGES = {
    5: ((0.88, 152.0), (0.955, 160.0)),
    6: ((0.83, 113.0), (0.90, 122.0), (0.96, 138.0)),
    7: ((0.795, 77.0), (0.85, 82.0), (0.91, 99.0), (0.965, 119.0)),
    8: ((0.745, 45.0), (0.79, 57.0), (0.84, 79.0)),
    9: ((0.705, 17.0), (0.75, 36.0), (0.785, 55.0)),
    10: ((0.66, -9.0), (0.705, 11.0), (0.74, 32.0)),
}
MARGIN = ((0.96, 109.0), (0.91, 91.0), (0.855, 73.0), (0.80, 51.0), (0.75, 27.0), (0.70, 2.0), (0.64, -19.0))
XIPHISTERNUM_MM, XIPHOID_LENGTH_MM = 117.0, 27.0


def put_skeleton(canvas: Canvas, frame: Frame) -> None:
    """Paint bones and cartilage over what the trunk has there."""
    rng = frame.rng(2)
    _put_spine(canvas, frame, rng)
    soft = tuple(name for name in ANY if name not in ("outside", "skin"))
    for side in (-1.0, 1.0):
        for rib in CARTILAGES:
            canvas.put_ribbon(cartilage_curve(frame, rib, side), "costal_cartilage", soft)
        for rib in RIB_ENDS:
            canvas.put_ribbon(rib_curve(frame, rib, side), "ribs", soft)
    _put_sternum(canvas, frame, soft)


def rib_curve(frame: Frame, rib: int, side: float) -> Points:
    """Curve (N, 8) of a rib for `Canvas.put_ribbon`; side -1 right, 1 left.

    From its head at the vertebra it runs back to the transverse process, turns at its angle, and slopes down along the
    chest wall to its bony end.
    """
    end_angle, end_z = RIB_ENDS[rib]
    level = f"T{rib}"
    head_z, end_z = frame.z(level, 9.0), end_z * frame.stature
    y = float(frame.spine_y(head_z))
    outline, start = frame.cavity, 0.155
    share = np.linspace(0.0, 1.0, 40)
    heights = head_z - 7.0 + (end_z - head_z + 7.0) * share**1.12
    on_wall = [
        _on(outline, (start + (end_angle - start) * s) * np.pi, h, side) for s, h in zip(share, heights, strict=True)
    ]
    reach = on_wall[0][1] if rib < 12 else 0.5 * (on_wall[0][1] + y + 28.0)
    on_wall[0] = np.concatenate([[on_wall[0][0], reach], on_wall[0][2:]])
    inner = np.array([[side * 19.0, y + 9.0, head_z], [side * 33.0, y + 27.0, head_z - 1.0]])
    points = np.vstack([inner, np.array(on_wall)[:, :3]])
    normals = np.vstack([np.tile(on_wall[0][3:], (2, 1)), np.array(on_wall)[:, 3:]])
    thick, high = RIB_MM
    taper = np.ones(len(points)) if rib < 11 else np.linspace(1.0, 0.65, len(points))
    return np.column_stack([points, normals, thick * taper, high * taper])


def _on(outline: Outline, angle: float, z: float, side: float, off_mm: float = RIB_DEPTH_MM) -> Points:
    """(6,) point on the middle of the chest wall, and its normal."""
    point, normal = outline.point(angle, z, off_mm)
    flip = np.array([side, 1.0, 1.0])
    return np.concatenate([point * flip, normal * flip])


def cartilage_curve(frame: Frame, rib: int, side: float) -> Points:
    """Curve (N, 8) of a costal cartilage, from the rib's bony end inwards and up."""
    path = spline(np.array([RIB_ENDS[rib], *CARTILAGES[rib]]), 8)
    rows = np.array([_on(frame.cavity, a * np.pi, z * frame.stature, side) for a, z in path])
    return np.column_stack([rows, np.full((len(rows), 2), CARTILAGE_MM)])


def costal_margin(frame: Frame, side: float) -> Points:
    """Points (7, 3) along the lower edge of the costal arch, from the xiphoid outwards, under the skin."""
    return np.array([_on(frame.cavity, a * np.pi, z * frame.stature, side)[:3] for a, z in MARGIN])


def xiphoid_tip(frame: Frame) -> Points:
    """(3,) tip of the xiphoid process."""
    z = (XIPHISTERNUM_MM - XIPHOID_LENGTH_MM) * frame.stature
    return _on(frame.cavity, np.pi, z, 1.0)[:3]


def _put_sternum(canvas: Canvas, frame: Frame, over: tuple[str, ...]) -> None:
    """Body of the sternum down to the seventh ribs; the xiphoid below it is largely cartilage."""
    s = frame.stature
    for name, top, bottom, widths in (
        ("costal_cartilage", XIPHISTERNUM_MM, XIPHISTERNUM_MM - XIPHOID_LENGTH_MM, (9.0, 4.0)),
        ("ribs", 210.0, XIPHISTERNUM_MM + 8.0, (19.0, 14.0)),
    ):
        for x in np.linspace(-1.0, 1.0, 9):
            rows = []
            for z, width in zip(np.linspace(top, bottom, 6), np.linspace(*widths, 6), strict=True):
                row = _on(frame.cavity, np.pi, z * s, 1.0)
                row[0] = x * width
                rows.append([*row, 4.6 - 1.2 * abs(x), max(width / 4, 3.0)])
            canvas.put_ribbon(np.array(rows), name, over)


def _put_spine(canvas: Canvas, frame: Frame, rng: np.random.Generator) -> None:
    """Vertebral bodies and discs as one column, then arches and processes, then the canal."""
    lattice = Lattice.around((-34, float(frame.spine_y(-60.0)) - 34, -165.0), (34, frame.depth_mm / 2, 205.0), 2.0)
    canvas.put(Field(lattice, spine_bodies(frame, lattice)), "spine", ANY, endless=False)
    for level in LEVELS:
        canvas.put_tubes(_arch(frame, level), "spine", ANY)
        canvas.put_ribbon(_spinous(frame, level), "spine", ANY)
    heights = np.linspace(-165.0, 205.0, 38)
    line = np.column_stack([0.0 * heights, frame.spine_y(heights) + 25.0, heights])
    canvas.put_tubes(_chain(line, 8.0), "muscle", ANY)


def spine_bodies(frame: Frame, lattice: Lattice) -> Array:
    """Field of the column of bodies and discs: waisted at the middle of each body, wider towards the pelvis."""
    x, y, z = lattice.axes()
    heights = np.array([frame.z(name) for name in LEVELS])
    order = np.argsort(heights)
    phase = np.interp(z.ravel(), heights[order], np.arange(len(LEVELS)), left=-0.5, right=len(LEVELS) - 0.5)
    rim = (0.5 - 0.5 * np.cos(2 * np.pi * phase)).reshape(z.shape).astype(np.float32)  # 1 at the discs
    width = np.interp(z.ravel() / frame.stature, [-130, 20, 100, 200], [26.0, 22.5, 17.5, 15.5]).reshape(z.shape)
    a, b = width * (0.90 + 0.10 * rim), 16.0 * (0.93 + 0.07 * rim) + 0.0 * width
    dy = y - frame.spine_y(z)
    kidney_shape = dy - 3.0 * (1 - (x / a) ** 2) * (dy > 0)  # flat or hollow towards the canal
    g = (np.abs(x / a) ** 2.4 + np.abs(kidney_shape / b) ** 2.4) ** np.float32(1 / 2.4)
    return ((g - 1.0) * 17.0).astype(np.float32)


def _arch(frame: Frame, level: str) -> Points:
    """Tubes (N, 8) of one arch: pedicles, laminae, joints and transverse processes of both sides."""
    z, lumbar = frame.z(level), level.startswith("L")
    y, reach = float(frame.spine_y(z)), 40.0 if lumbar else 32.0
    rows = []
    for side in (-1.0, 1.0):
        pedicle, joint = (side * 13.0, y + 12.0, z + 6.0), (side * 16.0, y + 27.0, z + 3.0)
        tip = (side * reach, y + (26.0 if lumbar else 34.0), z + (4.0 if lumbar else 8.0))
        rows += [
            (*pedicle, *joint, 5.0, 5.0), (*joint, 0.0, y + 41.0, z - 4.0, 5.0, 4.0), (*joint, *tip, 5.0, 3.6),
            (side * 17.0, y + 32.0, z + 10.0, side * 17.0, y + 33.0, z - 16.0, 6.0, 6.0),
        ]  # fmt: skip
    return np.array(rows)


def _spinous(frame: Frame, level: str) -> Points:
    """Ribbon (2, 8) of a spinous process: a flat plate, level in the lumbar spine, sloping in the thoracic."""
    z, lumbar = frame.z(level), level.startswith("L")
    y, drop, high = float(frame.spine_y(z)), (10.0, 10.0)[not lumbar], 9.0 if lumbar else 6.0
    drop = 8.0 if lumbar else 20.0
    tip = SPINE_TIP_MM if lumbar else SPINE_TIP_MM - 8.0
    side = (1.0, 0.0, 0.0)
    return np.array([[0, y + 38, z - 4, *side, 3.6, high], [0, y + tip - high, z - 4 - drop, *side, 3.2, high]])


SPINE_TIP_MM = 60.0


def _chain(points: Points, radius: float) -> Points:
    """Tubes (N - 1, 8) along points (N, 3)."""
    ends = np.full((len(points) - 1, 2), radius)
    return np.column_stack([points[:-1], points[1:], ends])
