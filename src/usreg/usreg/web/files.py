# SPDX-License-Identifier: Apache-2.0
"""The volume and its labels as NIfTI files, for the page's three orthogonal slices."""

from __future__ import annotations

import gzip
import logging
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.types import Volume
from ..data.volumes import itk_image
from ..errors import MissingFileError
from ..geometry.grid import VoxelGrid
from .scene import LABELS_URL, VOLUME_URL

_log = logging.getLogger(__name__)
CONTENT_TYPE = "application/gzip"
MAX_BYTES = 256 * 1024 * 1024  # of voxels before compression: what a browser can be asked to hold
Content = tuple[str, bytes]


class VolumeFiles:
    """Files of whatever volume is shown now, made when somebody asks for them and kept until another volume comes.

    Args:
        current: gives the volume; None: none is loaded. channel: that is shown.
    """

    def __init__(self, current: Callable[[], Volume | None], channel: int = 0, max_bytes: int = MAX_BYTES) -> None:
        self._current, self._channel, self._max_bytes = current, channel, max_bytes
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Volume, bytes]] = {}

    def routes(self) -> dict[str, Callable[[], Content]]:
        """Path -> what makes content type and content, slow the first time."""
        return {VOLUME_URL: lambda: self._get(VOLUME_URL), LABELS_URL: lambda: self._get(LABELS_URL)}

    def _get(self, url: str) -> Content:
        """Raises MissingFileError where there is no such file now."""
        volume = self._current()
        if volume is None or (url == LABELS_URL and volume.labels is None):
            raise MissingFileError("no volume is loaded" if volume is None else "the volume has no labels")
        with self._lock:
            kept = self._kept.get(url)
            if kept is None or kept[0] is not volume:
                kept = self._kept[url] = (volume, self._made(url, volume))
        return CONTENT_TYPE, kept[1]

    def _made(self, url: str, volume: Volume) -> bytes:
        data = volume.data[self._channel] if url == VOLUME_URL else volume.labels
        assert data is not None
        return nifti(data.numpy(), volume.grid, self._max_bytes)


def nifti(voxels: np.ndarray, grid: VoxelGrid, max_bytes: int = MAX_BYTES) -> bytes:
    """Voxels (D, H, W) as the content of a .nii.gz. NIfTI counts in RAS: ITK turns the grid's LPS into it.

    Above `max_bytes` every second voxel along each axis is taken, or fewer; which stays where it was.
    """
    step = 1
    while voxels[::step, ::step, ::step].nbytes > max_bytes:
        step += 1
    if step > 1:
        _log.warning("the volume's file for the page holds every %d. voxel along each axis: it is too large", step)
        voxels = voxels[::step, ::step, ::step]
        x, y, z = (s * step for s in grid.spacing_mm)
        grid = replace(grid, size=(voxels.shape[2], voxels.shape[1], voxels.shape[0]), spacing_mm=(x, y, z))
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory(prefix="usreg_view_") as folder:
        path = Path(folder) / "volume.nii"
        sitk.WriteImage(itk_image(voxels[None], grid), str(path))
        return gzip.compress(path.read_bytes(), compresslevel=1)
