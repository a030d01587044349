# SPDX-License-Identifier: Apache-2.0
"""Volumes from and to files through SimpleITK: NIfTI, MetaImage, NRRD, DICOM series. LPS mm."""

from __future__ import annotations

import errno
import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import check_range
from ..errors import FileFormatError, GeometryError, MissingFileError, ShapeError
from ..geometry.grid import VoxelGrid
from .atomic import atomic_path
from .labels import read_label_names
from .sequence_header import GIBIBYTE
from .types import Volume
from .volume_headers import check_nifti, check_volume_header

ENDINGS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")
MASK_NAME = "mask"


@dataclass(frozen=True)
class VolumeLimits:
    """Bounds while reading.

    Args:
        max_bytes: of the voxels as declared by the file.
        max_files: of a DICOM series.
        max_channels: components of a voxel.
    """

    max_bytes: int = 4 * GIBIBYTE
    max_files: int = 5000
    max_channels: int = 64

    def __post_init__(self) -> None:
        check_range("max_bytes", self.max_bytes, 1, 2**48)
        check_range("max_files", self.max_files, 1, 10**6)
        check_range("max_channels", self.max_channels, 1, 4096)


def read_volume(path: str | Path, modality: str = "", limits: VolumeLimits | None = None) -> Volume:
    """Read a volume.

    Args:
        path: `.nii`, `.nii.gz`, `.mha`, `.mhd`, `.nrrd`, or a folder that holds one DICOM series.
        modality: "CT", "MR", "US"; taken from DICOM where empty.
        limits: bounds for files that are not trusted.

    Returns:
        Voxels uint8, int16 or float32, whichever holds the file's type without loss where one does (float64 becomes
        float32). The mask is read from `<name>.mask.<ending>` beside the file if `write_volume` put one there.

    Raises:
        MissingFileError: nothing there. FileFormatError: another kind, damaged, too large, or not three-dimensional.
        GeometryError: zero spacing, NaN in the header, or a direction matrix that is not orthonormal.
    """
    path, limits = Path(path), limits or VolumeLimits()
    if not path.exists():
        raise MissingFileError(f"no file or folder '{path.name}' in '{path.parent}': check the name")
    files = _series_files(path, limits) if path.is_dir() else [_checked_file(path)]
    image, found = _read_image(files, path, limits)
    data, grid = _voxels(image, path), grid_of(image, path.name)
    mask = _mask_beside(path, grid, limits)
    return Volume(data, grid, modality or found, mask, uri=str(path), sha256=sha256_of(files))


def sha256_of(files: list[Path]) -> str:
    """SHA-256 of a file, or of the files of a series one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _checked_file(path: Path) -> Path:
    if not path.name.lower().endswith(ENDINGS) and path.suffix.lower() != ".dcm":
        raise FileFormatError(
            f"'{path.name}' is no volume that is read here; expected one of {', '.join(ENDINGS)} or a folder with "
            "a DICOM series"
        )
    if path.stat().st_size == 0:
        raise FileFormatError(f"'{path.name}' is empty")
    return path


def _series_files(folder: Path, limits: VolumeLimits) -> list[Path]:
    import SimpleITK as sitk

    if sum(1 for _ in folder.iterdir()) > limits.max_files:
        raise FileFormatError(
            f"'{folder.name}' holds more than {limits.max_files} files: give the folder of one series"
        )
    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # else ITK writes to the terminal what the error below says
    try:
        names = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)
    if len(names) != 1:
        found = "no DICOM series" if not names else f"{len(names)} DICOM series"
        raise FileFormatError(
            f"the folder '{folder.name}' holds {found}: put the files of one series into a folder of their own"
        )
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), names[0])
    return [Path(f) for f in files]


def _read_image(files: list[Path], path: Path, limits: VolumeLimits) -> tuple[Any, str]:
    """The SimpleITK image and its modality. The header is read first, so that a lying one allocates nothing."""
    import SimpleITK as sitk

    try:
        check_volume_header(files[0], limits.max_bytes)
        header = _header(files[0])
        _check_header(header, path, len(files), limits)
        if len(files) == 1:
            image = sitk.ReadImage(str(files[0]))
        else:
            image = sitk.ReadImage([str(f) for f in files])
    except RuntimeError as error:
        raise _itk_error(error, path) from error
    image = image[:, :, :, 0] if image.GetDimension() == 4 else image
    modality = header.GetMetaData("0008|0060").strip() if header.HasMetaDataKey("0008|0060") else ""
    return image, modality if modality in ("CT", "MR", "US") else ""


def _header(file: Path) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    return reader


def _itk_error(error: RuntimeError, path: Path) -> Exception:
    """ITK's long report as one line; a header whose geometry cannot be used is its own case."""
    text = str(error)
    low = text.lower()
    if "spacing" in low and ("zero" in low or "0" in low):
        return GeometryError(
            f"'{path.name}' has a voxel spacing that cannot be used: mend its header (mm along x, y, z)"
        )
    if "direction" in low or "orthonormal" in low:
        return GeometryError(f"'{path.name}' has a direction matrix that is flat or not orthonormal: mend its header")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("Reason:")]
    return FileFormatError(f"'{path.name}' cannot be read as a volume, it may be cut off or damaged: {lines[-1][:200]}")


