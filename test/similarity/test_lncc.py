# SPDX-License-Identifier: Apache-2.0
"""LNCC: the direct sum over partly known windows, also where single precision fails; compiled against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from usreg import workers
from usreg.similarity import lncc
from usreg.similarity.checked import checked
from usreg.similarity.lncc import LnccConfig, lncc_torch
from usreg.similarity.windows import window_sums


def images(generator: torch.Generator, shape: tuple[int, ...] = (18, 23)) -> tuple[Tensor, Tensor, Tensor]:
    a = torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    b = 0.5 * a + torch.rand(1, 1, *shape, generator=generator, dtype=torch.float64)
    return a, b, torch.rand(1, 1, *shape, generator=generator) > 0.3


def direct(a: Tensor, b: Tensor, mask: Tensor, radius: int, squared: bool = False) -> float:
    """The definition, window by window, two passes over each, in double precision."""
    x, y, known = (t[0, 0].double().numpy() for t in (a, b, mask))
    top, whole = 0.0, 0.0
    for centre in np.argwhere(known > 0):
        window = tuple(slice(max(0, c - radius), c + radius + 1) for c in centre)
        w = known[window]
        u, v = x[window] - np.average(x[window], weights=w), y[window] - np.average(y[window], weights=w)
        uu, vv, uv = (w * u * u).sum(), (w * v * v).sum(), (w * u * v).sum()
        r = uv / np.sqrt(uu * vv) if uu > 0 and vv > 0 else 0.0
        by = known[tuple(centre)] * w.sum()
        top, whole = top + by * (r * r if squared else r), whole + by
    return top / whole


@pytest.mark.parametrize("shape", [(18, 23), (5, 7, 6)])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("radius", [1, 4, 40])
def test_value_is_the_direct_sum_over_what_windows_know(
    generator: torch.Generator, shape: tuple[int, ...], radius: int, squared: bool
) -> None:
    a, b, mask = images(generator, shape)
    weight = mask * torch.rand(mask.shape, generator=generator, dtype=torch.float64)
    for by in (mask, weight):
        found = lncc(a, b, by, 2 * radius + 1, squared)
        assert float(found) == pytest.approx(direct(a, b, by, radius, squared), abs=1e-12)


@pytest.mark.parametrize("radius", [2, 12])
def test_flat_bright_patches_in_single_precision(generator: torch.Generator, radius: int) -> None:
    """Patches of mean 200 and sd 1 beside dark ones: their variance is a 4e4th of the squares it is the rest of."""
    noise = torch.randn(2, 1, 1, 40, 50, generator=generator)
    step = torch.where(torch.arange(50) < 25, 200.0, 3.0)
    a, b = noise[0] + step, 0.7 * noise[0] + noise[1] + step
    mask = torch.rand(1, 1, 40, 50, generator=generator) > 0.3
    assert float(lncc(a, b, mask, 2 * radius + 1)) == pytest.approx(direct(a, b, mask, radius), abs=1e-5)


def test_a_window_over_the_whole_image_is_ncc(generator: torch.Generator) -> None:
    a, b, mask = images(generator)
    x, y = (t[mask].numpy() for t in (a, b))
    assert float(lncc(a, b, mask, 101)) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)


def test_a_smooth_gain_and_offset_hardly_matter_to_small_windows(generator: torch.Generator) -> None:
    a, _, mask = images(generator, (40, 40))
    slope = torch.linspace(1.0, 4.0, 40, dtype=torch.float64)
    changed = a * slope + 2.0 * slope[:, None]
    narrow, wide = (float(lncc(a, changed, mask, window)) for window in (5, 79))
    assert narrow > 0.85 and wide < 0.4, (narrow, wide)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_compiled_value_and_gradients_are_those_of_torch(
    generator: torch.Generator, squared: bool, channels: int
) -> None:
    a = torch.rand(2, channels, 30, 37, generator=generator, dtype=torch.float64)
    b = a + torch.rand(2, channels, 30, 37, generator=generator, dtype=torch.float64)
    a[..., :12] = 200.0 + a[..., :12]
    weight = (torch.rand(2, 1, 30, 37, generator=generator) - 0.3).clamp_min(0.0)
    for window in (5, 51):
        images_ = [t.clone().requires_grad_() for t in (a, b)]
        fast = lncc(*images_, weight, window, squared)
        slow = lncc_torch(*checked(*images_, weight), LnccConfig(window, squared))
        assert torch.allclose(fast, slow, atol=1e-11)
        for f, s in zip(*(torch.autograd.grad(v.sum(), images_) for v in (fast, slow)), strict=True):
            assert float((f - s).abs().max() / s.abs().max()) < 1e-9


def test_windows_without_contrast_count_as_nothing(generator: torch.Generator) -> None:
    a, b, mask = images(generator, (30, 30))
    a[..., 15:] = 7.0  # beside an edge of thousands, which running sums have passed over
    a[..., :5] += 1e4
    value = lncc(a, a.clone(), mask, 7)
    assert float(value) == pytest.approx(direct(a, a, mask, 3), abs=1e-9)
    assert 0.4 < float(value) < 0.8


def test_the_number_of_threads_does_not_change_a_bit(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, mask = images(generator, (300, 200))
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(workers, "thread_count", lambda n=threads: n)
        x = b.clone().requires_grad_()
        value = lncc(a, x, mask, 9)
        found.append((value.detach(), *torch.autograd.grad(value.sum(), x), window_sums(a, 3)))
    for other in found[1:]:
        assert all(torch.equal(p, q) for p, q in zip(found[0], other, strict=True))


@pytest.mark.parametrize("shape", [(2, 3, 7, 11), (1, 2, 5, 6, 4)])
@pytest.mark.parametrize("radius", [0, 1, 3, 20])
def test_running_sums_are_the_sums_of_running_totals(
    generator: torch.Generator, shape: tuple[int, ...], radius: int
) -> None:
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    fast, slow = (window_sums(x, radius, compiled) for compiled in (True, False))
    assert torch.allclose(fast, slow, atol=1e-12)
    corner = x[(..., *[slice(0, radius + 1)] * (len(shape) - 2))]
    assert torch.allclose(fast[(..., *[0] * (len(shape) - 2))], corner.flatten(2).sum(-1))
