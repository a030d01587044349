# SPDX-License-Identifier: Apache-2.0
"""Gate, spread of starts, covariance algebra, choice among optima."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from usreg.errors import ConfigError
from usreg.geometry import se3
from usreg.registration import covariance as cov
from usreg.registration import noise
from usreg.registration.gate import GateConfig, contrast, refusal
from usreg.registration.ncc_matcher import NccMatcher
from usreg.registration.noise_kernel import trace_of_solve
from usreg.registration.pyramid import volume_level
from usreg.registration.scene import build_scene
from usreg.registration.search import distinct
from usreg.registration.spread import SpreadConfig, halton, spread_twists


def test_the_gate_names_the_first_reason() -> None:
    gate = GateConfig()
    assert refusal(gate, 0.9, 0.99, 0.9, 0.1) == ""
    assert "overlap" in refusal(gate, 0.9, 0.99, 0.3, 0.1)
    assert "score" in refusal(gate, 0.3, 0.99, 0.9, 0.1)
    assert "not observable" in refusal(gate, 0.9, 0.99, 0.9, 5.0)
    assert "not observable" in refusal(gate, 0.9, 0.99, 0.9, math.nan)
    assert "search" in refusal(gate, 0.9, 0.9, 0.9, 0.1)
    assert "search" in refusal(gate, 0.9, 0.99, 0.5, 0.1)


def test_after_a_search_the_best_must_stand_out() -> None:
    gate = GateConfig()
    assert refusal(gate, 0.7, 0.8, 1.0, 0.1, rival=0.3) == ""
    assert "ambiguous" in refusal(gate, 0.7, 0.8, 1.0, 0.1, rival=0.65)
    assert "ambiguous" in refusal(gate, 0.7, 0.8, 0.5, 0.1, rival=0.3)
    assert refusal(gate, 0.7, 0.8, 1.0, 0.1, rival=-1.0) == ""
    assert contrast(1.0, 0.5) == math.inf


def test_a_gate_out_of_range_is_refused() -> None:
    for wrong in ({"min_overlap": -0.1}, {"min_score": 2.0}, {"max_sigma_mm": math.nan}, {"min_contrast": -1.0}):
        with pytest.raises(ConfigError):
            GateConfig(**wrong)


def test_haltons_first_points_are_the_known_ones() -> None:
    points = halton(4, 2)
    assert torch.allclose(points[:, 0], torch.tensor([1 / 2, 1 / 4, 3 / 4, 1 / 8], dtype=torch.float64))
    assert torch.allclose(points[:, 1], torch.tensor([1 / 3, 2 / 3, 1 / 9, 4 / 9], dtype=torch.float64))


def test_starts_fill_the_box_and_shrink_with_a_known_covariance() -> None:
    config = SpreadConfig(count=400)
    wide = spread_twists(config, torch.zeros(6, 6, dtype=torch.float64))
    assert bool((wide.abs() <= config.box).all()) and bool((wide.abs().amax(0) > 0.9 * config.box).all())
    sigma = torch.tensor([2.0, 3.0, 100.0, 0.001, 0.02, 1.0], dtype=torch.float64)
    near = spread_twists(config, torch.diag(sigma**2)).abs().amax(0) / config.box
    assert float(near[0]) == pytest.approx(0.3, abs=0.01) and float(near[2]) == pytest.approx(1.0, abs=0.01)
    assert float(near[3]) == pytest.approx(0.25, abs=0.01)


def test_white_noise_has_cells_of_one_sample_and_blurred_noise_larger_ones(generator: torch.Generator) -> None:
    white = torch.randn(120, 140, generator=generator, dtype=torch.float64)
    blurred = torch.nn.functional.avg_pool2d(white[None, None], 3, 1, 1)[0, 0].numpy()
    white, known = white.numpy(), np.ones((120, 140), np.bool_)
    shape = noise.padded((120, 140), (1.0, 1.0))
    assert noise.noise_spectrum(white, known, (1.0, 1.0), shape)[1] == pytest.approx(1.0, abs=0.5)
    assert noise.noise_spectrum(blurred, known, (1.0, 1.0), shape)[1] == pytest.approx(9.0, rel=0.25)


def test_the_spectrum_gives_the_sum_over_pairs_of_samples(generator: torch.Generator) -> None:
    """M = sum_ij J_i c(i - j) J_j by the spectrum, against the double sum on a small image."""
    h, w = 12, 10
    residual = torch.randn(h, w, generator=generator, dtype=torch.float64)
    residual = residual + residual.roll(1, 1) + residual.roll(1, 0)
    residual = residual - residual.mean()
    j = torch.randn(h, w, generator=generator, dtype=torch.float64)
    shape = noise.padded((h, w), (1.0, 1.0))
    found, _ = noise.noise_spectrum(residual.numpy(), np.ones((h, w), np.bool_), (1.0, 1.0), shape)
    spectrum = torch.from_numpy(found)
    f = torch.fft.rfft2(j, s=shape)
    by_spectrum = float((f.abs() ** 2 * spectrum).sum() / math.prod(shape))
    full = torch.cat([spectrum[:, :1], 0.5 * spectrum[:, 1:]], 1)
    if shape[1] % 2 == 0:
        full[:, -1] *= 2.0
    auto = torch.fft.irfft2(full, s=shape)
    i = torch.cartesian_prod(torch.arange(h), torch.arange(w))
    lag = i[:, None] - i[None]
    c = auto[lag[..., 0] % shape[0], lag[..., 1] % shape[1]]
    assert by_spectrum == pytest.approx(float(j.reshape(-1) @ c @ j.reshape(-1)), rel=1e-9)


def test_covariance_of_the_image_becomes_one_of_the_volume(generator: torch.Generator) -> None:
    """Sampled: perturb ct_T_ref on the right, look at world_T_ct on the left about the pivot."""
    world_T_ref = se3.exp(torch.tensor([30.0, -20.0, 10.0, 0.4, 1.0, -0.3], dtype=torch.float64))
    ct_T_ref = se3.exp(torch.tensor([5.0, 8.0, -2.0, -0.7, 0.2, 0.5], dtype=torch.float64))
    pivot = torch.tensor([12.0, -40.0, 25.0], dtype=torch.float64)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64) * torch.tensor([0.1] * 3 + [0.002] * 3)[:, None]
    stated = cov.world_covariance(root @ root.T, world_T_ref, pivot)
    twists = torch.randn(4000, 6, generator=generator, dtype=torch.float64) @ root.T
    estimate = world_T_ref @ se3.inverse(ct_T_ref)
    truths = world_T_ref @ se3.inverse(ct_T_ref @ se3.exp(twists))
    errors = se3.error_at_pivot(estimate.expand_as(truths), truths, pivot)
    sampled = errors.T @ errors / len(errors)
    scale = stated.diagonal().sqrt()
    assert ((sampled - stated) / (scale[:, None] * scale)).abs().max() < 0.1


def test_point_sigma_is_the_worst_direction_at_the_worst_point() -> None:
    covariance = torch.diag(torch.tensor([0.04, 0.09, 0.01, 0.0, 0.0, 1e-4], dtype=torch.float64))
    points = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]], dtype=torch.float64)
    assert cov.point_sigma_mm(covariance, points) == pytest.approx(math.sqrt(0.09 + 1.0))


def test_the_best_is_chosen_on_a_mask_that_all_share(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = bench.frame(noise=5.0)
    scene = build_scene((tracked,), NccMatcher(), [volume_level(bench.volume, 1.0)], [1.5])
    truth = se3.inverse(bench.world_T_ct) @ scene.world_T_ref
    off = truth @ se3.exp(torch.tensor([0, 0, 25.0, 0, 0.2, 0], dtype=torch.float64))
    scores = scene.compare(0, torch.stack([off, truth]))
    assert int(scores.argmax()) == 1 and float(scores[1]) > 0.9
    far = truth @ se3.translation(torch.tensor([0, 0, 1e3], dtype=torch.float64))
    both = torch.stack([far, truth])
    assert torch.equal(scene.compare(0, both), scene.measure(0, both).score)


def test_distinct_optima_are_apart(bench) -> None:  # type: ignore[no-untyped-def]
    scene = build_scene((bench.frame(),), NccMatcher(), [volume_level(bench.volume, 4.0)], [4.0])
    shifts = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [5.0, 0, 0], [5.5, 0, 0]], dtype=torch.float64)
    assert distinct(scene, se3.translation(shifts), torch.tensor([0.5, 0.6, 0.7, 0.4]), 3) == [2, 1]


def test_parts_that_disagree_are_noticed_and_noise_is_not(generator: torch.Generator) -> None:
    jacobian = torch.randn(6, 120, 140, generator=generator, dtype=torch.float64).numpy()
    residual = torch.randn(120, 140, generator=generator, dtype=torch.float64).numpy()
    spread = np.einsum("ahw,bhw->ab", jacobian, jacobian)
    alone = noise.disagreement(residual, jacobian, spread, 120.0 * 140.0, (1.0, 1.0))
    assert 1.0 <= alone < 1.3
    wanted = np.where(np.arange(140) < 70, 0.5, -0.5)  # left and right half want opposite shifts
    torn = noise.disagreement(residual + wanted * jacobian[0], jacobian, spread, 120.0 * 140.0, (1.0, 1.0))
    assert torn > 3.0 * alone
    assert noise.disagreement(residual, jacobian, spread, 500.0, (1.0, 1.0)) == 1.0


def test_tiles_cover_the_image_once(generator: torch.Generator) -> None:
    jacobian, residual = np.ones((6, 23, 31)), np.ones((23, 31))
    whole = noise.tile_products(residual, jacobian, 1000, 1000)
    assert np.allclose(whole, 713.0**2 * np.ones((6, 6)) * 1.0)
    single = noise.tile_products(residual, jacobian, 1, 1)
    assert np.allclose(single, 713.0 * np.ones((6, 6)))


def test_trace_of_a_solution_equals_lapack_and_survives_an_unseen_direction() -> None:
    rng = np.random.default_rng(3)
    a, b, units = rng.normal(size=(6, 20)), rng.normal(size=(6, 20)), np.diag(10.0 ** rng.uniform(-3, 3, 6))
    spread, scatter = units @ a @ a.T @ units, units @ b @ b.T @ units
    exact = np.trace(np.linalg.solve(spread, scatter))
    assert trace_of_solve(spread, scatter, 1e-9) == pytest.approx(exact, rel=1e-6)
    spread[5], spread[:, 5], scatter[5], scatter[:, 5] = 0.0, 0.0, 0.0, 0.0
    exact = np.trace(np.linalg.solve(spread[:5, :5], scatter[:5, :5]))
    assert trace_of_solve(spread, scatter, 1e-9) == pytest.approx(exact, rel=1e-6)
