# SPDX-License-Identifier: Apache-2.0
"""A frame's place in a volume by descriptors: each pixel votes, a rigid fit in closed form decides.

The volume is encoded once for each view: along axes near to those of the frame's start, so that what the network
compares is turned little. Views are kept.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...config import check_range
from ...data.types import Estimate, Frame, Problem, Rigid, TrackedFrame, Volume
from ...errors import GeometryError, NoOverlapError, ShapeError
from ...geometry import rotation, se3
from ...networks.correspondence import Correspondence
from ..covariance import world_covariance
from ..evidence import in_ref_axes
from ..spread import SpreadConfig, spread_twists
from .view import Smoothed, ViewConfig, VolumeView, smoothed, view_frame, view_volume
from .vote import Ballot, Vote, VoteConfig, look, scores

FRAME_STRIDE, VOLUME_STRIDE = 4, 2  # of descriptors, in steps of their grids
LIKELY = 2.0  # standard deviations within which every place is as likely as another
FLOOR = 1e-9  # mm^2 and rad^2: a start that states nothing for an axis is exact there, which no matrix inverts
LEAST_BF16 = 24  # voxels along every axis


@dataclass(frozen=True)
class CorrespondConfig:
    """How the network is asked.

    Args:
        spread: poses all over where the start may be off, whose votes are counted beside those of triples; of it
            `count` and the reach matter.
        view_deg: step, along each axis of the rotation vector, of the grid of views. most_views: kept at once.
        pixels: the most confident of so many vote.
        prior_mm: standard deviation of a pixel's place about where the start puts it, where the start states none;
            least_prior_mm: never less.
        min_share: of the confidence that must agree with a pose for it to be accepted.
        inflation: factor on the covariance that the residuals of the fit give: errors of its pixels are alike.
        bf16: whether convolutions are computed in bfloat16 where the processor is quick at it.
    """

    view: ViewConfig = field(default_factory=ViewConfig)
    vote: VoteConfig = field(default_factory=VoteConfig)
    spread: SpreadConfig = field(
        default_factory=lambda: SpreadConfig(300, reach_mm=(40.0, 40.0, 40.0), reach_deg=(30.0, 30.0, 30.0))
    )
    view_deg: float = 16.0
    most_views: int = 64
    pixels: int = 160
    prior_mm: float = 40.0
    least_prior_mm: float = 10.0
    min_share: float = 0.3
    inflation: float = 2000.0
    channel: int = 0
    bf16: bool = True

    def __post_init__(self) -> None:
        check_range("view_deg", self.view_deg, 1.0, 180.0)
        check_range("most_views", self.most_views, 1, 1000)
        check_range("pixels", self.pixels, 3, 100_000)
        check_range("prior_mm", self.prior_mm, 1.0, 1e4)
        check_range("least_prior_mm", self.least_prior_mm, 1.0, 1e4)
        check_range("min_share", self.min_share, 0.0, 1.0)
        check_range("inflation", self.inflation, 1e-3, 1e6)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A view of a volume as the network sees it.

    Args:
        ct_R_view: (3, 3). descriptors: (K, V) of known places. rows: (d, h, w) int32, see `vote.Ballot`.
        ct_T_index: (4, 4) from the descriptors' index to mm. places: (V, 3) mm.
    """

    ct_R_view: Tensor
    descriptors: Tensor
    rows: Tensor
    ct_T_index: Tensor
    places: Tensor


