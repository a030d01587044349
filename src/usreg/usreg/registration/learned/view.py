# SPDX-License-Identifier: Apache-2.0
"""Volumes and frames as the correspondence network takes them: on coarse grids in mm, brightness made alike.

A volume is seen along the axes of a view, so that what the network compares with a frame is turned little against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ...config import check_range
from ...data.types import Frame, ImageGeometry, Volume
from ...errors import NoOverlapError, ShapeError
from ...geometry import se3

Array = NDArray[np.float32]
AHEAD = 0.45  # standard deviation of the smoothing before sampling, in steps of the grid that is sampled
LEAST_KNOWN = 0.5  # weight of known voxels that a sample needs
MOST_POINTS = 5000  # known voxels that tell how large a view must be
MOST_VOXELS = 2_000_000  # of a view: 180 x 110 x 100


@dataclass(frozen=True)
class ViewConfig:
    """Grids.

    Args:
        volume_mm: step of the volume's grid; descriptors lie twice as far apart. frame_mm: step of the frame's; they
            lie four times as far apart.
    """

    volume_mm: float = 3.0
    frame_mm: float = 1.5

    def __post_init__(self) -> None:
        check_range("volume_mm", self.volume_mm, 0.5, 20.0)
        check_range("frame_mm", self.frame_mm, 0.2, 10.0)


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A volume ready to be sampled: values (D, H, W) times their weight, and the weight; made once.

    Args:
        known_ct: (N, 3) known voxels, mm, not all of them: what a view has to hold.
    """

    weighted: Array
    weight: Array
    index_T_ct: Tensor
    known_ct: Tensor


@dataclass(frozen=True, eq=False)
class VolumeView:
    """A volume on a grid along given axes.

    Args:
        values: (1, 2, D, H, W) float32: brightness (zero mean, unit variance where known) and mask.
        ct_T_index: (4, 4) from index x, y, z of the grid to mm.
    """

    values: Tensor
    ct_T_index: Tensor


@dataclass(frozen=True, eq=False)
class FrameView:
    """A frame on a grid: values (1, 2, H, W) as those of a volume; image_T_index (4, 4) from index (x, y, 0) to mm."""

    values: Tensor
    image_T_index: Tensor


