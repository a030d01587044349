# SPDX-License-Identifier: Apache-2.0
"""Refinement of tracked frames in a volume by any similarity: coarse to fine, re-tries, covariance, gate."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Estimate, Frame, Problem, Rigid, TrackedFrame, Volume, start_estimate
from ..errors import ConfigError, NoOverlapError, ShapeError
from ..geometry import se3
from ..geometry.grid import VoxelGrid
from ..geometry.plane import PlaneGrid
from ..geometry.sector import full_rectangle
from . import covariance as cov
from .confidence import asked, inflation, kind_of, probability
from .contrast import flat_frame, flat_volume
from .echo import EchoConfig, vessel_echo
from .evidence import EvidenceConfig, in_ref_axes, look_closer
from .gate import GateConfig, contrast, refusal
from .levenberg import LevenbergConfig
from .local import LocalConfig
from .matchers import build_matcher
from .matching import Prior
from .maximise import Climbed
from .pyramid import VolumeLevel
from .region import within
from .scene import Scene, build_scene
from .search import distinct, promising
from .spread import SpreadConfig

Favour = Callable[[Tensor], Tensor]
ACROSS = ("CT", "MR")  # modalities whose brightness says nothing of that of ultrasound
FULL_OVERLAP = 0.4  # a pose that shows less than the rest of 1 in the volume counts less: few samples fit by chance
MOST_CONTRAST = 100.0  # of a perfect score
SEVERAL = 5  # frames from which on a sweep is one
RIVAL_MM = 5.0  # an optimum that moves some point of the image by more than this is another one


@dataclass(frozen=True)
class LevelConfig:
    """Smoothing (standard deviation), distance of samples, and motion at which the climb ends, mm."""

    sigma_mm: float
    step_mm: float
    tolerance_mm: float = 0.01

    def __post_init__(self) -> None:
        check_range("sigma_mm", self.sigma_mm, 0.0, 100.0)
        check_range("step_mm", self.step_mm, 1e-3, 100.0)


@dataclass(frozen=True)
class RefineConfig:
    """The similarity, levels from coarse to fine, the optimiser, the re-tries and the gate.

    Args:
        similarity, optimizer: names, see `matchers.build_matcher`. local: patches of LNCC and LC2.
        most_thin: samples of a sweep are taken farther apart, by up to this factor: frames make up for them.
        structure_level: the level at which speckle counts as smoothed away, 0 = the coarsest; its NCC goes to the gate.
        channel: of the volume.
        min_overlap: share of the sector's samples that must lie inside known voxels to begin at all.
        echo: darkness of vessels, predicted from a CT, is compared with the frame instead of the volume itself.
        contrast_mm: standard deviation of the window within which brightness and contrast of frames and volume are made
            alike before they are compared; 0: they are compared as they are.
        sweep_spread: of the re-tries of a sweep; none: `spread`, as for a frame.
        prior: what one squared standard deviation of the start's covariance, for each frame, costs of the score, twice;
            0: the start is where the search begins and no more. prior_floor_mm, prior_floor_deg: least standard
            deviation, so that a filter that is too sure of itself cannot hold a pose that the image contradicts.
        structures: names of labels of the volume: only voxels within `margin_mm` of them count; none: all voxels do.
    """

    similarity: str = "ncc"
    optimizer: str = "lm"
    local: LocalConfig = field(default_factory=LocalConfig)
    levels: tuple[LevelConfig, ...] = (
        LevelConfig(4.0, 4.0, 0.2),
        LevelConfig(2.0, 2.0, 0.1),
        LevelConfig(1.0, 1.9, 0.1),
        LevelConfig(0.4, 1.25, 0.01),
    )
    most_thin: float = 1.0
    structure_level: int = 1
    channel: int = 0
    min_overlap: float = 0.4
    echo: EchoConfig | None = None
    prior: float = 0.0
    prior_floor_mm: float = 2.0
    prior_floor_deg: float = 2.0
    contrast_mm: float = 0.0
    structures: tuple[str, ...] = ()
    margin_mm: float = 3.0
    levenberg: LevenbergConfig = field(default_factory=LevenbergConfig)
    spread: SpreadConfig = field(default_factory=SpreadConfig)
    sweep_spread: SpreadConfig | None = None
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        if not self.levels or any(b.sigma_mm > a.sigma_mm for a, b in zip(self.levels, self.levels[1:], strict=False)):
            raise ConfigError(f"'levels' must go from coarse to fine, got {self.levels}")
        check_range("structure_level", self.structure_level, 0, len(self.levels) - 1)
        check_range("min_overlap", self.min_overlap, 0.0, 1.0)
        check_range("most_thin", self.most_thin, 1.0, 10.0)
        check_range("prior", self.prior, 0.0, 1e6)
        check_range("prior_floor_mm", self.prior_floor_mm, 1e-3, 1e3)
        check_range("prior_floor_deg", self.prior_floor_deg, 1e-3, 180.0)
        check_range("contrast_mm", self.contrast_mm, 0.0, 100.0)
        check_range("margin_mm", self.margin_mm, 0.0, 100.0)


@dataclass(frozen=True, eq=False)
class _Optimum:
    """A pose that no step improves any more."""

    ct_T_ref: Tensor
    score: float
    overlap: float


class Refine:
    """A stage that refines `world_T_ct` of one or several tracked frames (a sweep) in a volume."""

    def __init__(self, config: RefineConfig | None = None) -> None:
        self.config = config or RefineConfig()
        self.matcher = build_matcher(self.config.similarity, self.config.optimizer, self.config.local)
        self._prepared: tuple[Volume, list[VolumeLevel]] | None = None

    def prepare(self, volume: Volume) -> None:
        """Build the volume's pyramid, kept for this volume object, and compile all kernels on a tiny problem."""
        self._levels(volume)
        warm_up()

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """Refine; the result is accepted or carries the reason why not.

        Raises:
            NoOverlapError: at the start and at all re-tries too little of the sector lies inside known voxels.
            ShapeError: `fixed` is not one or several tracked frames.
        """
        scene = self._scene(problem)
        start = se3.inverse(estimate.world_T_ct) @ scene.world_T_ref
        scene = replace(scene, prior=self._prior(estimate, scene, start))
        overlaps = scene.measure(0, start[None]).overlap.item() >= self.config.min_overlap
        first = self._climb(scene, start[None], 0) if overlaps else []
        if first:
            found = self._judge(problem, scene, first[0], None)
            if found.accepted:
                return found
        return self._search(problem, scene, start, in_ref_axes(estimate, scene.world_T_ref), first)

    def judge(self, problem: Problem, world_T_ct: Tensor) -> Estimate:
        """Score, covariance and gate of a pose as it is: nothing is refined."""
        scene = self._scene(problem)
        ct_T_ref = se3.inverse(world_T_ct) @ scene.world_T_ref
        normal = scene.measure(len(scene.volumes) - 1, ct_T_ref[None])
        return self._judge(problem, scene, _Optimum(ct_T_ref, float(normal.score), float(normal.overlap)), None)

    def _levels(self, volume: Volume) -> list[VolumeLevel]:
        if self._prepared is None or self._prepared[0] is not volume:
            if not 0 <= self.config.channel < volume.data.shape[0]:
                raise ShapeError(f"channel {self.config.channel} of a volume with {volume.data.shape[0]} channels")
            seen, channel = self._seen(volume)
            levels = [self.matcher.level(seen, lv.sigma_mm, channel) for lv in self.config.levels]
            self._prepared = (volume, levels)
        return self._prepared[1]

    def _seen(self, volume: Volume) -> tuple[Volume, int]:
        """What of the volume is compared, how bright it is, and in which channel."""
        c, channel = self.config, self.config.channel
        if c.echo is not None:
            volume, channel = vessel_echo(volume, c.echo, channel), 0
        if c.contrast_mm > 0:
            volume, channel = flat_volume(volume, c.contrast_mm, channel), 0
        return within(volume, c.structures, c.margin_mm) if c.structures else volume, channel

    def _scene(self, problem: Problem) -> Scene:
        if isinstance(problem.fixed, Volume) or not problem.fixed:
            raise ShapeError("the refinement needs one or several tracked frames as 'fixed'")
        width = self.config.contrast_mm
        frames = tuple(flat_frame(f, width) for f in problem.fixed) if width > 0 else problem.fixed
        thin = min(self.config.most_thin, max(1.0, math.sqrt(len(frames) / 5.0)))
        steps = [thin * lv.step_mm for lv in self.config.levels]
        return build_scene(frames, self.matcher, self._levels(problem.moving), steps)

    def _maximise(self, scene: Scene, level: int, starts: Tensor) -> Climbed:
        config, volume, frames = self.config, scene.volumes[level], scene.views[level]
        levenberg = replace(config.levenberg, tolerance_mm=config.levels[level].tolerance_mm)
        return scene.matcher.climb(volume, frames, starts, scene.radius_mm, config.min_overlap, levenberg, scene.prior)

    def _prior(self, estimate: Estimate, scene: Scene, start: Tensor) -> Prior | None:
        """The start with its covariance; None where nothing is known of it, or is not to count."""
        c, covariance = self.config, in_ref_axes(estimate, scene.world_T_ref)
        if c.prior <= 0 or not bool((covariance.diagonal() > 0).any()):
            return None
        floor = [c.prior_floor_mm**2] * 3 + [math.radians(c.prior_floor_deg) ** 2] * 3
        return Prior(start, c.prior / len(scene.frames) * floored_information(covariance, floor))

    def _climb(self, scene: Scene, starts: Tensor, first: int) -> list[_Optimum]:
        """All levels from `first` on, from several starts at once."""
        last = len(scene.volumes) - 1
        pose = starts
        for level in range(first, last):
            pose, _, _ = self._maximise(scene, level, pose)
        pose, normal, _ = self._maximise(scene, last, pose)
        return [_Optimum(pose[i], float(normal.score[i]), float(normal.overlap[i])) for i in range(len(pose))]

    def _spread(self, scene: Scene) -> SpreadConfig:
        """Where re-tries begin: a sweep is told apart from its surroundings where one frame is not."""
        own = self.config.sweep_spread if len(scene.frames) >= SEVERAL else None
        return self.config.spread if own is None else own

    def _search(
        self, problem: Problem, scene: Scene, start: Tensor, covariance: Tensor, first: list[_Optimum]
    ) -> Estimate:
        """Look around: the best optimum on a common mask, judged beside the best other one."""
        config = self.config
        poses = promising(
            scene, start, covariance, self._spread(scene), config.min_overlap, lambda p: self._maximise(scene, 0, p)
        )
        # the coarse level may lead astray from a start that is good already: climb the finer ones alone, too
        near = self._climb(scene, start[None], self.config.structure_level) if first else []
        optima = first + near + (self._climb(scene, poses, 1) if len(poses) else [])
        return self._best(problem, scene, optima)

    def best_of(self, problem: Problem, world_T_cts: Tensor, favour: Favour | None = None) -> Estimate:
        """The best of what the climbs from several poses (N, 4, 4) reach, judged beside the best other one.

        All climb the coarsest level; the first, and of the others the best different ones, go through all levels.

        Args:
            favour: what else speaks for poses world_T_ct (N, 4, 4), added to their scores (N,) when they are compared.

        Raises:
            NoOverlapError: at every one of them too little of the sector lies inside known voxels.
        """
        scene = self._scene(problem)
        starts = se3.inverse(world_T_cts) @ scene.world_T_ref
        scene = replace(scene, prior=self._prior(problem.start, scene, starts[0]))
        kept = starts[scene.measure(0, starts, full=False).overlap >= self.config.min_overlap]
        if not len(kept):
            return self._best(problem, scene, [])
        poses, normal, _ = self._maximise(scene, 0, kept)
        worth = scene.worth(normal.score, poses) + _favoured(favour, scene, poses)
        finish = distinct(scene, poses, worth, self._spread(scene).finish)
        rows = [0] * bool(torch.equal(kept[0], starts[0])) + finish
        return self._best(problem, scene, self._climb(scene, poses[list(dict.fromkeys(rows))], 1), favour)

    def coarse(self, problem: Problem, world_T_cts: Tensor, count: int, apart_mm: float) -> Tensor:
        """The best `count` different of what the coarsest level makes of poses (N, 4, 4), best first; K may be 0."""
        scene = self._scene(problem)
        starts = se3.inverse(world_T_cts) @ scene.world_T_ref
        starts = starts[scene.measure(0, starts, full=False).overlap >= self.config.min_overlap]
        if not len(starts):
            return world_T_cts[:0]
        poses, normal, _ = self._maximise(scene, 0, starts)
        worth = normal.score * (normal.overlap + FULL_OVERLAP).clamp(max=1.0)
        return scene.world_T_ref @ se3.inverse(poses[distinct(scene, poses, worth, count, apart_mm)])

    def _best(
        self, problem: Problem, scene: Scene, optima: list[_Optimum], favour: Favour | None = None
    ) -> Estimate:  # fmt: skip
        """The best of several optima on a common mask."""
        if not optima:
            raise NoOverlapError(
                f"less than {self.config.min_overlap:.0%} of the sector lies inside the volume at the start and around "
                "it: check the start, the calibration and the volume"
            )
        stack = torch.stack([o.ct_T_ref for o in optima])
        best = int((scene.compare(len(scene.volumes) - 1, stack) + _favoured(favour, scene, stack)).argmax())
        apart = scene.apart_mm(stack[best], stack)
        rival = max((o.score for o, d in zip(optima, apart.tolist(), strict=True) if d > RIVAL_MM), default=-1.0)
        return self._judge(problem, scene, optima[best], rival)

    def _judge(self, problem: Problem, scene: Scene, optimum: _Optimum, rival: float | None) -> Estimate:
        noises = scene.matcher.noises(scene.volumes[-1], scene.views[-1], optimum.ct_T_ref)
        in_ref = cov.ref_covariance(noises)
        structure = float(scene.measure(self.config.structure_level, optimum.ct_T_ref[None]).score)
        sigma = cov.point_sigma_mm(in_ref, scene.points_ref)
        evidence = {"score": optimum.score, "structure": structure, "overlap": optimum.overlap, "sigma_mm": sigma}
        evidence |= {} if rival is None else {"contrast": min(contrast(optimum.score, rival), MOST_CONTRAST)}
        same, c = problem.moving.modality not in ACROSS, self.config
        shown = "flat" if c.contrast_mm > 0 else "echo" if c.echo is not None else ""
        kind = kind_of(c.similarity, same, len(scene.frames), shown)
        evidence |= look_closer(scene, optimum.ct_T_ref, problem.start, self.config.evidence, asked(kind))
        sure = probability(evidence, kind)
        reason = refusal(self.config.gate, optimum.score, structure, optimum.overlap, sigma, rival, sure)
        world_T_ct = scene.world_T_ref @ se3.inverse(optimum.ct_T_ref)
        pivot = se3.transform_points(world_T_ct, problem.moving.grid.centre_ct[None])[0]
        covariance = cov.world_covariance(inflation(kind) * in_ref, scene.world_T_ref, pivot)
        covariance = covariance + cov.tracking_covariance(scene.frames, noises, scene.world_T_ref, pivot)
        return Estimate(
            Rigid(world_T_ct), covariance, pivot, optimum.score, optimum.overlap, not reason, reason,
            probability=sure, evidence=evidence,
        )  # fmt: skip


