# SPDX-License-Identifier: Apache-2.0
"""Frozen values: frames, poses, volumes, problems and estimates. Millimetres, radians, seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import GeometryError, ShapeError, TimeError
from ..geometry import se3
from ..geometry.grid import VoxelGrid
from ..geometry.plane import Matrix2, PlaneGeometry, PlaneGrid, ProjectionGeometry
from ..geometry.sector import SectorGeometry

ImageGeometry = SectorGeometry | PlaneGeometry | ProjectionGeometry


@dataclass(frozen=True, eq=False)
class Frame:
    """One image and where its pixels lie.

    Args:
        image: (h, w) uint8, MF orientation.
        geometry: of the same size; its plane gives `pixel_to_mm`.
        stamp_s: time of acquisition.
        index: position in its sequence; -1 for a live stream.
    """

    image: Tensor
    geometry: ImageGeometry
    stamp_s: float
    index: int = -1

    def __post_init__(self) -> None:
        if self.image.dim() != 2 or self.image.dtype != torch.uint8:
            raise ShapeError(f"a frame is (h, w) uint8, got {tuple(self.image.shape)} {self.image.dtype}")
        plane = self.geometry.plane
        if tuple(self.image.shape) != (plane.height, plane.width):
            raise ShapeError(
                f"the image is {self.image.shape[1]}x{self.image.shape[0]} "
                f"but its geometry says {plane.width}x{plane.height}"
            )
        if not math.isfinite(self.stamp_s):
            raise TimeError("a frame's stamp is not finite")

    @property
    def plane(self) -> PlaneGrid:
        """Pixel grid of the image."""
        return self.geometry.plane


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame with the measured pose of its image plane.

    Args:
        world_T_image: (4, 4) float64.
        covariance: (6, 6) of (v, w), mm and rad, world axes, about the origin of the image frame; zeros
            when the tracker states none.
    """

    frame: Frame
    world_T_image: Tensor
    covariance: Tensor = field(default_factory=lambda: torch.zeros(6, 6, dtype=torch.float64))

    def __post_init__(self) -> None:
        check_pose(self.world_T_image, "world_T_image")
        check_covariance(self.covariance, "covariance of world_T_image")


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their physical frame.

    Args:
        data: (C, D, H, W) = channel, z, y, x; uint8, int16 or float32.
        grid: spacing, origin, direction in LPS mm.
        modality: "CT", "MR", "US" or "".
        mask: (D, H, W) bool, where data is known; None = everywhere.
        labels: (D, H, W) int16 with names by value; None = none.
        uri: where it came from; sha256 of that file.
    """

    data: Tensor
    grid: VoxelGrid
    modality: str = ""
    mask: Tensor | None = None
    labels: Tensor | None = None
    label_names: dict[int, str] = field(default_factory=dict)
    uri: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        w, h, d = self.grid.size
        if self.data.dim() != 4 or tuple(self.data.shape[1:]) != (d, h, w):
            raise ShapeError(f"volume data must be (C, {d}, {h}, {w}) as its grid says, got {tuple(self.data.shape)}")
        for name, extra in (("mask", self.mask), ("labels", self.labels)):
            if extra is not None and tuple(extra.shape) != (d, h, w):
                raise ShapeError(f"volume {name} must be ({d}, {h}, {w}), got {tuple(extra.shape)}")


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses over time.

    Args:
        stamps_s: (N,) float64. poses: (N, 4, 4) float64; rows that are not valid may hold anything.
        valid: (N,) bool; false where the tracker said INVALID or the pose is missing.
        source, target: frame names; a pose maps source into target.
    """

    stamps_s: Tensor
    poses: Tensor
    valid: Tensor
    source: str = ""
    target: str = ""

    def __post_init__(self) -> None:
        n = self.stamps_s.shape[0]
        if self.poses.shape != (n, 4, 4) or self.valid.shape != (n,):
            raise ShapeError(
                f"trajectory of {n} stamps needs poses ({n}, 4, 4) and valid ({n},), "
                f"got {tuple(self.poses.shape)}, {tuple(self.valid.shape)}"
            )


@dataclass(frozen=True, eq=False)
class Calibration:
    """From the probe's marker to the image plane.

    Args:
        probe_T_image: rigid (4, 4), mm.
        geometry: sector of the images, with `pixel_to_mm`; None until the image size is known.
        pixel_to_mm: upper-triangular 2x2.
        latency_s: arrival minus acquisition for live streams, residual shift for recordings.
        image_name, probe_name, world_name: names in a PLUS file.
        error_mm: as its maker stated; NaN if not stated.
    """

    probe_T_image: Tensor
    pixel_to_mm: Matrix2
    geometry: SectorGeometry | None = None
    latency_s: float = 0.0
    image_name: str = "Image"
    probe_name: str = "Probe"
    world_name: str = "Tracker"
    error_mm: float = math.nan
    statics: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_pose(self.probe_T_image, "probe_T_image")


