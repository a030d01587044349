# SPDX-License-Identifier: Apache-2.0
"""Darkness of vessels and fluid predicted from CT numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from usreg.data.types import Volume
from usreg.errors import ConfigError, ShapeError
from usreg.geometry.grid import VoxelGrid
from usreg.registration.echo import EchoConfig, parenchyma_hu, vessel_echo


def body() -> Volume:
    """Muscle of 55 HU around a liver of 110 HU with blocks of a vessel (170), a cyst (5) and fat (-100)."""
    data = torch.full((1, 40, 40, 40), 55, dtype=torch.int16)
    data[0, 4:36, 4:36, 4:36] = 110
    for place, value in ((6, 170), (16, 5), (26, -100)):
        data[0, 8:16, 8:16, place : place + 8] = value
    labels = torch.zeros(40, 40, 40, dtype=torch.int16)
    labels[4:36, 4:36, 4:36] = 3
    return Volume(data, VoxelGrid((40, 40, 40), (1.0, 1.0, 1.0)), "CT", labels=labels, label_names={3: "liver"})


@pytest.mark.parametrize("labelled", [True, False])
def test_the_reference_is_the_liver_with_and_without_labels(labelled: bool) -> None:
    volume = body()
    noise = 8.0 * torch.randn(volume.data.shape, generator=torch.Generator().manual_seed(0))
    volume = replace(volume, data=volume.data.float() + noise, labels=volume.labels if labelled else None)
    assert parenchyma_hu(volume, EchoConfig()) == pytest.approx(110.0, abs=3.0)


def test_vessels_and_fluid_are_dark_fat_and_parenchyma_are_not() -> None:
    echo = vessel_echo(body(), EchoConfig()).data[0]
    assert [round(float(echo[12, 12, x]), 1) for x in (10, 20, 30)] == [-32.0, -32.0, 0.0]
    assert float(echo[25, 25, 25]) == 0.0


def test_the_border_of_fat_is_not_taken_for_fluid() -> None:
    echo = vessel_echo(body(), EchoConfig()).data[0, 12, 12, 24:36]
    assert float(echo[3:].min()) > -3.0


def test_unknown_voxels_stay_unknown() -> None:
    mask = torch.ones(40, 40, 40, dtype=torch.bool)
    mask[:, :, :10] = False
    volume = body()
    known = Volume(volume.data, volume.grid, "CT", mask, volume.labels, volume.label_names)
    echo = vessel_echo(known, EchoConfig()).data
    assert bool(torch.isnan(echo[:, :, :, :10]).all()) and bool(torch.isfinite(echo[:, :, :, 10:]).all())


def test_a_volume_without_soft_tissue_is_an_error() -> None:
    with pytest.raises(ShapeError, match="Hounsfield"):
        parenchyma_hu(Volume(torch.zeros(1, 4, 4, 4), VoxelGrid((4, 4, 4), (1.0, 1.0, 1.0))), EchoConfig())
    with pytest.raises(ConfigError, match="odd"):
        EchoConfig(average=2)
