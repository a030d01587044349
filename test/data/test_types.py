# SPDX-License-Identifier: Apache-2.0
"""The frozen values refuse what they must not hold."""

import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from usreg.data.types import (
    Calibration,
    Estimate,
    Frame,
    Rigid,
    TrackedFrame,
    Trajectory,
    Volume,
    check_covariance,
    start_estimate,
)
from usreg.errors import GeometryError, ShapeError, TimeError
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGeometry, PlaneGrid

GEOMETRY = PlaneGeometry(PlaneGrid(3, 4, ((0.5, 0.0), (0.0, 0.5))))
IMAGE = torch.zeros(3, 4, dtype=torch.uint8)
EYE = torch.eye(4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("image", "stamp", "kind"),
    [
        (IMAGE.float(), 0.0, ShapeError),
        (IMAGE[None], 0.0, ShapeError),
        (IMAGE.T, 0.0, ShapeError),
        (IMAGE, math.nan, TimeError),
        (IMAGE, math.inf, TimeError),
    ],
)
def test_frames(image, stamp, kind):
    with pytest.raises(kind):
        Frame(image, GEOMETRY, stamp)
    assert Frame(IMAGE, GEOMETRY, 1.5).plane is GEOMETRY.plane
    with pytest.raises(FrozenInstanceError):
        Frame(IMAGE, GEOMETRY, 1.5).stamp_s = 2.0


@pytest.mark.parametrize(
    ("pose", "kind"),
    [
        (EYE.float(), ShapeError),
        (EYE[:3], ShapeError),
        (EYE * 2, GeometryError),
        (torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64)), GeometryError),
        (EYE * math.nan, GeometryError),
    ],
)
def test_poses(pose, kind):
    frame = Frame(IMAGE, GEOMETRY, 0.0)
    for make in (lambda: TrackedFrame(frame, pose), lambda: Rigid(pose), lambda: Calibration(pose, ((1, 0), (0, 1)))):
        with pytest.raises(kind):
            make()


@pytest.mark.parametrize("spoil", ["shape", "nan", "negative", "skew"])
def test_covariances(spoil):
    covariance = torch.eye(6, dtype=torch.float64)
    if spoil == "shape":
        covariance = covariance[:5]
    elif spoil == "nan":
        covariance[0, 0] = math.nan
    elif spoil == "negative":
        covariance[3, 3] = -1.0
    else:
        covariance[0, 1] = 0.5
    with pytest.raises((ShapeError, GeometryError)):
        check_covariance(covariance, "c")
    with pytest.raises((ShapeError, GeometryError)):
        TrackedFrame(Frame(IMAGE, GEOMETRY, 0.0), EYE, covariance)


def test_volumes_and_trajectories_have_parts_of_one_size():
    grid = VoxelGrid((4, 3, 2), (1.0, 1.0, 1.0))
    data = torch.zeros(1, 2, 3, 4)
    Volume(data, grid, mask=torch.ones(2, 3, 4, dtype=torch.bool))
    for wrong in (
        {"data": data[0]},
        {"data": data[:, :1]},
        {"mask": torch.ones(4, 3, 2)},
        {"labels": torch.ones(2, 3)},
    ):
        with pytest.raises(ShapeError):
            Volume(**({"data": data, "grid": grid} | wrong))
    stamps = torch.arange(3, dtype=torch.float64)
    with pytest.raises(ShapeError):
        Trajectory(stamps, EYE.repeat(2, 1, 1), torch.ones(3, dtype=torch.bool))


def test_start_pivots_about_the_volumes_centre():
    grid = VoxelGrid((5, 5, 5), (2.0, 2.0, 2.0), (10.0, 0.0, 0.0))
    volume = Volume(torch.zeros(1, 5, 5, 5), grid)
    world_T_ct = se3.translation(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    start = start_estimate(world_T_ct, volume)
    assert start.pivot.tolist() == [15.0, 6.0, 7.0] and not start.accepted
    refused = replace(start, accepted=True).refused("score")
    assert isinstance(refused, Estimate) and not refused.accepted and refused.reason == "score"
    assert torch.equal(refused.world_T_ct, world_T_ct)
