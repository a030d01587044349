# SPDX-License-Identifier: Apache-2.0
"""The physics of the ultrasound renderer on bodies whose answer is known."""

import math

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid
from usreg.rendering.ultrasound import UltrasoundConfig, UltrasoundRenderer
from usreg.rendering.ultrasound.propagate import propagate
from usreg.rendering.ultrasound.scan_convert import scan_convert

FREQUENCY = {"linear": 7.5, "convex": 3.5, "phased": 2.5}
TURN = rotation.from_axis_angle_deg((0.3, -0.5, 0.8), 35.0)
KINDS = ("linear", "convex", "phased")


def place(geometry, depth: float, aside: float) -> torch.Tensor:
    """A point (3,) of the image at a share of the depth and of the half width of the sector."""
    if geometry.kind == "linear":
        x = geometry.apex_mm[0] * (1 + aside)
        return torch.tensor([x, depth * geometry.depth_mm, 0.0], dtype=torch.float64)
    r, a = geometry.radius_mm[0] + depth * geometry.depth_mm, aside * geometry.angle_rad[1]
    x, y = geometry.apex_mm[0] + r * math.sin(a), geometry.apex_mm[1] + r * math.cos(a)
    return torch.tensor([x, y, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_point_targets_lie_within_half_a_pixel_of_their_place_in_the_ct(make, kind: str) -> None:
    geometry, n = make.probe(kind), 33
    table = make.changed(scatterer_mean={"*": 0.01, "soft_tissue": 100.0}, impedance_mrayl={"*": 1.6})
    renderer = UltrasoundRenderer(table, UltrasoundConfig(frequency_mhz=FREQUENCY[kind], speckle=False))
    pose = make.centred(geometry, (12.0, -9.0, 20.0))
    labels = torch.ones(n, n, n, dtype=torch.uint8)
    labels[n // 2, n // 2, n // 2] = 9
    xy = geometry.plane.points_mm()[..., :2]
    for depth, aside in ((0.2, 0.31), (0.5, -0.6), (0.85, 0.03)):
        wanted = place(geometry, depth, aside)
        origin = pose[:3, :3] @ wanted + pose[:3, 3] - TURN @ torch.full((3,), (n - 1) * 0.2, dtype=torch.float64)
        grid = VoxelGrid((n, n, n), (0.4,) * 3, tuple(origin.tolist()), tuple(TURN.reshape(-1).tolist()))
        volume = Volume(labels[None], grid, label_names=make.names)
        power = scan_convert(renderer.echoes(volume, pose, geometry).power, geometry)[0, 0]
        near = torch.where((xy - wanted[:2]).norm(dim=-1) < 4.0, power, torch.zeros_like(power))
        found = (near[..., None] * xy).sum((0, 1)) / near.sum()
        assert float((found - wanted[:2]).abs().max()) < 0.5 * 0.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [("liver", "ribs"), ("liver", "subcutaneous_fat"), ("subcutaneous_fat", "bowel_gas")])
def test_a_flat_reflector_lies_within_half_a_pixel_of_its_depth(make, kind: str, names: tuple[str, str]) -> None:
    geometry, spacing = make.probe(kind), 0.8
    config = UltrasoundConfig(frequency_mhz=FREQUENCY[kind], speckle=False, lines=48)
    renderer = UltrasoundRenderer(make.changed(attenuation_db_cm_mhz={"*": 0.0}), config)
    centre = geometry.plane.centre_mm
    for share in (0.35, 0.7):
        y = float(place(geometry, share, 0.0)[1]) + 0.11
        shift = torch.tensor([0.0, y - float(centre[1]), 0.0], dtype=torch.float64)
        volume = make.body(lambda p, y=y: torch.where(p[..., 1] + centre[1] < y, 1, 2), (120, 40, 20), (spacing,) * 3,
                           centre=shift)  # fmt: skip
        volume = Volume(volume.data, volume.grid, label_names={1: names[0], 2: names[1]})
        power = scan_convert(renderer.echoes(volume, make.centred(geometry), geometry).power, geometry)[0, 0]
        column = geometry.plane.width // 2
        profile = power[:, column - 2 : column + 3].mean(1).sqrt()
        low = int(y / 0.3) - 12
        k = low + int(profile[low : low + 25].argmax())
        a, b, c = profile[k - 1 : k + 2].tolist()
        assert abs((k + 0.5 * (a - c) / (a - 2 * b + c)) * 0.3 - y) < 0.5 * 0.3


def test_speckle_is_fully_developed_and_as_strong_as_the_table_says(make) -> None:
    """Rayleigh: mean over standard deviation 1.91, over 2000 independent cells and more."""
    geometry = make.probe("convex", 0.6)
    table = make.changed(attenuation_db_cm_mhz={"*": 0.0})
    volume = make.body(lambda p: 1, (80, 80, 80), (2.5,) * 3)
    cells = []
    for seed in (0, 1):
        renderer = UltrasoundRenderer(table, UltrasoundConfig(seed=seed))
        envelope = renderer.echoes(volume, make.centred(geometry, (10.0 + 40 * seed, 20.0, 5.0)), geometry).envelope[0]
        cells.append((envelope / renderer.config.liver_level)[2:-2:3, 8:-8:5].reshape(-1))
    cell = torch.cat(cells)
    assert len(cell) > 4000
    assert float(cell.mean() / cell.std()) == pytest.approx(1.913, rel=0.05)
    assert float((cell**2).mean()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("tissue, value", [("liver", 1), ("muscle", 4)])
def test_attenuation_is_the_table_s(make, tissue: str, value: int) -> None:
    """The expected envelope falls by 2 a f per cm; with speckle the mean over 128 lines does within 2 %."""
    geometry = make.probe("convex", 1.0)
    volume = make.body(lambda p: value, (80, 80, 80), (2.5,) * 3)
    asked = -2.0 * {"liver": 0.5, "muscle": 0.8}[tissue] * 3.5
    for speckle, within in ((False, 1e-3), (True, 0.02)):
        slopes = []
        for seed in range(3 if speckle else 1):
            renderer = UltrasoundRenderer(None, UltrasoundConfig(speckle=speckle, seed=seed))
            echoes = renderer.echoes(volume, make.centred(geometry, (10.0, 20.0 + 9 * seed, 5.0)), geometry)
            level = 20.0 * torch.log10(echoes.envelope[0].mean(0))[8:-8]
            slopes.append(np.polyfit(echoes.beams.depth_mm[8:-8].numpy() / 10.0, level.numpy(), 1)[0])
        assert float(np.mean(slopes)) == pytest.approx(asked, rel=within)


def _scene(geometry, make) -> Volume:
    """Fat, muscle with a rib, liver with a vessel and gas; y from the face down."""

    def fill(p: torch.Tensor) -> torch.Tensor:
        x, y = p[..., 0], p[..., 1] + geometry.plane.centre_mm[1]
        label = torch.ones_like(x)
        label[y < 12], label[(y >= 12) & (y < 22)] = 6, 4
        label[(x + 25) ** 2 + (y - 20) ** 2 < 36] = 3
        label[(x - 25) ** 2 + (y - 45) ** 2 < 64] = 7
        label[(y > 70) & (y < 80) & (x > 5) & (x < 15)] = 5
        return label

    return make.body(fill, (150, 120, 10), (1.2, 1.0, 1.6))


def _regions(geometry) -> dict[str, torch.Tensor]:
    x, y, _ = (geometry.plane.points_mm() - geometry.plane.centre_mm).unbind(-1)
    y = y + geometry.plane.centre_mm[1]
    angle = torch.atan2(x, y - geometry.apex_mm[1])
    behind = angle - math.atan2(-25.0, 20.0 - geometry.apex_mm[1])
    return {
        "fat": (y > 4) & (y < 10) & (x.abs() < 15),
        "interface": ((y - 12).abs() < 2) & (x.abs() < 10),
        "rib": ((x + 25).abs() < 3) & (y > 12) & (y < 18),
        "rib shadow": (behind.abs() < 0.02) & (y > 30) & (y < 60),
        "beside the rib": ((behind - 0.12).abs() < 0.02) & (y > 30) & (y < 60),
        "liver": (y > 30) & (y < 60) & (x.abs() < 10),
        "behind the vessel": (y > 60) & (y < 65) & ((x - 28).abs() < 3),
        "gas": ((y - 70).abs() < 2) & ((x - 10).abs() < 3),
        "gas shadow": (y > 85) & (y < 95) & ((x - 10.5).abs() < 2),
    }


def test_halving_the_step_changes_no_echo_and_no_shadow_by_five_percent(make) -> None:
    geometry = make.probe("convex", 0.6)
    volume, regions = _scene(geometry, make), _regions(geometry)
    for speckle in (False, True):
        means = []
        for samples in (512, 1024):
            renderer = UltrasoundRenderer(None, UltrasoundConfig(samples=samples, speckle=speckle, lines=64))
            envelope = scan_convert(renderer.echoes(volume, make.centred(geometry), geometry).envelope, geometry)[0, 0]
            means.append({name: float(envelope[at].mean()) for name, at in regions.items()})
        for name in regions:
            assert means[1][name] == pytest.approx(means[0][name], rel=0.05), name
        assert means[0]["rib shadow"] < 0.1 * means[0]["beside the rib"]  # 20 dB
        assert means[0]["gas shadow"] < 0.1 * means[0]["liver"]
        assert means[0]["behind the vessel"] > means[0]["gas shadow"]


def test_interfaces_echo_by_their_impedance(make) -> None:
    """At right angles r = (Z2 - Z1) / (Z2 + Z1); behind it the round trip loses 1 - r^2."""
    geometry = make.probe("linear", 0.5)
    table = make.changed(attenuation_db_cm_mhz={"*": 0.0})
    config = UltrasoundConfig(frequency_mhz=3.5, speckle=False, lines=40, rays=2)
    for values, r in (((6, 1), (1.68 - 1.40) / (1.68 + 1.40)), ((1, 3), (6.6 - 1.68) / (6.6 + 1.68))):
        for spacing, within in ((0.3, 0.05), (0.6, 0.1)):
            size = (int(54 / spacing), int(54 / spacing), 8)
            volume = make.body(lambda p, v=values: torch.where(p[..., 1] < 0, *v), size, (spacing,) * 3)
            echoes = UltrasoundRenderer(table, config).echoes(volume, make.centred(geometry), geometry)
            envelope = echoes.envelope[0, 18:22].mean(0)
            assert float(envelope.max()) == pytest.approx(r, rel=0.12)
            mean = {1: 1.0, 3: 1.5}[values[1]]
            behind = float(envelope[-60:-20].mean()) / (mean * config.liver_level * math.sqrt(math.pi / 4))
            assert behind == pytest.approx(1.0 - r**2, rel=within)


def test_the_echo_falls_with_the_angle_of_incidence() -> None:
    """A plane met at an angle, in the image or across it: the cosine to the power `specular`, and no change behind."""
    depth = torch.linspace(0.0, 40.0, 801, dtype=torch.float64)
    straight = 0.2 * torch.sigmoid((depth - 20.0) / 0.05)[None, None]
    slope = 0.2 / 0.05 * torch.sigmoid((depth - 20.0) / 0.05) * torch.sigmoid((20.0 - depth) / 0.05)
    nothing = torch.zeros_like(straight)
    waves = []
    for tangent in (0.0, math.tan(math.radians(30.0))):
        for across in ((slope * tangent, nothing[0, 0]), (nothing[0, 0], slope * tangent)):
            sides = tuple(a[None, None] for a in across)
            waves.append(propagate(straight, nothing, sides, 0.05, 1.1, 3.5, specular=4.0))
    peaks = [float(w.interface.max()) for w in waves]
    assert peaks[0] == pytest.approx(math.tanh(0.1), rel=1e-3) == peaks[1]
    assert peaks[2:] == pytest.approx([peaks[0] * math.cos(math.radians(30.0)) ** 4] * 2, rel=1e-2)
    assert all(torch.equal(w.arrival, waves[0].arrival) for w in waves)
    assert float(waves[0].arrival[..., -1]) == pytest.approx(1.0 - math.tanh(0.1) ** 2, rel=1e-3)


def test_speckle_moves_with_the_tissue(make) -> None:
    """A shift of the probe along the image shifts the speckle by as much; another seed is unlike."""
    geometry = make.probe("linear", 0.25)
    volume = make.body(lambda p: 1, (40, 40, 40), (3.0,) * 3)
    table = make.changed(attenuation_db_cm_mhz={"*": 0.0})
    renderer = UltrasoundRenderer(table, UltrasoundConfig(frequency_mhz=5.0, lines=153, tgc_db_cm_mhz=0.0))
    pose = make.centred(geometry, (5.0, 10.0, -4.0))
    moved = pose.clone()
    moved[:3, 3] += pose[:3, :3] @ torch.tensor([2.0, 3.0, 0.0], dtype=torch.float64)
    a, b = (renderer(volume, p, geometry)[0][0, 0] for p in (pose, moved))
    other = UltrasoundRenderer(table, UltrasoundConfig(frequency_mhz=5.0, lines=153, tgc_db_cm_mhz=0.0, seed=5))
    c = other(volume, moved, geometry)[0][0, 0]
    cut = [image[20:150, 20:130] for image in (a[12:, 8:], b, c)]
    same, unlike = (float(torch.corrcoef(torch.stack([cut[0].flatten(), x.flatten()]))[0, 1]) for x in cut[1:])
    assert same > 0.9 > 0.3 > abs(unlike)
