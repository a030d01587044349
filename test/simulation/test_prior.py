# SPDX-License-Identifier: Apache-2.0
"""What is known before a session: labels on another grid, landmarks that were seen, the CT cut to what was scanned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.errors import NoOverlapError
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.simulation.body.types import Body
from usreg.simulation.prior import cropped, labels_on, seen

TURN = rotation.exp(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
OBLIQUE = VoxelGrid((14, 12, 10), (2.0, 2.5, 3.0), (-11.0, 6.0, 4.0), tuple(TURN.flatten().tolist()))


def drawn(grid: VoxelGrid, rng: np.random.Generator, top: int = 31) -> Volume:
    w, h, d = grid.size
    return Volume(torch.from_numpy(rng.integers(1, top, (1, d, h, w)).astype(np.uint8)), grid)


def points_of(grid: VoxelGrid) -> torch.Tensor:
    """Middles of all voxels (D * H * W, 3) mm, in the order of the data."""
    w, h, d = grid.size
    z, y, x = torch.meshgrid(torch.arange(d), torch.arange(h), torch.arange(w), indexing="ij")
    return se3.transform_points(grid.ct_T_index, torch.stack([x, y, z], -1).reshape(-1, 3).double())


def test_labels_on_another_oblique_grid_are_those_of_the_nearest_voxels(rng: np.random.Generator) -> None:
    body = Body(drawn(OBLIQUE, rng))
    other = rotation.exp(torch.tensor([-0.1, 0.4, 0.2], dtype=torch.float64))
    grid = VoxelGrid((11, 9, 8), (1.7, 1.3, 2.1), (-9.0, 10.0, 8.0), tuple(other.flatten().tolist()))
    got = labels_on(grid, body)
    centres, data = points_of(OBLIQUE), body.labels.data.flatten()
    wanted = torch.from_numpy(np.diag(1 / np.array(OBLIQUE.spacing_mm))) @ TURN.T
    gap = (points_of(grid)[:, None] - centres[None]) @ wanted.T  # in voxels of the body
    nearest = gap.abs().amax(-1).argmin(1)
    inside = gap.abs().amax(-1).min(1).values < 0.5 - 1e-9
    index = se3.transform_points(OBLIQUE.index_T_ct, points_of(grid))
    edge = 0.5 - 1e-9
    within = ((index > -edge) & (index < torch.tensor(OBLIQUE.size) - 1 + edge)).all(-1)
    assert got.dtype == torch.int16 and tuple(got.shape) == (8, 9, 11)
    assert within.sum() > 200 and (~inside).sum() > 50
    assert torch.equal(got.flatten()[within], data[nearest[within]].to(torch.int16))
    assert (got.flatten()[~inside] == 0).all()


def test_labels_on_the_bodys_own_grid_are_the_bodys(rng: np.random.Generator) -> None:
    body = Body(drawn(OBLIQUE, rng))
    assert torch.equal(labels_on(OBLIQUE, body), body.labels.data[0].to(torch.int16))


def test_landmarks_are_kept_where_voxels_are_known(rng: np.random.Generator) -> None:
    volume = drawn(OBLIQUE, rng)
    mask = torch.zeros(volume.data.shape[1:], dtype=torch.bool)
    mask[4, 7, 2] = True  # z, y, x
    volume = Volume(volume.data, OBLIQUE, mask=mask)
    at = {
        "in": (2.4, 6.6, 4.3), "beside": (2.6, 7.0, 4.0), "swapped": (4.0, 7.0, 2.0), "before": (-0.6, 7.0, 4.0),
        "behind": (2.0, 7.0, 9.6),
    }  # fmt: skip
    index = torch.tensor(list(at.values()), dtype=torch.float64)
    points = dict(zip(at, se3.transform_points(OBLIQUE.ct_T_index, index), strict=True))
    assert list(seen(points, volume)) == ["in"] and torch.equal(seen(points, volume)["in"], points["in"])
    with pytest.raises(NoOverlapError, match="no landmark"):
        seen({"beside": points["beside"]}, volume)
    everywhere = seen(points, Volume(volume.data, OBLIQUE))
    assert list(everywhere) == ["in", "beside", "swapped"]


def test_a_cropped_volume_keeps_every_value_where_it_was(rng: np.random.Generator) -> None:
    whole = drawn(OBLIQUE, rng, 250)
    around = VoxelGrid((3, 4, 2), (1.0, 1.0, 1.0), tuple(OBLIQUE.centre_ct.tolist()))
    part = cropped(whole, around, 2.0)
    assert part.grid.spacing_mm == whole.grid.spacing_mm and part.grid.direction == whole.grid.direction
    assert all(a < b for a, b in zip(part.grid.size, whole.grid.size, strict=True))
    index = se3.transform_points(whole.grid.index_T_ct, points_of(part.grid))
    assert (index - index.round()).abs().max() < 1e-9
    x, y, z = index.round().long().unbind(-1)
    assert torch.equal(part.data.flatten(), whole.data[0, z, y, x])


def test_a_cropped_volume_holds_the_other_grid_the_margin_and_no_more_than_a_voxel(
    rng: np.random.Generator,
) -> None:
    whole = drawn(VoxelGrid((40, 40, 40), (2.0, 2.5, 3.0), (0, 0, 0), tuple(TURN.flatten().tolist())), rng)
    around = VoxelGrid((5, 6, 7), (1.5, 1.5, 1.5), tuple((whole.grid.centre_ct - 4).tolist()))
    for margin in (0.0, 5.0):
        grid = cropped(whole, around, margin).grid
        index = se3.transform_points(grid.index_T_ct, around.corners_ct)
        room = torch.stack([index.min(0).values, torch.tensor(grid.size) - 1 - index.max(0).values])
        room = room * torch.tensor(grid.spacing_mm)
        assert room.min() >= margin - 1e-9 and (room < margin + torch.tensor(grid.spacing_mm) + 1e-9).all()


def test_cropping_stops_at_the_volumes_edges_and_refuses_what_lies_beside(rng: np.random.Generator) -> None:
    whole = drawn(OBLIQUE, rng)
    same = cropped(whole, OBLIQUE, 50.0)
    assert torch.equal(same.data, whole.data) and same.grid.size == OBLIQUE.size
    assert same.grid.origin_mm == pytest.approx(OBLIQUE.origin_mm, abs=1e-12)
    far = VoxelGrid((4, 4, 4), (1.0, 1.0, 1.0), (500.0, 0.0, 0.0))
    with pytest.raises(NoOverlapError, match="beside the volume"):
        cropped(whole, far, 10.0)
