# SPDX-License-Identifier: Apache-2.0
"""The CT of a body: values by contrast phase, partial volume at a known edge, spectrum of the noise, any spacing."""

import math

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.errors import ConfigError, ShapeError
from usreg.geometry.grid import VoxelGrid
from usreg.simulation.body.ct import HU, PHASES, CtConfig, ct_image, ct_noise
from usreg.simulation.body.types import STRUCTURES, VALUE, Body

SIZE = (40, 36, 32)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0)


def body_of(labels: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Body:
    grid = VoxelGrid(labels.shape[::-1], spacing, (5.0, -7.0, 30.0), OBLIQUE)
    return Body(Volume(torch.from_numpy(labels.astype(np.uint8))[None], grid))


def halves(left: str, right: str) -> Body:
    """Two structures that meet in the plane x = 20 (between voxels 19 and 20)."""
    labels = np.full(SIZE[::-1], VALUE[left])
    labels[:, :, 20:] = VALUE[right]
    return body_of(labels)


def test_every_structure_has_its_values():
    assert list(HU) == [STRUCTURES[v] for v in sorted(STRUCTURES)]
    assert HU["aorta"][1] > HU["aorta"][2] > HU["aorta"][0]
    assert HU["liver"][2] > HU["liver"][1] > HU["liver"][0]
    assert HU["portal_vein"][2] > HU["liver"][2]
    assert HU["kidney_right_cortex"][1] - HU["kidney_right_medulla"][1] > 50  # the corticomedullary phase


@pytest.mark.parametrize("contrast", PHASES)
def test_mean_of_a_structure_lies_within_its_spread(contrast, rng):
    image = ct_image(halves("liver", "spleen"), rng, CtConfig(contrast=contrast)).data[0].double()
    for name, part in (("liver", image[:, :, :16]), ("spleen", image[:, :, 24:])):
        wanted, spread = HU[name][PHASES.index(contrast)], HU[name][3]
        assert abs(part.mean().item() - wanted) < 2.5 * spread + 0.5


def test_partial_volume_of_an_edge_is_the_scanner_s_blur(rng):
    """Across a plane the mixture follows the integral of the Gaussian point spread."""
    config = CtConfig(noise_hu=0.0, psf_mm=0.7)
    row = ct_image(halves("outside", "lesion_cyst"), rng, config).data[0].double().mean(dim=(0, 1))
    share = (row + 1000.0) / (row[30] + 1000.0)
    sigma = math.sqrt(0.7**2 + 1 / 12)
    for k in range(16, 24):
        expected = 0.5 * (1 + math.erf((k - 19.5) / (sigma * math.sqrt(2))))
        assert abs(share[k].item() - expected) < 0.01


def test_noise_has_its_strength_and_is_band_pass_in_the_slice(rng):
    grid = VoxelGrid((96, 96, 24), (1.0, 1.0, 1.0))
    noise = ct_noise(grid, rng, CtConfig(noise_hu=10.0)).astype(np.float64)
    assert noise.std() == pytest.approx(10.0, rel=1e-3)
    power = np.mean(np.abs(np.fft.fft2(noise, axes=(1, 2))) ** 2, axis=0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    bands = [power[(radius > low) & (radius <= low + 0.04)].mean() for low in (0.01, 0.15, 0.44)]
    assert bands[1] > 3 * bands[0] and bands[1] > 3 * bands[2]
    assert np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1] > 0.2  # neighbouring slices


def test_thick_slices_cover_the_same_box_and_keep_the_mean(rng):
    body = halves("outside", "muscle")
    thick = ct_image(body, rng, CtConfig(spacing_mm=(0.8, 1.0, 4.0), noise_hu=0.0))
    grid, own = thick.grid, body.labels.grid
    assert grid.size == (50, 36, 8) and grid.direction == own.direction
    assert torch.allclose(grid.centre_ct, own.centre_ct, atol=1e-9)
    thin = ct_image(body, rng, CtConfig(noise_hu=0.0))
    assert thick.data.double().mean().item() == pytest.approx(thin.data.double().mean().item(), abs=8.0)


def test_thick_slices_mix_a_thin_layer_by_its_share(rng):
    """A layer of 1 mm in a slice of 4 mm weighs a quarter, spread over the neighbours by the slice's own blur."""
    labels = np.full((40, 12, 12), VALUE["outside"])
    labels[18] = VALUE["lesion_cyst"]
    image = ct_image(body_of(labels), rng, CtConfig(spacing_mm=(1.0, 1.0, 4.0), noise_hu=0.0)).data[0].double()
    excess = (image + 1000.0).mean(dim=(1, 2)) / 1006.0
    assert 4.0 * excess.sum().item() == pytest.approx(1.0, abs=0.15)
    assert excess.max().item() < 0.35


def test_same_seed_same_bytes():
    body = halves("liver", "ribs")
    first, second, other = (ct_image(body, np.random.default_rng(seed)).data for seed in (1, 1, 2))
    assert first.dtype == torch.int16
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_values_that_are_no_structure(rng):
    with pytest.raises(ShapeError, match="77"):
        ct_image(body_of(np.full((4, 4, 4), 77)), rng)


@pytest.mark.parametrize("wrong", [{"contrast": "venous"}, {"psf_mm": -1.0}, {"spacing_mm": (1.0, 0.0, 1.0)}])
def test_values_out_of_range(wrong):
    with pytest.raises(ConfigError):
        CtConfig(**wrong)


def test_every_voxel_size_gives_one_voxel_at_least(rng):
    body = body_of(np.full((1, 3, 3), VALUE["liver"]))
    assert ct_image(body, rng, CtConfig(spacing_mm=(5.0, 5.0, 5.0))).data.shape == (1, 1, 1, 1)
