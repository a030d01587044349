# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels against their slow references, and the same result whatever the number of threads."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from usreg.reconstruction import ReconstructionConfig, grid_for, holes, insertion, reconstruct
from usreg.reconstruction.reconstruct import index_A_pixel


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("compounding", [insertion.MEAN, insertion.MAXIMUM, insertion.LATEST])
def test_insertion(sweep, linear, compounding):
    grid = grid_for(sweep, 0.9)
    w, h, d = grid.size
    fast, slow = np.zeros((d, h, w, 2), np.float32), np.zeros((d, h, w, 2))
    for f in sweep:
        inside = f.frame.geometry.mask().numpy()
        args = (f.frame.image.numpy(), inside, index_A_pixel(f, grid), linear, compounding)
        for lane in range(3):
            insertion.insert_lane(fast, *args, lane, 3)
        insertion.insert_reference(slow, *args)
    assert slow[..., 1].max() > 0
    np.testing.assert_allclose(fast, slow, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("linear", [True, False])
def test_insertion_beyond_the_grid(sweep, linear):
    """A grid smaller than the sweep: what lies outside is left out, nothing is written elsewhere."""
    grid = grid_for(sweep[3:5], 1.1)
    w, h, d = grid.size
    fast, slow = np.zeros((d, h, w, 2), np.float32), np.zeros((d, h, w, 2))
    for f in sweep:
        args = (f.frame.image.numpy(), f.frame.geometry.mask().numpy(), index_A_pixel(f, grid), linear, insertion.MEAN)
        insertion.insert_lane(fast, *args, 0, 1)
        insertion.insert_reference(slow, *args)
    np.testing.assert_allclose(fast, slow, rtol=2e-6, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.6), length=st.integers(3, 9))
def test_sticks(seed, share, length):
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 9, 3))
    values = generator.integers(0, 256, shape).astype(np.uint8)
    filled = generator.random(shape) < share
    near, sticks, norms = holes.stick_arguments(filled, length)
    out, known = values.copy(), filled.copy()
    for lane in range(2):
        holes.stick_lane(values, filled, near, out, known, sticks, norms, length, 0.5, lane, 2)
    slow_out, slow_known = holes.stick_reference(values, filled, length)
    np.testing.assert_array_equal(known, slow_known)
    assert np.abs(out[known].astype(int) - slow_out[known]).max(initial=0) <= 1  # a mean at .5 may round either way


@pytest.mark.parametrize("compounding", ["mean", "maximum", "latest", "mean_8bit"])
@pytest.mark.parametrize("hole_filling", ["stick", "gaussian"])
def test_threads_do_not_change_a_bit(sweep, compounding, hole_filling):
    volumes = [
        reconstruct(sweep, ReconstructionConfig(0.6, compounding=compounding, hole_filling=hole_filling, threads=n))
        for n in (1, 2, 3)
    ]
    for other in volumes[1:]:
        assert torch.equal(volumes[0].data, other.data) and torch.equal(volumes[0].mask, other.mask)
