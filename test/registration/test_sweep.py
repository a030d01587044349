# SPDX-License-Identifier: Apache-2.0
"""Sweeps: keyframes and joint registration, and the correction of calibration and tracking, on a small volume."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from usreg.data.types import TrackedFrame
from usreg.errors import ConfigError, NoOverlapError, ShapeError
from usreg.geometry import se3
from usreg.registration.bundle import BundleConfig, adjust
from usreg.registration.keyframes import KeyframeConfig, pose_covariances
from usreg.registration.maximise import evaluate
from usreg.registration.normal import views, world_T_ref
from usreg.registration.pyramid import volume_level
from usreg.registration.refine import Refine, RefineConfig
from usreg.registration.registrar import Registrar
from usreg.registration.spread import SpreadConfig
from usreg.registration.sweep import Sweep, SweepConfig, corrected_frames

# turned much about all axes: a correction of the calibration is told from a motion of the volume by turns alone
TILTS = [(0.0, 0.0, -6.0 + 3.0 * k, 0.3 * (k % 3 - 1), 0.4 * (k % 2) - 0.2, 0.2 * k - 0.4) for k in range(5)]
ERROR = torch.tensor([0.4, -0.3, 0.6, 0.008, -0.012, 0.006], dtype=torch.float64)  # of the calibration, image axes
LOOSE = BundleConfig(calibration_mm=1.0, calibration_deg=1.0)


def off(frame: TrackedFrame, twist: torch.Tensor) -> TrackedFrame:
    """The frame with a pose that a wrong calibration gives: the twist is in image axes about the image's centre."""
    centre = se3.translation(frame.frame.plane.centre_mm)
    return replace(frame, world_T_image=frame.world_T_image @ centre @ se3.exp(twist) @ se3.inverse(centre))


@pytest.fixture(scope="module")
def frames(bench: Any) -> tuple[TrackedFrame, ...]:
    return tuple(bench.frame(t, noise=4.0, seed=k) for k, t in enumerate(TILTS))


@pytest.fixture(scope="module")
def refine() -> Refine:
    return Refine(RefineConfig(spread=SpreadConfig(count=0)))


def image_error_mm(bench: Any, world_T_ct: torch.Tensor, found: tuple[TrackedFrame, ...], true: Any) -> float:
    """Mean distance, in the volume, of where the frames' points are said to lie from where they lie."""
    total = []
    for a, b in zip(found, true, strict=True):
        points = b.frame.geometry.sample_points_mm()
        said = se3.transform_points(se3.inverse(world_T_ct) @ a.world_T_image, points)
        total.append((said - se3.transform_points(se3.inverse(bench.world_T_ct) @ b.world_T_image, points)).norm(dim=1))
    return float(torch.cat(total).mean())


def test_a_sweep_is_registered_by_its_keyframes(bench: Any, frames: tuple[TrackedFrame, ...], refine: Refine) -> None:
    sweep = Sweep(Registrar([refine]), SweepConfig(KeyframeConfig(count=3)))
    problem = bench.problem(frames, bench.start(frames[2], (2.0, -1.5, 1.0), (1.0, 2.0, -1.0)))
    chosen = sweep.choose(problem)
    assert len(chosen.fixed) == 3 and set(map(id, chosen.fixed)) < set(map(id, frames))
    found = sweep(problem)
    assert found.accepted, found.reason
    assert max(bench.tre_mm(found, f) for f in frames) < 0.15
    assert found.per_frame is None


def test_frames_may_be_weighed_by_their_images(bench: Any, frames: Any, refine: Refine) -> None:
    """Then the start does not matter; nor does it where the frames see nothing of the volume from it."""
    starts = [bench.start(frames[0], (x, 0.0, 0.0), (0.0, 0.0, 0.0)) for x in (500.0, 0.0)]
    settings = SweepConfig(KeyframeConfig(count=3), weigh="image")
    chosen = [Sweep(Registrar([refine]), settings).choose(bench.problem(frames, s)).fixed for s in starts]
    by_pose = Sweep(Registrar([refine]), replace(settings, weigh="pose")).choose(bench.problem(frames, starts[0])).fixed
    assert len(chosen[0]) == 3 and chosen[0] == chosen[1] == by_pose


def test_of_several_starts_the_best_result_counts(bench: Any, frames: Any, refine: Refine) -> None:
    far, wrong, near = (bench.start(frames[0], (x, 0.0, 0.0), (0.0, 0.0, 0.0)) for x in (900.0, 25.0, 2.0))
    sweep = Sweep(
        Registrar([refine]), SweepConfig(KeyframeConfig(count=2)), find=lambda seen, volume: [far, wrong, near]
    )
    assert sweep.searched(bench.problem(frames, far)) == frames
    found = sweep(bench.problem(frames, far))
    assert found.accepted and bench.tre_mm(found, frames[0]) < 0.2
    none = Sweep(Registrar([refine]), find=lambda seen, volume: [far, far])
    with pytest.raises(NoOverlapError, match="none of 2 starts"):
        none(bench.problem(frames, near))


