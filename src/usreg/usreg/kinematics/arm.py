# SPDX-License-Identifier: Apache-2.0
"""An arm as configured: its chain, names, joint accuracy, where it stands and how it holds the probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..config import check_range, from_mapping, load_yaml
from ..data.share import find_named, inside
from ..errors import ConfigError, KinematicsError
from .chain import Chain
from .dh import DhRow, JointRow, Vector3, chain_from_dh, chain_from_joints, rpy_pose
from .urdf import read_urdf


@dataclass(frozen=True)
class PoseConfig:
    """A pose as people write it: mm and degrees, R = Rz(yaw) Ry(pitch) Rx(roll)."""

    xyz_mm: Vector3 = (0.0, 0.0, 0.0)
    rpy_deg: Vector3 = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (*self.xyz_mm, *self.rpy_deg))):
            raise ConfigError(f"a pose must be finite, got {self.xyz_mm} mm, {self.rpy_deg} deg")

    def pose(self) -> Tensor:
        """(4, 4) float64, mm."""
        return rpy_pose(self.xyz_mm, [math.radians(a) for a in self.rpy_deg])


@dataclass(frozen=True)
class ArmConfig:
    """Keys of `config/arms/*.yaml`. Exactly one of `dh`, `joints`, `urdf` describes the chain.

    Args:
        joint_names: as JointState has them; for `urdf` empty = the names of the URDF.
        link_names: base, the link behind each joint, flange: TF frames; for `urdf` empty = the names of the URDF.
        sigma_rad: standard deviation per joint, one for all or one each (mm for prismatic joints).
        tip: last link to flange, for `joints`.
        urdf: file beside the YAML; `urdf_base`, `urdf_tip`: its links.
        media_flange_mm: what the mounted media flange adds along the flange's z.
        world_T_base, flange_T_probe: where the arm stands, how it holds the probe.
        max_frozen_s: equal values for longer than this are a dead stream; null where equal values are normal at rest.
    """

    name: str
    sigma_rad: float | tuple[float, ...]
    joint_names: tuple[str, ...] = ()
    link_names: tuple[str, ...] = ()
    dh: tuple[DhRow, ...] = ()
    joints: tuple[JointRow, ...] = ()
    tip: PoseConfig = field(default_factory=PoseConfig)
    urdf: str = ""
    urdf_base: str = ""
    urdf_tip: str = ""
    media_flange_mm: float = 0.0
    world_T_base: PoseConfig = field(default_factory=PoseConfig)
    flange_T_probe: PoseConfig = field(default_factory=PoseConfig)
    max_frozen_s: float | None = None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.dh, self.joints, self.urdf))) != 1:
            raise ConfigError(f"arm '{self.name}' needs exactly one of 'dh', 'joints', 'urdf'")
        check_range("media_flange_mm", self.media_flange_mm, 0.0, 500.0)
        for sigma in self.sigma_rad if isinstance(self.sigma_rad, tuple) else (self.sigma_rad,):
            check_range("sigma_rad", sigma, 0.0, 1.0)
        if self.max_frozen_s is not None:
            check_range("max_frozen_s", self.max_frozen_s, 1e-3, 3600.0)


@dataclass(frozen=True, eq=False)
class Arm:
    """An arm in the room.

    Args:
        chain: base to flange, names included.
        sigma_rad: standard deviation per joint (n,).
        world_T_base, flange_T_probe: (4, 4), mm.
        max_frozen_s: see `ArmConfig`.
    """

    name: str
    chain: Chain
    sigma_rad: Tensor
    world_T_base: Tensor
    flange_T_probe: Tensor
    max_frozen_s: float | None = None

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names in JointState, base to flange."""
        return self.chain.joint_names

    @property
    def sliding(self) -> frozenset[str]:
        """Names of the prismatic joints: mm here, metres in JointState."""
        return self.chain.sliding

    @property
    def link_names(self) -> tuple[str, ...]:
        """TF frames: base, links, flange."""
        return self.chain.link_names

    def world_T_links(self, q: Tensor) -> Tensor:
        """Poses (..., n + 2, 4, 4) of base, links and flange in the world."""
        return self.world_T_base @ self.chain.links(q)

    def world_T_probe(self, q: Tensor) -> Tensor:
        """Poses (..., 4, 4) of the probe in the world at joint positions (..., n)."""
        return self.world_T_base @ self.chain.forward(q) @ self.flange_T_probe

    def covariance_at_probe(self, q: Tensor) -> Tensor:
        """Covariance (..., 6, 6) of world_T_probe: J diag(sigma^2) J^T, (v, w), mm, rad, world axes, at the origin."""
        flange = self.chain.forward(q)
        lever = (flange[..., :3, :3] @ self.flange_T_probe[:3, 3:]).squeeze(-1)  # flange to probe in base axes
        j = self.chain.jacobian(q)
        v = j[..., :3, :] + torch.linalg.cross(j[..., 3:, :], lever[..., None].expand_as(j[..., 3:, :]), dim=-2)
        r = self.world_T_base[:3, :3]
        j = torch.cat([r @ v, r @ j[..., 3:, :]], -2) * self.sigma_rad
        return j @ j.transpose(-1, -2)


