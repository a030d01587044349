# SPDX-License-Identifier: Apache-2.0
"""A sweep: many frames with known relative poses, one `world_T_ct`, by the same registrar as a single frame.

Keyframes are chosen first, which bounds the cost. Optionally the calibration of the probe and the errors of the
measured poses are solved for together with the pose (`bundle`), and the corrected frames are registered once more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Estimate, Problem, TrackedFrame, Volume, start_estimate
from ..errors import ConfigError, NoOverlapError, ShapeError
from ..geometry import se3
from .bundle import Bundle, BundleConfig, adjust
from .keyframes import KeyframeConfig, pose_covariances, pose_information, select_keyframes
from .normal import views, world_T_ref
from .refine import Refine
from .registrar import Registrar

Note = Callable[[int, float], None]
FindStarts = Callable[[tuple[TrackedFrame, ...], Volume], Sequence[Estimate]]
AXES = ("x_mm", "y_mm", "z_mm", "x_rad", "y_rad", "z_rad")


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep is registered.

    Args:
        keyframes: which frames. bundle: the joint solution.
        weigh: what a frame says is judged at the start ("pose") or by its image alone ("image"), as always where
            the similarity has no normal matrix there.
        correct: whether calibration and tracking errors are solved for.
        search_frames: at most so many are looked at by a global search.
    """

    keyframes: KeyframeConfig = field(default_factory=KeyframeConfig)
    bundle: BundleConfig = field(default_factory=BundleConfig)
    weigh: str = "pose"
    correct: bool = False
    search_frames: int = 20

    def __post_init__(self) -> None:
        check_range("search_frames", self.search_frames, 1, 1000)
        if self.weigh not in ("pose", "image"):
            raise ConfigError(f"'weigh' is '{self.weigh}'; choose one of ['pose', 'image']")


