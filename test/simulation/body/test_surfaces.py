# SPDX-License-Identifier: Apache-2.0
"""Organ surfaces: closed two-manifolds, outward, where the voxels end, of their volume, on any grid."""

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.errors import ConfigError, ShapeError
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid
from usreg.simulation.body.decimate import decimate
from usreg.simulation.body.surfaces import GROUPS, SurfaceConfig, enclosed_volume, surfaces
from usreg.simulation.body.tetrahedra import isosurface
from usreg.simulation.body.types import STRUCTURES, VALUE, Body, Surface

TURN = rotation.exp(torch.tensor([0.2, -0.4, 0.3], dtype=torch.float64))
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


def body_of(labels, direction=None, spacing=(1.0, 1.0, 1.0)) -> Body:
    d = torch.eye(3, dtype=torch.float64) if direction is None else direction
    grid = VoxelGrid(labels.shape[::-1], spacing, (-30.0, 12.0, 200.0), tuple(d.flatten().tolist()))
    return Body(Volume(torch.from_numpy(labels.astype(np.uint8))[None], grid))


def points_of(body: Body) -> np.ndarray:
    """Voxel centres (D, H, W, 3) in mm from the grid's centre."""
    d, h, w = body.labels.data.shape[1:]
    index = np.stack(np.meshgrid(np.arange(d), np.arange(h), np.arange(w), indexing="ij")[::-1], axis=-1)
    matrix = body.labels.grid.ct_T_index.numpy()
    return index @ matrix[:3, :3].T + matrix[:3, 3] - body.labels.grid.centre_ct.numpy()


def painted(shape, inside, structure, direction=None, spacing=(1.0, 1.0, 1.0), ground="visceral_fat") -> Body:
    """A body of one structure where `inside(points)` holds."""
    body = body_of(np.full(shape, VALUE[ground]), direction, spacing)
    labels = body.labels.data[0].numpy()
    labels[inside(points_of(body))] = VALUE[structure]
    return body


def assert_closed(surface: Surface) -> int:
    """Every half-edge once, with its opposite: closed and oriented. Returns the Euler characteristic."""
    t = surface.triangles.numpy()
    halves = np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]])
    size = len(surface.vertices_mm)
    keys, opposite = halves[:, 0] * size + halves[:, 1], halves[:, 1] * size + halves[:, 0]
    assert len(np.unique(keys)) == len(keys)
    assert np.array_equal(np.sort(keys), np.sort(opposite))
    assert np.array_equal(np.unique(t), np.arange(size))
    return size - len(keys) // 2 + len(t)


def volume_of(surface: Surface) -> float:
    return enclosed_volume(surface.vertices_mm.double().numpy(), surface.triangles.numpy())


def ball(radius):
    return lambda p: np.linalg.norm(p, axis=-1) < radius


@pytest.mark.parametrize("direction", [None, TURN, TURN @ MIRROR], ids=["straight", "oblique", "mirrored"])
def test_a_ball_on_any_grid(direction):
    body = painted((50, 52, 54), ball(20.0), "spleen", direction)
    surface = surfaces(body, ["spleen"])["spleen"]
    assert assert_closed(surface) == 2
    assert volume_of(surface) == pytest.approx(body.inside("spleen").sum().item(), rel=1e-3)
    radius = torch.linalg.norm(surface.vertices_mm.double() - body.labels.grid.centre_ct, dim=1)
    assert (radius - 20.0).abs().mean() < 0.1
    assert (radius - 20.0).abs().max() < 0.5


def test_anisotropic_voxels():
    body = painted((20, 50, 50), ball(20.0), "liver", TURN, (1.0, 1.0, 2.5))
    surface = surfaces(body, ["liver"])["liver"]
    assert assert_closed(surface) == 2
    assert volume_of(surface) == pytest.approx(2.5 * body.inside("liver").sum().item(), rel=1e-3)
    radius = torch.linalg.norm(surface.vertices_mm.double() - body.labels.grid.centre_ct, dim=1)
    assert (radius - 20.0).abs().mean() < 0.3


def test_a_ring_keeps_its_hole():
    def ring(p):
        return (np.hypot(p[..., 0], p[..., 1]) - 16.0) ** 2 + p[..., 2] ** 2 < 5.0**2

    surface = surfaces(painted((20, 52, 52), ring, "aorta"), ["aorta"])["aorta"]
    assert assert_closed(surface) == 0


