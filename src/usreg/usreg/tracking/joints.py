# SPDX-License-Identifier: Apache-2.0
"""Measured joint positions of an arm: poses of its links and of the probe at any stamp between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor

from ..errors import KinematicsError
from ..kinematics.arm import Arm
from .samples import SampleBuffer, StreamConfig


@dataclass(frozen=True)
class JointBufferConfig(StreamConfig):
    """See `StreamConfig`. Whether equal values mean a dead stream depends on the arm: see `for_arm`."""

    @staticmethod
    def for_arm(arm: Arm) -> JointBufferConfig:
        """The defaults with the arm's own limit on frozen values."""
        return JointBufferConfig(max_frozen_s=arm.max_frozen_s)


class JointBuffer:
    """Joint positions by stamp. `add` only checks and stores; kinematics run when a pose is asked for."""

    def __init__(self, arm: Arm, config: JointBufferConfig | None = None) -> None:
        self.arm = arm
        self.config = config or JointBufferConfig.for_arm(arm)
        self.samples = SampleBuffer(self.config, f"joint state of {arm.name}")
        self._names: tuple[str, ...] = arm.joint_names
        self._pick = _permutation(arm.joint_names, arm.joint_names)
        self._turning = torch.tensor([kind == "continuous" for kind in arm.chain.kinds])

    def reset(self) -> None:
        """Forget everything."""
        self.samples.reset()

    @property
    def newest_s(self) -> float:
        """Stamp of the newest sample; NaN when empty."""
        return self.samples.newest_s

    def add(self, stamp_s: float, names: Sequence[str], positions: Sequence[float]) -> None:
        """Append a joint state; joints may come in any order and among joints of other devices.

        Args:
            positions: rad (mm for prismatic joints), one per name.

        Raises:
            KinematicsError: a joint of the arm is missing, counts differ, or a value is not finite or outside the
            limits; its stamp is
                kept as unusable, so that no interpolation bridges it. TimeError: the stamp is not finite, repeats or
                runs backwards.
        """
        try:
            q = self._ordered(tuple(names), positions)
            self.arm.chain.limits.check(q, self.arm.joint_names, self.arm.sliding)
        except KinematicsError as error:
            self.samples.add(stamp_s, None, None, str(error))
            raise
        self.samples.add(stamp_s, q, q)

    def joints_at(self, stamp_s: float) -> Tensor:
        """Joint positions (n,) at a stamp, interpolated linearly.

        Raises:
            StalePoseError: missing, stale, unusable, frozen, or a gap above the limit; the message says how old and
            the limit.
        """
        a, b, u = self.samples.bracket(stamp_s)
        qa, qb = torch.tensor([a.value, b.value], dtype=torch.float64)
        step = qb - qa
        wrapped = torch.remainder(step + math.pi, 2 * math.pi) - math.pi  # a continuous joint takes the short way round
        return qa + u * torch.where(self._turning, wrapped, step)

    def at(self, stamp_s: float) -> tuple[Tensor, Tensor]:
        """world_T_probe (4, 4) and its covariance (6, 6), (v, w) in world axes about the probe's origin, mm and rad.

        Raises:
            StalePoseError: as `joints_at`.
        """
        q = self.joints_at(stamp_s)
        return self.arm.world_T_probe(q), self.arm.covariance_at_probe(q)

    def links_at(self, stamp_s: float) -> Tensor:
        """Poses world_T_link (n + 2, 4, 4) in the order of `arm.link_names`; raises as `joints_at`."""
        return self.arm.world_T_links(self.joints_at(stamp_s))

    def _ordered(self, names: tuple[str, ...], positions: Sequence[float]) -> tuple[float, ...]:
        if names != self._names:  # drivers keep the order: the permutation is found once
            self._pick = _permutation(names, self.arm.joint_names)
            self._names = names
        if len(positions) != len(names):
            raise KinematicsError(
                f"a joint state names {len(names)} joints but holds {len(positions)} positions: expected one each"
            )
        picked = self._pick(positions)
        return tuple(map(float, picked)) if isinstance(picked, tuple) else (float(picked),)


def _permutation(names: tuple[str, ...], wanted: tuple[str, ...]) -> itemgetter:
    missing = [n for n in wanted if n not in names]
    if missing or len(set(names)) != len(names):
        raise KinematicsError(
            f"the joint state has {len(names)} joints {names[:12]}; expected {wanted}, missing "
            f"{missing or 'none, but names repeat'}: "
            "set the arm's joint_names to those of the driver"
        )
    return itemgetter(*(names.index(n) for n in wanted))