class Correspond:
    """A stage: the network alone."""

    def __init__(self, network: Correspondence, config: CorrespondConfig | None = None) -> None:
        self.network, self.config = network.eval(), config or CorrespondConfig()
        self._volume: tuple[Volume, Smoothed] | None = None
        self._views: dict[tuple[int, ...], Encoded] = {}

    def prepare(self, volume: Volume) -> None:
        """Smooth the volume, encode it along its own axes, and compile."""
        self._source(volume)
        if not self._views:
            self._view_for(self._axes())
            _warm_up()

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        """The best pose that the pixels agree on, weighed against the start as far as that states how sure it is.

        Raises:
            As `hypotheses`.
        """
        return self.weighed(problem, estimate, self.hypotheses(problem, estimate)[0])

    def weighed(self, problem: Problem, start: Estimate, vote: Estimate) -> Estimate:
        """A vote with a start that states its covariance: the mean of both by their information, and its covariance."""
        if not bool((start.covariance.diagonal() > 0).any()):
            return vote
        tracked = self.newest(problem)
        world_T_centre = tracked.world_T_image @ se3.translation(tracked.frame.plane.centre_mm)
        before, now = (
            torch.linalg.inv(in_ref_axes(e, world_T_centre) + FLOOR * torch.eye(6).double()) for e in (start, vote)
        )
        moved = se3.inverse(world_T_centre) @ start.world_T_ct @ se3.inverse(vote.world_T_ct) @ world_T_centre
        covariance = torch.linalg.inv(before + now)
        step = covariance @ now @ se3.log(moved)
        pose = world_T_centre @ se3.inverse(se3.exp(step)) @ se3.inverse(world_T_centre) @ start.world_T_ct
        pivot = se3.transform_points(pose, problem.moving.grid.centre_ct[None])[0]
        covariance = world_covariance(0.5 * (covariance + covariance.T), world_T_centre, pivot)
        return replace(vote, transform=Rigid(se3.check_rigid(pose, "world_T_ct")), covariance=covariance, pivot=pivot)

    def hypotheses(self, problem: Problem, estimate: Estimate) -> list[Estimate]:
        """The best different poses, best first.

        Raises:
            ShapeError: `fixed` is not one or several tracked frames. NoOverlapError: the frame's sector is empty or
                the volume knows nothing. GeometryError: the network gave numbers that are not finite.
        """
        return self.voted(problem, estimate, self.asked(problem, estimate))

    def asked(self, problem: Problem, estimate: Estimate) -> Ballot:
        """What the newest frame's pixels say, given an estimate of where the volume lies."""
        tracked = self.newest(problem)
        start = se3.inverse(estimate.world_T_ct) @ tracked.world_T_image
        return self.ballot(problem.moving, tracked.frame, start, self._prior_mm(estimate, tracked))

    def voted(self, problem: Problem, estimate: Estimate, ballot: Ballot) -> list[Estimate]:
        """The best different poses under a ballot, best first."""
        tracked = self.newest(problem)
        start = se3.inverse(estimate.world_T_ct) @ tracked.world_T_image
        votes = look(ballot, start, self.config.vote, self._drawn(estimate, tracked, start))
        return [self._estimate(vote, tracked, problem.moving) for vote in votes]

    def likely(self, problem: Problem, ballot: Ballot, world_T_cts: Tensor) -> Tensor:
        """Mean logarithms (N,) of the pixels' likelihood ratios at poses (N, 4, 4); 0 is chance."""
        ct_T_images = se3.inverse(world_T_cts) @ self.newest(problem).world_T_image
        return scores(ballot, ct_T_images, self.config.vote.floor)

    def newest(self, problem: Problem) -> TrackedFrame:
        """The frame that is placed: the last.

        Raises:
            ShapeError: there is none.
        """
        if isinstance(problem.fixed, Volume) or not problem.fixed:
            raise ShapeError("the network needs one or several tracked frames as 'fixed'; the last of them is placed")
        return problem.fixed[-1]

    def ballot(self, volume: Volume, frame: Frame, ct_T_image: Tensor, prior_mm: float) -> Ballot:
        """What the frame's pixels say, given that it lies about `ct_T_image` (4, 4), within `prior_mm`."""
        self._source(volume)
        encoded = self._view_for(ct_T_image[:3, :3])
        points, descriptors, weight = self._pixels(frame)
        predicted = se3.transform_points(ct_T_image, points)
        # all pixels are off together: within what is likely the start must not draw at each of them
        beyond = (torch.cdist(predicted.float(), encoded.places.float()) - LIKELY * prior_mm).clamp_min(0.0)
        with torch.inference_mode():
            logits = self.network.scale * descriptors @ encoded.descriptors - 0.5 * (beyond / prior_mm) ** 2
            ratio = torch.softmax(logits, 1) * logits.shape[1]
        if not bool(torch.isfinite(ratio).all()):
            raise GeometryError("the network's likelihoods are not finite: its weights are damaged, take others")
        return Ballot(ratio.clone(), encoded.rows, points, weight, encoded.ct_T_index, encoded.places)

    def _drawn(self, estimate: Estimate, tracked: TrackedFrame, start: Tensor) -> Tensor:
        """Poses (N, 4, 4) all over where the start may be off, about the image's centre."""
        to_centre = se3.translation(tracked.frame.plane.centre_mm)
        covariance = in_ref_axes(estimate, tracked.world_T_image @ to_centre)
        twists = spread_twists(self.config.spread, covariance)
        return se3.right_at_centre(start, twists[:, :3], twists[:, 3:], tracked.frame.plane.centre_mm)

    def _source(self, volume: Volume) -> Smoothed:
        if self._volume is None or self._volume[0] is not volume:
            self._volume = (volume, smoothed(volume, self.config.view.volume_mm, self.config.channel))
            self._views = {}
        return self._volume[1]

    def _view_for(self, ct_R_image: Tensor) -> Encoded:
        """The view nearest to a frame's directions, of a grid of views about the volume's own axes.

        Which one it is follows from the frame alone, not from what was seen before it: a replay repeats itself.
        """
        own, step = self._axes(), math.radians(self.config.view_deg)
        key = tuple(int(n) for n in torch.round(rotation.log(own.T @ ct_R_image) / step).tolist())
        if key not in self._views:
            if len(self._views) >= self.config.most_views:
                self._views.pop(next(iter(self._views)))
            self._views[key] = self._encode(own @ rotation.exp(step * torch.tensor(key, dtype=torch.float64)))
        self._views[key] = self._views.pop(key)  # the latest used is forgotten last
        return self._views[key]

    def _axes(self) -> Tensor:
        assert self._volume is not None
        return torch.tensor(self._volume[0].grid.direction, dtype=torch.float64).reshape(3, 3)

    def _encode(self, ct_R_view: Tensor) -> Encoded:
        assert self._volume is not None
        seen = view_volume(self._volume[1], ct_R_view, self.config.view.volume_mm)
        with torch.inference_mode(), self._precision(seen.values):
            found = self.network.encode_volume(seen.values)[0].clone()
        return encoded_view(seen, found, ct_R_view)

    def _pixels(self, frame: Frame) -> tuple[Tensor, Tensor, Tensor]:
        """Points (P, 3) mm, descriptors (P, K) and confidences (P,) of the pixels that vote."""
        seen = view_frame(frame, self.config.view.frame_mm)
        with torch.inference_mode(), self._precision(seen.values):
            found, sure = (x[0].clone() for x in self.network.encode_frame(seen.values))
        inside = seen.values[0, 1, ::FRAME_STRIDE, ::FRAME_STRIDE] > 0
        index = inside.nonzero()
        weight = torch.sigmoid(sure[inside].double())
        best = torch.topk(weight, min(self.config.pixels, len(weight))).indices.sort().values
        if len(best) < 3:
            raise NoOverlapError("the frame's sector is smaller than three descriptors: check its geometry")
        row, column = index[best].unbind(-1)
        flat = torch.stack([column, row, torch.zeros_like(row)], -1).double() * FRAME_STRIDE
        return se3.transform_points(seen.image_T_index, flat), found[:, row, column].T, weight[best].clamp_min(1e-6)

    def _precision(self, seen: Tensor) -> torch.autocast | nullcontext[None]:
        """bfloat16 where it is quick, and not for tiny grids: torch 2.13 is wrong where a halved axis ends in one."""
        wanted = self.config.bf16 and _quick_bf16() and min(seen.shape[2:]) >= LEAST_BF16
        return torch.autocast("cpu", torch.bfloat16) if wanted else nullcontext()

    def _prior_mm(self, estimate: Estimate, tracked: TrackedFrame) -> float:
        """Standard deviation of a point of the image at the start."""
        if not bool((estimate.covariance.diagonal() > 0).any()):
            return self.config.prior_mm
        centre = se3.transform_points(tracked.world_T_image, tracked.frame.plane.centre_mm[None])[0]
        moved = se3.move_pivot(estimate.covariance, centre - estimate.pivot)
        reach = 0.5 * tracked.frame.plane.height * tracked.frame.plane.spacing_mm[1]
        variance = moved.diagonal()[:3].max() + reach**2 * moved.diagonal()[3:].max()
        return max(self.config.least_prior_mm, math.sqrt(float(variance)))

    def _estimate(self, vote: Vote, tracked: TrackedFrame, volume: Volume) -> Estimate:
        pose = tracked.world_T_image @ se3.inverse(vote.ct_T_image)
        pivot = se3.transform_points(pose, volume.grid.centre_ct[None])[0]
        covariance = world_covariance(self.config.inflation * vote.covariance, tracked.world_T_image, pivot)
        covariance = covariance + se3.move_pivot(tracked.covariance, pivot - tracked.world_T_image[:3, 3])
        covariance = 0.5 * (covariance + covariance.T)
        enough = vote.share >= self.config.min_share
        reason = "" if enough else f"pixels that hold {vote.share:.0%} of the confidence agree with the pose"
        evidence = {"share": vote.share, "vote": vote.score}
        return Estimate(
            Rigid(se3.check_rigid(pose, "world_T_ct")), covariance, pivot, vote.score, vote.share, enough, reason,
            evidence=evidence,
        )  # fmt: skip


