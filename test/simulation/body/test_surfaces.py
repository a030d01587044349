# SPDX-License-Identifier: Apache-2.0
"""Organ surfaces of a body: which voxels each takes. What makes meshes of them is tested in test/rendering/surface."""

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.errors import ConfigError, ShapeError
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid
from usreg.rendering.surface import Surface, enclosed_volume
from usreg.simulation.body.surfaces import GROUPS, surfaces
from usreg.simulation.body.types import STRUCTURES, VALUE, Body

TURN = rotation.exp(torch.tensor([0.2, -0.4, 0.3], dtype=torch.float64))


def body_of(labels) -> Body:
    grid = VoxelGrid(labels.shape[::-1], (1.0, 1.0, 1.0), (-30.0, 12.0, 200.0), tuple(TURN.flatten().tolist()))
    return Body(Volume(torch.from_numpy(labels.astype(np.uint8))[None], grid))


def offsets(shape) -> np.ndarray:
    """Voxels (D, H, W, 3), x y z, from the middle."""
    d, h, w = shape
    index = np.stack(np.meshgrid(np.arange(d), np.arange(h), np.arange(w), indexing="ij")[::-1], axis=-1)
    return index - (np.array([w, h, d]) - 1) / 2


def body_with_ball(shape, radius, structure) -> Body:
    """A ball of one structure in visceral fat."""
    labels = np.full(shape, VALUE["visceral_fat"])
    labels[np.linalg.norm(offsets(shape), axis=-1) < radius] = VALUE[structure]
    return body_of(labels)


def volume_of(surface: Surface) -> float:
    return enclosed_volume(surface.vertices_mm.double().numpy(), surface.triangles.numpy())


def test_an_organ_in_its_box_lies_where_its_voxels_do():
    body = body_with_ball((40, 44, 48), 14.0, "spleen")
    surface = surfaces(body, ["spleen"])["spleen"]
    assert volume_of(surface) == pytest.approx(body.inside("spleen").sum().item(), rel=1e-3)
    radius = (surface.vertices_mm.double() - body.labels.grid.centre_ct).norm(dim=1)
    assert (radius - 14.0).abs().max() < 0.5


def test_liver_takes_the_vessels_inside_it_and_leaves_those_outside():
    shape = (60, 60, 90)
    body = body_with_ball(shape, 25.0, "liver")
    p = offsets(shape)
    tube = (p[..., 1] ** 2 + p[..., 2] ** 2 < 4.0**2) & (p[..., 0] > 0) & (p[..., 0] < 43)
    body.labels.data[0][torch.from_numpy(tube)] = VALUE["portal_vein"]
    surface = surfaces(body, ["liver"])["liver"]
    whole = 4 / 3 * np.pi * 25.0**3
    assert volume_of(surface) == pytest.approx(whole, rel=0.03)
    along = (surface.vertices_mm.double() - body.labels.grid.centre_ct) @ TURN[:, 0]
    assert along.max().item() < 34.0  # the vein goes on to 43


def test_all_surfaces_of_a_body_are_those_it_has():
    body = body_with_ball((24, 24, 24), 8.0, "kidney_left_cortex")
    assert set(surfaces(body)) == {"skin", "kidney_left"}
    assert {s for group in GROUPS.values() for s in group} <= set(VALUE)


def test_a_surface_that_cannot_be_made():
    body = body_of(np.full((5, 5, 5), VALUE["muscle"]))
    with pytest.raises(ConfigError, match="pancreas"):
        surfaces(body, ["pancreas"])
    with pytest.raises(ConfigError, match="heart"):
        surfaces(body, ["heart"])
    with pytest.raises(ShapeError, match=str(len(STRUCTURES))):
        surfaces(body_of(np.full((3, 3, 3), len(STRUCTURES))))
