# SPDX-License-Identifier: Apache-2.0
"""Meshes of masks: closed two-manifolds, outward, where the voxels end, of their volume, on any grid."""

import numpy as np
import pytest
import torch

from usreg.errors import ConfigError, ShapeError
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid
from usreg.rendering.surface import Surface, SurfaceConfig, closed_mesh, enclosed_volume, vertex_normals
from usreg.rendering.surface.decimate import decimate
from usreg.rendering.surface.tetrahedra import isosurface

TURN = rotation.exp(torch.tensor([0.2, -0.4, 0.3], dtype=torch.float64))
MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


def grid_of(shape, direction=None, spacing=(1.0, 1.0, 1.0)) -> VoxelGrid:
    d = torch.eye(3, dtype=torch.float64) if direction is None else direction
    return VoxelGrid(shape[::-1], spacing, (-30.0, 12.0, 200.0), tuple(d.flatten().tolist()))


def points_of(grid: VoxelGrid) -> np.ndarray:
    """Voxel centres (D, H, W, 3) in mm from the grid's centre."""
    w, h, d = grid.size
    index = np.stack(np.meshgrid(np.arange(d), np.arange(h), np.arange(w), indexing="ij")[::-1], axis=-1)
    matrix = grid.ct_T_index.numpy()
    return index @ matrix[:3, :3].T + matrix[:3, 3] - grid.centre_ct.numpy()


def painted(shape, inside, direction=None, spacing=(1.0, 1.0, 1.0)) -> tuple[np.ndarray, VoxelGrid]:
    """The mask where `inside(points)` holds, and its grid."""
    grid = grid_of(shape, direction, spacing)
    return inside(points_of(grid)), grid


def mesh_of(mask, grid, config=None) -> Surface:
    return closed_mesh(mask, (0, 0, 0), grid, config or SurfaceConfig())


def from_centre(surface: Surface, grid: VoxelGrid) -> torch.Tensor:
    return surface.vertices_mm.double() - grid.centre_ct


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
    mask, grid = painted((50, 52, 54), ball(20.0), direction)
    surface = mesh_of(mask, grid)
    assert assert_closed(surface) == 2
    assert volume_of(surface) == pytest.approx(mask.sum(), rel=1e-3)
    radius = from_centre(surface, grid).norm(dim=1)
    assert (radius - 20.0).abs().mean() < 0.1
    assert (radius - 20.0).abs().max() < 0.5


@pytest.mark.parametrize("direction", [None, TURN @ MIRROR], ids=["straight", "mirrored"])
def test_normals_of_a_ball_are_its_radii(direction):
    mask, grid = painted((50, 52, 54), ball(20.0), direction)
    surface = mesh_of(mask, grid)
    normals = vertex_normals(surface.vertices_mm.double().numpy(), surface.triangles.numpy())
    radii = torch.nn.functional.normalize(from_centre(surface, grid), dim=1).numpy()
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0)
    cosines = (normals * radii).sum(axis=1)
    assert cosines.mean() > 0.97 and cosines.min() > 0.8


def test_a_cut_out_mask_lies_where_its_corner_says():
    mask, grid = painted((50, 52, 54), ball(20.0), TURN)
    whole = mesh_of(mask, grid)
    part = closed_mesh(mask[4:, 2:, 3:], (4, 2, 3), grid, SurfaceConfig())
    assert torch.allclose(whole.vertices_mm.mean(0), part.vertices_mm.mean(0), atol=0.05)


def test_anisotropic_voxels():
    mask, grid = painted((20, 50, 50), ball(20.0), TURN, (1.0, 1.0, 2.5))
    surface = mesh_of(mask, grid)
    assert assert_closed(surface) == 2
    assert volume_of(surface) == pytest.approx(2.5 * mask.sum(), rel=1e-3)
    assert (from_centre(surface, grid).norm(dim=1) - 20.0).abs().mean() < 0.3


def test_a_ring_keeps_its_hole():
    def ring(p):
        return (np.hypot(p[..., 0], p[..., 1]) - 16.0) ** 2 + p[..., 2] ** 2 < 5.0**2

    assert assert_closed(mesh_of(*painted((20, 52, 52), ring))) == 0


def test_a_thin_vessel_keeps_its_volume_and_place():
    def vessel(p):
        return ((p[..., 0] - 3.0) ** 2 + p[..., 1] ** 2 < 2.0**2) & (np.abs(p[..., 2]) < 25)

    mask, grid = painted((60, 24, 24), vessel)
    surface = mesh_of(mask, grid)
    assert_closed(surface)
    assert volume_of(surface) == pytest.approx(mask.sum(), rel=0.03)
    middle = from_centre(surface, grid)
    middle = middle[middle[:, 2].abs() < 20]
    radius = torch.hypot(middle[:, 0] - 3.0, middle[:, 1])
    assert (radius - 2.0).abs().mean() < 0.15


def test_what_the_border_cuts_is_closed():
    mask, grid = painted((12, 14, 16), lambda p: np.ones(p.shape[:-1], bool))
    surface = mesh_of(mask, grid)
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
    mask, grid = painted((70, 70, 70), ball(30.0))
    surface = mesh_of(mask, grid, SurfaceConfig(triangles=1500))
    assert 1000 < len(surface.triangles) <= 1500
    points = from_centre(surface, grid)
    middles = points[surface.triangles].mean(dim=1)
    assert (torch.linalg.norm(points, dim=1) - 30.0).abs().mean() < 0.2
    assert (torch.linalg.norm(middles, dim=1) - 30.0).abs().max() < 0.5  # half a voxel


def test_same_mask_same_mesh():
    mask, grid = painted((40, 40, 40), ball(15.0))
    first, second = (mesh_of(mask, grid) for _ in range(2))
    assert torch.equal(first.vertices_mm, second.vertices_mm) and torch.equal(first.triangles, second.triangles)


def test_one_voxel():
    mask = np.zeros((5, 5, 5), bool)
    mask[2, 2, 2] = True
    surface = mesh_of(mask, grid_of(mask.shape))
    assert assert_closed(surface) == 2
    assert volume_of(surface) == pytest.approx(1.0, rel=0.03)


def test_what_is_no_surface():
    with pytest.raises(ShapeError, match="triangles"):
        Surface(torch.zeros(4, 2), torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match="triangles"):
        SurfaceConfig(triangles=3)
