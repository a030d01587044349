# SPDX-License-Identifier: Apache-2.0
"""Axial, coronal and sagittal slices of a body and its images, and slices where an ultrasound image lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...data.types import Volume
from ...fusion.labels import label_slice
from ...geometry import se3
from ...geometry.plane import PlaneGrid
from ...rendering.slicing import slice_volume
from ..body.types import VALUE, Body
from .palette import coloured, legend
from .pictures import Picture, Tile, montage, rgb

# Name: where the image's x and y point in `ct` (LPS), and the letters at its left, right, top and bottom.
PLANES = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), ("R", "L", "A", "P")),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), ("R", "L", "H", "F")),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), ("A", "P", "H", "F")),
}
SOFT_TISSUE_HU = (-115.0, 235.0)  # window 350, level 60
PIXEL_MM = 1.0


def body_picture(body: Body, images: Mapping[str, Volume]) -> Picture:
    """Rows: planes; columns: labels and the images (name -> volume); the legend of the labels below."""
    labels = with_labels(body)
    windows = {name: grey_window(volume) for name, volume in images.items()}
    rows = []
    for name, (x, y, edges) in PLANES.items():
        pose, plane = through(body, cut_point(body, name), x, y)
        tiles = [Tile(coloured(label_slice(labels, pose, plane)), f"{name} · labels", edges)]
        for kind, volume in images.items():
            tiles.append(Tile(rgb(grey_slice(volume, pose, plane, windows[kind])), f"{name} · {kind}", edges))
        rows.append(tiles)
    picture = montage(rows)
    return np.concatenate([picture, legend(picture.shape[1])])


def with_labels(body: Body) -> Volume:
    """The body's labels as `label_slice` takes them."""
    return replace(body.labels, labels=body.labels.data[0].to(torch.int16))


def grey_window(volume: Volume) -> tuple[float, float]:
    """Values shown black and white: soft tissue of a CT, zero to the 99.5th percentile of anything else."""
    if volume.modality == "CT":
        return SOFT_TISSUE_HU
    thinned = volume.data[0, ::4, ::4, ::4].to(torch.float32).numpy()
    return 0.0, float(max(np.percentile(thinned, 99.5), 1e-6))


def grey_slice(
    volume: Volume, ct_T_image: Tensor, plane: PlaneGrid, window: tuple[float, float]
) -> np.ndarray:  # fmt: skip
    """A slice (h, w) uint8; black outside the volume."""
    values, mask = slice_volume(volume, ct_T_image.float(), plane)
    grey = (values[0, 0] - window[0]) / (window[1] - window[0])
    return np.asarray((grey.clamp(0, 1) * mask[0, 0] * 255).round().to(torch.uint8).numpy())


def cut_point(body: Body, plane: str) -> Tensor:
    """A point (3,) through which a plane shows much: the portal vein, or for the sagittal one the right kidney."""
    kidney = ("kidney_right_cortex", "kidney_right_medulla", "kidney_right_pelvis")
    for names in (kidney, ("liver",)) if plane == "sagittal" else (("portal_vein",), ("liver",)):
        index = torch.isin(body.labels.data[0], torch.tensor([VALUE[n] for n in names], dtype=torch.uint8)).nonzero()
        if len(index):
            middle = index.double().mean(0).flip(0)
            return se3.transform_points(body.labels.grid.ct_T_index, middle[None])[0]
    return body.labels.grid.centre_ct


def through(
    body: Body, point: Tensor, x: tuple[float, float, float], y: tuple[float, float, float]
) -> tuple[Tensor, PlaneGrid]:  # fmt: skip
    """Pose and grid of a slice through a point that shows the whole body."""
    across, down = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    corners = body.labels.grid.corners_ct
    u, v = corners @ across, corners @ down
    normal = torch.linalg.cross(across, down)
    origin = across * u.min() + down * v.min() + normal * (normal @ point)
    pose = se3.from_parts(torch.stack([across, down, normal], -1), origin)
    width, height = (int((w.max() - w.min()) / PIXEL_MM) + 1 for w in (u, v))
    return pose, PlaneGrid(height, width, ((PIXEL_MM, 0.0), (0.0, PIXEL_MM)))
