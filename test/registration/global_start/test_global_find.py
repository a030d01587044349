# SPDX-License-Identifier: Apache-2.0
"""The global start finds where frames lie, says so as hypotheses, and refuses what holds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from usreg import workers
from usreg.data.types import Estimate, Frame, TrackedFrame, Volume
from usreg.errors import NoOverlapError, ShapeError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.sector import SectorGeometry
from usreg.registration.global_start import GlobalStartConfig, find_starts

Scan = Callable[..., tuple[TrackedFrame, ...]]
FAST = GlobalStartConfig(
    lines=12, sample_mm=4.0, place_mm=12.0, turn_deg=18.0, tilt_deg=18.0, rock_deg=0.0, keep=(4000, 800, 60, 20)
)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("USREG_THREADS", "1")
    workers.thread_count.cache_clear()
    yield
    workers.thread_count.cache_clear()


def error(estimate: Estimate, frames: tuple[TrackedFrame, ...], truth: torch.Tensor) -> tuple[float, float]:
    """Distance (mm) at the middle of the middle image, and angle (degrees)."""
    middle = frames[len(frames) // 2]
    point = torch.cat([middle.frame.plane.centre_mm, torch.ones(1, dtype=torch.float64)])
    at = middle.world_T_image @ point
    moved = estimate.world_T_ct @ torch.linalg.inv(truth) @ at
    angle = rotation.geodesic_angle(estimate.world_T_ct[:3, :3], truth[:3, :3])
    return float((moved - at)[:3].norm()), float(torch.rad2deg(angle))


def test_sweep_is_found_on_the_skin(body: Volume, scan: Scan, truth: torch.Tensor) -> None:
    frames = scan(7)
    told: list[tuple[int, int]] = []
    found = find_starts(frames, body, FAST, lambda done, total: told.append((done, total)))
    assert any(mm < 10 and deg < 10 for mm, deg in (error(e, frames, truth) for e in found))
    assert [e.reason for e in found] == [f"hypothesis {k + 1}" for k in range(3)]
    assert not any(e.accepted for e in found)
    scores = [e.score for e in found]
    assert scores == sorted(scores, reverse=True)
    assert found[0].evidence["margin"] == pytest.approx(scores[0] - scores[1])
    assert all(0.0 < e.overlap <= 1.0 for e in found)
    assert told[-1] == (100, 100)
    assert all(a <= b for (a, _), (b, _) in zip(told, told[1:], strict=False))


@pytest.mark.usefixtures("one_thread")
def test_threads_change_nothing(body: Volume, scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, config = scan(3), replace(FAST, place_mm=24.0, keep=(800, 200, 20, 8))
    one = find_starts(frames, body, config)
    monkeypatch.setenv("USREG_THREADS", "2")
    workers.thread_count.cache_clear()
    two = find_starts(frames, body, config)
    assert all(torch.equal(a.world_T_ct, b.world_T_ct) and a.score == b.score for a, b in zip(one, two, strict=True))


def test_frames_are_found_in_a_volume_without_skin_or_known_tissue(probe: SectorGeometry, truth: torch.Tensor) -> None:
    """Blobs whose brightness the frames show reversed: only a relation is left to go by."""
    noise = np.random.default_rng(3).normal(size=(28, 28, 28))
    blobs = ndimage.gaussian_filter(noise, 3.0)
    blobs = 120 + 55 * blobs / blobs.std()
    volume = Volume(torch.from_numpy(blobs.astype(np.float32))[None], VoxelGrid((28,) * 3, (3.0,) * 3), "MR")
    turn = rotation.from_axis_angle_deg((1.0, 0.4, 0.2), 100.0)
    middle = se3.from_parts(turn, volume.grid.centre_ct)
    frames = []
    for k in range(3):
        offset = torch.tensor([-29.5, -40.0, 9.0 * (k - 1)], dtype=torch.float64)
        ct_T_image = middle @ se3.translation(offset)
        points = probe.plane.points_mm().reshape(-1, 3)
        index = se3.transform_points(volume.grid.index_T_ct @ ct_T_image, points).numpy()[:, ::-1]
        grey = 250 - ndimage.map_coordinates(blobs, index.T, order=1, mode="nearest").reshape(80, 60)
        image = torch.from_numpy(np.clip(grey, 30, 255).astype(np.uint8))
        frames.append(TrackedFrame(Frame(image, probe, 0.1 * k, k), truth @ ct_T_image))
    config = replace(FAST, box_mm=16.0, box_deg=24.0, keep=(4000, 1000, 100, 20))
    found = find_starts(tuple(frames), volume, config)
    mm, deg = error(found[0], tuple(frames), truth)
    assert mm < 10 and deg < 10
    assert found[0].score > found[1].score + 0.1


def test_time_that_is_over_still_gives_an_answer(body: Volume, scan: Scan) -> None:
    assert len(find_starts(scan(2), body, FAST, budget_s=0.0)) == 3


def test_frames_that_say_nothing(body: Volume, scan: Scan) -> None:
    with pytest.raises(NoOverlapError, match="dark"):
        find_starts(scan(2, image=False), body, FAST)
    with pytest.raises(ShapeError, match="at least one"):
        find_starts((), body, FAST)


def test_volumes_that_hold_nothing(body: Volume, scan: Scan) -> None:
    frames = scan(2)
    with pytest.raises(NoOverlapError, match="no voxel"):
        find_starts(frames, replace(body, mask=torch.zeros(body.data.shape[1:], dtype=torch.bool)), FAST)
    with pytest.raises(NoOverlapError, match="nowhere"):
        find_starts(frames, replace(body, data=torch.full_like(body.data, -1000)), FAST)


def test_constant_volume_and_one_slice_give_finite_poses(body: Volume, scan: Scan) -> None:
    frames = scan(2)
    config = replace(FAST, box_mm=40.0, box_deg=60.0, keep=(100, 50, 10, 4))
    constant = replace(body, data=torch.full_like(body.data, 50), modality="MR")
    slice_ = replace(body, data=body.data[:, 20:21], grid=replace(body.grid, size=(*body.grid.size[:2], 1)))
    for volume in (constant, slice_):
        for e in find_starts(frames, volume, config):
            assert bool(torch.isfinite(e.world_T_ct).all())
            assert not e.accepted