def _check_header(header: Any, path: Path, files: int, limits: VolumeLimits) -> None:
    size, channels = header.GetSize(), header.GetNumberOfComponents()
    if not 3 <= len(size) <= 4 and files == 1 or (len(size) == 4 and size[3] != 1):
        raise FileFormatError(
            f"'{path.name}' has sizes {size}; a volume has three axes (a sequence is read by read_sequence)"
        )
    if min(size) < 1:
        raise FileFormatError(f"'{path.name}' has sizes {size}: every axis needs at least one voxel")
    _check_finite(header, path.name)
    voxels = math.prod(size) * files if files > 1 else math.prod(size)
    if channels > limits.max_channels or voxels * channels * 2 > limits.max_bytes:
        raise FileFormatError(
            f"'{path.name}' declares {size} voxels of {channels} components; at most {limits.max_bytes} bytes are read"
        )


def _check_finite(header: Any, name: str) -> None:
    spacing, origin, direction = header.GetSpacing(), header.GetOrigin(), header.GetDirection()
    if not all(map(math.isfinite, (*spacing, *origin, *direction))) or min(spacing) <= 0:
        raise GeometryError(
            f"'{name}' has spacing {spacing} mm and origin {origin}: expected finite numbers and spacing above "
            "zero; mend its header"
        )


def grid_of(image: Any, name: str) -> VoxelGrid:
    """Grid of a three-dimensional SimpleITK image.

    Raises:
        GeometryError: spacing or direction cannot be used. FileFormatError: not three-dimensional.
    """
    if image.GetDimension() != 3:
        raise FileFormatError(f"'{name}' has {image.GetDimension()} axes; a volume has three")
    _check_finite(image, name)
    try:
        return VoxelGrid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    except GeometryError as error:
        raise GeometryError(f"'{name}': {error}") from error


def _voxels(image: Any, path: Path) -> Tensor:
    """(C, D, H, W) in the narrowest of the three types that holds the file's."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    if array.ndim == 3:
        array = array[..., None]
    if np.iscomplexobj(array):
        raise FileFormatError(f"'{path.name}' has complex voxels: take the magnitude first")
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(narrowed(array), -1, 0)))


def narrowed(array: np.ndarray) -> np.ndarray:
    """The same numbers as uint8, int16 or float32; integers beyond int16 become float32."""
    if array.dtype in (np.uint8, np.int16, np.float32):
        return array
    if array.dtype.kind in "iub":
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        if array.dtype == bool or array.dtype == np.uint8:
            return array.astype(np.uint8)
        if -32768 <= low and high <= 32767:
            return array.astype(np.int16)
    return array.astype(np.float32)


def mask_path(path: Path) -> Path:
    """Where the mask of a volume lies: `liver.nii.gz` -> `liver.mask.nii.gz`."""
    ending = next((e for e in sorted(ENDINGS, key=len, reverse=True) if path.name.lower().endswith(e)), "")
    stem = path.name[: len(path.name) - len(ending)]
    return path.with_name(f"{stem}.{MASK_NAME}{ending}")


def _mask_beside(path: Path, grid: VoxelGrid, limits: VolumeLimits) -> Tensor | None:
    beside = mask_path(path)
    if path.is_dir() or not beside.is_file() or f".{MASK_NAME}." in path.name:
        return None
    image, _ = _read_image([_checked_file(beside)], beside, limits)
    mask = _voxels(image, beside)[0] != 0
    if grid_of(image, beside.name).size != grid.size:
        raise FileFormatError(
            f"the mask '{beside.name}' has another size than '{path.name}': remove it or write both again"
        )
    return mask


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write a volume, and its mask as `<name>.mask.<ending>` beside it; labels by `write_labels`.

    Raises:
        WriteError: the disk is full or there is no permission; an older file is unchanged. FileFormatError: unknown
            ending.
    """
    path = Path(path)
    _write_array(volume.data.numpy(), volume.grid, path)
    if volume.mask is not None:
        _write_array(volume.mask.numpy().astype(np.uint8)[None], volume.grid, mask_path(path))
    else:
        mask_path(path).unlink(missing_ok=True)


