# SPDX-License-Identifier: Apache-2.0
"""MR-like images: signals by the sequences' equations, Rician noise, bias of the coils."""

import math

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.errors import ConfigError, ShapeError
from usreg.geometry.grid import VoxelGrid
from usreg.simulation.body.mr import RELAXATION, MrConfig, mr_image, rician, signals
from usreg.simulation.body.types import STRUCTURES, VALUE, Body


def uniform(name: str, size: tuple[int, int, int] = (40, 40, 40)) -> Body:
    labels = torch.full((1, *size[::-1]), VALUE[name], dtype=torch.uint8)
    return Body(Volume(labels, VoxelGrid(size, (1.0, 1.0, 1.0))))


def test_every_structure_has_its_times():
    assert list(RELAXATION) == [STRUCTURES[v] for v in sorted(STRUCTURES)]
    for t1_low, t2_low, t1_high, t2_high, density in RELAXATION.values():
        assert t1_low >= t2_low > 0 and t1_high >= t2_high > 0 and 0 <= density <= 1


def test_signals_follow_the_equations():
    """Ratios of two tissues by hand: spoiled gradient echo and spin echo at 3 T."""
    t1 = signals(MrConfig(weighting="t1", gradient_ms=(5.0, 2.0), flip_deg=15.0))
    e = {name: math.exp(-5.0 / RELAXATION[name][2]) for name in ("liver", "spleen")}
    hand = {n: (1 - e[n]) / (1 - math.cos(math.radians(15)) * e[n]) * math.exp(-2.0 / RELAXATION[n][3]) for n in e}
    ratio = hand["liver"] * RELAXATION["liver"][4] / (hand["spleen"] * RELAXATION["spleen"][4])
    assert t1[VALUE["liver"]] / t1[VALUE["spleen"]] == pytest.approx(ratio, rel=1e-5)
    t2 = signals(MrConfig(weighting="t2", spin_ms=(2000.0, 90.0)))
    hand = {n: (1 - math.exp(-2000.0 / RELAXATION[n][2])) * math.exp(-90.0 / RELAXATION[n][3]) for n in e}
    ratio = hand["liver"] * RELAXATION["liver"][4] / (hand["spleen"] * RELAXATION["spleen"][4])
    assert t2[VALUE["liver"]] / t2[VALUE["spleen"]] == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("field_t", [1.5, 3.0])
def test_order_of_grey_values_is_that_of_clinical_images(field_t):
    def order(weighting: str, *names: str) -> bool:
        table = signals(MrConfig(weighting=weighting, field_t=field_t))
        values = [table[VALUE[n]] for n in names]
        return values == sorted(values, reverse=True)

    assert order("t1", "subcutaneous_fat", "liver", "spleen", "gallbladder", "bowel_gas")
    assert order("t2", "gallbladder", "kidney_right_cortex", "spleen", "liver", "muscle", "lung_left")


def test_image_has_the_tissue_s_signal(rng):
    config = MrConfig(snr=1000.0, bias=0.0, variation=0.0)
    image = mr_image(uniform("liver"), rng, config)
    assert image.modality == "MR" and image.data.dtype == torch.int16
    assert image.data.double().mean().item() == pytest.approx(signals(config)[VALUE["liver"]], rel=2e-3)


def test_noise_is_rician(rng):
    """In air the Rayleigh mean sigma sqrt(pi / 2); with signal S the second moment S^2 + 2 sigma^2."""
    air = rician(np.zeros((60, 60, 60), np.float32), 20.0, rng).astype(np.float64)
    assert air.mean() == pytest.approx(20.0 * math.sqrt(math.pi / 2), rel=0.01)
    tissue = rician(np.full((60, 60, 60), 50.0, np.float32), 20.0, rng).astype(np.float64)
    assert (tissue**2).mean() == pytest.approx(50.0**2 + 2 * 20.0**2, rel=0.01)


def test_air_is_not_black_but_noisy(rng):
    config = MrConfig(snr=10.0)
    image = mr_image(uniform("outside"), rng, config).data.double()
    sigma = signals(config)[VALUE["liver"]] / 10.0
    assert image.mean().item() == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.02)


def test_bias_is_slow_and_of_its_strength(rng):
    config = MrConfig(snr=1e6, variation=0.0, bias=0.2, bias_mm=30.0)
    image = mr_image(uniform("liver", (120, 120, 120)), rng, config).data[0].double().log().numpy()
    assert image.std() == pytest.approx(0.2, rel=0.05)
    assert np.abs(np.diff(image, axis=2)).max() < 0.05


def test_thick_slices(rng):
    image = mr_image(uniform("spleen"), rng, MrConfig(weighting="t2", spacing_mm=(1.25, 1.25, 5.0)))
    assert image.grid.size == (32, 32, 8)


def test_same_seed_same_bytes():
    body = uniform("liver")
    first, second, other = (mr_image(body, np.random.default_rng(seed)).data for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_values_that_are_no_structure(rng):
    labels = torch.full((1, 3, 3, 3), 200, dtype=torch.uint8)
    with pytest.raises(ShapeError, match="200"):
        mr_image(Body(Volume(labels, VoxelGrid((3, 3, 3), (1.0, 1.0, 1.0)))), rng)


@pytest.mark.parametrize(
    "wrong", [{"weighting": "pd"}, {"field_t": 7.0}, {"snr": 0.0}, {"spin_ms": (50.0, 80.0)}, {"flip_deg": 0.0}]
)
def test_values_out_of_range(wrong):
    with pytest.raises(ConfigError):
        MrConfig(**wrong)