def test_results_are_compared_on_the_same_frames(
    bench: Any, frames: Any, refine: Refine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that scored better on frames of its own loses to one that explains all of the sweep."""
    sweep = Sweep(Registrar([refine]))
    right, wrong = (bench.start(frames[0], (x, 0.0, 0.0), (0.0, 0.0, 0.0)) for x in (0.0, 6.0))
    claims = {id(right): 0.5, id(wrong): 0.9}
    monkeypatch.setattr(sweep, "register", lambda p: replace(p.start, score=claims[id(p.start)]))
    found = sweep.best(bench.problem(frames, right), [wrong, right])
    assert torch.equal(found.world_T_ct, right.world_T_ct)


def test_a_wrong_calibration_is_corrected(bench: Any, frames: tuple[TrackedFrame, ...], refine: Refine) -> None:
    wrong = tuple(off(f, ERROR) for f in frames)
    problem = bench.problem(wrong, bench.start(frames[2], (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)))
    plain = Sweep(Registrar([refine]))(problem)
    found = Sweep(Registrar([refine]), SweepConfig(bundle=LOOSE, correct=True))(problem)
    told = torch.tensor([v for k, v in found.evidence.items() if k.startswith("calibration_")], dtype=torch.float64)
    corrected = corrected_frames(wrong, _bundle_of(found, wrong))
    left = se3.log(se3.exp(ERROR) @ se3.exp(told))
    assert left[:3].norm() < 0.15 * ERROR[:3].norm() and left[3:].norm() < 0.15 * ERROR[3:].norm()
    before = image_error_mm(bench, plain.world_T_ct, wrong, frames)
    after = image_error_mm(bench, found.world_T_ct, corrected, frames)
    assert after < 0.15 * before
    assert found.score > plain.score


def _bundle_of(found: Any, wrong: tuple[TrackedFrame, ...]) -> Any:
    from usreg.registration.bundle import Bundle

    told = torch.tensor([v for k, v in found.evidence.items() if k.startswith("calibration_")], dtype=torch.float64)
    none = torch.zeros(len(wrong), dtype=torch.float64)
    return Bundle(se3.identity(), se3.exp(told), torch.zeros(len(wrong), 6, dtype=torch.float64), none, 0.0)


def solve(bench: Any, seen: tuple[TrackedFrame, ...], config: BundleConfig) -> Any:
    level = volume_level(bench.volume, 1.0)
    ct_T_ref = se3.inverse(bench.world_T_ct) @ world_T_ref(seen)
    placed, covariances = views(seen, 1.0, 1.9), pose_covariances(seen)
    measure = lambda view, pose: evaluate(level, [view], pose)  # noqa: E731
    return adjust(measure, placed, 1.0, ct_T_ref, covariances, 40.0, config)


def test_errors_of_the_tracking_are_found_where_the_arm_states_them(bench: Any, frames: Any) -> None:
    """One pose is off by 1 mm: with its covariance stated, the others hold the volume and the frame is put right."""
    twist = torch.tensor([0.8, 0.5, 0.3, 0.0, 0.0, 0.0], dtype=torch.float64)
    covariance = torch.diag(torch.tensor([1.0] * 3 + [1e-8] * 3, dtype=torch.float64))
    seen = list(frames)
    seen[1] = replace(off(frames[1], twist), covariance=se3.move_pivot(covariance, _centre_to_origin(frames[1])))
    exact = BundleConfig(calibration_mm=0.0, calibration_deg=0.0)
    found = solve(bench, tuple(seen), exact)
    world_T_ct = world_T_ref(tuple(seen)) @ se3.inverse(found.ct_T_ref)
    put = corrected_frames(tuple(seen), found)
    assert torch.equal(found.correction, se3.identity())
    assert image_error_mm(bench, world_T_ct, put, frames) < 0.15
    blind = solve(bench, tuple(replace(f, covariance=torch.zeros(6, 6, dtype=torch.float64)) for f in seen), exact)
    assert torch.equal(blind.errors, torch.zeros_like(blind.errors))
    assert image_error_mm(bench, world_T_ct, put, frames) < 0.5 * image_error_mm(bench, world_T_ct, tuple(seen), frames)


def _centre_to_origin(frame: TrackedFrame) -> torch.Tensor:
    centre = se3.transform_points(frame.world_T_image, frame.frame.plane.centre_mm[None])[0]
    return frame.world_T_image[:3, 3] - centre


def test_a_right_calibration_stays(bench: Any, frames: tuple[TrackedFrame, ...]) -> None:
    found = solve(bench, frames, LOOSE)
    moved = se3.log(found.correction)
    assert moved[:3].norm() < 0.1 and moved[3:].norm() < 0.003
    stiff = solve(bench, frames, BundleConfig(calibration_mm=0.0, calibration_deg=0.0))
    assert torch.equal(stiff.correction, se3.identity()) and stiff.objective >= found.objective


def test_what_cannot_be_solved_is_an_error(bench: Any, frames: tuple[TrackedFrame, ...], refine: Refine) -> None:
    with pytest.raises(ShapeError, match="covariances"):
        adjust(lambda view, pose: None, [], 1.0, se3.identity(), torch.zeros(0, 6, 6), 1.0, LOOSE)
    with pytest.raises(ShapeError, match="tracked frames"):
        Sweep(Registrar([refine]))(bench.problem((), bench.start(frames[0], (0.0,) * 3, (0.0,) * 3)))
    with pytest.raises(ConfigError, match="weigh"):
        SweepConfig(weigh="guess")
    with pytest.raises(ConfigError):
        BundleConfig(calibration_mm=-1.0)
