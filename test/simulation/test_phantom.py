# SPDX-License-Identifier: Apache-2.0
"""The phantom: organs, speckle, and frames cut from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usreg.acquisition.agreement import load_probe
from usreg.errors import ConfigError
from usreg.geometry import se3
from usreg.simulation import PhantomConfig, make_phantom
from usreg.simulation.arms import body_T_probe, ct_T_body
from usreg.simulation.phantom import LABELS, skin_mm
from usreg.simulation.simple_scanner import Scanner, ScannerConfig
from usreg.simulation.session import image_in_probe
from usreg.simulation.tissue import smooth_field, speckle_db

COARSE = PhantomConfig(size=(88, 72, 64), spacing_mm=2.0, resolution_mm=4.0)
QUIET = ScannerConfig(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0.0, 0.0))


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(COARSE, generator(1))


def ct_T_image(phantom, share: float) -> torch.Tensor:
    return ct_T_body(phantom.volume.grid) @ body_T_probe(share) @ image_in_probe(load_probe("phantom").geometry)


def test_every_organ_is_there_and_has_its_name(phantom) -> None:
    found = {i: int((phantom.volume.labels == i).sum()) for i in LABELS}
    assert min(found.values()) > 100 and phantom.volume.label_names == LABELS
    assert found[2] > 5 * found[3]  # the liver is the largest organ


def test_vessels_are_dark_and_outside_is_black(phantom) -> None:
    data, labels = phantom.volume.data[0].float(), phantom.volume.labels
    assert data[labels == 2].mean() - data[labels == 7].mean() > 80
    assert data[labels == 0].max() == 0


def test_volume_is_the_echo_with_little_noise_of_its_own(phantom) -> None:
    inside = phantom.volume.labels.numpy() > 0
    difference = phantom.volume.data[0].numpy()[inside] - phantom.echo[inside]
    assert 1.0 < difference.std() < 3.0


def test_direction_is_not_identity(phantom) -> None:
    direction = torch.tensor(phantom.volume.grid.direction).reshape(3, 3)
    assert (direction - torch.eye(3)).abs().max() > 0.05


def test_same_seed_same_phantom_other_seed_another() -> None:
    config = PhantomConfig(size=(44, 36, 32), spacing_mm=4.0, resolution_mm=8.0)
    a, b, c = (make_phantom(config, generator(s)) for s in (3, 3, 4))
    assert np.array_equal(a.echo, b.echo) and torch.equal(a.volume.data, b.volume.data)
    assert not torch.equal(a.volume.data, c.volume.data)


def test_speckle_has_the_width_of_its_cell() -> None:
    """Its autocorrelation falls below a half within about one cell and is gone after three."""
    texture = speckle_db((48, 48, 48), 4.0, generator(0))
    texture -= texture.mean()
    r = [float((texture[:, :, k:] * texture[:, :, : 48 - k]).mean() / texture.var()) for k in range(13)]
    assert r[1] > 0.8 and r[4] < 0.5 and abs(r[12]) < 0.1


def test_speckle_is_as_strong_as_averaged_rayleigh_speckle() -> None:
    """Single-look log-Rayleigh speckle has a standard deviation of 5.57 dB; averaging over part of a cell lowers it."""
    assert 2.0 < speckle_db((40, 40, 40), 4.0, generator(0)).std() < 5.57


def test_smooth_field_is_normalised() -> None:
    field = smooth_field((32, 32, 32), 4.0, generator(0))
    assert abs(field.mean()) < 1e-9 and field.std() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "values",
    [
        {"size": (8, 20, 20)},
        {"spacing_mm": 0.0},
        {"resolution_mm": 0.5},
        {"noise_grey": -1.0},
        {"dynamic_range_db": 5.0},
    ],
)
def test_bad_phantom_configuration(values: dict) -> None:
    with pytest.raises(ConfigError):
        PhantomConfig(**values)


@pytest.mark.parametrize("values", [{"gain": 0.0}, {"attenuation": 2.0}, {"blur_px": (0.5, -1.0)}, {"flutter": -0.1}])
def test_bad_scanner_configuration(values: dict) -> None:
    with pytest.raises(ConfigError):
        ScannerConfig(**values)


def test_quiet_frame_of_a_ramp_is_the_ramp(phantom) -> None:
    """Echo that rises linearly in space: every pixel must show its own position's value, to half a grey value."""
    geometry, grid = load_probe("phantom").geometry, phantom.volume.grid
    index = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid.size[::-1])).flip(-1)
    slope = torch.tensor([0.4, -0.5, 0.6], dtype=torch.float64)

    def value(p: torch.Tensor) -> torch.Tensor:
        return 128 + (p - grid.centre_ct) @ slope

    echo = value(se3.transform_points(grid.ct_T_index, index)).reshape(grid.size[::-1]).numpy()
    pose, mask = ct_T_image(phantom, 0.3), geometry.mask()
    frame = Scanner(echo, grid, geometry, QUIET).frame(pose, generator(0))
    points = se3.transform_points(pose, geometry.plane.points_mm()[mask])
    at = se3.transform_points(grid.index_T_ct, points)
    inner = ((at > 4) & (at < torch.tensor(grid.size) - 5)).all(-1)  # away from the ends, where splines bend
    assert inner.double().mean() > 0.8
    assert (frame[mask].double() - value(points))[inner].abs().max() < 0.51
    assert frame[~mask].max() == 0


def test_frames_differ_by_their_noise_only_and_from_a_resample(phantom) -> None:
    geometry = load_probe("phantom").geometry
    mask, pose = geometry.mask(), ct_T_image(phantom, 0.6)
    noisy, quiet = (Scanner(phantom.echo, phantom.volume.grid, geometry, c) for c in (ScannerConfig(), QUIET))
    rng = generator(2)
    a, b = noisy.frame(pose, rng)[mask].double(), noisy.frame(pose, rng)[mask].double()
    reference = quiet.frame(pose, rng)[mask].double()
    assert not torch.equal(a, b)
    for frame in (a, b):
        assert 0.7 < torch.corrcoef(torch.stack([frame, reference]))[0, 1] < 0.99
    assert torch.corrcoef(torch.stack([a - reference, b - reference]))[0, 1] < 0.9


@pytest.mark.parametrize("axis", range(6))
def test_a_frame_tells_every_degree_of_freedom(phantom, axis: int) -> None:
    """Three voxels or 5 degrees along any axis about the sector's middle lower the correlation clearly."""
    geometry = load_probe("phantom").geometry
    scanner = Scanner(phantom.echo, phantom.volume.grid, geometry, QUIET)
    pose, middle = ct_T_image(phantom, 0.3), geometry.plane.centre_mm
    shift, turn = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    (shift if axis < 3 else turn)[axis % 3] = 6.0 if axis < 3 else 0.09
    moved = scanner.frame(se3.right_at_centre(pose, shift, turn, middle), generator(0))
    pair = torch.stack([scanner.frame(pose, generator(0))[geometry.mask()], moved[geometry.mask()]]).double()
    assert torch.corrcoef(pair)[0, 1] < 0.9


def test_the_probe_touches_the_skin_and_looks_inside(phantom) -> None:
    for share in (0.0, 0.3, 0.6, 1.0):
        pose = body_T_probe(share)
        assert pose[1, 3].item() == pytest.approx(skin_mm(pose[0, 3].item()) + 3.0)
        assert pose[1, 2] > 0.85  # its z towards the back
        assert pose[0, 0] < -0.85  # the marked side to the patient's right, which is -x in LPS
