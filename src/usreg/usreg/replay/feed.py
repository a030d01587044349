# SPDX-License-Identifier: Apache-2.0
"""From the events of a bag to what a tracker asks: joints of an arm, or transforms of any tree."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ..data.bag_messages import joints_in_mm
from ..data.session_events import Event, JointEvent, TransformEvent
from ..errors import StalePoseError
from ..geometry import se3
from ..tracking import History, JointBuffer, PoseBuffer, PoseBufferConfig

_EXACT = torch.tensor([[0.0] * 6] * 6, dtype=torch.float64)


class Feed(Protocol):
    """A pose source that is filled from events."""

    def take(self, event: Event) -> None:
        """Use an event or ignore it; raises UsregError where it is not usable."""
        ...

    def at(self, stamp_s: float) -> tuple[Tensor, Tensor]:
        """world_T_probe (4, 4) and its covariance (6, 6)."""
        ...

    def links_at(self, stamp_s: float) -> tuple[tuple[str, ...], Tensor]:
        """Names along the arm, the probe's last, and poses world_T_link (n, 4, 4)."""
        ...

    def reset(self) -> None:
        """Forget everything that was measured."""
        ...


class JointFeed:
    """The arm's kinematics give the pose."""

    def __init__(self, buffer: JointBuffer, probe: str = "us_probe") -> None:
        self.buffer, self.probe = buffer, probe
        self.at, self.reset = buffer.at, buffer.reset

    def links_at(self, stamp_s: float) -> tuple[tuple[str, ...], Tensor]:
        """From the arm's base to the probe; raises StalePoseError as `at`."""
        links = self.buffer.links_at(stamp_s)
        probe = links[-1:] @ self.buffer.arm.flange_T_probe
        return (*self.buffer.arm.link_names, self.probe), torch.cat([links, probe])

    def take(self, event: Event) -> None:
        """Joint states go into the buffer."""
        if isinstance(event, JointEvent):
            positions = joints_in_mm(event.names, event.positions, self.buffer.arm.sliding)
            self.buffer.add(event.stamp_s, event.names, positions)


class TransformFeed:
    """Transforms lead from the world to the probe: edges by their child, each static or measured.

    A static edge holds from its stamp on, the first one of a child also before it.
    """

    def __init__(self, world: str, probe: str, config: PoseBufferConfig | None = None) -> None:
        self.world, self.probe = world, probe
        self.config = config or PoseBufferConfig()
        self._measured: dict[str, tuple[str, PoseBuffer]] = {}
        self._static: dict[str, History[tuple[str, Tensor]]] = {}

    def take(self, event: Event) -> None:
        """Transforms become edges; a child that changes its parent takes the newest one."""
        if not isinstance(event, TransformEvent):
            return
        if event.static:
            self._static.setdefault(event.child, History()).add(event.stamp_s, (event.parent, event.parent_T_child))
            return
        parent, edge = self._measured.get(event.child, ("", None))
        if edge is None or parent != event.parent:
            edge = self._buffer(event)
            self._measured[event.child] = (event.parent, edge)
        edge.add(event.stamp_s, event.parent_T_child)

    def _buffer(self, event: TransformEvent) -> PoseBuffer:
        # a tracker's own pose always carries noise; joints of an arm at rest may be exactly still
        tracked = (event.parent, event.child) == (self.world, self.probe)
        config = self.config if tracked else replace(self.config, max_frozen_s=None)
        return PoseBuffer(config, f"transform {event.parent} -> {event.child}")

    def at(self, stamp_s: float) -> tuple[Tensor, Tensor]:
        """world_T_probe (4, 4) and its covariance (6, 6) about the probe's origin, world axes.

        Raises:
            StalePoseError: no chain leads to the world, or an edge has no pose at the stamp.
        """
        world_T_here = se3.identity()
        edges = []
        for _, pose, covariance in reversed(self._chain(stamp_s)):
            turn = torch.block_diag(world_T_here[:3, :3], world_T_here[:3, :3])
            world_T_here = world_T_here @ pose
            edges.append((world_T_here[:3, 3], turn @ covariance @ turn.T))
        moved = [se3.move_pivot(covariance, world_T_here[:3, 3] - origin) for origin, covariance in edges]
        return world_T_here, torch.stack(moved).sum(0)

    def links_at(self, stamp_s: float) -> tuple[tuple[str, ...], Tensor]:
        """Every frame from below the world to the probe; raises StalePoseError as `at`."""
        names, poses = [], [se3.identity()]
        for name, pose, _ in reversed(self._chain(stamp_s)):
            names.append(name)
            poses.append(poses[-1] @ pose)
        return tuple(names), torch.stack(poses[1:])

    def _chain(self, stamp_s: float) -> list[tuple[str, Tensor, Tensor]]:
        """Child, pose and covariance of each edge, from the probe up to the world; a static edge has no covariance."""
        found: list[tuple[str, Tensor, Tensor]] = []
        name = self.probe
        count = len(self._measured) + len(self._static)
        while name != self.world:
            if not (name in self._measured or name in self._static) or len(found) >= count:
                raise StalePoseError(
                    f"no chain of transforms leads from '{self.world}' to '{self.probe}' (it ends at '{name}'): "
                    "check the names of frames in session.yaml and that /tf was recorded"
                )
            child = name
            if name in self._measured:
                name, edge = self._measured[name]
                found.append((child, *edge.at(stamp_s)))
            else:
                name, pose = self._static[name].at(stamp_s)
                found.append((child, pose, _EXACT))
        return found

    def reset(self) -> None:
        """Forget measured poses; static ones stay."""
        for _, edge in self._measured.values():
            edge.reset()
