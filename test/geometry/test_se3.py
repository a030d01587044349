# SPDX-License-Identifier: Apache-2.0
"""SE(3): laws of the group, covariance and perturbations about a pivot, gradients, what is refused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from usreg.errors import GeometryError, ShapeError
from usreg.geometry import rotation, se3

shift = st.floats(-200, 200)
turn = st.floats(-1.7, 1.7)  # rotation vectors stay below pi
twists = st.tuples(shift, shift, shift, turn, turn, turn).map(lambda t: torch.tensor(t, dtype=torch.float64))
points = st.tuples(shift, shift, shift).map(lambda t: torch.tensor(t, dtype=torch.float64))
EYE = torch.eye(4, dtype=torch.float64)


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@given(x=twists)
def test_log_inverts_exp(x):
    close(se3.log(se3.exp(x)), x)
    close(se3.exp(-x), se3.inverse(se3.exp(x)))


@given(a=twists, b=twists, p=points)
def test_poses_compose_like_fractions(a, b, p):
    world_T_probe, probe_T_image = se3.exp(a), se3.exp(b)
    one = se3.transform_points(world_T_probe @ probe_T_image, p[None])
    two = se3.transform_points(world_T_probe, se3.transform_points(probe_T_image, p[None]))
    close(one, two)
    close(world_T_probe @ se3.inverse(world_T_probe), EYE)
    close(se3.inverse(se3.inverse(world_T_probe)), world_T_probe)


def test_exp_of_a_pure_shift_and_of_a_screw():
    close(se3.exp(torch.tensor([1.0, 2, 3, 0, 0, 0], dtype=torch.float64))[:3, 3], torch.tensor([1.0, 2, 3]).double())
    # half a turn about z while shifting along x: a half circle of diameter 2/pi
    pose = se3.exp(torch.tensor([1.0, 0, 0, 0, 0, math.pi], dtype=torch.float64))
    close(pose[:3, 3], torch.tensor([0, 2 / math.pi, 0], dtype=torch.float64))


@given(a=twists, x=twists)
def test_adjoint_carries_twists(a, x):
    pose = se3.exp(a)
    close(pose @ se3.exp(x) @ se3.inverse(pose), se3.exp(se3.adjoint(pose) @ x), atol=1e-7)


@given(pose=twists, x=twists, p=points)
def test_perturbations_about_a_pivot(pose, x, p):
    start = se3.exp(pose)
    moved = se3.left_at_pivot(start, x, p)
    close(se3.error_at_pivot(start, moved, p), x, atol=1e-7)
    # the pivot itself moves by the exponential's own shift only
    local = se3.inverse(start) @ torch.cat([p, torch.ones(1, dtype=torch.float64)])
    close((moved @ local)[:3] - p, se3.exp(x)[:3, 3], atol=1e-8)
    turned = se3.right_at_centre(start, torch.zeros(3, dtype=torch.float64), x[3:], p)
    centre = torch.cat([p, torch.ones(1, dtype=torch.float64)])
    close(turned @ centre, start @ centre, atol=1e-8)


@given(pose=twists, t=points, p=points)
def test_right_at_centre_shifts_in_the_sources_axes(pose, t, p):
    start = se3.exp(pose)
    moved = se3.right_at_centre(start, t, torch.zeros(3, dtype=torch.float64), p)
    close(moved, start @ se3.translation(t), atol=1e-8)


@given(pivot=points, offset=points)
def test_covariance_moves_with_its_pivot(pivot, offset):
    """First order: the same small motion, seen about two pivots, has the covariances that move_pivot relates."""
    generator = torch.Generator().manual_seed(1)
    root = (
        torch.randn(6, 6, dtype=torch.float64, generator=generator) * torch.tensor([1, 1, 1, 0.01, 0.01, 0.01]).double()
    )
    covariance = root @ root.T
    x = root @ torch.randn(6, dtype=torch.float64, generator=generator) * 1e-4
    moved = se3.left_at_pivot(EYE, x, pivot)
    other = se3.error_at_pivot(EYE, moved, pivot + offset)
    jacobian = se3.adjoint(se3.translation(-offset))
    close(other, jacobian @ x, atol=1e-6)
    close(se3.move_pivot(covariance, offset), jacobian @ covariance @ jacobian.T)
    close(se3.move_pivot(se3.move_pivot(covariance, offset), -offset), covariance, atol=1e-6)


@given(a=twists, b=twists, u=st.floats(0, 1))
def test_interpolation_is_a_screw(a, b, u):
    start, end = se3.exp(a), se3.exp(a) @ se3.exp(b)
    close(se3.interpolate(start, end, 0.0), start)
    close(se3.interpolate(start, end, 1.0), end, atol=1e-8)
    middle = se3.interpolate(start, end, u)
    close(se3.interpolate(end, start, 1 - u), middle, atol=1e-7)
    close(se3.log(se3.inverse(start) @ middle), u * se3.log(se3.inverse(start) @ end), atol=1e-8)


def test_interpolation_takes_one_share_for_each_pose():
    a, b = se3.exp(torch.zeros(3, 6, dtype=torch.float64)), se3.exp(torch.ones(3, 6, dtype=torch.float64))
    got = se3.interpolate(a, b, torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    for i, u in enumerate((0.0, 0.5, 1.0)):
        close(got[i], se3.interpolate(a[i], b[i], u))


@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.4, 1.5])
def test_gradients(scale):
    x = (scale * torch.tensor([30.0, -20.0, 10.0, 0.6, -0.3, 0.5], dtype=torch.float64)).requires_grad_()
    assert gradcheck(se3.exp, (x,), atol=1e-4)
    y = (x.detach() + 0.05).requires_grad_()
    assert gradcheck(lambda v: se3.log(se3.exp(v)), (y,), atol=1e-4)
    assert gradcheck(lambda v: se3.inverse(se3.exp(v)), (y,), atol=1e-4)


def test_affine_maps_carry_points():
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    affine[0, 3] = 1.0
    got = se3.transform_points(affine, torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64))
    close(got, torch.tensor([[3.0, 3.0, 4.0]], dtype=torch.float64))


@given(x=twists)
def test_check_rigid_cleans_what_text_files_round(x):
    pose = se3.exp(x)
    rounded = torch.tensor([[float(f"{v:.6g}") for v in row] for row in pose.tolist()], dtype=torch.float64)
    clean = se3.check_rigid(rounded, "world_T_probe")
    r = clean[:3, :3]
    close(r.T @ r, torch.eye(3, dtype=torch.float64), atol=1e-14)
    close(r, pose[:3, :3], atol=1e-5)
    assert torch.equal(clean[:3, 3], rounded[:3, 3])


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda m: m.__setitem__((0, 0), math.nan), "NaN"),
        (lambda m: m.__setitem__((2, 3), math.inf), "NaN"),
        (lambda m: m[:3, :3].mul_(1.01), "not rigid"),
        (lambda m: m[0].mul_(-1), "not rigid"),
        (lambda m: m.__setitem__((3, 3), 2.0), "not rigid"),
        (lambda m: m.__setitem__((3, 0), 0.1), "not rigid"),
        (lambda m: m.__setitem__((0, 1), 0.1), "not rigid"),
    ],
)
def test_what_is_not_rigid(spoil, match):
    pose = se3.identity()
    spoil(pose)
    with pytest.raises(GeometryError, match=match):
        se3.check_rigid(pose, "world_T_probe")


def test_poses_of_another_shape():
    with pytest.raises(ShapeError, match="4x4"):
        se3.check_rigid(torch.eye(3), "a")


def test_dtype_follows_the_inputs():
    assert se3.exp(torch.zeros(2, 6)).dtype == torch.float32
    assert se3.from_parts(rotation.exp(torch.zeros(3)), torch.zeros(5, 3)).shape == (5, 4, 4)
