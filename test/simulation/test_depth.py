# SPDX-License-Identifier: Apache-2.0
"""A probe at another depth: the array stays, the sector fits the image, the face stays at the probe's origin."""

import math

import pytest
import torch

from usreg.acquisition.agreement import load_probe
from usreg.errors import ConfigError
from usreg.geometry import se3
from usreg.simulation.depth import at_depth, image_in_probe

PROBES = ["linear", "convex_abdominal", "phased", "phantom"]


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("depth_mm", [60.0, 110.0])
def test_the_sector_at_another_depth_fits_its_image(name, depth_mm):
    before = load_probe(name).geometry
    after = at_depth(before, depth_mm)
    assert (after.plane.width, after.plane.height) == (before.plane.width, before.plane.height)
    assert after.radius_mm[0] == before.radius_mm[0] and after.angle_rad == before.angle_rad
    assert after.radius_mm[1] - after.radius_mm[0] == pytest.approx(depth_mm)
    width = (after.plane.width - 1) * after.pixel_to_mm[0][0]
    height = (after.plane.height - 1) * after.pixel_to_mm[1][1]
    outline = after.outline_mm()
    assert outline.min() > 0 and outline[:, 0].max() < width and outline[:, 1].max() < height
    extent = outline.max(0).values - outline.min(0).values
    assert max(extent[0] / width, extent[1] / height) > 0.95  # and does not waste it


@pytest.mark.parametrize("name", PROBES)
def test_the_face_stays_at_the_probes_origin_at_every_depth(name):
    for depth_mm in (60.0, 110.0):
        geometry = at_depth(load_probe(name).geometry, depth_mm)
        x, y = geometry.apex_mm
        face = torch.tensor([[x, y + geometry.radius_mm[0], 0.0]], dtype=torch.float64)
        assert se3.transform_points(image_in_probe(geometry), face).abs().max() < 1e-9


def test_the_beam_is_the_probes_z_and_the_marked_side_its_x():
    straight = image_in_probe(load_probe("phantom").geometry, (0.0, 0.0, 0.0))
    assert straight[:3, 1].tolist() == [0.0, 0.0, 1.0] and straight[:3, 0].tolist() == [1.0, 0.0, 0.0]
    turned = image_in_probe(load_probe("phantom").geometry)
    angle = torch.acos((torch.trace(turned[:3, :3] @ straight[:3, :3].T) - 1) / 2)
    assert math.degrees(angle) == pytest.approx(math.sqrt(1.5**2 + 2.0**2 + 1.0), abs=1e-6)


def test_a_depth_that_no_probe_has_is_refused():
    with pytest.raises(ConfigError, match="depth_mm"):
        at_depth(load_probe("linear").geometry, 0.0)
