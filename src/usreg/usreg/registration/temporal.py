# SPDX-License-Identifier: Apache-2.0
"""The workflow of live registration: each frame starts from the tracked arm and from the correction before it.

Fig. 1 and equations 1 and 2 of the paper on DeepRS2V (live 2D to 3D ultrasound of the liver), for any registrar: a
network, intensities, ITK. The arm says how the image lies to the place where the volume was recorded, T(tracking). A
registration finds what the arm cannot see, that the organ moved: T(tracking) T(delta). The delta of a frame enters the
next one. As published delta lives in the image frame, so that it turns with the probe: an organ that moved towards the
feet is looked for, once the probe has turned by 90 degrees, to its side. What rests is where the volume lies in the
room: `carry: world` hands that on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from ..config import check_range
from ..data.types import Estimate, Problem, TrackedFrame, Volume, start_estimate
from ..geometry import se3
from .registrar import Registrar


@dataclass(frozen=True)
class TemporalConfig:
    """What one frame hands to the next.

    Args:
        carry: "start": nothing; every frame begins where its problem says, which live is a filter's prediction of
            `world_T_ct`. "world": `world_T_ct` of the frame before. "image": the correction in axes of the image, as
            published.
        refused: results that the gate refused are handed on too, as published: there is no gate in the paper.
        max_age_s: what is older is forgotten, and the next frame begins from the tracked arm alone.
    """

    carry: Literal["start", "world", "image"] = "start"
    refused: bool = False
    max_age_s: float = 2.0

    def __post_init__(self) -> None:
        check_range("max_age_s", self.max_age_s, 1e-3, 3600.0)


@dataclass(eq=False)
class _Memory:
    """Of one stretch of frames; a reset replaces it, so that a result that comes late writes into nothing.

    Args:
        volume: which is registered. world_T_ct: where the arm says that it lies. newest_s: stamp of the newest frame.
        carried: (4, 4) of the last result: `world_T_ct`, or delta in the image frame; None before there is one.
        carried_s: stamp of its frame.
    """

    volume: Volume
    world_T_ct: Tensor
    newest_s: float
    carried: Tensor | None = None
    carried_s: float = 0.0


class Temporal(Registrar):
    """A registrar that tells another one where to begin; it has state: see `reset`."""

    def __init__(self, registrar: Registrar, settings: TemporalConfig | None = None) -> None:
        super().__init__(registrar.stages, registrar.config)
        self.registrar, self.settings = registrar, settings or TemporalConfig()
        self._memory: _Memory | None = None

    def prepare(self, volume: Volume) -> None:
        """What the registrar does once for a volume."""
        self.registrar.prepare(volume)

    def reset(self) -> None:
        """Forget the correction and where the volume was recorded: the next frame's own start says it again."""
        self.registrar.reset()
        self._memory = None

    def __call__(self, problem: Problem, start: Estimate | None = None) -> Estimate:
        """Register one frame from the tracked arm and the correction before it; several at once from their own start.

        A frame that cannot be registered leaves the correction as it is until it is older than `max_age_s`.

        Raises:
            UsregError: what the registrar raises.
        """
        given = problem.start if start is None else start
        if self.settings.carry == "start" or isinstance(problem.fixed, Volume) or len(problem.fixed) != 1:
            return self.registrar(problem, start)
        tracked = problem.fixed[0]
        memory = self._at(tracked.frame.stamp_s, problem.moving, given)
        begin = start_estimate(self._start(memory, tracked), problem.moving, given.covariance)
        found = self.registrar(replace(problem, start=begin), begin)
        if found.accepted or self.settings.refused:
            self._keep(memory, tracked, found.world_T_ct)
        return found

    def _at(self, stamp_s: float, volume: Volume, given: Estimate) -> _Memory:
        """The memory at a stamp; a clock that stands or runs back, and another volume, begin a new one."""
        memory = self._memory
        if memory is None or memory.volume is not volume or stamp_s <= memory.newest_s:
            if memory is not None:
                self.registrar.reset()
            memory = self._memory = _Memory(volume, given.world_T_ct, stamp_s)
        memory.newest_s = stamp_s
        return memory

    def _start(self, memory: _Memory, tracked: TrackedFrame) -> Tensor:
        """world_T_ct (4, 4) at which the search for a frame begins."""
        age_s = tracked.frame.stamp_s - memory.carried_s
        if memory.carried is None or age_s > self.settings.max_age_s:
            return memory.world_T_ct
        if self.settings.carry == "world":
            return memory.carried
        return corrected(memory.world_T_ct, tracked, memory.carried)

    def _keep(self, memory: _Memory, tracked: TrackedFrame, found: Tensor) -> None:
        in_world = self.settings.carry == "world"
        memory.carried = found if in_world else correction(memory.world_T_ct, tracked, found)
        memory.carried_s = tracked.frame.stamp_s


def correction(world_T_ct: Tensor, tracked: TrackedFrame, found: Tensor) -> Tensor:
    """Delta (4, 4) in the image frame with ct_T_image_found = ct_T_image_tracked @ delta: equation 2.

    Args:
        world_T_ct: where the arm says that the volume lies, (4, 4), mm. found: where the registration put it.
    """
    tracked_T_world = se3.inverse(tracked.world_T_image)
    return tracked_T_world @ world_T_ct @ se3.inverse(found) @ tracked.world_T_image


def corrected(world_T_ct: Tensor, tracked: TrackedFrame, image_T_image: Tensor) -> Tensor:
    """world_T_ct (4, 4) under which a frame lies at ct_T_image_tracked @ delta: the inverse of `correction`."""
    moved = tracked.world_T_image @ se3.inverse(image_T_image)
    return se3.check_rigid(moved @ se3.inverse(tracked.world_T_image) @ world_T_ct, "the start that is carried on")