def build_arm(config: ArmConfig, folder: Path | None = None) -> Arm:
    """Arm of a configuration; `folder` is where its URDF lies."""
    chain = _chain(config, folder).extended(config.media_flange_mm)
    n = chain.count
    sigma = config.sigma_rad if isinstance(config.sigma_rad, tuple) else (config.sigma_rad,) * n
    if len(sigma) != n:
        raise KinematicsError(f"arm '{config.name}' has {n} joints but {len(sigma)} values of sigma_rad")
    return Arm(config.name, chain, torch.tensor(sigma, dtype=torch.float64), config.world_T_base.pose(),
               config.flange_T_probe.pose(), config.max_frozen_s)  # fmt: skip


def load_arm(
    path_or_name: str | Path,
    joint_names: Sequence[str] = (),
    link_names: Sequence[str] = (),
    media_flange_mm: float | None = None,
) -> Arm:
    """Read an arm from a YAML file, or by the name of one in `config/arms`.

    Args:
        path_or_name: "iiwa7", or a path that ends in .yaml.
        joint_names, link_names: replace those of the file (another driver, another robot name).
        media_flange_mm: replaces that of the file.

    Raises:
        MissingFileError, FileFormatError, ConfigError, KinematicsError: each says what is wrong with which arm.
    """
    path = find_named("config/arms", path_or_name)
    config = from_mapping(ArmConfig, load_yaml(path), path.stem)
    config = replace(
        config,
        joint_names=tuple(joint_names) or config.joint_names,
        link_names=tuple(link_names) or config.link_names,
    )
    if media_flange_mm is not None:
        config = replace(config, media_flange_mm=media_flange_mm)
    return build_arm(config, path.parent)


def _chain(config: ArmConfig, folder: Path | None) -> Chain:
    joints = config.joint_names
    if config.urdf:
        return _renamed(
            read_urdf(inside(folder or Path(), config.urdf, "urdf"), config.urdf_base, config.urdf_tip),
            joints,
            config.link_names,
        )
    links = config.link_names or ("base", *(f"link_{i + 1}" for i in range(len(joints))), "flange")
    if config.dh:
        return chain_from_dh(config.dh, joints, links)
    return chain_from_joints(config.joints, config.tip.pose(), joints, links)


def _renamed(chain: Chain, joints: tuple[str, ...], links: tuple[str, ...]) -> Chain:
    if joints and len(joints) != chain.count:
        raise KinematicsError(
            f"the URDF's chain has {chain.count} joints {chain.joint_names}, but {len(joints)} names are given"
        )
    return replace(chain, joint_names=joints or chain.joint_names, link_names=links or chain.link_names)
