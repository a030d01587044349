# SPDX-License-Identifier: Apache-2.0
"""Local contrast takes slow changes of brightness away, in frames and volumes alike; a region leaves the rest out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from usreg.config import from_mapping
from usreg.data.types import Problem, Volume
from usreg.errors import ConfigError, ShapeError
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.registration.contrast import MIDDLE, SPREAD, flat_frame, flat_volume
from usreg.registration.refine import Refine, RefineConfig
from usreg.registration.region import within

WIDTH_MM = 6.0


def shaded(tracked, low=0.35):
    """The frame with a shadow over its right half and gain that falls with depth."""
    h, w = tracked.frame.image.shape
    gain = torch.linspace(1.0, 0.6, h)[:, None] * torch.where(torch.arange(w) > 0.6 * w, low, 1.0)
    image = (tracked.frame.image * gain).round().to(torch.uint8)
    return replace(tracked, frame=replace(tracked.frame, image=image))


def test_a_shadow_is_gone_but_for_its_edge(bench) -> None:
    plain, dark = flat_frame(bench.frame(), WIDTH_MM), flat_frame(shaded(bench.frame()), WIDTH_MM)
    mask = bench.frame().frame.geometry.mask().clone()
    mask[:, 35:55] = False  # the window that holds the shadow's edge
    a, b = (f.frame.image[mask].double() for f in (plain, dark))
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.97
    raw = torch.corrcoef(torch.stack([t.frame.image[mask].double() for t in (bench.frame(), shaded(bench.frame()))]))
    assert raw[0, 1] < 0.8


def test_grey_values_have_the_stated_mean_and_spread(bench) -> None:
    frame = flat_frame(bench.frame(), WIDTH_MM).frame
    values = frame.image[frame.geometry.mask()].double()
    assert values.mean() == pytest.approx(MIDDLE, abs=6) and values.std() == pytest.approx(SPREAD, rel=0.2)
    assert not frame.image[~frame.geometry.mask()].any()
    volume = flat_volume(bench.volume, WIDTH_MM).data[0, 8:-8, 8:-8, 8:-8].double()
    assert volume.mean() == pytest.approx(MIDDLE, abs=6) and volume.std() == pytest.approx(SPREAD, rel=0.2)


def test_a_uniform_volume_keeps_its_noise_small(rng) -> None:
    data = torch.from_numpy(100 + rng.standard_normal((1, 24, 24, 24))).float()
    flat = flat_volume(Volume(data, VoxelGrid((24, 24, 24), (1.0, 1.0, 1.0))), 4.0)
    assert flat.data.double().std() < 0.25 * SPREAD


def test_unknown_voxels_do_not_darken_their_neighbours(bench) -> None:
    mask = torch.ones(bench.volume.data.shape[1:], dtype=torch.bool)
    mask[:, :, : mask.shape[2] // 2] = False
    cut = replace(bench.volume, mask=mask, data=torch.where(mask, bench.volume.data, torch.zeros(())))
    whole, half = flat_volume(bench.volume, WIDTH_MM), flat_volume(cut, WIDTH_MM)
    far = slice(mask.shape[2] // 2 + 20, None)  # beyond the window's reach of the border
    difference = (whole.data[..., far].double() - half.data[..., far].double()).abs()
    assert difference.mean() < 1.0
    assert torch.equal(half.mask, mask)


def test_in_a_shadow_the_refinement_needs_local_contrast(bench) -> None:
    """From 4 mm off, against a frame half of which lies in a shadow."""
    tracked = shaded(bench.frame(noise=4.0), low=0.2)
    start = bench.start(tracked, (3.0, -2.0, 2.0), (2.0, -1.0, 2.0))
    found = Refine(RefineConfig(contrast_mm=WIDTH_MM))(Problem((tracked,), bench.volume, start), start)
    centre = bench.volume.grid.centre_ct[None]
    off = se3.transform_points(found.world_T_ct, centre) - se3.transform_points(bench.world_T_ct, centre)
    assert off.norm() < 0.5


def labelled(bench) -> Volume:
    labels = torch.zeros(bench.volume.data.shape[1:], dtype=torch.int16)
    labels[10:-10, 10:-10, 10:-10] = 4
    labels[:5] = 9
    return replace(bench.volume, labels=labels, label_names={4: "liver", 9: "wall", 7: "nothing"})


@pytest.mark.parametrize("margin", [0.0, 3.0])
def test_a_region_keeps_voxels_within_the_margin(bench, margin) -> None:
    volume = labelled(bench)
    region = within(volume, ["liver"], margin)
    spacing = np.array(volume.grid.spacing_mm[::-1])
    index = torch.nonzero(region.mask).numpy()
    low, high = np.array([10, 10, 10]), np.array(region.mask.shape) - 11
    beyond = np.maximum(np.maximum(low - index, index - high), 0) * spacing
    assert np.linalg.norm(beyond, axis=1).max() <= margin + 1e-6
    assert np.linalg.norm(beyond, axis=1).max() >= margin - spacing.max()
    assert bool(region.mask[volume.labels == 4].all())


def test_a_region_keeps_unknown_voxels_unknown(bench) -> None:
    known = torch.zeros(bench.volume.data.shape[1:], dtype=torch.bool)
    known[20:, 20:, 20:] = True
    region = within(replace(labelled(bench), mask=known), ["liver"], 2.0)
    assert not bool((region.mask & ~known).any()) and bool(region.mask.any())


def test_what_cannot_be_a_region_is_said(bench) -> None:
    with pytest.raises(ShapeError, match="without labels"):
        within(bench.volume, ["liver"], 1.0)
    with pytest.raises(ConfigError, match=r"\['spleen'\]"):
        within(labelled(bench), ["liver", "spleen"], 1.0)
    with pytest.raises(ConfigError, match="no voxel"):
        within(labelled(bench), ["nothing"], 1.0)
    with pytest.raises(ConfigError, match="contrast_mm"):
        from_mapping(RefineConfig, {"contrast_mm": -1.0})
