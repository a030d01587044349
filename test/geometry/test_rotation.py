# SPDX-License-Identifier: Apache-2.0
"""SO(3): known values, laws over random rotations (near zero and near pi, too), gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from usreg.errors import GeometryError, ShapeError
from usreg.geometry import rotation

number = st.floats(-10, 10)
vectors = st.tuples(number, number, number).map(lambda v: torch.tensor(v, dtype=torch.float64))
directions = vectors.filter(lambda v: v.norm() > 1e-3).map(lambda v: v / v.norm())
angles = st.one_of(
    st.floats(0, math.pi),
    st.floats(-12, -1).map(lambda e: 10.0**e),  # tiny
    st.floats(-12, -1).map(lambda e: math.pi - 10.0**e),  # just below pi
)
rotation_vectors = st.tuples(directions, angles).map(lambda p: p[0] * p[1])
EYE = torch.eye(3, dtype=torch.float64)


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def test_quarter_turns():
    quarter = math.pi / 2
    x = rotation.exp(torch.tensor([quarter, 0, 0], dtype=torch.float64))
    close(x, torch.tensor([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64))
    z = rotation.from_axis_angle_deg((0, 0, 5), 90)
    close(z @ torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.tensor([0, 1.0, 0], dtype=torch.float64))


@given(w=rotation_vectors)
def test_exp_is_a_rotation_and_log_inverts_it(w):
    r = rotation.exp(w)
    close(r.T @ r, EYE)
    assert torch.linalg.det(r) > 0
    back = rotation.log(r)
    assert back.norm() <= math.pi + 1e-12
    if w.norm() < math.pi - 1e-6:
        close(back, w, atol=1e-9)
    close(rotation.exp(back), r, atol=1e-9)


@given(a=rotation_vectors, b=rotation_vectors)
def test_adjoint_law(a, b):
    """R exp(b) R^T = exp(R b)."""
    r = rotation.exp(a)
    close(r @ rotation.exp(b) @ r.T, rotation.exp(r @ b))


@given(w=rotation_vectors)
def test_quaternion_and_6d_round_trips(w):
    r = rotation.exp(w)
    q = rotation.to_quat_xyzw(r)
    assert q[3] >= 0 and q.norm() == pytest.approx(1)
    close(rotation.from_quat_xyzw(q), r)
    close(rotation.from_quat_xyzw(-3.7 * q), r)
    close(rotation.from_6d(rotation.to_6d(r)), r)


def test_quaternion_value():
    q = rotation.to_quat_xyzw(rotation.from_axis_angle_deg((0, 0, 1), 60))
    close(q, torch.tensor([0, 0, 0.5, math.sqrt(0.75)], dtype=torch.float64))


@given(v=vectors, w=vectors)
def test_hat_is_the_cross_product(v, w):
    close(rotation.hat(v) @ w, torch.linalg.cross(v, w), atol=1e-10)
    close(rotation.vee(rotation.hat(v)), v)


@given(w=rotation_vectors, direction=directions, noise=st.floats(0, 1e-3))
def test_project_gives_the_nearest_rotation(w, direction, noise):
    r = rotation.exp(w)
    disturbed = r @ (EYE + noise * torch.outer(direction, direction.roll(1)))
    fixed = rotation.project(disturbed)
    close(fixed.T @ fixed, EYE)
    assert torch.linalg.det(fixed) > 0 and (fixed - disturbed).norm() <= (r - disturbed).norm() + 1e-12
    close(rotation.project(r), r)


@given(a=rotation_vectors, b=rotation_vectors, c=rotation_vectors)
def test_geodesic_angle_is_a_distance(a, b, c):
    ra, rb, rc = map(rotation.exp, (a, b, c))
    ab, ba = rotation.geodesic_angle(ra, rb), rotation.geodesic_angle(rb, ra)
    assert ab == pytest.approx(ba.item(), abs=1e-9)
    assert ab <= rotation.geodesic_angle(ra, rc) + rotation.geodesic_angle(rc, rb) + 1e-9


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-5, 1e-4, 0.3, 2.0, 3.1])
def test_gradients(angle):
    w = (angle * torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3).requires_grad_()
    assert gradcheck(rotation.exp, (w,))
    if angle > 0:
        assert gradcheck(lambda x: rotation.log(rotation.exp(x)), (w,), atol=1e-4)
    r = rotation.exp(w.detach() + 0.1).requires_grad_()
    assert gradcheck(rotation.to_6d, (r,))
    assert gradcheck(rotation.from_6d, (rotation.to_6d(r.detach()).requires_grad_(),))


def test_small_angles_join_smoothly():
    """Series and closed form agree where they meet."""
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    for factor in (0.999999, 1.000001):
        terms = rotation.angle_terms(axis * rotation.SMALL_ANGLE * factor)
        expected = (1 - rotation.SMALL_ANGLE**2 / 6, 0.5 - rotation.SMALL_ANGLE**2 / 24, 1 / 6)
        # the last term is weighed with the squared angle, 1e-8, wherever it is used
        for term, value, tolerance in zip(terms, expected, (1e-14, 2e-9, 1e-8), strict=True):
            assert term.item() == pytest.approx(value, abs=tolerance)


@pytest.mark.parametrize("q", [[0, 0, 0, 0], [float("nan"), 0, 0, 1], [float("inf"), 0, 0, 1]])
def test_quaternions_that_are_none(q):
    with pytest.raises(GeometryError, match="zero or not finite"):
        rotation.from_quat_xyzw(torch.tensor(q, dtype=torch.float64))


def test_quaternion_of_another_length():
    with pytest.raises((GeometryError, ShapeError)):
        rotation.from_quat_xyzw(torch.ones(3, dtype=torch.float64))


def test_batches_and_dtypes():
    w = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    r = rotation.exp(w)
    assert r.shape == (4, 5, 3, 3) and r.dtype == torch.float32
    torch.testing.assert_close(r[2, 3], rotation.exp(w[2, 3]))
    assert rotation.to_quat_xyzw(r).shape == (4, 5, 4) and rotation.log(r).shape == (4, 5, 3)