def test_a_thin_vessel_keeps_its_volume_and_place():
    def vessel(p):
        return (p[..., 0] - 3.0) ** 2 + p[..., 1] ** 2 < 2.0**2

    body = painted((60, 24, 24), lambda p: vessel(p) & (np.abs(p[..., 2]) < 25), "portal_vein")
    surface = surfaces(body, ["portal_vein"])["portal_vein"]
    assert_closed(surface)
    assert volume_of(surface) == pytest.approx(body.inside("portal_vein").sum().item(), rel=0.03)
    middle = surface.vertices_mm.double() - body.labels.grid.centre_ct
    middle = middle[middle[:, 2].abs() < 20]
    radius = torch.hypot(middle[:, 0] - 3.0, middle[:, 1])
    assert (radius - 2.0).abs().mean() < 0.15


def test_what_the_border_cuts_is_closed():
    body = body_of(np.full((12, 14, 16), VALUE["muscle"]))
    surface = surfaces(body, ["skin"])["skin"]
    assert assert_closed(surface) == 2
    assert volume_of(surface) == pytest.approx(12 * 14 * 16, rel=1e-3)


def test_voxels_that_touch_at_an_edge_or_a_corner_stay_a_manifold():
    """The cases that marching cubes finds ambiguous, raw and decimated."""
    rng = np.random.default_rng(4)
    field = np.pad((rng.random((14, 14, 14)) < 0.3).astype(np.float32), 1)
    points, triangles = isosurface(field, 0.5)
    assert_closed(Surface(torch.from_numpy(points), torch.from_numpy(triangles)))
    assert enclosed_volume(points, triangles) > 0
    fewer_points, fewer = decimate(points, triangles, len(triangles) // 3)
    assert len(fewer) < 0.6 * len(triangles)
    assert_closed(Surface(torch.from_numpy(fewer_points), torch.from_numpy(fewer)))


def test_decimation_reaches_its_count_and_stays_on_the_surface():
    body = painted((70, 70, 70), ball(30.0), "spleen")
    config = SurfaceConfig(triangles=1500)
    surface = surfaces(body, ["spleen"], config)["spleen"]
    assert 1000 < len(surface.triangles) <= 1500
    points = surface.vertices_mm.double() - body.labels.grid.centre_ct
    middles = points[surface.triangles].mean(dim=1)
    assert (torch.linalg.norm(points, dim=1) - 30.0).abs().mean() < 0.2
    assert (torch.linalg.norm(middles, dim=1) - 30.0).abs().max() < 0.5  # half a voxel


def test_liver_takes_the_vessels_inside_it_and_leaves_those_outside():
    body = painted((60, 60, 90), ball(25.0), "liver")
    p = points_of(body)
    tube = (p[..., 1] ** 2 + p[..., 2] ** 2 < 4.0**2) & (p[..., 0] > 0) & (p[..., 0] < 43)
    body.labels.data[0][torch.from_numpy(tube)] = VALUE["portal_vein"]
    surface = surfaces(body, ["liver"])["liver"]
    whole = 4 / 3 * np.pi * 25.0**3
    assert volume_of(surface) == pytest.approx(whole, rel=0.03)
    reach = (surface.vertices_mm[:, 0].double() - body.labels.grid.centre_ct[0]).max().item()
    assert reach < 34.0  # the vein goes on to 43


def test_all_surfaces_of_a_body_are_those_it_has():
    body = painted((24, 24, 24), ball(8.0), "kidney_left_cortex")
    assert set(surfaces(body)) == {"skin", "kidney_left"}
    assert {s for group in GROUPS.values() for s in group} <= set(VALUE)


def test_same_body_same_mesh():
    body = painted((40, 40, 40), ball(15.0), "spleen")
    first, second = (surfaces(body, ["spleen"])["spleen"] for _ in range(2))
    assert torch.equal(first.vertices_mm, second.vertices_mm) and torch.equal(first.triangles, second.triangles)


def test_a_surface_that_cannot_be_made():
    body = body_of(np.full((5, 5, 5), VALUE["muscle"]))
    with pytest.raises(ConfigError, match="pancreas"):
        surfaces(body, ["pancreas"])
    with pytest.raises(ConfigError, match="heart"):
        surfaces(body, ["heart"])
    with pytest.raises(ShapeError, match=str(len(STRUCTURES))):
        surfaces(body_of(np.full((3, 3, 3), len(STRUCTURES))))
    with pytest.raises(ConfigError):
        SurfaceConfig(triangles=3)


def test_one_voxel():
    labels = np.zeros((5, 5, 5))
    labels[2, 2, 2] = VALUE["gallbladder"]
    surface = surfaces(body_of(labels), ["gallbladder"])["gallbladder"]
    assert assert_closed(surface) == 2
    assert volume_of(surface) == pytest.approx(1.0, rel=0.03)
