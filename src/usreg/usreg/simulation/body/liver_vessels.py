# SPDX-License-Identifier: Apache-2.0
"""Portal tree and hepatic veins inside the liver: grown by `tree`, gently bent, never touching one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiled import njit
from .frame import Frame
from .great_vessels import GreatVessels
from .liver import liver_box
from .shapes import Field, Lattice, Points, noise, tube, tubes_along
from .tree import Tree, closer, grow

BEND_MM, BEND_SCALE_MM = 2.0, 26.0
PIECE_MM = 6.0
GAP_MM = 1.5  # tissue between the trees
SHORTER_MM, LEAST_SHARE = (26.0, 20.0, 14.0), 0.1  # of the portal tree, whose end branches would be fewer than that


@dataclass(frozen=True, eq=False)
class LiverVessels:
    """Both trees as grown, and as tubes (N, 8) after bending and cutting into short pieces."""

    portal: Tree
    hepatic: Tree
    portal_tubes: Points
    hepatic_tubes: Points
    warp: tuple[Field, Field, Field]

    def bent(self, points: Points) -> Points:
        """Points (N, 3) of the straight trees, moved as the tubes are."""
        return points + np.stack([f.at(points) for f in self.warp], axis=1)


def grow_liver_vessels(frame: Frame, liver: Field, great: GreatVessels, terminals: int) -> LiverVessels:
    """Grow the portal tree, then the hepatic veins in the room between."""
    rng = frame.rng(5)
    low, high = liver_box(liver)
    points = rng.uniform(low, high, (60000, 3))
    room = Field(liver.lattice, np.maximum(liver.values, 1.0 - tube(liver.lattice, great.cava)).astype(np.float32))
    points = points[room.at(points) < -5.0]
    half = len(points) // 2
    roots, radius = _hepatic_roots(frame, great, liver)
    taken = np.column_stack([roots.reshape(-1, 6), np.full((len(roots), 2), 0.8 * radius)])
    main = float(great.portal[-1, 3]) * 0.97
    around = np.vstack([taken, tubes_along(great.cava)])
    portal = grow(_portal_roots(great, liver), main, room, points[:half], terminals, around)
    for length in SHORTER_MM:  # where the hepatic veins leave no room beside the first segment
        if portal.flow.max() >= LEAST_SHARE * terminals:
            break
        portal = grow(_portal_roots(great, liver, length), main, room, points[:half], terminals, around)
    hepatic = grow(
        roots, radius, room, points[half:], terminals, np.vstack([portal.tubes(), tubes_along(great.portal)])
    )
    portal, hepatic = parted(portal, hepatic, (main, radius))
    return _bent(portal, hepatic, room, tubes_along(great.portal), rng)


def _bent(portal: Tree, hepatic: Tree, liver: Field, main: Points, rng: np.random.Generator) -> LiverVessels:
    """The trees bent, by half as much again and again until the bends bring no two vessels together."""
    warp, none = _warp(liver, rng), np.empty((0, 8))
    for _ in range(6):
        vessels = LiverVessels(portal, hepatic, none, none, warp)
        a, b = _pieces(vessels, portal), _pieces(vessels, hepatic)
        thick = np.vstack([a, main])
        if thinnest_touch(thick, b, np.ones(len(thick)), np.ones(len(b)), 0.5 * GAP_MM)[0] < 0:
            break
        warp = (_half(warp[0]), _half(warp[1]), _half(warp[2]))
    return LiverVessels(portal, hepatic, a, b, warp)


def _half(field: Field) -> Field:
    return Field(field.lattice, (0.5 * field.values).astype(np.float32))


def _portal_roots(great: GreatVessels, liver: Field, length: float = 34.0) -> Points:
    """The first segment goes on from the main portal vein into the right lobe."""
    start = great.portal[-1, :3]
    return np.array([[start, _deepest_towards(liver, start, np.array([-0.85, 0.15, 0.25]), length)]])


def _deepest_towards(liver: Field, start: Points, way: Points, length: float) -> Points:
    """The end of a segment, turned slightly from its way if that lies deeper in the organ."""
    way = way / np.linalg.norm(way)
    sides = np.array([[x, y, z] for x in (-0.3, 0, 0.3) for y in (-0.3, 0, 0.3) for z in (-0.3, 0, 0.3)])
    ways = way + sides
    tips = start + length * ways / np.linalg.norm(ways, axis=1, keepdims=True)
    return tips[int(np.argmin(liver.at(tips) + 3.0 * np.linalg.norm(sides, axis=1)))]


def _hepatic_roots(frame: Frame, great: GreatVessels, liver: Field) -> tuple[Points, float]:
    """Right, middle and left vein leave the vena cava just under the diaphragm; their common root radius."""
    cava = great.cava
    z = frame.z("T10", 6.0)
    start = np.array([np.interp(z, cava[:, 2], cava[:, i]) for i in range(3)])
    ways = np.array([[-0.85, 0.0, -0.45], [-0.45, -0.70, -0.55], [0.55, -0.75, -0.20]])
    roots = [
        [start + 3.0 * w, _deepest_towards(liver, start, w, length)]
        for w, length in zip(ways, (62.0, 58.0, 48.0), strict=True)
    ]
    return np.array(roots), frame.measures["hepatic_vein_diameter_mm"] / 2 * 3 ** (1 / 3)


def parted(a: Tree, b: Tree, radii: tuple[float, float]) -> tuple[Tree, Tree]:
    """Cut end branches until the trees are `GAP_MM` apart; of two that come too near the one with less flow goes.

    Murray's law then gives new radii, so that it is looked for again.
    """
    for _ in range(400):
        i, j = thinnest_touch(a.tubes(), b.tubes(), a.flow, b.flow, GAP_MM)
        if i < 0:
            break
        if a.flow[i] <= b.flow[j]:
            a = _without(a, i, radii[0])
        else:
            b = _without(b, j, radii[1])
    return a, b


@njit()
def thinnest_touch(a, b, flow_a, flow_b, gap):
    """Of all pairs of tubes (N, 8), (M, 8) nearer than a gap the one whose thinner partner has least flow; else -1."""
    best, least = (-1, -1), 1 << 60
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            near = max(a[i, 6], a[i, 7]) + max(b[j, 6], b[j, 7]) + gap
            flow = min(flow_a[i], flow_b[j])
            if flow < least and closer(a[i, :3], a[i, 3:6], b[j, :3], b[j, 3:6], near):
                best, least = (i, j), flow
    return best


def _without(tree: Tree, index: int, root_radius_mm: float) -> Tree:
    """The tree less one segment and all that lies beyond; a fork left with one branch stays as a bend."""
    gone = {index}
    for _ in range(len(tree.flow)):
        more = {i for i, p in enumerate(tree.parent) if int(p) in gone} - gone
        if not more:
            break
        gone |= more
    flow, k = tree.flow.copy(), int(tree.parent[index])
    while k >= 0:
        flow[k] -= tree.flow[index]
        k = int(tree.parent[k])
    keep = np.array([i for i in range(len(flow)) if i not in gone and flow[i] > 0], dtype=np.int64)
    number = np.full(len(flow), -1)
    number[keep] = np.arange(len(keep))
    parent = np.where(tree.parent[keep] >= 0, number[tree.parent[keep]], -1)
    unit = root_radius_mm / float(flow[keep][parent < 0].sum()) ** (1 / 3)
    return Tree(tree.start[keep], tree.stop[keep], parent, flow[keep], unit * flow[keep] ** (1 / 3))


def _warp(liver: Field, rng: np.random.Generator) -> tuple[Field, Field, Field]:
    """A slow displacement that vanishes at the liver's surface: straight segments become gentle bends."""
    low, high = liver_box(liver)
    lattice = Lattice.around((low - 10).tolist(), (high + 10).tolist(), 4.0)
    axes = lattice.axes()
    points = np.stack(np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")[::-1], axis=-1).reshape(-1, 3)
    weight = np.clip((-liver.at(points.astype(float)) - 3.0) / 12.0, 0.0, 1.0).reshape(lattice.size[::-1])
    fields = [
        Field(lattice, (BEND_MM * weight * noise(lattice, BEND_SCALE_MM, rng)).astype(np.float32)) for _ in range(3)
    ]
    return fields[0], fields[1], fields[2]


def _pieces(vessels: LiverVessels, tree: Tree) -> Points:
    """Segments cut into pieces and bent; each narrows over its first piece from its parent's radius."""
    rows = []
    for i in range(len(tree.flow)):
        a, b = tree.start[i], tree.stop[i]
        n = max(1, int(np.ceil(np.linalg.norm(b - a) / PIECE_MM)))
        points = vessels.bent(a + np.linspace(0.0, 1.0, n + 1)[:, None] * (b - a))
        radii = np.full(n + 1, tree.radius[i])
        rows += [(*points[k], *points[k + 1], radii[k], radii[k + 1]) for k in range(n)]
    return np.array(rows)
