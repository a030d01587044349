# SPDX-License-Identifier: Apache-2.0
"""Derivatives of the ultrasound renderer, and its compiled path against the slow one."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from usreg.data.tissues import TissueTable, load_tissues
from usreg.data.types import Volume
from usreg.geometry import rotation, se3
from usreg.rendering import Renderer
from usreg.rendering.ultrasound import PaperRenderer, UltrasoundConfig, UltrasoundRenderer
from usreg.rendering.ultrasound.pulse import carrier_pulse, radio_frequency
from usreg.similarity import ncc

TURN = rotation.from_axis_angle_deg((0.3, -0.5, 0.8), 25.0)


def organs(p: Tensor) -> Tensor:
    """Fat, muscle, liver with a vessel, a gallbladder, a kidney-like ball and a rib."""
    x, y, z = p.unbind(-1)
    label = torch.ones_like(x)
    label[y < -38], label[(y >= -38) & (y < -32)] = 6, 4
    label[(x - 8) ** 2 + (y + 5 + 0.3 * z) ** 2 < 49] = 7
    label[(x + 20) ** 2 + (y - 8) ** 2 + (z - 2) ** 2 < 150] = 8
    label[(x - 25) ** 2 + (y - 22) ** 2 + (z + 4) ** 2 < 220] = 2
    label[(x + 6 + 0.5 * z) ** 2 + (y + 34) ** 2 < 9] = 3
    return label


@pytest.fixture(scope="module")
def scene(make):
    """An oblique, anisotropic body, a small convex probe, and a pose with all organs in the image."""
    geometry = make.probe("convex", 1.2)
    volume = make.body(organs, (96, 70, 40), (1.3, 1.5, 1.1), TURN)
    return volume, geometry, make.centred(geometry, (6.0, -8.0, 5.0))


def test_gradcheck_in_pose_and_tissue_table(make) -> None:
    """Double precision, with and without speckle, with three elevation planes."""
    geometry = make.probe("linear", 4.0, scale=0.5)
    volume = make.body(organs, (16, 24, 14), (2.2, 2.0, 2.4), TURN)
    whole = load_tissues()
    used_here = {whole.structures.get(name, name) for name in make.names.values()}
    structures = {name: whole.structures[name] for name in make.names.values()}
    few = TissueTable(tuple(t for t in whole.tissues if t.name in used_here), structures)
    for speckle in (False, True):
        planes = 3 if speckle else 1
        config = UltrasoundConfig(lines=3, samples=48, rays=2, speckle=speckle, elevation_planes=planes)
        renderer = UltrasoundRenderer(few, config)
        table = {
            name: value.detach().clone().requires_grad_(True) for name, value in renderer.tissues.named_parameters()
        }
        twist = torch.tensor([0.3, -0.2, 0.1, 0.02, -0.03, 0.01], dtype=torch.float64, requires_grad=True)
        start = make.centred(geometry, (7.0, -5.0, 3.0))

        def image(twist: Tensor, *values: Tensor, names=tuple(table), renderer=renderer, start=start) -> Tensor:
            new = {f"tissues.{name}": value for name, value in zip(names, values, strict=True)}
            pose = start @ se3.exp(twist)
            return torch.func.functional_call(renderer, new, (volume, pose, geometry))[0]

        assert torch.autograd.gradcheck(image, (twist, *table.values()), eps=1e-6, atol=1e-6, rtol=1e-3)
        gradients = torch.autograd.grad(image(twist, *table.values()).sum(), (twist, *table.values()))
        used = range(6) if speckle else (0, 1, 2, 4)  # density and spread show in the texture of speckle only
        assert all(bool(gradients[k].abs().max() > 0) for k in used)


@pytest.mark.parametrize("speckle", [False, True])
def test_gradient_of_ncc_agrees_with_central_differences(scene, speckle: bool) -> None:
    volume, geometry, truth = scene
    config = {"lines": 40, "samples": 200, "rays": 1}
    target, mask = UltrasoundRenderer(None, UltrasoundConfig(seed=1, **config))(volume, truth, geometry)
    renderer = UltrasoundRenderer(None, UltrasoundConfig(speckle=speckle, **config))

    def loss(x: Tensor) -> Tensor:
        pose = se3.right_at_centre(truth, x[:3], x[3:], geometry.plane.centre_mm)
        return 1.0 - ncc(renderer(volume, pose[None], geometry)[0], target, mask)[0]

    x = torch.tensor([0.8, -0.6, 0.7, 0.01, -0.012, 0.008], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(x), x)
    for k in range(6):
        step = torch.zeros(6, dtype=torch.float64)
        step[k] = 1e-6 if k < 3 else 1e-7  # mm, rad: speckle bends over 1e-3 mm at the far end of the lever
        ahead, back = (loss((x + sign * step).detach().requires_grad_(True)).detach() for sign in (1, -1))
        numeric = float(ahead - back) / float(2 * step[k])
        assert float(gradient[k]) == pytest.approx(
            numeric, rel=0.01, abs=1e-2 * float(gradient[k // 3 * 3 :][:3].norm())
        )


def test_descent_in_the_pose_finds_the_target_of_another_seed(scene) -> None:
    """From 3 mm and 2 degrees off; the target has speckle, the rendering its expectation."""
    volume, geometry, truth = scene
    config = {"lines": 48, "samples": 200, "rays": 1}
    target, mask = UltrasoundRenderer(None, UltrasoundConfig(seed=1, **config))(volume, truth.float(), geometry)
    renderer = UltrasoundRenderer(None, UltrasoundConfig(speckle=False, **config))
    offset = torch.tensor([1.8, -1.9, 1.5, 0.02, -0.02, 0.02])
    scale = torch.tensor([1.0, 1.0, 1.0, 0.02, 0.02, 0.02])
    x = (offset / scale).requires_grad_(True)
    optimiser = torch.optim.LBFGS([x], max_iter=25, line_search_fn="strong_wolfe")

    def pose() -> Tensor:
        u = x * scale
        return se3.right_at_centre(truth.float(), u[:3], u[3:], geometry.plane.centre_mm.float())

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = 1.0 - ncc(*(_blurred(i, mask) for i in (renderer(volume, pose(), geometry)[0], target)), mask)[0]
        loss.backward()
        return loss

    points = geometry.sample_points_mm()

    def tre() -> float:
        moved = se3.transform_points(pose().detach().double(), points)
        return float((moved - se3.transform_points(truth, points)).norm(dim=-1).mean())

    before = tre()
    optimiser.step(closure)
    assert before > 3.0 and tre() < 1.0


def _blurred(image: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(image)
    k = torch.exp(-0.5 * (torch.arange(-4, 5) / 1.5) ** 2)[None, None, :, None]
    smooth = [torch.nn.functional.conv2d(torch.nn.functional.conv2d(i, k, padding=(4, 0)), k.mT, padding=(0, 4))
              for i in (image * weight, weight)]  # fmt: skip
    return smooth[0] / smooth[1].clamp_min(1e-3)


@pytest.mark.parametrize("kind", ["linear", "convex", "phased"])
@pytest.mark.parametrize("planes, speckle", [(1, True), (3, True), (1, False)])
def test_the_compiled_path_gives_what_the_slow_one_gives(make, scene, kind: str, planes: int, speckle: bool) -> None:
    volume, _, _ = scene
    geometry = make.probe(kind, 1.0)
    config = UltrasoundConfig(lines=24, samples=300, elevation_planes=planes, speckle=speckle, frequency_mhz=2.5)
    renderer = UltrasoundRenderer(None, config)
    poses = torch.stack([make.centred(geometry, tilt) for tilt in ((5.0, -10.0, 20.0), (-20.0, 3.0, 170.0))])
    fast, mask = renderer(volume, poses, geometry)
    slow, same = renderer(volume, poses.clone().requires_grad_(True), geometry)
    assert fast.dtype == torch.float64 and torch.equal(mask, same)
    assert float((fast - slow.detach()).abs().max()) < 2e-3 and float(fast.std()) > 0.05


def test_batches_threads_and_repeats_give_the_same_bits(make, scene) -> None:
    volume, geometry, pose = scene
    renderer = UltrasoundRenderer(None, UltrasoundConfig(lines=64))
    poses = torch.stack([pose, pose @ se3.translation(torch.tensor([2.0, 1.0, -3.0], dtype=torch.float64))])
    both, _ = renderer(volume, poses, geometry)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            again = torch.cat(
                [UltrasoundRenderer(None, UltrasoundConfig(lines=64))(volume, p, geometry)[0] for p in poses]
            )
            assert torch.equal(again, both)
    finally:
        torch.set_num_threads(threads)
    assert isinstance(renderer, Renderer) and isinstance(PaperRenderer(), Renderer)


def test_the_table_can_be_learnt_and_handed_out(make, scene) -> None:
    """One step of descent towards a liver twice as bright moves its number that way; others stay above zero."""
    volume, geometry, pose = scene
    config = UltrasoundConfig(lines=24, samples=280, speckle=False, rays=1)
    target, mask = UltrasoundRenderer(make.changed(scatterer_mean={"liver": 2.0}), config)(volume, pose, geometry)
    renderer = UltrasoundRenderer(None, config)
    assert not any(p.requires_grad for p in renderer.parameters())
    renderer.tissues.requires_grad_(True)
    optimiser = torch.optim.Adam(renderer.parameters(), lr=0.05)
    for _ in range(12):
        optimiser.zero_grad()
        ((renderer(volume, pose, geometry)[0] - target) ** 2 * mask).mean().backward()
        optimiser.step()
    learnt = {t.name: t for t in renderer.tissues.as_table().tissues}
    assert 1.3 < learnt["liver"].scatterer_mean < 2.2
    assert min(t.impedance_mrayl for t in learnt.values()) > 0


def test_the_envelope_is_that_of_a_carrier(make) -> None:
    """IQ lines with the carrier put back are what convolving scatterers with the pulse itself gives."""
    config = UltrasoundConfig(frequency_mhz=3.5)
    generator = torch.Generator().manual_seed(3)
    depth = torch.linspace(0.0, 20.0, 4001, dtype=torch.float64)
    scatterers = torch.randn(len(depth), generator=generator, dtype=torch.float64) * (depth > 3) * (depth < 17)
    distance = torch.arange(-400, 401, dtype=torch.float64) * float(depth[1])
    pulse = carrier_pulse(distance, config)
    parts = [torch.nn.functional.conv1d(scatterers[None, None], p.flip(0)[None, None], padding=400)[0, 0]
             for p in (pulse.real, pulse.imag)]  # fmt: skip
    analytic = torch.complex(*parts)
    wave = 4.0 * math.pi / config.wavelength_mm * depth
    iq = analytic * torch.polar(torch.ones_like(wave), -wave)
    lines, at = radio_frequency(iq[::10], depth[::10], config, rate_mhz=40.0)
    wanted = torch.from_numpy(np.interp(at.numpy(), depth.numpy(), analytic.real.numpy()))
    assert float((lines - wanted).abs().max()) < 0.03 * float(wanted.abs().max())
    assert float(distance[pulse.abs() > 0.5].max() * 2) == pytest.approx(0.5 * config.pulse_mm, rel=0.05)


def test_labels_may_lie_in_labels_or_in_data(make, scene) -> None:
    volume, geometry, pose = scene
    renderer = UltrasoundRenderer(None, UltrasoundConfig(lines=24, samples=280))
    grey = torch.zeros(volume.data.shape, dtype=torch.int16)
    other = Volume(grey, volume.grid, "CT", labels=volume.data[0].to(torch.int16), label_names=volume.label_names)
    assert torch.equal(renderer(other, pose, geometry)[0], renderer(volume, pose, geometry)[0])