class Sweep(Registrar):
    """A registrar of sweeps: that of single frames, given keyframes. A sweep of one frame is the same as the frame.

    Args:
        find: searches for starts; the start that a problem has is then not looked at.
    """

    def __init__(
        self, registrar: Registrar, settings: SweepConfig | None = None, find: FindStarts | None = None
    ) -> None:
        super().__init__(registrar.stages, registrar.config)
        self.settings = settings or SweepConfig()
        self.find = find

    def choose(self, problem: Problem) -> Problem:
        """The same problem with its keyframes alone.

        Raises:
            ShapeError: `fixed` is not one or several tracked frames.
        """
        frames = sweep_frames(problem)
        information = self._information(problem, frames) if self.settings.weigh == "pose" else None
        rows = select_keyframes(frames, self.settings.keyframes, information)
        return replace(problem, fixed=tuple(frames[row] for row in rows))

    def __call__(self, problem: Problem, start: Estimate | None = None) -> Estimate:
        """Choose keyframes and register them.

        Args:
            start: where to begin; the problem's own start if not given.

        Raises:
            UsregError: what the registrar raises (no overlap, wrong input).
        """
        problem = problem if start is None else replace(problem, start=start)
        if self.find is None:
            return self.register(self.choose(problem))
        begin = time.perf_counter()
        found = self.best(problem, self.find(self.searched(problem), problem.moving))
        return replace(found, compute_s=time.perf_counter() - begin)

    def searched(self, problem: Problem) -> tuple[TrackedFrame, ...]:
        """The frames that a global search looks at: evenly from all."""
        frames = sweep_frames(problem)
        count = min(self.settings.search_frames, len(frames))
        return tuple(frames[int((k + 0.5) * len(frames) / count)] for k in range(count))

    def best(self, problem: Problem, starts: Sequence[Estimate], note: Note | None = None) -> Estimate:
        """Register from every start; the best result: accepted before refused, then by how like the same frames are.

        Each start has keyframes of its own: their scores cannot be compared, those of frames from all of the sweep can.

        Args:
            note: told before each of them how many keyframes it has, and the best score so far (NaN at first).

        Raises:
            NoOverlapError: from no start the frames cut the volume, or there is none.
        """
        found: list[Estimate] = []
        for start in starts:
            chosen = self.choose(replace(problem, start=start))
            if note is not None:
                note(len(sweep_frames(chosen)), max((e.score for e in found), default=math.nan))
            try:
                found.append(self.register(chosen))
            except NoOverlapError:
                continue
        if not found:
            raise NoOverlapError(f"none of {len(starts)} starts of the global search lets the frames cut the volume")
        scores = self._common_scores(problem, found)
        return found[max(range(len(found)), key=lambda k: (found[k].accepted, scores[k]))]

    def _common_scores(self, problem: Problem, found: list[Estimate]) -> list[float]:
        refine = self._refine()
        if refine is None or len(found) == 1:
            return [e.score for e in found]
        scene = refine._scene(replace(problem, fixed=self.searched(problem)))
        poses = torch.stack([se3.inverse(e.world_T_ct) @ scene.world_T_ref for e in found])
        return [float(score) for score in scene.compare(len(scene.volumes) - 1, poses)]

    def register(self, problem: Problem) -> Estimate:
        """Register all frames of a problem together; with `correct` also the calibration, and once more with it.

        The correction is told in `evidence` ("calibration_x_mm" and so on, image axes about the image's centre), what
        it comes to for each frame, with the errors of the measured poses, in `per_frame` (twists in image axes).
        """
        first = super().__call__(problem)
        if not self.settings.correct:
            return first
        frames = sweep_frames(problem)
        try:
            bundle = self._bundle(problem, frames, first)
        except NoOverlapError:
            return first  # a frame beside the volume tells nothing of the calibration
        corrected = corrected_frames(frames, bundle)
        world_T_ct = world_T_ref(frames) @ se3.inverse(bundle.ct_T_ref)
        begin = start_estimate(world_T_ct, problem.moving, first.covariance)
        second = super().__call__(replace(problem, fixed=corrected, start=begin))
        if (second.accepted, second.score) < (first.accepted, first.score):
            return first
        seconds = first.compute_s + second.compute_s
        told = {f"calibration_{n}": float(v) for n, v in zip(AXES, se3.log(bundle.correction), strict=True)}
        moved = torch.stack(
            [se3.log(se3.inverse(a.world_T_image) @ b.world_T_image) for a, b in zip(frames, corrected, strict=True)]
        )
        return replace(second, per_frame=moved, evidence={**second.evidence, **told}, compute_s=seconds)

    def _refine(self) -> Refine | None:
        found = [stage for stage in self.stages if isinstance(stage, Refine)]
        return found[-1] if found else None

    def _information(self, problem: Problem, frames: tuple[TrackedFrame, ...]) -> Tensor | None:
        refine = self._refine()
        if refine is None:
            return None
        level, config = refine._levels(problem.moving)[0], refine.config.levels[0]
        ct_T_ref = se3.inverse(problem.start.world_T_ct) @ world_T_ref(frames)
        placed = views(frames, level.sigma_mm, config.step_mm)
        found = pose_information(
            lambda v, pose: refine.matcher.evaluate(level, v, pose), placed, ct_T_ref, level.sigma_mm
        )
        return found if bool((found.diagonal(dim1=1, dim2=2) > 0).any()) else None

    def _bundle(self, problem: Problem, frames: tuple[TrackedFrame, ...], first: Estimate) -> Bundle:
        refine = self._refine()
        if refine is None:
            raise ConfigError(f"system '{self.config.system}' cannot correct the calibration: choose 'intensity'")
        if len({f.frame.plane for f in frames}) > 1:
            raise ShapeError("the geometry changes within the sweep: a calibration cannot be corrected across depths")
        scene = refine._scene(replace(problem, fixed=frames))
        last = len(scene.volumes) - 1
        ct_T_ref = se3.inverse(first.world_T_ct) @ scene.world_T_ref
        return adjust(
            lambda view, pose: scene.matcher.evaluate(scene.volumes[last], [view], pose),
            scene.views[last], scene.volumes[last].sigma_mm, ct_T_ref, pose_covariances(frames), scene.radius_mm,
            self.settings.bundle,
        )  # fmt: skip


def corrected_frames(frames: tuple[TrackedFrame, ...], bundle: Bundle) -> tuple[TrackedFrame, ...]:
    """The frames with their poses as a bundle has them."""
    reference = world_T_ref(frames)
    errors = reference @ se3.exp(bundle.errors) @ se3.inverse(reference)
    found = []
    for frame, error in zip(frames, errors, strict=True):
        centre = se3.translation(frame.frame.plane.centre_mm)
        pose = error @ frame.world_T_image @ centre @ bundle.correction @ se3.inverse(centre)
        found.append(replace(frame, world_T_image=se3.check_rigid(pose, "corrected world_T_image")))
    return tuple(found)


def sweep_frames(problem: Problem) -> tuple[TrackedFrame, ...]:
    """The tracked frames of a problem.

    Raises:
        ShapeError: it has none.
    """
    if isinstance(problem.fixed, Volume) or not problem.fixed:
        raise ShapeError("a sweep needs one or several tracked frames as 'fixed'")
    return problem.fixed
