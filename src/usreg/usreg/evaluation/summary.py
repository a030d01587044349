# SPDX-License-Identifier: Apache-2.0
"""One row for each registration, and the figures over all rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..data.types import Estimate, TrackedFrame
from ..geometry import se3
from .consistency import expected_error_mm, from_squared, normalised_error
from .metrics import pose_error, world_points

FAILURE_MM = 5.0  # an accepted estimate with a larger TRE is a failure
GROSS_MM = 10.0  # and one with a larger error at the landmarks may never be given out


@dataclass(frozen=True)
class Row:
    """One registration of one frame. NaN: not known (no truth, no covariance).

    Args:
        frame: index in its sequence. stamp_s: of the frame.
        initial_tre_mm, final_tre_mm: at the start and at the estimate, mean over 5x5 points.
        translation_mm, rotation_deg, out_of_plane_mm: of the estimate, see `PoseError`.
        score, overlap: as the registrar states them. accepted: whether it passed the gate; `reason` says why not.
        seconds: computing time; left out of the `result.json` of a report.
        status: of the session at that frame (TRACKING, LOST, ...); empty in a study of single frames.
        predicted_mm: error that the covariance predicts at the sample points.
        nees: squared error in units of the covariance, 6 degrees of freedom.
        landmark_tre_mm: of the estimate, mean over the session's landmarks, against the true world_T_ct: the tracking's
            error counts here, which the TRE in the image leaves out.
        probability: stated by the registrar, that the final TRE is below 5 mm.
    """

    frame: int
    stamp_s: float
    initial_tre_mm: float = math.nan
    final_tre_mm: float = math.nan
    translation_mm: float = math.nan
    rotation_deg: float = math.nan
    out_of_plane_mm: float = math.nan
    score: float = math.nan
    accepted: bool = False
    seconds: float = math.nan
    reason: str = ""
    status: str = ""
    overlap: float = math.nan
    predicted_mm: float = math.nan
    nees: float = math.nan
    landmark_tre_mm: float = math.nan
    probability: float = math.nan


@dataclass(frozen=True)
class Spread:
    """Mean, median, 95th percentile and maximum of what is known."""

    mean: float
    median: float
    p95: float
    max: float


@dataclass(frozen=True)
class Summary:
    """Figures over rows. Shares are of `count`; TRE figures are of rows whose truth is known (`with_truth`).

    Args:
        success_2mm, success_5mm, success_10mm: share of rows with known truth that end below.
        failures_among_accepted: accepted rows above 5 mm.
        landmark_tre_mm: of accepted rows. gross_among_accepted: accepted rows above 10 mm there.
        nees_per_dof, coverage_95: consistency of the covariances of accepted rows.
        median_seconds, p95_seconds: computing time.
    """

    count: int
    with_truth: int
    accepted_share: float
    rejected: int
    lost: int
    initial_tre_mm: Spread
    final_tre_mm: Spread
    accepted_tre_mm: Spread
    translation_mm: Spread
    rotation_deg: Spread
    out_of_plane_mm: Spread
    success_2mm: float
    success_5mm: float
    success_10mm: float
    failures_among_accepted: int
    landmark_tre_mm: Spread
    gross_among_accepted: int
    nees_per_dof: float
    coverage_95: float
    median_seconds: float
    p95_seconds: float


def row_of(
    frame: TrackedFrame,
    start_world_T_ct: Tensor | None,
    estimate: Estimate | None,
    true_world_T_ct: Tensor | None = None,
    status: str = "",
    reason: str = "",
) -> Row:
    """The row of one frame.

    Args:
        frame: with the pose that was used.
        start_world_T_ct: where the registration began, (4, 4), or None.
        estimate: its result, or None when there was none (then say why in `reason`).
        true_world_T_ct: the truth, or None where nobody knows it.
    """
    geometry, index, stamp = frame.frame.geometry, frame.frame.index, frame.frame.stamp_s

    def error(world_T_ct: Tensor | None) -> dict[str, float]:
        if world_T_ct is None or true_world_T_ct is None:
            return {}
        true, found = (se3.inverse(t) @ frame.world_T_image for t in (true_world_T_ct, world_T_ct))
        return vars(pose_error(found, true, geometry))

    initial = error(start_world_T_ct).get("tre_mm", math.nan)
    if estimate is None:
        return Row(index, stamp, initial, status=status, reason=reason)
    final = dict(error(estimate.world_T_ct))
    points = world_points(frame.world_T_image, geometry)
    return Row(
        index,
        stamp,
        initial,
        final.pop("tre_mm", math.nan),
        **final,
        score=estimate.score,
        accepted=estimate.accepted,
        seconds=estimate.compute_s,
        reason=reason or estimate.reason,
        status=status,
        overlap=estimate.overlap,
        predicted_mm=expected_error_mm(estimate.covariance, estimate.pivot, points),
        nees=_nees(estimate, true_world_T_ct),
        probability=estimate.probability,
    )


def _nees(estimate: Estimate, true_world_T_ct: Tensor | None) -> float:
    if true_world_T_ct is None:
        return math.nan
    return normalised_error(estimate.world_T_ct, true_world_T_ct, estimate.covariance, estimate.pivot)


def spread(values: Sequence[float]) -> Spread:
    """Figures of finite values; NaN where there is none."""
    known = np.array([v for v in values if math.isfinite(v)])
    if not len(known):
        return Spread(math.nan, math.nan, math.nan, math.nan)
    return Spread(float(known.mean()), float(np.median(known)), float(np.percentile(known, 95)), float(known.max()))


def summarise(rows: Sequence[Row]) -> Summary:
    """Figures over rows; an empty list gives counts of zero and NaN."""
    truth = [r.final_tre_mm for r in rows if math.isfinite(r.final_tre_mm)]
    accepted = [r for r in rows if r.accepted]
    fit = from_squared([r.nees for r in accepted])
    seconds = spread([r.seconds for r in rows])

    def of(field: Callable[[Row], float]) -> Spread:
        return spread([field(r) for r in rows])

    def below(limit: float) -> float:
        return _share(sum(t < limit for t in truth), len(truth))

    return Summary(
        count=len(rows),
        with_truth=len(truth),
        accepted_share=_share(len(accepted), len(rows)),
        rejected=len(rows) - len(accepted),
        lost=sum(r.status == "LOST" for r in rows),
        initial_tre_mm=of(lambda r: r.initial_tre_mm),
        final_tre_mm=of(lambda r: r.final_tre_mm),
        accepted_tre_mm=spread([r.final_tre_mm for r in accepted]),
        translation_mm=of(lambda r: r.translation_mm),
        rotation_deg=of(lambda r: r.rotation_deg),
        out_of_plane_mm=of(lambda r: r.out_of_plane_mm),
        success_2mm=below(2.0),
        success_5mm=below(5.0),
        success_10mm=below(10.0),
        failures_among_accepted=sum(r.final_tre_mm > FAILURE_MM for r in accepted),
        landmark_tre_mm=spread([r.landmark_tre_mm for r in accepted]),
        gross_among_accepted=sum(r.landmark_tre_mm > GROSS_MM for r in accepted),
        nees_per_dof=fit.nees_per_dof,
        coverage_95=fit.coverage_95,
        median_seconds=seconds.median,
        p95_seconds=seconds.p95,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
