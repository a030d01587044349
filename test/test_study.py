# SPDX-License-Identifier: Apache-2.0
"""Studies of sweeps: one start for all frames, errors over all of them, against poses known better than tracked."""

from __future__ import annotations

import math

import pytest
import torch

from usreg import study
from usreg.data.types import Estimate, Frame, Problem, Rigid, TrackedFrame, Volume
from usreg.errors import ConfigError, NoOverlapError, ShapeError
from usreg.evaluation import pose_error
from usreg.evaluation.metrics import poses_error
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.registration.registrar import Registrar

GEOMETRY = full_rectangle(PlaneGrid(11, 21, ((2.0, 0.0), (0.0, 2.0))))
VOLUME = Volume(torch.zeros(1, 8, 8, 8), VoxelGrid((8, 8, 8), (5.0, 5.0, 5.0)))
TRUTH = se3.exp(torch.tensor([40.0, -3.0, 7.0, 0.4, -0.2, 0.9], dtype=torch.float64))


class Moved:
    """A stage that says where the volume lies: where it was told, moved by a pose in the volume's axes."""

    def __init__(self, world_T_ct: torch.Tensor | None = None) -> None:
        self.world_T_ct, self.problems = world_T_ct, []

    def prepare(self, volume: Volume) -> None:
        pass

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        self.problems.append(problem)
        pose = estimate.world_T_ct if self.world_T_ct is None else self.world_T_ct
        return Estimate(Rigid(pose), torch.eye(6, dtype=torch.float64), estimate.pivot, 0.5, 1.0, True)


class Nowhere(Moved):
    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        raise NoOverlapError("no overlap at all")


def frames(count: int) -> list[TrackedFrame]:
    """A fan that also slides."""
    twists = torch.zeros(count, 6, dtype=torch.float64)
    twists[:, 2], twists[:, 3] = 4.0 * torch.arange(count), 0.05 * torch.arange(count)
    image = torch.zeros(11, 21, dtype=torch.uint8)
    poses = TRUTH @ se3.exp(twists)
    return [TrackedFrame(Frame(image, GEOMETRY, 0.1 * i, i), pose) for i, pose in enumerate(poses)]


def test_a_sweep_is_perturbed_about_its_centre_in_the_axes_of_its_middle_frame() -> None:
    target = study.Target(tuple(frames(5)), TRUTH)
    images = target.true_ct_T_images
    points = torch.cat([se3.transform_points(t, GEOMETRY.plane.centre_mm[None]) for t in images])
    centre = points.mean(0)
    twist = torch.tensor([1.0, -2.0, 3.0, 0.1, 0.2, -0.3], dtype=torch.float64)
    moved = target.placed(target.start(twist)) @ se3.inverse(images)  # one motion of everything, in ct
    assert (moved - moved[:1]).abs().max() < 1e-12
    shift = se3.transform_points(moved[0], centre[None])[0] - centre
    assert torch.allclose(images[2, :3, :3].T @ shift, twist[:3], atol=1e-12)
    angle = torch.linalg.norm(twist[3:])
    assert math.acos((moved[0, :3, :3].trace().item() - 1) / 2) == pytest.approx(float(angle))


def test_the_error_of_a_sweep_is_the_mean_over_its_frames() -> None:
    target = study.Target(tuple(frames(4)), TRUTH)
    off = se3.exp(torch.tensor([3.0, 1.0, -2.0, 0.05, 0.1, 0.02], dtype=torch.float64))
    found = target.placed(TRUTH @ off)
    single = [pose_error(a, b, GEOMETRY) for a, b in zip(found, target.true_ct_T_images, strict=True)]
    whole = target.error(TRUTH @ off)
    for name in ("tre_mm", "rotation_deg", "out_of_plane_mm"):
        assert getattr(whole, name) == pytest.approx(sum(getattr(e, name) for e in single) / 4)
    assert whole.translation_mm < sum(e.translation_mm for e in single) / 4  # of the centre of all
    one = poses_error(found[:1], target.true_ct_T_images[:1], [GEOMETRY])
    assert vars(one) == vars(single[0])


def test_a_shift_of_everything_is_the_same_in_every_error() -> None:
    target = study.Target(tuple(frames(4)), TRUTH)
    shift = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    error = target.error(TRUTH @ se3.translation(shift))
    assert error.tre_mm == pytest.approx(3.0) and error.translation_mm == pytest.approx(3.0)
    assert error.rotation_deg == pytest.approx(0.0, abs=1e-5)


