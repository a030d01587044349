# SPDX-License-Identifier: Apache-2.0
"""Numbers that describe an image: each against an image made so that the number is known."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from usreg.acquisition.agreement import load_probe
from usreg.errors import ConfigError, ShapeError
from usreg.evaluation.appearance import SpeckleConfig, depth_profile, grey_histogram, speckle_size


@pytest.fixture(scope="module")
def linear():
    return load_probe("linear").geometry


def speckle(geometry, sigma_px, rng):
    field = sum(gaussian_filter(rng.standard_normal((geometry.plane.height, geometry.plane.width)), sigma_px) ** 2
                for _ in range(2))  # fmt: skip
    return torch.from_numpy(np.clip(120 + 25 * np.log(field / field.mean()), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("sigma", [(3.0, 6.0), (4.0, 4.0)])
def test_the_size_of_speckle_along_and_across_the_beam(linear, rng, sigma):
    pixel = linear.pixel_to_mm[0][0]
    found = speckle_size(speckle(linear, sigma, rng), linear, SpeckleConfig(step_mm=0.08, detrend_mm=3.0, patch_mm=6.0))
    # the intensity of a Gaussian field blurred by s is correlated by u = exp(-x^2 / (2 s^2)), its logarithm by the
    # dilogarithm of u over that of 1, which falls to a half at u = 0.66: a full width of 1.82 s
    expected = [1.82 * s * pixel for s in sigma]
    assert found.patches >= 10
    assert [found.axial_mm, found.lateral_mm] == pytest.approx(expected, rel=0.08)


def test_a_black_image_has_no_speckle(linear):
    black = torch.zeros(linear.plane.height, linear.plane.width, dtype=torch.uint8)
    found = speckle_size(black, linear)
    assert found.patches == 0 and np.isnan(found.axial_mm)


@pytest.mark.parametrize("name", ["linear", "convex_abdominal", "phased"])
def test_the_mean_over_depth_follows_the_depth_below_the_face(name):
    geometry = load_probe(name).geometry
    x, y = geometry.plane.points_mm()[..., :2].unbind(-1)
    r = torch.hypot(x - geometry.apex_mm[0], y - geometry.apex_mm[1]) - geometry.radius_mm[0]
    depth = y - geometry.clip_mm[1] if geometry.kind == "linear" else r
    image = (200 * depth / geometry.depth_mm).clamp(0, 255).to(torch.uint8)
    depths, means = depth_profile(image, geometry, 2.0)
    inner = (depths > 4) & (depths < geometry.depth_mm - 4)
    assert np.abs(means - 200 * depths / geometry.depth_mm)[inner].max() < 2.0


def test_the_histogram_counts_only_the_sector(linear):
    image = torch.full((linear.plane.height, linear.plane.width), 50, dtype=torch.uint8)
    centres, shares = grey_histogram(image, linear, bins=32)
    assert shares.sum() == pytest.approx(1.0) and centres[shares.argmax()] == pytest.approx(50, abs=4)
    assert shares.max() == 1.0


def test_what_does_not_fit_is_refused(linear):
    with pytest.raises(ShapeError, match="its geometry says"):
        depth_profile(torch.zeros(3, 4, dtype=torch.uint8), linear)
    with pytest.raises(ConfigError, match="step_mm"):
        SpeckleConfig(step_mm=0.0)
