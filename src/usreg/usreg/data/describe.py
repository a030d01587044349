# SPDX-License-Identifier: Apache-2.0
"""What a file holds, as plain values for `usreg info`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import to_mapping
from ..errors import CalibrationError, FileFormatError, MissingFileError, UsregError
from .bag_messages import decode_geometry
from .bags import BagReader, describe_bag
from .calibration import read_calibration_with_warnings
from .calibration_yaml import calibration_mapping
from .dicom import read_cine
from .landmarks import read_landmarks
from .plus_xml import read_xml, static_transforms
from .sequence import Sequence
from .sequences import is_sequence, read_sequence
from .sessions import FILE_NAME, read_session
from .volumes import ENDINGS as VOLUME_ENDINGS
from .volumes import read_volume

GAP_FACTOR = 2.5  # an interval this many times the usual one counts as a gap
BAG_ENDINGS = (".mcap", ".db3")
NESTED = ("bag", "frames", "topics", "options")  # of a session: shown elsewhere or of no use here


def describe(path: str | Path) -> dict[str, Any]:
    """Kind, frames, sizes, transforms with their invalid and missing poses, rate, gaps and problems of a file.

    Args:
        path: a sequence, volume, DICOM cine or series, calibration, device set, bag, or session folder.

    Raises:
        MissingFileError: nothing there. FileFormatError: of no known kind, or damaged.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"no file or folder '{path.name}' in '{path.parent}': check the name")
    if path.is_dir():
        return _describe_folder(path)
    if path.name == FILE_NAME:
        return _describe_session(path)
    ending = path.suffix.lower()
    if ending in BAG_ENDINGS:
        return describe_bag(path)
    if ending in (".xml", ".yaml", ".yml"):
        return _describe_calibration(path)
    if is_sequence(path):
        return describe_sequence(read_sequence(path))
    if ending == ".dcm":
        return _describe_cine(path)
    if not path.name.lower().endswith(VOLUME_ENDINGS):
        known = ".mha .mhd .nrrd .nii .nii.gz .dcm .xml .yaml .mcap .db3, folders with a DICOM series, a bag, a session"
        raise FileFormatError(f"'{path.name}' is of no kind that usreg reads: {known}")
    return _describe_volume(path)


def _describe_folder(path: Path) -> dict[str, Any]:
    names = {p.name for p in path.iterdir()}
    if FILE_NAME in names:
        return _describe_session(path)
    if "metadata.yaml" in names or any(n.endswith(BAG_ENDINGS) for n in names):
        return describe_bag(path)
    return _describe_volume(path)


def _describe_session(path: Path) -> dict[str, Any]:
    """The settings that a session states, what its files hold, and its bag; a session for a live graph has none."""
    session = read_session(path)
    config = session.config
    told = {k: v for k, v in to_mapping(config).items() if v not in ("", {}, None) and k not in NESTED}
    volumes = {"volume": session.volume_path, **session.volume_paths}
    told["grids"] = {name: _describe_grid(file) for name, file in volumes.items() if file is not None}
    if session.landmarks_path is not None:
        told["landmarks"] = {"file": config.landmarks, "points": len(read_landmarks(session.landmarks_path))}
    if session.sweep_path is not None:
        told["sweep"] = {"file": config.sweep, "depths": describe_depths(session.sweep_path, config.topics.geometry)}
    if config.bag:
        told["depths"] = describe_depths(session.bag_path, config.topics.geometry)
        told["bag"] = describe_bag(session.bag_path)
    return {"kind": "session", **told}


def _describe_grid(path: Path) -> dict[str, Any]:
    """What tells one volume of a session from another."""
    told = _describe_volume(path)
    return {name: told[name] for name in ("size", "spacing_mm", "filled") if told[name] is not None}


def describe_depths(bag: Path, topic: str) -> list[dict[str, Any]]:
    """Image depths of a bag in the order of time: from when, over how many frames, and the size of the images."""
    runs: list[dict[str, Any]] = []
    with BagReader(bag, skip_damaged=True) as reader:
        for raw in reader.raw_messages([topic]) if topic in reader.topics else ():
            try:
                stamp_s, geometry = decode_geometry(reader.decode(raw))
            except UsregError:
                continue  # the bag's own summary counts what cannot be read
            width, height = geometry.plane.width, geometry.plane.height
            kept = {"depth_mm": getattr(geometry, "depth_mm", None), "size": [width, height]}
            if not runs or any(runs[-1][name] != value for name, value in kept.items()):
                runs.append({"from_s": stamp_s, "frames": 0, **kept})
            runs[-1]["frames"] += 1
    return runs


