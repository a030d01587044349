# SPDX-License-Identifier: Apache-2.0
"""The refinement: finds the pose, re-tries, says what it cannot see, refuses bad input, repeats to the bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from usreg.data.types import Frame, Problem, TrackedFrame, Volume, start_estimate
from usreg.errors import ConfigError, NoOverlapError, ShapeError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGeometry, PlaneGrid
from usreg.registration.agreement import Stage
from usreg.registration.refine import LevelConfig, Refine, RefineConfig
from usreg.registration.registrar import Registrar, RegistrarConfig
from usreg.registration.spread import SpreadConfig
from usreg.rendering import slice_volume


@pytest.fixture(scope="module")
def refine(bench) -> Refine:  # type: ignore[no-untyped-def]
    stage = Refine()
    stage.prepare(bench.volume)
    return stage


@pytest.mark.parametrize("twist", [(0.0,) * 6, (4.0, -3.0, 5.0, 0.3, -0.2, 0.5)])
def test_finds_a_frame_from_off_its_pose(bench, refine, twist) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(twist, noise=8.0)
    start = bench.start(tracked, (4.0, -3.0, 2.0), (3.0, -3.0, 4.0))
    found = refine(bench.problem((tracked,), start), start)
    assert found.accepted and found.reason == ""
    assert bench.tre_mm(start, tracked) > 4.0 > 0.2 > bench.tre_mm(found, tracked)
    assert found.overlap > 0.9 and found.score > 0.9


def test_a_far_start_is_found_by_the_search(bench, refine) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=8.0)
    start = bench.start(tracked, (14.0, -12.0, 7.0), (8.0, -8.0, 12.0))
    alone = Refine(RefineConfig(spread=SpreadConfig(count=0)))
    without = alone(bench.problem((tracked,), start), start)
    assert not without.accepted and bench.tre_mm(without, tracked) > 3.0
    found = refine(bench.problem((tracked,), start), start)
    assert found.accepted and bench.tre_mm(found, tracked) < 0.3


def test_several_frames_are_placed_together_and_more_surely(bench, refine) -> None:  # type: ignore[no-untyped-def]
    frames = tuple(
        bench.frame(t, noise=25.0, seed=k)
        for k, t in enumerate([(0.0,) * 6, (3.0, 2.0, 6.0, 0.1, 0.2, 0.0), (-4.0, 1.0, -6.0, -0.2, 0.0, 0.1)])
    )
    start = bench.start(frames[0], (2.0, -2.0, 2.0), (2.0, 2.0, -2.0))
    one, three = (refine(bench.problem(f, start), start) for f in (frames[:1], frames))
    assert three.accepted and max(bench.tre_mm(three, f) for f in frames) < 0.25
    assert three.covariance.trace() < 0.6 * one.covariance.trace()


def test_nothing_that_is_given_is_changed_and_results_repeat_to_the_bit(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=10.0)
    start = bench.start(tracked, (9.0, 5.0, 4.0), (5.0, 5.0, -6.0))
    before = (start.world_T_ct.clone(), tracked.frame.image.clone(), bench.volume.data.clone())
    results = [Refine()(bench.problem((tracked,), start), start) for _ in range(2)]
    assert torch.equal(results[0].world_T_ct, results[1].world_T_ct)
    assert torch.equal(results[0].covariance, results[1].covariance) and results[0].score == results[1].score
    after = (start.world_T_ct, tracked.frame.image, bench.volume.data)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_gain_and_offset_of_the_frame_do_not_move_the_estimate(bench, refine) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    image = (40 + 0.5 * tracked.frame.image.double()).round().to(torch.uint8)
    dim = replace(tracked, frame=replace(tracked.frame, image=image))
    start = bench.start(tracked, (2.0, 2.0, -1.0), (1.0, -2.0, 2.0))
    found = refine(bench.problem((dim,), start), start)
    assert found.accepted and bench.tre_mm(found, tracked) < 0.1


def test_the_trackers_covariance_is_carried_to_the_volumes_centre(bench, refine) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=8.0)
    sigma = torch.tensor([0.5, 0.4, 0.3, 0.01, 0.02, 0.015], dtype=torch.float64)
    unsure = replace(tracked, covariance=torch.diag(sigma**2))
    start = bench.start(tracked, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    sure, found = (refine(bench.problem((t,), start), start) for t in (tracked, unsure))
    # the image's error Exp(x) about its origin moves the volume by the same Exp(x) about that point
    moved = se3.move_pivot(unsure.covariance, found.pivot - tracked.world_T_image[:3, 3])
    assert torch.allclose(found.covariance, sure.covariance + moved, rtol=1e-9, atol=1e-12)


def test_covariance_does_not_depend_on_where_the_room_is(bench, refine) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=12.0)
    start = bench.start(tracked, (1.0, -1.0, 1.0), (1.0, 1.0, -1.0))
    move = se3.exp(torch.tensor([100.0, -40.0, 7.0, 0.5, -1.0, 0.3], dtype=torch.float64))
    there = replace(tracked, world_T_image=move @ tracked.world_T_image)
    begin = start_estimate(move @ start.world_T_ct, bench.volume)
    a, b = refine(bench.problem((tracked,), start), start), refine(bench.problem((there,), begin), begin)
    turn = se3.adjoint(se3.from_parts(move[:3, :3], torch.zeros(3, dtype=torch.float64)))
    assert torch.allclose(b.covariance, turn @ a.covariance @ turn.T, rtol=1e-3, atol=1e-9)
    assert torch.allclose(b.pivot, se3.transform_points(move, a.pivot[None])[0], atol=1e-3)


def test_noise_makes_it_less_sure(bench, refine) -> None:  # type: ignore[no-untyped-def]
    traces = []
    for noise in (5.0, 20.0, 40.0):
        tracked = bench.frame(noise=noise)
        start = bench.start(tracked, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        traces.append(float(refine(bench.problem((tracked,), start), start).covariance[:3, :3].trace()))
    assert traces[0] < traces[1] < traces[2]


def test_what_cannot_be_seen_out_of_plane_is_said_and_refused(bench) -> None:  # type: ignore[no-untyped-def]
    layer = bench.volume.data[:, 35:36].expand(1, 70, 70, 70).contiguous()
    same = replace(bench, volume=Volume(layer, bench.volume.grid, "US"))
    geometry = bench.frame().frame.geometry
    axes = torch.tensor(same.volume.grid.direction, dtype=torch.float64).reshape(3, 3)
    pose = se3.from_parts(axes, same.volume.grid.centre_ct) @ se3.translation(-geometry.plane.centre_mm)
    image = slice_volume(same.volume, pose, geometry.plane)[0][0, 0].round().to(torch.uint8)
    tracked = TrackedFrame(Frame(image, geometry, 0.0), same.world_T_ct @ pose)
    start = same.start(tracked, (1.0, -1.0, 1.0), (0.5, 0.5, 1.0))
    found = Refine(RefineConfig(spread=SpreadConfig(count=0)))(same.problem((tracked,), start), start)
    in_plane, _, elevation = (found.world_T_ct[:3, :3] @ axes).unbind(1)
    centre = se3.transform_points(tracked.world_T_image, geometry.plane.centre_mm[None])[0]
    at_image = se3.move_pivot(found.covariance, centre - found.pivot)[:3, :3]
    assert float(elevation @ at_image @ elevation) ** 0.5 > 100.0
    assert float(in_plane @ at_image @ in_plane) ** 0.5 < 1.0
    assert not found.accepted and "not observable" in found.reason


def test_no_overlap_is_an_error(bench, refine) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    start = bench.start(tracked, (0.0, 0.0, 500.0), (0.0, 0.0, 0.0))
    with pytest.raises(NoOverlapError, match="inside the volume"):
        refine(bench.problem((tracked,), start), start)


def test_an_unknown_volume_is_no_overlap(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    start = bench.start(tracked, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    nothing = torch.zeros(70, 70, 70, dtype=torch.bool)
    nan = Volume(torch.full((1, 70, 70, 70), torch.nan), bench.volume.grid)
    for volume in (Volume(bench.volume.data, bench.volume.grid, mask=nothing), nan):
        with pytest.raises(NoOverlapError):
            Refine()(Problem((tracked,), volume, start), start)


def test_holes_of_nan_are_left_out(bench) -> None:  # type: ignore[no-untyped-def]
    data = bench.volume.data.to(torch.float32)
    data[0, 25:45, 30:33, 20:50] = torch.nan
    data[0, 10:12] = torch.inf
    volume = Volume(data, bench.volume.grid, "US")
    tracked = bench.frame(noise=8.0)
    start = bench.start(tracked, (3.0, 2.0, 1.0), (2.0, -2.0, 2.0))
    found = Refine()(Problem((tracked,), volume, start), start)
    assert found.accepted and bench.tre_mm(found, tracked) < 0.2 and found.overlap < 0.99


@pytest.mark.parametrize("grey", [0, 90])
def test_a_frame_without_contrast_is_refused(bench, refine, grey) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    flat = replace(tracked, frame=replace(tracked.frame, image=torch.full_like(tracked.frame.image, grey)))
    start = bench.start(tracked, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    found = refine(bench.problem((flat,), start), start)
    assert not found.accepted and "score" in found.reason
    assert bool(torch.isfinite(found.covariance).all())


def test_a_volume_without_contrast_is_refused(bench) -> None:  # type: ignore[no-untyped-def]
    volume = Volume(torch.full((1, 70, 70, 70), 90, dtype=torch.uint8), bench.volume.grid)
    tracked = bench.frame()
    start = bench.start(tracked, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    found = Refine()(Problem((tracked,), volume, start), start)
    assert not found.accepted and found.reason


def test_another_anatomy_is_refused(bench, refine) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    other = torch.from_numpy(tracked.frame.image.numpy()[::-1, ::-1].copy())
    wrong = replace(tracked, frame=replace(tracked.frame, image=other))
    start = bench.start(tracked, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    found = refine(bench.problem((wrong,), start), start)
    assert not found.accepted and found.reason


def test_a_plain_image_plane_without_a_sector_is_registered(bench, refine) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    geometry = PlaneGeometry(tracked.frame.plane)
    plain = replace(tracked, frame=replace(tracked.frame, geometry=geometry))
    start = bench.start(tracked, (2.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    found = refine(bench.problem((plain,), start), start)
    assert found.accepted and bench.tre_mm(found, tracked) < 0.2


def test_a_volume_is_no_frame_and_channels_are_counted(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame()
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    with pytest.raises(ShapeError, match="tracked frames"):
        Refine()(Problem(bench.volume, bench.volume, start), start)
    with pytest.raises(ShapeError, match="channel 2"):
        Refine(RefineConfig(channel=2))(bench.problem((tracked,), start), start)


def test_configurations_are_checked() -> None:
    with pytest.raises(ConfigError, match="coarse to fine"):
        RefineConfig(levels=(LevelConfig(1.0, 1.0), LevelConfig(2.0, 2.0)))
    with pytest.raises(ConfigError, match="coarse to fine"):
        RefineConfig(levels=())
    with pytest.raises(ConfigError, match="structure_level"):
        RefineConfig(structure_level=4)
    with pytest.raises(ConfigError, match="min_overlap"):
        RefineConfig(min_overlap=1.5)
    with pytest.raises(ConfigError, match="finish"):
        SpreadConfig(finish=0)


def test_the_registrar_runs_its_stages_in_order_and_measures_time(bench, refine) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=5.0)
    start = bench.start(tracked, (2.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    registrar = Registrar([refine, refine], RegistrarConfig("twice"))
    found = registrar(bench.problem((tracked,), start))
    assert found.accepted and found.system == "twice" and found.compute_s > 0.0
    assert isinstance(refine, Stage)
    with pytest.raises(ConfigError, match="at least one stage"):
        Registrar([])


def test_sheared_pixels_are_used_as_they_are(bench) -> None:  # type: ignore[no-untyped-def]
    (_, shear), _ = bench.frame().frame.plane.pixel_to_mm
    assert shear != 0.0 and isinstance(bench.frame().frame.plane, PlaneGrid)