def _favoured(favour: Favour | None, scene: Scene, ct_T_refs: Tensor) -> Tensor:
    """What else speaks for poses, (N,)."""
    return torch.zeros(len(ct_T_refs)) if favour is None else favour(scene.world_T_ref @ se3.inverse(ct_T_refs))


@functools.lru_cache(maxsize=1)
def warm_up() -> None:
    """Compile every kernel, or load it from the cache."""
    image = (torch.arange(400) % 251).to(torch.uint8).reshape(20, 20)
    geometry = full_rectangle(PlaneGrid(20, 20, ((1.0, 0.0), (0.0, 1.0))))
    frame = TrackedFrame(Frame(image, geometry, 0.0), se3.translation(torch.tensor([2.0, 2, 2], dtype=torch.float64)))
    voxels = torch.rand(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    volume = Volume(voxels, VoxelGrid((24, 24, 24), (1.0, 1.0, 1.0)))
    start = start_estimate(se3.identity(), volume)
    Refine(RefineConfig(spread=SpreadConfig(count=4, climb=2, finish=1)))(Problem((frame,), volume, start), start)


def floored_information(covariance: Tensor, floor: list[float]) -> Tensor:
    """Inverse (6, 6) of a covariance whose principal variances, in units of `floor` (6,), are at least one."""
    scale = torch.tensor(floor, dtype=torch.float64).rsqrt()
    values, axes = torch.linalg.eigh(scale[:, None] * covariance * scale)
    return scale[:, None] * (axes / values.clamp_min(1.0)) @ axes.T * scale