@dataclass(frozen=True, eq=False)
class Rigid:
    """world_T_ct, (4, 4)."""

    world_T_ct: Tensor

    def __post_init__(self) -> None:
        check_pose(self.world_T_ct, "world_T_ct")


@dataclass(frozen=True, eq=False)
class Affine:
    """An affine world_A_ct, (4, 4), with its nearest rigid part."""

    world_A_ct: Tensor
    world_T_ct: Tensor


@dataclass(frozen=True, eq=False)
class RigidWithDisplacement:
    """A rigid pose and, before it, a displacement of the volume's points: p_world = world_T_ct @ (p_ct + u(p_ct)).

    Args:
        displacement_mm: (3, D, H, W) in `ct` axes on `grid`.
    """

    world_T_ct: Tensor
    displacement_mm: Tensor
    grid: VoxelGrid


@dataclass(frozen=True, eq=False)
class Estimate:
    """Where the volume lies, how sure that is, and whether it may be used.

    Args:
        transform: its `world_T_ct` is the rigid part.
        covariance: (6, 6) of (v, w), mm and rad, world axes, left perturbation about `pivot`.
        pivot: (3,) world position of the volume's centre, mm.
        score: similarity that was reached. overlap: share of the sector inside the volume.
        accepted: whether it passed the gate; `reason` says why not.
        per_frame: corrections of single frames, (N, 6), or None.
        probability: that the TRE in the image is below 5 mm; NaN where nobody has said.
        evidence: what the gate judged by, by name (score, structure, overlap, sigma_mm, ...).
    """

    transform: Rigid | Affine | RigidWithDisplacement
    covariance: Tensor
    pivot: Tensor
    score: float = math.nan
    overlap: float = math.nan
    accepted: bool = False
    reason: str = ""
    per_frame: Tensor | None = None
    system: str = ""
    compute_s: float = math.nan
    probability: float = math.nan
    evidence: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_covariance(self.covariance, "covariance of world_T_ct")

    @property
    def world_T_ct(self) -> Tensor:
        """Rigid part, (4, 4)."""
        return self.transform.world_T_ct

    def refused(self, reason: str) -> Estimate:
        """The same estimate, not accepted, with its reason."""
        return replace(self, accepted=False, reason=reason)


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be registered: frames (or a volume) that are measured, and the volume that is to be placed.

    Args:
        fixed: tracked frames with known relative poses, or a volume in world coordinates.
        moving: the pre-procedural volume with its labels and masks.
        start: where to begin, with its covariance (the filter's prediction or a hand-given pose).
    """

    fixed: tuple[TrackedFrame, ...] | Volume
    moving: Volume
    start: Estimate


def start_estimate(world_T_ct: Tensor, volume: Volume, covariance: Tensor | None = None) -> Estimate:
    """An estimate to begin from: pivot at the volume's centre, covariance zeros unless given."""
    pivot = se3.transform_points(world_T_ct, volume.grid.centre_ct[None])[0]
    covariance = torch.zeros(6, 6, dtype=torch.float64) if covariance is None else covariance
    return Estimate(Rigid(world_T_ct), covariance, pivot, reason="start")


def check_pose(pose: Tensor, name: str) -> None:
    """Raise unless (4, 4), float64, finite and rigid to 1e-6: the types hold clean poses, readers clean them."""
    if pose.shape != (4, 4) or pose.dtype != torch.float64:
        raise ShapeError(f"'{name}' must be a (4, 4) float64 pose, got {tuple(pose.shape)} {pose.dtype}")
    r = pose[:3, :3]
    if not bool(torch.isfinite(pose).all()):
        raise GeometryError(f"'{name}' holds NaN or infinity")
    if (r.T @ r - torch.eye(3, dtype=torch.float64)).abs().max() > 1e-6 or torch.linalg.det(r) < 0:
        raise GeometryError(f"'{name}' is not rigid; use se3.check_rigid where it is read")


def check_covariance(covariance: Tensor, name: str) -> None:
    """Raise unless (6, 6), finite, symmetric with a diagonal that is not negative."""
    if covariance.shape != (6, 6) or not bool(torch.isfinite(covariance).all()):
        raise ShapeError(f"'{name}' must be a finite 6x6 matrix, got {tuple(covariance.shape)}")
    if bool((covariance.diagonal() < 0).any()) or not torch.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-9):
        raise GeometryError(f"'{name}' is not a covariance: negative variance or not symmetric")
