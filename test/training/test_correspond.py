# SPDX-License-Identifier: Apache-2.0
"""Training of correspondences: targets are where pixels lie, also mirrored and scaled; a small network learns them."""

from __future__ import annotations

import math

import pytest
import torch

from usreg.data.types import Frame, TrackedFrame, Volume
from usreg.errors import ConfigError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.networks.correspondence import Correspondence
from usreg.registration.learned.view import ViewConfig, view_volume
from usreg.rendering.reslice import slice_fast
from usreg.training.correspond import (
    CorrespondObjective,
    CorrespondTrainingConfig,
    corners,
    flipped,
    index_points,
    known_places,
    recipe,
    unravel,
)
from usreg.training.distributed import seeded
from usreg.training.pairs import Batch

SMALL = {"volume_widths": [8, 16, 16], "frame_widths": [8, 16, 16], "descriptor": 8}


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Three slices of a volume of soft noise, of which one half of every frame counts."""
    generator = torch.Generator().manual_seed(4)
    coarse = torch.randn(1, 1, 9, 10, 11, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(60, 66, 72), mode="trilinear", align_corners=True)[0]
    grid = VoxelGrid((72, 66, 60), (1.5, 1.5, 1.5), (10.0, -20.0, 5.0))
    volume = Volume((120 + 50 * smooth).clamp(0, 255).to(torch.uint8), grid, "US")
    plane = PlaneGrid(60, 70, ((1.0, 0.0), (0.0, 1.0)))
    geometry, poses, frames, starts = full_rectangle(plane), [], [], []
    for number in range(3):
        turn = rotation.exp(torch.tensor([0.1, -0.1, 0.1], dtype=torch.float64) * (number - 1))
        shift = torch.tensor([2.0, -3.0, 5.0], dtype=torch.float64) * (number - 1)
        poses.append(se3.from_parts(turn, grid.centre_ct + shift) @ se3.translation(-plane.centre_mm))
        image, _ = slice_fast(volume, poses[-1], plane)
        frames.append(TrackedFrame(Frame(image, geometry, float(number)), poses[-1]))
        starts.append(se3.right_at_centre(poses[-1], torch.tensor([5.0, 0, 0]).double(), torch.zeros(3).double(),
                                          plane.centre_mm))  # fmt: skip
    liver = torch.zeros(3, 60, 70, dtype=torch.bool)
    liver[:, :, 35:] = True
    images = torch.stack([f.frame.image for f in frames]).float() / 255
    return Batch(0, volume, tuple(frames), torch.stack(starts), torch.stack(poses), liver, images)


@pytest.mark.parametrize("mirrored", [False, True])
def test_targets_are_where_the_pixels_lie(batch: Batch, mirrored: bool) -> None:
    objective = CorrespondObjective(config=CorrespondTrainingConfig(pixels=500, elsewhere=500))
    generator = torch.Generator().manual_seed(0)
    seen = view_volume(objective._smoothed(batch.volume), objective._axes(batch, mirrored, generator), 3.3)
    for number in range(3):
        frame = objective._frame(batch, number, 1.65, mirrored)
        targets = objective._targets(batch, number, frame, seen, generator)
        points = index_points(targets.index * 4, frame.image_T_index)
        at = se3.transform_points(seen.ct_T_index, targets.place * 2)
        torch.testing.assert_close(at, se3.transform_points(batch.ct_T_true[number], points))
        assert bool((points[targets.known][:, 0] > 34).all()) and int(targets.known.sum()) > 20
        # the same brightness is seen at both: the frame is a slice of the volume
        row, column = (targets.index * 4).flip(-1).unbind(-1)
        shown = frame.values[0, 0, row, column]
        x, y, z = (targets.place * 2).round().long().unbind(-1)
        d, h, w = seen.values.shape[2:]
        inside = (x >= 0) & (y >= 0) & (z >= 0) & (x < w) & (y < h) & (z < d)
        there = seen.values[0, 0, z[inside], y[inside], x[inside]]
        assert float(torch.corrcoef(torch.stack([shown[inside], there]))[0, 1]) > 0.9


def test_a_mirrored_frame_keeps_its_pixels_places(batch: Batch) -> None:
    frame = CorrespondObjective()._frame(batch, 0, 1.5, False)
    other = flipped(frame)
    width = frame.values.shape[-1]
    index = torch.tensor([[3, 7], [10, 2]])
    there = torch.stack([width - 1 - index[:, 0], index[:, 1]], -1)
    torch.testing.assert_close(index_points(index, frame.image_T_index), index_points(there, other.image_T_index))
    assert torch.equal(frame.values[0, :, 7, 3], other.values[0, :, 7, width - 4])


def test_corners_carry_trilinear_weights() -> None:
    shape = torch.Size((3, 4, 5))
    rows = torch.arange(60)
    rows[unravel_back((1, 1, 1), shape)] = -1
    place = torch.tensor([[0.25, 1.5, 1.0], [4.0, 3.0, 2.0]], dtype=torch.float64)
    columns, weights = corners(place, shape, rows)
    assert math.isclose(float(weights[1].sum()), 1.0) and math.isclose(float(weights[0].sum()), 0.875, rel_tol=1e-6)
    known = weights[0] > 0
    back = unravel(columns[0][known], shape).double()
    expected = torch.tensor([0.0, 2.0, 1.0]) * 0.375 + torch.tensor([1.0, 2.0, 1.0]) * 0.125
    expected = expected + torch.tensor([0.0, 1.0, 1.0]) * 0.375
    torch.testing.assert_close((weights[0][known, None] * back).sum(0), expected.double(), atol=1e-6, rtol=1e-6)


def unravel_back(xyz: tuple[int, int, int], shape: torch.Size) -> int:
    x, y, z = xyz
    return (z * shape[1] + y) * shape[2] + x


def test_a_small_network_learns_places(batch: Batch) -> None:
    options = {"training": {"view_deg": 5.0, "mirror": 0.0, "scale": 0.0, "pixels": 60}, "view": {"frame_mm": 1.5}}
    with seeded(3, 0):
        made = recipe(SMALL, options)
    (step,) = made.objective.steps
    optimizer = torch.optim.Adam(made.network.parameters(), 1e-2)
    chance = math.log(len(known_places(view_volume(
        step.losses._smoothed(batch.volume), torch.eye(3, dtype=torch.float64), ViewConfig().volume_mm
    ))))  # fmt: skip
    for number in range(60):
        with seeded(3, number):
            losses = step.losses(made.network, batch)
        optimizer.zero_grad()
        step.total(losses).backward()
        optimizer.step()
    assert losses["place"].item() < chance - 2.0, (losses["place"].item(), chance)
    assert losses["right"].item() > 0.1  # by chance: 1 in 200
    figures = made.figures(made.network.eval(), batch)
    assert set(figures) >= {"tre_mm", "rotation_deg"} and figures["tre_mm"].shape == (3,)
    assert bool(torch.isfinite(figures["tre_mm"]).all())
    torch.testing.assert_close(figures["start_tre_mm"], torch.full((3,), 5.0, dtype=torch.float64))


def test_the_same_seed_gives_the_same_loss(batch: Batch) -> None:
    with seeded(3, 0):
        network = Correspondence()
    values = []
    for _ in range(2):
        with seeded(3, 1):
            values.append(CorrespondObjective()(network, batch)["place"].item())
    assert values[0] == values[1]


@pytest.mark.parametrize("change", [{"view_deg": 200.0}, {"pixels": 0}, {"mirror": 2.0}])
def test_settings_that_make_no_sense(change: dict) -> None:
    with pytest.raises(ConfigError):
        CorrespondTrainingConfig(**change)