def smoothed(volume: Volume, step_mm: float, channel: int = 0) -> Smoothed:
    """Smooth a volume for a grid of `step_mm`, unknown voxels left out.

    Raises:
        NoOverlapError: no voxel is known. ShapeError: no such channel.
    """
    if not 0 <= channel < volume.data.shape[0]:
        raise ShapeError(f"channel {channel} of a volume with {volume.data.shape[0]} channels")
    data = volume.data[channel].to(torch.float32)
    known = torch.isfinite(data) if volume.mask is None else torch.isfinite(data) & volume.mask
    if not bool(known.any()):
        raise NoOverlapError("the volume has no known voxel: there is nothing to register to")
    sigma = [AHEAD * step_mm / s for s in reversed(volume.grid.spacing_mm)]
    weight = known.to(torch.float32).numpy()
    weighted = torch.where(known, data, torch.zeros(())).numpy()
    weight, weighted = (ndimage.gaussian_filter(a, sigma, mode="constant", truncate=3.0) for a in (weight, weighted))
    index = known.nonzero().flip(-1).double()
    some = index[:: max(1, len(index) // MOST_POINTS)]
    return Smoothed(weighted, weight, volume.grid.index_T_ct, se3.transform_points(volume.grid.ct_T_index, some))


def view_volume(source: Smoothed, ct_R_view: Tensor, step_mm: float) -> VolumeView:
    """The known part of a volume on a grid along the columns of ct_R_view (3, 3), orthonormal; it may be mirrored.

    Raises:
        ShapeError: the grid would be larger than is sensible.
    """
    in_view = source.known_ct @ ct_R_view
    low, high = in_view.min(0).values, in_view.max(0).values
    size = [max(8, int(n)) for n in (torch.ceil((high - low) / step_mm) + 1).tolist()]
    if size[0] * size[1] * size[2] > MOST_VOXELS:
        raise ShapeError(f"a view of {size} voxels at {step_mm} mm is too large: crop the volume or take a wider step")
    ct_T_index = torch.eye(4, dtype=torch.float64)
    ct_T_index[:3, :3] = ct_R_view * step_mm
    ct_T_index[:3, 3] = ct_R_view @ low
    matrix = (source.index_T_ct @ ct_T_index).numpy()[:3]
    values, mask = _sampled(source.weighted, source.weight, matrix, size[::-1])
    return VolumeView(_alike(values, mask)[None], ct_T_index)


def view_frame(frame: Frame, step_mm: float) -> FrameView:
    """A frame's sector on a grid.

    Raises:
        NoOverlapError: the sector holds no pixel.
    """
    return view_image(frame.image.numpy().astype(np.float32), frame.geometry, step_mm)


def view_image(image: Array, geometry: ImageGeometry, step_mm: float) -> FrameView:
    """As `view_frame`, of an image (h, w) float32 with its geometry."""
    inside = geometry.mask().numpy()
    rows, columns = np.nonzero(inside)
    if not len(rows):
        raise NoOverlapError("the sector of the frame holds no pixel: check its geometry")
    plane = geometry.plane
    sigma = [AHEAD * step_mm / s for s in reversed(plane.spacing_mm)]
    weight = inside.astype(np.float32)
    weighted = ndimage.gaussian_filter(np.where(inside, image, 0.0).astype(np.float32), sigma, mode="constant")
    weight = ndimage.gaussian_filter(weight, sigma, mode="constant")
    corners = np.stack([columns[[0, -1]] * 0.0, rows[[0, -1]]], -1)  # rows are sorted; columns are not
    low_pixel, high_pixel = (columns.min(), corners[0, 1]), (columns.max(), corners[1, 1])
    m = plane.image_T_pixel
    low = m[:2, :2] @ torch.tensor(low_pixel, dtype=torch.float64)
    high = m[:2, :2] @ torch.tensor(high_pixel, dtype=torch.float64)
    size = [max(16, int(n)) for n in (torch.ceil((high - low) / step_mm) + 1).tolist()]
    image_T_index = torch.eye(4, dtype=torch.float64)
    image_T_index[0, 0] = image_T_index[1, 1] = step_mm
    image_T_index[:2, 3] = low
    pixel_T_index = torch.linalg.inv(m) @ image_T_index
    affine = pixel_T_index[:2][:, [0, 1, 3]].numpy()
    values, mask = _sampled(weighted, weight, affine, size[::-1])
    return FrameView(_alike(values, mask)[None], image_T_index)


def _sampled(weighted: Array, weight: Array, matrix: NDArray[np.float64], shape: list[int]) -> tuple[Array, Array]:
    """Values and mask of `shape`; `matrix` maps an index x, y(, z) of the grid to one of the source, scipy counts the
    other way round."""
    turn, shift = matrix[::-1, -2::-1], matrix[::-1, -1]
    kwargs = {"offset": shift, "output_shape": tuple(shape), "order": 1, "mode": "constant", "cval": 0.0}
    sums = ndimage.affine_transform(weighted, turn, **kwargs)
    weights = ndimage.affine_transform(weight, turn, **kwargs)
    mask = weights > LEAST_KNOWN
    return np.where(mask, sums / np.maximum(weights, 1e-6), 0.0).astype(np.float32), mask.astype(np.float32)


def _alike(values: Array, mask: Array) -> Tensor:
    """(2, ...) brightness with zero mean and unit variance where known, and the mask."""
    count = max(1.0, float(mask.sum()))
    mean = float((values * mask).sum()) / count
    spread = float(np.sqrt(((values - mean) ** 2 * mask).sum() / count))
    return torch.from_numpy(np.stack([(values - mean) / max(spread, 1e-6) * mask, mask]).astype(np.float32))