def describe_sequence(sequence: Sequence) -> dict[str, Any]:
    """Plain values of a sequence."""
    return {
        "kind": "sequence",
        "format": sequence.source_format,
        "frames": sequence.count,
        "size": None if sequence.size is None else list(sequence.size),
        "images_missing": int((~sequence.image_valid).sum()) if sequence.images is not None else sequence.count,
        **describe_stamps(sequence.stamps_s, sequence.stamp_valid),
        "transforms": {name: _describe_transform(sequence, name) for name in sequence.transforms},
        "other_fields": sorted({k for row in sequence.fields for k in row}),
        "problems": list(sequence.problems),
    }


def describe_stamps(stamps_s: Tensor, good: Tensor | None) -> dict[str, Any]:
    """Start, duration, rate and gaps of the stamps that can be used."""
    usable = stamps_s if good is None else stamps_s[good]
    flagged = len(stamps_s) - len(usable)
    if len(usable) < 2:
        return {
            "start_s": usable[0].item() if len(usable) else None,
            "duration_s": 0.0,
            "rate_hz": None,
            "stamps_flagged": flagged,
        }
    steps = usable.diff()
    usual = steps.median().item()
    gaps = steps[steps > GAP_FACTOR * usual]
    return {
        "start_s": usable[0].item(),
        "duration_s": (usable[-1] - usable[0]).item(),
        "rate_hz": 1 / usual,
        "gaps": len(gaps),
        "longest_gap_s": steps.max().item(),
        "stamps_flagged": flagged,
    }


def _describe_transform(sequence: Sequence, name: str) -> dict[str, int]:
    """A pose is missing where the file has none, invalid where its status or its numbers say so."""
    trajectory = sequence.transforms[name]
    absent = ~torch.isfinite(trajectory.poses).flatten(1).all(1)
    raw = torch.tensor([f"{name}Transform" in row for row in sequence.fields] or [False] * sequence.count)
    missing = absent & ~raw
    return {
        "poses": int((~missing).sum()),
        "invalid": int((~trajectory.valid & ~missing).sum()),
        "missing": int(missing.sum()),
    }


def _describe_calibration(path: Path) -> dict[str, Any]:
    try:
        calibration, warnings = read_calibration_with_warnings(path)
    except CalibrationError as error:
        if path.suffix.lower() != ".xml":
            raise
        return _describe_device_set(path, error)
    content = {k: v for k, v in calibration_mapping(calibration).items() if k != "statics"}
    statics = {k: v.tolist() for k, v in calibration.statics.items()}
    shear_deg = math.degrees(math.atan2(calibration.pixel_to_mm[0][1], calibration.pixel_to_mm[1][1]))
    return {"kind": "calibration", **content, "shear_deg": shear_deg, "statics": statics, "warnings": list(warnings)}


def _describe_device_set(path: Path, error: CalibrationError) -> dict[str, Any]:
    """A device set whose images are not calibrated still says which transforms it holds."""
    statics = static_transforms(read_xml(path), path.name)
    return {"kind": "device set", "statics": {k: v.tolist() for k, v in statics.items()}, "problems": [str(error)]}


def _describe_cine(path: Path) -> dict[str, Any]:
    try:
        cine = read_cine(path)
    except FileFormatError as error:
        return _cine_or_slice(path, error)
    n, height, width = cine.images.shape
    geometry = cine.geometry
    return {
        "kind": "cine",
        "frames": n,
        "size": [width, height],
        **describe_stamps(cine.stamps_s, None),
        "spacing_mm": None if geometry is None else list(geometry.plane.spacing_mm),
        "problems": list(cine.problems),
    }


def _cine_or_slice(path: Path, error: FileFormatError) -> dict[str, Any]:
    try:
        return _describe_volume(path)
    except UsregError:
        raise error from None


def _describe_volume(path: Path) -> dict[str, Any]:
    volume = read_volume(path)
    data, grid = volume.data, volume.grid
    finite = data[torch.isfinite(data)] if data.is_floating_point() else data
    return {
        "kind": "volume",
        "size": list(grid.size),
        "channels": data.shape[0],
        "type": str(data.dtype).removeprefix("torch."),
        "spacing_mm": list(grid.spacing_mm),
        "origin_mm": list(grid.origin_mm),
        "direction": list(grid.direction),
        "modality": volume.modality,
        "range": [float(finite.min()), float(finite.max())] if finite.numel() else None,
        "not_finite": data.numel() - finite.numel(),
        "filled": None if volume.mask is None else volume.mask.double().mean().item(),
        "sha256": volume.sha256,
    }