def test_true_poses_of_the_images_count_before_the_tracking() -> None:
    tracked = frames(3)
    calibration = se3.exp(torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0, 0.01], dtype=torch.float64))
    true = study.Target(tuple(tracked), TRUTH).true_ct_T_images @ calibration
    target = study.Target(tuple(tracked), TRUTH, true)
    assert target.error(TRUTH).tre_mm > 0.3
    start = target.placed(target.start(torch.zeros(6, dtype=torch.float64)))
    assert torch.allclose(start[1], true[1], atol=1e-12)  # the middle frame begins where it truly is
    single = study.Target((tracked[0],), TRUTH, true[:1])
    row = study.run_one(single, VOLUME, Registrar([Moved()]), torch.zeros(6, dtype=torch.float64))
    assert row.initial_tre_mm == pytest.approx(0.0, abs=1e-9) and row.final_tre_mm == pytest.approx(0.0, abs=1e-9)


def test_a_study_of_sweeps_registers_consecutive_frames_as_one() -> None:
    stage = Moved(TRUTH)
    rows = study.run_study(
        frames(7), VOLUME, Registrar([stage]), (5, 5, 5, 3, 3, 3), starts=3, seed=1, truth=TRUTH, sweep=3
    )
    assert [tuple(f.frame.index for f in p.fixed) for p in stage.problems] == [(0, 1, 2), (3, 4, 5), (0, 1, 2)]
    assert [r.frame for r in rows] == [1, 4, 1]
    assert all(r.initial_tre_mm > 0.5 and r.final_tre_mm < 1e-9 and r.accepted for r in rows)
    with pytest.raises(ConfigError, match="sweeps of 8"):
        study.run_study(frames(7), VOLUME, Registrar([stage]), (0,) * 6, sweep=8)


def test_a_sweep_without_a_result_keeps_its_start() -> None:
    target = study.Target(tuple(frames(3)), TRUTH)
    twist = torch.tensor([3.0, 0.0, 4.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    row = study.run_one(target, VOLUME, Registrar([Nowhere()]), twist)
    assert row.initial_tre_mm == pytest.approx(5.0) and math.isnan(row.final_tre_mm) and not row.accepted
    assert row.reason == "no overlap at all"


def test_a_start_states_the_covariance_of_its_draw() -> None:
    """Drawn starts, seen as world_T_ct = Exp(x) truth about the volume's centre, have the stated covariance."""
    target, limits = study.Target(tuple(frames(5)), TRUTH), (1.0, 2.0, 3.0, 0.5, 1.0, 1.5)
    twists = study.draw_twists(limits, 500, seed=1)
    pivot = se3.transform_points(TRUTH, VOLUME.grid.centre_ct[None])[0]
    errors = torch.stack([se3.error_at_pivot(target.start(t), TRUTH, pivot) for t in twists])
    stated = target.started(torch.zeros(6, dtype=torch.float64), VOLUME, study.variance_of(limits)).covariance
    scale = stated.diagonal().sqrt()
    assert ((errors.T.cov() - stated) / (scale[:, None] * scale)).abs().max() < 0.12
    assert not target.started(twists[0], VOLUME).covariance.any()
    assert not target.started(twists[0], VOLUME, study.variance_of((1, 1, 1, 1, 1, 0))).covariance.any()


def test_directed_draws_have_one_length_and_one_angle() -> None:
    twists = study.draw_directions(4.0, 10.0, 500, seed=3)
    assert torch.allclose(twists[:, :3].norm(dim=-1), torch.tensor(4.0, dtype=torch.float64))
    assert torch.allclose(twists[:, 3:].norm(dim=-1), torch.tensor(math.radians(10), dtype=torch.float64))
    assert (twists.mean(0)[:3].abs() < 0.5).all() and torch.equal(twists, study.draw_directions(4.0, 10.0, 500, 3))
    with pytest.raises(ConfigError, match="length"):
        study.draw_directions(-1.0, 0.0, 1, 0)


def test_a_target_needs_frames_and_as_many_poses() -> None:
    with pytest.raises(ShapeError, match="at least one"):
        study.Target((), TRUTH)
    with pytest.raises(ShapeError, match="2, 4, 4"):
        study.Target(tuple(frames(2)), TRUTH, TRUTH[None])
