# SPDX-License-Identifier: Apache-2.0
"""Smoothing in mm, the same for frame and volume, with gaps left out."""

from __future__ import annotations

import pytest
import torch

from usreg.data.types import Frame, Volume
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.registration.pyramid import _band, frame_level, gaussian_matrix, thin, volume_level


def test_rows_of_the_smoothing_matrix_sum_to_one_inside_and_to_half_at_the_end() -> None:
    weights = gaussian_matrix(60, 3, 2.5)
    assert weights.shape == (20, 60)
    assert torch.allclose(weights[5:15].sum(1), torch.ones(10), atol=1e-3)
    assert float(weights[0].sum()) == pytest.approx(0.5 + 0.5 * float(weights[0, 0]), abs=1e-3)
    assert torch.equal(gaussian_matrix(7, 2, 0.0), torch.eye(7)[::2])


def test_with_cover_the_last_row_reaches_the_last_sample() -> None:
    assert gaussian_matrix(10, 4, 1.0).shape[0] == 3
    assert gaussian_matrix(10, 4, 1.0, cover=True).shape[0] == 4
    assert gaussian_matrix(9, 4, 1.0, cover=True).shape[0] == 3


def test_a_linear_volume_stays_linear_and_in_place() -> None:
    i = torch.arange(40, dtype=torch.float32)
    grid = VoxelGrid((40, 40, 40), (1.0, 1.5, 0.5), (5.0, -3.0, 2.0))
    level = volume_level(Volume(i.expand(40, 40, 40)[None].contiguous(), grid), 3.0)
    middle = torch.tensor([20.0, 27.0, 10.0, 1.0], dtype=torch.float64)
    index = level.index_T_ct @ torch.cat([middle[:3] + torch.tensor([5.0, -3.0, 2.0]), torch.ones(1)]).to(torch.float64)
    k, j, i_ = (int(v) for v in (index[2].round(), index[1].round(), index[0].floor()))
    here = float(level.data[k, j, i_]) + float(index[0] - i_) * float(level.data[k, j, i_ + 1] - level.data[k, j, i_])
    assert here == pytest.approx(20.0, abs=1e-3)
    assert level.data.shape == (8, 21, 14)


def test_unknown_voxels_do_not_darken_their_neighbours() -> None:
    known = torch.rand(20, 20, 20, generator=torch.Generator().manual_seed(1)) > 0.3
    data = torch.where(known, torch.tensor(50.0), torch.tensor(torch.nan))
    for mask in (None, known):
        level = volume_level(Volume(data[None], VoxelGrid((20, 20, 20), (1.0, 1.0, 1.0)), mask=mask), 2.0)
        inner = level.data[2:-2, 2:-2, 2:-2]
        assert torch.allclose(inner, torch.full_like(inner, 50.0), atol=1e-3)
        seen = level.data[torch.isfinite(level.data)]
        assert torch.allclose(seen, torch.full_like(seen, 50.0), atol=1e-3)


def test_without_smoothing_the_volume_is_as_it_was_and_gaps_are_nan() -> None:
    known = torch.ones(6, 6, 6, dtype=torch.bool)
    known[2, 3, 4] = False
    data = torch.arange(216, dtype=torch.float32).reshape(1, 6, 6, 6)
    level = volume_level(Volume(data, VoxelGrid((6, 6, 6), (1.0, 1.0, 1.0)), mask=known), 0.0)
    assert bool(torch.isnan(level.data[2, 3, 4]))
    assert torch.equal(level.data[known], data[0][known])


def test_frame_samples_lie_inside_the_sector_and_know_their_place(bench) -> None:  # type: ignore[no-untyped-def]
    frame = bench.frame().frame
    level = frame_level(frame, 2.0, 2.0)
    xy = torch.stack([level.x_mm, level.y_mm], -1).double() + frame.plane.centre_mm[:2]
    assert bool(frame.geometry.contains(xy).all())
    assert level.spacing_mm == pytest.approx((1.8, 1.8), abs=1e-3)
    rows, columns = level.cell // level.shape[1], level.cell % level.shape[1]
    (a, b), (_, d) = frame.plane.pixel_to_mm
    assert torch.allclose(xy[:, 1], (2 * rows * d).double(), atol=1e-4)
    assert torch.allclose(xy[:, 0], (2 * columns * a + 2 * rows * b).double(), atol=1e-4)


def test_a_flat_frame_stays_flat_up_to_the_sectors_edge(bench) -> None:  # type: ignore[no-untyped-def]
    geometry = bench.frame().frame.geometry
    level = frame_level(Frame(torch.full((60, 75), 80, dtype=torch.uint8), geometry, 0.0), 3.0, 1.0)
    assert torch.allclose(level.value, torch.full_like(level.value, 80.0), atol=1e-3)


def test_frame_and_volume_are_smoothed_alike() -> None:
    """A pattern that is constant along z: its smoothed slice equals the smoothed frame."""
    pattern = (128 + 60 * torch.sin(torch.arange(64) / 3.0)).round().to(torch.uint8).expand(64, 64).contiguous()
    volume = Volume(pattern.expand(64, 64, 64)[None], VoxelGrid((64, 64, 64), (1.0, 1.0, 1.0)))
    geometry = full_rectangle(PlaneGrid(64, 64, ((1.0, 0.0), (0.0, 1.0))))
    smooth = volume_level(volume, 1.5).data[32]
    level = frame_level(Frame(pattern, geometry, 0.0), 1.5, 1.0)
    flat = torch.zeros(64 * 64)
    flat[level.cell] = level.value
    assert torch.allclose(flat.reshape(64, 64)[8:-8, 8:-8], smooth[8:-8, 8:-8], atol=1e-3)


@pytest.mark.parametrize("sigma", [0.0, 0.6, 5.0])
def test_the_banded_product_is_the_full_one(generator: torch.Generator, sigma: float) -> None:
    image = torch.randint(0, 256, (31, 44), generator=generator, dtype=torch.uint8)
    mask = torch.rand(31, 44, generator=generator) > 0.4
    rows, columns = gaussian_matrix(31, 3, sigma), gaussian_matrix(44, 2, 1.5 * sigma)
    fast = thin(image.numpy(), mask.numpy(), *_band(rows), *_band(columns))
    slow = rows @ (image.float() * mask) @ columns.T
    assert torch.allclose(torch.from_numpy(fast), slow, rtol=1e-5, atol=1e-3)
