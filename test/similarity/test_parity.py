# SPDX-License-Identifier: Apache-2.0
"""Compiled LC2 and mutual information against torch: values, derivatives, threads."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from usreg import workers
from usreg.similarity import Similarity, lc2, mutual_information
from usreg.similarity.checked import checked
from usreg.similarity.lc2 import Lc2Config, lc2_torch
from usreg.similarity.mutual_information import information_torch


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
@pytest.mark.parametrize("radii", [(1,), (3, 5, 40)])
def test_lc2_and_its_gradient_are_those_of_torch(
    generator: torch.Generator, radii: tuple[int, ...], ridge: float
) -> None:
    a = torch.rand(3, 1, 30, 37, generator=generator, dtype=torch.float64)
    b = torch.rand(3, 2, 30, 37, generator=generator, dtype=torch.float64) + a
    a[0, :, :, 20:], b[1, 1], b[2, :, :, :9] = 0.3, 5.0, 800.0 + b[2, :, :, :9]
    b.requires_grad_()
    weight = (torch.rand(3, 1, 30, 37, generator=generator, dtype=torch.float64) - 0.3).clamp_min(0.0)
    for mask in (weight, weight > 0):
        fast = lc2(a, b, mask, radii, ridge)
        slow = lc2_torch(*checked(a, b, mask, (1, 2)), Lc2Config(radii, ridge))
        assert torch.allclose(fast, slow, atol=1e-11)
        found, expected = (torch.autograd.grad(v.sum(), b)[0] for v in (fast, slow))
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-9
        with torch.no_grad():
            assert torch.equal(lc2(a, b, mask, radii, ridge), fast)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_information_and_its_gradients_are_those_of_torch(
    generator: torch.Generator, channels: int, normalised: bool
) -> None:
    a = torch.randint(0, 9, (2, channels, 130, 140), generator=generator).double()  # its limits are many pixels
    b = (a + torch.rand(2, channels, 130, 140, generator=generator, dtype=torch.float64)).requires_grad_()
    a.requires_grad_()
    weight = (torch.rand(2, 1, 130, 140, generator=generator, dtype=torch.float64) - 0.3).clamp_min(0.0)
    fast = mutual_information(a, b, weight, 12, normalised)
    slow = information_torch(*checked(a, b, weight), 12, normalised)
    assert torch.allclose(fast, slow, atol=1e-12)
    for f, s in zip(*(torch.autograd.grad(v.sum(), (a, b)) for v in (fast, slow)), strict=True):
        assert float((f - s).abs().max() / s.abs().max()) < 1e-9


@pytest.mark.parametrize("measure", [partial(lc2, radii=(4,)), mutual_information])
def test_the_number_of_threads_does_not_change_a_bit(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, measure: Similarity
) -> None:
    channels = 1 if measure is mutual_information else 2
    for images, size in ((1, 300), (5, 20)):
        a = torch.rand(images, 1, size, 200, generator=generator)
        b = (torch.rand(images, channels, size, 200, generator=generator) + a).requires_grad_()
        found = []
        for threads in (1, 2, 5):
            monkeypatch.setattr(workers, "thread_count", lambda n=threads: n)
            value = measure(a, b, torch.ones_like(a))
            found.append((value.detach(), *torch.autograd.grad(value.sum(), b)))
        for other in found[1:]:
            assert all(torch.equal(p, q) for p, q in zip(found[0], other, strict=True))