def encoded_view(seen: VolumeView, descriptors: Tensor, ct_R_view: Tensor) -> Encoded:
    """A view from its descriptors (K, d, h, w)."""
    mask = seen.values[0, 1, ::VOLUME_STRIDE, ::VOLUME_STRIDE, ::VOLUME_STRIDE] > 0
    rows = torch.full(mask.shape, -1, dtype=torch.int32)
    rows[mask] = torch.arange(int(mask.sum()), dtype=torch.int32)
    ct_T_index = seen.ct_T_index.clone()
    ct_T_index[:3, :3] *= VOLUME_STRIDE
    places = se3.transform_points(ct_T_index, mask.nonzero().flip(-1).double())
    if not len(places):
        raise NoOverlapError("no descriptor lies at a known voxel: the volume is too small for this network")
    return Encoded(ct_R_view, descriptors[:, mask].contiguous(), rows, ct_T_index, places)


def _quick_bf16() -> bool:
    return bool(torch.backends.mkldnn.is_available()) and torch.cpu._is_avx512_bf16_supported()


def _warm_up() -> None:
    """Compile the kernels, or load them from the cache, on a tiny ballot."""
    rows = torch.arange(27, dtype=torch.int32).reshape(3, 3, 3)
    places = torch.stack(torch.meshgrid(*[torch.arange(3.0)] * 3, indexing="ij"), -1).reshape(-1, 3).flip(-1).double()
    ratio = torch.rand(4, 27, generator=torch.Generator().manual_seed(0))
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.float64)
    ballot = Ballot(ratio, rows, points, torch.ones(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64), places)
    look(ballot, se3.identity(), replace(VoteConfig(), triples=8, climb=1, keep=1, fits=1))
