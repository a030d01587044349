# SPDX-License-Identifier: Apache-2.0
"""A volume from a tracked sweep, as the volume reconstruction of PLUS does it: insert, compound, fill holes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ..config import check_range
from ..data.types import TrackedFrame, Volume
from ..errors import ConfigError
from ..geometry.grid import VoxelGrid
from . import holes, insertion
from .grid import MAX_VOXELS, grid_for, tracked_only

Progress = Callable[[int, int], None]
_COMPOUNDING = {
    "mean": insertion.MEAN,
    "maximum": insertion.MAXIMUM,
    "latest": insertion.LATEST,
    "mean_8bit": insertion.MEAN_8BIT,
}
_BATCH = 8  # frames between two calls of progress


@dataclass(frozen=True)
class ReconstructionConfig:
    """How a sweep becomes a volume.

    Args:
        spacing_mm: edge of a voxel.
        interpolation: "nearest" voxel, or "linear": spread over the 8 neighbours.
        compounding: of pixels that fall into one voxel: "mean", "maximum", "latest", or "mean_8bit": a running
            mean in 8 bits as PLUS keeps it; some grey levels too dark with "nearest", for comparison with PLUS only.
        hole_filling: "stick": on the shortest line between filled voxels through the hole; "gaussian"; "none".
        stick_length: longest stick, voxels, filled ends included (StickLengthLimit of PLUS).
        gaussian_sigma_voxels, gaussian_min_known: width of the kernel, share of its weight that must be known.
        max_voxels: bound of the grid; 10 bytes a voxel are used.
        threads: 0 = as many as torch uses. The result does not depend on it.
    """

    spacing_mm: float = 0.8
    interpolation: Literal["linear", "nearest"] = "linear"
    compounding: Literal["mean", "maximum", "latest", "mean_8bit"] = "mean"
    hole_filling: Literal["stick", "gaussian", "none"] = "stick"
    stick_length: int = 9
    gaussian_sigma_voxels: float = 1.0
    gaussian_min_known: float = 0.3
    max_voxels: int = MAX_VOXELS
    threads: int = 0

    def __post_init__(self) -> None:
        for name, choices in (
            ("interpolation", ("linear", "nearest")),
            ("compounding", tuple(_COMPOUNDING)),
            ("hole_filling", ("stick", "gaussian", "none")),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"'{name}' is {getattr(self, name)!r}; choose one of {list(choices)}")
        check_range("spacing_mm", self.spacing_mm, 1e-3, 1e3)
        check_range("stick_length", self.stick_length, 3, 101)
        check_range("gaussian_sigma_voxels", self.gaussian_sigma_voxels, 0.1, 20)
        check_range("gaussian_min_known", self.gaussian_min_known, 0, 1)
        check_range("max_voxels", self.max_voxels, 1, 2**31)
        check_range("threads", self.threads, 0, 1024)


def reconstruct(
    frames: Sequence[TrackedFrame | None],
    config: ReconstructionConfig | None = None,
    progress: Progress | None = None,
    grid: VoxelGrid | None = None,
) -> Volume:
    """Reconstruct a volume in `world` from frames with poses.

    Args:
        frames: in order of acquisition; None where the tracker gave no pose: left out, counted in the log.
        config: how.
        progress: called with frames done and frames in all.
        grid: where to put the voxels; default: around all pixels inside the sectors.

    Returns:
        Volume with one uint8 channel; its mask is true where a pixel fell or a hole was filled.

    Raises:
        MissingTransformError: no frame has a pose. GeometryError: the grid would be too large.
    """
    config = config or ReconstructionConfig()
    tracked, _ = tracked_only(frames)
    grid = grid or grid_for(tracked, config.spacing_mm, config.max_voxels)
    w, h, d = grid.size
    voxels = np.zeros((d, h, w, 2), np.float32)
    values, filled = np.empty((d, h, w), np.uint8), np.empty((d, h, w), np.bool_)
    with _Lanes(config.threads) as lanes:
        _insert_all(lanes, voxels, tracked, grid, config, progress)
        lanes.run(insertion.finish_lane, voxels, values, filled, _COMPOUNDING[config.compounding])
        del voxels
        values, filled = _fill_holes(lanes, values, filled, config)
    return Volume(torch.from_numpy(values)[None], grid, modality="US", mask=torch.from_numpy(filled))


def index_A_pixel(frame: TrackedFrame, grid: VoxelGrid) -> np.ndarray:
    """Affine (3, 3) from (column, row, 1) of a frame's pixels to the voxel index (i, j, k)."""
    full = grid.index_T_ct @ frame.world_T_image @ frame.frame.plane.image_T_pixel
    return np.ascontiguousarray(full[:3][:, [0, 1, 3]].numpy())


class _Lanes:
    """Threads that share the slabs of a volume; the kernels release the interpreter's lock."""

    def __init__(self, threads: int) -> None:
        self.count = threads or max(1, torch.get_num_threads())
        self._pool = ThreadPoolExecutor(self.count)

    def __enter__(self) -> _Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def run(self, kernel: Any, *args: Any) -> None:
        self.map(lambda lane: kernel(*args, lane, self.count))

    def map(self, work: Callable[[int], None]) -> None:
        for result in [self._pool.submit(work, lane) for lane in range(self.count)]:
            result.result()


def _insert_all(
    lanes: _Lanes,
    voxels: np.ndarray,
    tracked: list[TrackedFrame],
    grid: VoxelGrid,
    config: ReconstructionConfig,
    progress: Progress | None,
) -> None:
    linear, compounding = config.interpolation == "linear", _COMPOUNDING[config.compounding]
    insert: Any = insertion.insert_lane  # compiled on the first call
    for start in range(0, len(tracked), _BATCH):
        batch = [
            (
                f.frame.image.contiguous().numpy(),
                f.frame.geometry.mask().numpy(),
                index_A_pixel(f, grid),
                linear,
                compounding,
            )
            for f in tracked[start : start + _BATCH]
        ]

        def work(lane: int, batch: list[Any] = batch) -> None:
            for args in batch:
                insert(voxels, *args, lane, lanes.count)

        lanes.map(work)
        if progress is not None:
            progress(start + len(batch), len(tracked))


def _fill_holes(
    lanes: _Lanes, values: np.ndarray, filled: np.ndarray, config: ReconstructionConfig
) -> tuple[np.ndarray, np.ndarray]:
    if config.hole_filling == "none":
        return values, filled
    if config.hole_filling == "gaussian":
        out = holes.gaussian_fill(
            torch.from_numpy(values), torch.from_numpy(filled), config.gaussian_sigma_voxels, config.gaussian_min_known
        )
        return out[0].numpy(), out[1].numpy()
    near, sticks, norms = holes.stick_arguments(filled, config.stick_length)
    rounding = 0.0 if config.compounding == "mean_8bit" else 0.5
    new_values, known = values.copy(), filled.copy()
    lanes.run(holes.stick_lane, values, filled, near, new_values, known, sticks, norms, config.stick_length, rounding)
    return new_values, known
