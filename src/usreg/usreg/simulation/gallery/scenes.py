# SPDX-License-Identifier: Apache-2.0
"""Spatial views: the organs in the glassy body, the vessel trees in the liver, the arms over the skin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from ...geometry import se3
from ...rendering.surface import Surface
from ..body.types import Body, Tube
from .movement import Ride, arm_points, probe_track
from .palette import COLOURS
from .pictures import Picture, Tile, montage
from .solid import Solid, View, paint, tube_surface

SURFACES = (
    "skin", "liver", "lesions", "gallbladder", "kidney_right", "kidney_left", "spleen", "pancreas", "aorta",
    "inferior_vena_cava", "spine", "ribs",
)  # fmt: skip
LIKE = {"lesions": "lesion_hypoechoic", "kidney_right": "kidney_right_cortex", "kidney_left": "kidney_left_cortex"}
VESSELS = ("portal_vein", "hepatic_vein")
ROBOT_MM, ENCODER_MM = (68.0, 40.0), (34.0, 20.0)  # radii of the first and the last link
ARM_COLOUR, PROBE_COLOUR, BED_COLOUR = (214, 120, 40), (40, 110, 150), (120, 132, 146)
ARM_VIEW = (-35.0, 28.0)
BODY_VIEW, LIVER_VIEW = (-20.0, 12.0), (-10.0, 5.0)


def organ_picture(body: Body, surfaces: Mapping[str, Surface], height_px: int) -> Picture:
    """From the front: everything in a glassy skin, and the vessels in the glassy liver."""
    trees = [Solid(tube_surface([t for t in body.tubes if t.structure == name], 0.5), COLOURS[name])
             for name in VESSELS if any(t.structure == name for t in body.tubes)]  # fmt: skip
    inside = [Solid(s, _colour(name)) for name, s in surfaces.items() if name not in ("skin", "liver", "lesions")]
    glass = [Solid(surfaces[name], _colour(name), share) for name, share in (("liver", 0.35), ("skin", 0.06))
             if name in surfaces]  # fmt: skip
    whole = paint([*inside, *trees, *glass], _view(surfaces["skin"], height_px, *BODY_VIEW))
    tiles = [Tile(whole, "organs, seen from the front and the right")]
    if "liver" in surfaces:
        near = [s for s in inside if s.surface in (surfaces.get("gallbladder"), surfaces.get("inferior_vena_cava"))]
        lesions = [Solid(surfaces["lesions"], _colour("lesions"))] if "lesions" in surfaces else []
        liver = [Solid(surfaces["liver"], _colour("liver"), 0.14)]
        tiles.append(
            Tile(paint([*near, *trees, *lesions, *liver], _view(surfaces["liver"], height_px, *LIVER_VIEW)),
                 "liver: portal (blue) and hepatic (light) veins, lesions (violet)")
        )  # fmt: skip
    return montage([tiles])


def arm_picture(surfaces: Mapping[str, Surface], runs: Sequence[Ride], height_px: int) -> Picture:
    """Each arm over the body on its bed, with the probe's way; the world's z points up."""
    tiles = []
    for ride in runs:
        t_s = 0.5 * ride.path.duration_s
        points = arm_points(ride, t_s)
        body = _moved(surfaces["skin"], ride.world_T_bed)
        bed = _bed(body)
        arm = [Solid(s, c) for s, c in _arm(points, ride, t_s)]
        solids = [Solid(body, COLOURS["skin"]), Solid(bed, BED_COLOUR), *arm, *_trail(ride)]
        seen = [s.surface.vertices_mm.numpy().astype(float) for s in solids]
        picture = paint(solids, _view_of(np.concatenate(seen), height_px, *ARM_VIEW))
        tiles.append(Tile(picture, f"{ride.name}: {ride.arm.name} at {t_s:.0f} s"))
    return montage([tiles])


def _moved(surface: Surface, world_T_bed: torch.Tensor) -> Surface:
    return Surface(se3.transform_points(world_T_bed, surface.vertices_mm.double()).float(), surface.triangles)


def _bed(body: Surface) -> Surface:
    """A slab under the body in `world`."""
    low, high = body.vertices_mm.min(0).values - 60.0, body.vertices_mm.max(0).values + 60.0
    corners = torch.cartesian_prod(*(torch.stack([a, b]) for a, b in zip(low, high, strict=True)))
    corners[:, 2] = torch.where(corners[:, 2] > low[2], low[2] + 62.0, low[2] + 25.0)
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    faces = [f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))]
    return Surface(corners, torch.tensor(faces))


def _arm(points: NDArray[np.float64], ride: Ride, t_s: float) -> list[tuple[Surface, tuple[int, int, int]]]:
    """Links as tubes, thinner towards the flange, the probe at the end."""
    links = [(a, b) for a, b in zip(points[:-1], points[1:], strict=True) if np.linalg.norm(b - a) > 1e-6]
    thick, thin = ROBOT_MM if ride.path.motor is None else ENCODER_MM
    radii = np.linspace(thick, thin, len(links))
    tubes = [_tube(a, b, r) for (a, b), r in zip(links, radii, strict=True)]
    face = (ride.world_T_bed.numpy() @ ride.path.poses([t_s])[0])[:3, 3]
    return [
        (tube_surface(tubes, sides=40), ARM_COLOUR),
        (tube_surface([_tube(points[-1], face, 16.0)], sides=24), PROBE_COLOUR),
    ]


def _trail(ride: Ride) -> list[Solid]:
    """The way of the middle of the face, lifted off the skin, in the colours of its windows."""
    poses, colours = probe_track(ride)
    points = poses[::5, :3, 3] - 8.0 * poses[::5, :3, 2]
    named = colours[::5]
    out = []
    for colour in sorted(set(named)):
        tubes = [_tube(a, b, 3.0) for a, b, c in zip(points[:-1], points[1:], named[:-1], strict=True)
                 if c == colour and np.linalg.norm(b - a) > 1e-6]  # fmt: skip
        if tubes:
            r, g, b = (int(255 * v) for v in to_rgb(colour))
            out.append(Solid(tube_surface(tubes), (r, g, b)))
    return out


def _tube(a: NDArray[np.float64], b: NDArray[np.float64], radius: float) -> Tube:
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return Tube((ax, ay, az), (bx, by, bz), radius, radius, "")


def _colour(name: str) -> tuple[int, int, int]:
    return COLOURS[LIKE.get(name, name)]


def _view(surface: Surface, height_px: int, azimuth_deg: float, elevation_deg: float) -> View:
    return _view_of(surface.vertices_mm.to(torch.float64).numpy(), height_px, azimuth_deg, elevation_deg)


def _view_of(points: NDArray[np.float64], height_px: int, azimuth_deg: float, elevation_deg: float) -> View:
    """A view that holds all points with a small margin."""
    first = View(azimuth_deg, elevation_deg, (0.0, 0.0, 0.0), 1.0, 1.0, height_px)
    p = points @ first.axes.T
    low, high = p.min(0), p.max(0)
    x, y, z = (0.5 * (low + high) @ first.axes).tolist()
    width, height = 1.06 * (high - low)[:2]
    return View(azimuth_deg, elevation_deg, (x, y, z), float(width), float(height), height_px)