def _write_array(channels: np.ndarray, grid: VoxelGrid, path: Path) -> None:
    import SimpleITK as sitk

    if not path.name.lower().endswith((".nii", ".nii.gz", ".mha", ".nrrd")):
        raise FileFormatError(f"cannot write '{path.name}': volumes are written as .nii, .nii.gz, .mha or .nrrd")
    image = itk_image(channels, grid)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            if path.name.lower().endswith((".nii", ".nii.gz")):  # ITK does not notice a full disk there
                check_nifti(temporary, channels.nbytes)
        except (RuntimeError, FileFormatError) as error:
            raise OSError(errno.EIO, str(error).strip().splitlines()[-1][:200]) from error


def itk_image(channels: np.ndarray, grid: VoxelGrid) -> Any:
    """The SimpleITK image of channels (C, D, H, W) on a grid."""
    import SimpleITK as sitk

    vector = channels.shape[0] > 1
    array = np.moveaxis(channels, 0, -1) if vector else channels[0]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=vector)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    return image


def read_labels(
    path: str | Path, names: dict[int, str] | str | Path | None = None, limits: VolumeLimits | None = None
) -> tuple[Tensor, dict[int, str]]:
    """Labels (D, H, W) int16 and their names by value.

    Args:
        path: a label volume.
        names: by value, or a file that `read_label_names` reads; values without a name are called "label N".

    Raises:
        As `read_volume`; FileFormatError also where voxels are not whole numbers of int16.
    """
    volume = read_volume(path, limits=limits)
    data = volume.data[0]
    labels = (
        data.round().to(torch.int16)
        if bool((data == data.round()).all()) and bool((data.abs() <= 32767).all())
        else None
    )
    if labels is None or volume.data.shape[0] != 1:
        raise FileFormatError(f"'{Path(path).name}' holds no labels: expected one whole number a voxel, at most 32767")
    given = names if isinstance(names, dict) else read_label_names(names) if names is not None else {}
    values = [int(v) for v in torch.unique(labels) if v != 0]
    return labels, {v: given.get(v, f"label {v}") for v in values}


def write_labels(volume: Volume, path: str | Path) -> None:
    """Write the labels of a volume; their names belong into `session.yaml` or a list that `read_label_names` reads.

    Raises:
        WriteError, FileFormatError: as `write_volume`. ShapeError: the volume has no labels.
    """
    if volume.labels is None:
        raise ShapeError("the volume has no labels to write: add them with `with_labels`")
    _write_array(volume.labels.to(torch.int16).numpy()[None], volume.grid, Path(path))


def with_labels(volume: Volume, labels: Tensor, names: dict[int, str] | None = None) -> Volume:
    """The volume with organ labels (D, H, W) int16.

    Raises:
        ShapeError: another size.
    """
    if tuple(labels.shape) != tuple(volume.data.shape[1:]):
        raise ShapeError(
            f"labels are {tuple(labels.shape)}, the volume is {tuple(volume.data.shape[1:])}: resample them to "
            "its grid first"
        )
    return replace(volume, labels=labels, label_names=names or {})
