# SPDX-License-Identifier: Apache-2.0
"""Surfaces seen from outside: shaded triangles painted from back to front, glassy ones over the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...rendering.surface import Surface
from ..body.types import Tube
from .pictures import Picture

SIDES = 10  # of a tube
END_SHARES = ((0.0, 1.0), (0.5, 0.87), (0.87, 0.5), (1.0, 0.02))  # rings of a round end: beyond it, width; in radii
SHIFT = 4  # cv2 draws with 1/16 pixel
FINER = 2  # drawn at twice the size, then averaged: smooth edges
LIGHT = (-0.35, 0.5, 0.8)  # from the viewer's upper left
BACKGROUND = (11, 15, 19)


@dataclass(frozen=True)
class View:
    """An orthographic camera.

    Args:
        azimuth_deg: 0 looks along y, positive from the side of x. elevation_deg: positive from the side of z. In `ct`
            these are the front, the patient's left and the head.
        centre_mm: of the picture. width_mm, height_mm: what it shows. height_px: its height.
    """

    azimuth_deg: float
    elevation_deg: float
    centre_mm: tuple[float, float, float]
    width_mm: float
    height_mm: float
    height_px: int

    @property
    def axes(self) -> NDArray[np.float64]:
        """Rows: right and up in the picture, and towards the viewer."""
        a, e = math.radians(self.azimuth_deg), math.radians(self.elevation_deg)
        viewer = np.array([math.sin(a) * math.cos(e), -math.cos(a) * math.cos(e), math.sin(e)])
        right = np.array([math.cos(a), math.sin(a), 0.0])
        return np.stack([right, np.cross(viewer, right), viewer])

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Column, row (pixels of the fine canvas) and height towards the viewer (mm) of points (N, 3)."""
        p = (points - np.array(self.centre_mm)) @ self.axes.T
        scale = FINER * self.height_px / self.height_mm
        return np.stack([(p[:, 0] + self.width_mm / 2) * scale, (self.height_mm / 2 - p[:, 1]) * scale, p[:, 2]], -1)


@dataclass(frozen=True, eq=False)
class Solid:
    """A surface with its colour; `glass` above 0 is the share of it that covers what lies behind, seen head-on."""

    surface: Surface
    colour: tuple[int, int, int]
    glass: float = 0.0


def paint(solids: Sequence[Solid], view: View) -> Picture:
    """The picture: opaque solids by the depth of their triangles, then the glassy ones in their order."""
    size = (FINER * view.height_px, round(FINER * view.height_px * view.width_mm / view.height_mm))
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = BACKGROUND
    parts = [_triangles(s, view) for s in solids if not s.glass]
    if parts:
        corners, depth, facing, colours = (np.concatenate(p) for p in zip(*parts, strict=True))
        light = 0.35 + 0.65 * np.clip(facing @ np.array(LIGHT) / np.linalg.norm(LIGHT), 0.0, 1.0)
        shaded = np.clip(colours * light[:, None], 0, 255).astype(int)
        for i in np.argsort(depth):
            cv2.fillConvexPoly(canvas, corners[i], shaded[i].tolist(), cv2.LINE_8, SHIFT)
    for solid in solids:
        if solid.glass:
            canvas = _glazed(canvas, solid, view)
    small = cv2.resize(canvas, (size[1] // FINER, size[0] // FINER), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def _glazed(canvas: Picture, solid: Solid, view: View) -> Picture:
    """Glass covers more where it is seen at a grazing angle."""
    corners, depth, facing, _ = _triangles(solid, view)
    cover = solid.glass + (0.85 - solid.glass) * (1.0 - np.abs(facing[:, 2])) ** 2.5
    shine = 0.55 + 0.45 * np.clip(facing @ np.array(LIGHT) / np.linalg.norm(LIGHT), 0.0, 1.0)
    layer = np.zeros((*canvas.shape[:2], 2), np.float32)
    for i in np.argsort(depth):
        cv2.fillConvexPoly(layer, corners[i], (float(cover[i]), float(shine[i])), cv2.LINE_8, SHIFT)
    layer = cv2.GaussianBlur(layer, (0, 0), 1.2)
    alpha = layer[..., :1]
    glass = np.array(solid.colour, np.float32) * layer[..., 1:]
    return np.asarray(np.clip(canvas * (1 - alpha) + glass * alpha, 0, 255), dtype=np.uint8)


def _triangles(
    solid: Solid, view: View
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of front faces: corners (T, 3, 2) in fixed point, depths (T,), unit normals (T, 3), colours (T, 3)."""
    vertices = solid.surface.vertices_mm.numpy().astype(np.float64)
    faces = solid.surface.triangles.numpy()
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    smooth = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(smooth, faces[:, k], normal)
    towards = smooth[faces].mean(1) @ view.axes.T
    towards /= np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-12)
    seen = (length[:, 0] > 1e-12) & ((normal @ view.axes[2]) > 0)
    place = view.project(vertices)
    corners = np.round(place[:, :2] * (1 << SHIFT)).astype(np.int32)[faces[seen]]
    colours = np.broadcast_to(np.array(solid.colour, float), (int(seen.sum()), 3))
    return corners, place[:, 2][faces[seen]].mean(-1), towards[seen], colours


def tube_surface(tubes: Sequence[Tube], least_mm: float = 0.0, sides: int = SIDES) -> Surface:
    """Cones with rounded ends around the axes of tubes, at least this thick (radius), so that thin ones are seen."""
    start = np.array([t.start_mm for t in tubes], float)
    stop = np.array([t.stop_mm for t in tubes], float)
    radii = np.maximum(np.array([(t.start_radius_mm, t.stop_radius_mm) for t in tubes], float), least_mm)
    axis = stop - start
    axis /= np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-9)
    other = np.where(np.abs(axis[:, 2:]) < 0.8, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    u = np.cross(axis, other)
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    v = np.cross(axis, u)
    angle = np.arange(sides) * 2 * math.pi / sides
    circle = np.cos(angle)[:, None] * u[:, None] + np.sin(angle)[:, None] * v[:, None]
    rings = []
    for end, which, sign, shares in ((start, 0, -1.0, END_SHARES[::-1]), (stop, 1, 1.0, END_SHARES)):
        for out, wide in shares:
            r = radii[:, which, None]
            rings.append((end + sign * out * r * axis)[:, None] + (wide * r)[:, None] * circle)
    points = np.stack(rings, 1)
    i, j = np.arange(sides), (np.arange(sides) + 1) % sides
    belt = np.concatenate([np.stack([i, j, sides + j], -1), np.stack([i, sides + j, sides + i], -1)])
    faces = np.concatenate([belt + sides * k for k in range(len(rings) - 1)])
    every = (np.arange(len(tubes)) * len(rings) * sides)[:, None, None] + faces
    return Surface(torch.from_numpy(points.reshape(-1, 3).astype(np.float32)), torch.from_numpy(every.reshape(-1, 3)))
