# SPDX-License-Identifier: Apache-2.0
"""Similarities on images of 256 x 256: milliseconds for one value and gradient, and LNCC against average pooling.

Pooling is what LNCC is commonly made of: six masked means of 51 x 51 pixels, with autograd. MONAI's loss is a second
peer where it is installed. All in one process, same threads, warm (kernels compiled), ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from usreg import workers
from usreg.similarity import MOVING_CHANNELS, SIMILARITIES, Similarity, lncc
from usreg.similarity.checked import checked
from usreg.similarity.lc2 import Lc2Config, lc2_torch
from usreg.similarity.lncc import LnccConfig, lncc_torch
from usreg.similarity.mutual_information import information_torch

ROOT = Path(__file__).resolve().parents[1]
SIZE, WINDOW = 256, 51
REACH = {"lncc_ms": 10.0, "parity": 1e-5}
Row = Callable[..., None]


def main() -> int:
    options = _options()
    torch.set_num_threads(options.threads)
    workers.thread_count.cache_clear()
    rows: list[dict[str, Any]] = []

    def row(check: str, asked: str, measured: str, reached: bool | None = None, **numbers: Any) -> None:
        rows.append({"check": check, "asked": asked, "measured": measured, "reached": reached, **numbers})
        verdict = {None: "", True: "reached", False: "MISSED"}[reached]
        print(f"{check:58}{asked:>16}{measured:>44}  {verdict}", flush=True)

    generator = torch.Generator().manual_seed(options.seed)
    pooling(generator, row, options.repeats)
    windows(generator, row, options.repeats)
    accuracy(generator, row)
    every(generator, row, options.repeats)
    references(generator, row, options.repeats)
    peer(generator, row, options.repeats)
    result = {"threads": options.threads, "rows": rows}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")
    return int(any(r["reached"] is False for r in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "similarity.json")
    parser.add_argument("--threads", type=int, default=2, help="of torch; kernels take USREG_THREADS")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0, help="of the images")
    return parser.parse_args()


def pair(generator: torch.Generator, size: int = SIZE, channels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Speckle-like images that have half in common, and a round mask with holes."""
    shared = torch.rand(1, 1, size, size, generator=generator)
    a = shared + torch.rand(1, 1, size, size, generator=generator)
    b = shared + torch.rand(1, channels, size, size, generator=generator)
    axis = torch.linspace(-1.0, 1.0, size)
    inside = (axis[:, None] ** 2 + axis**2 < 0.9) & (torch.rand(1, 1, size, size, generator=generator) > 0.05)
    return a, b, inside


def value_and_gradient(similarity: Similarity, a: Tensor, b: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    moving = b.clone().requires_grad_()
    value = similarity(a, moving, mask)
    (gradient,) = torch.autograd.grad(value.sum(), moving)
    return value.detach(), gradient


@dataclass(frozen=True)
class Taken:
    """Milliseconds: median and least by the clock, and the processor's, of all threads."""

    ms: float
    least: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.ms:.2f} ms (least {self.least:.2f}, cpu {self.cpu:.2f})"


def taken(work: Callable[[], Any], repeats: int) -> Taken:
    """After a call that does not count."""
    work()
    clock, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        work()
        clock.append((time.perf_counter() - start[0]) * 1e3)
        processor.append((time.process_time() - start[1]) * 1e3)
    return Taken(statistics.median(clock), min(clock), statistics.median(processor))


def pooled_lncc(a: Tensor, b: Tensor, mask: Tensor, window: int = WINDOW) -> Tensor:
    """LNCC by average pooling in the images' own precision: the same windows, weights and average."""
    w = mask.to(a.dtype)

    def pool(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, window, 1, window // 2)

    n = pool(w).clamp_min(1e-6)
    mean_a, mean_b = pool(w * a) / n, pool(w * b) / n
    var_a = (pool(w * a * a) / n - mean_a * mean_a).clamp_min(1e-9)
    var_b = (pool(w * b * b) / n - mean_b * mean_b).clamp_min(1e-9)
    local = (pool(w * a * b) / n - mean_a * mean_b) / (var_a * var_b).sqrt()
    return (local * w * n).flatten(1).sum(1) / (w * n).flatten(1).sum(1)


def pooling(generator: torch.Generator, row: Row, repeats: int) -> None:
    """The figure: one value and gradient of LNCC, and how often it goes into that of average pooling."""
    images = pair(generator)
    own, pooled = (partial(value_and_gradient, s, *images) for s in (partial(lncc, window=WINDOW), pooled_lncc))
    (value, gradient), (other, other_gradient) = own(), pooled()
    fast, slow = taken(own, repeats), taken(pooled, 3)
    row(f"LNCC {WINDOW} px, value and gradient", f"<= {REACH['lncc_ms']:.0f} ms", str(fast),
        fast.ms <= REACH["lncc_ms"], **asdict(fast))  # fmt: skip
    apart = float((gradient - other_gradient).abs().max() / gradient.abs().max())
    ratio, cpu_ratio = slow.ms / fast.ms, slow.cpu / fast.cpu
    row("  average pooling", "printed", str(slow), **asdict(slow))
    row("  average pooling takes as long by", "printed", f"{ratio:.0f} times (cpu: {cpu_ratio:.0f})", ratio=ratio,
        cpu_ratio=cpu_ratio)  # fmt: skip
    off = abs(float(value - other))
    row("  pooling's value and gradient apart by", "printed", f"{off:.1e}, {apart:.1e} of largest", value=off,
        gradient=apart)  # fmt: skip


def windows(generator: torch.Generator, row: Row, repeats: int) -> None:
    """The cost must not depend on the window."""
    images = pair(generator)
    for window in (9, 51, 151):
        found = taken(partial(value_and_gradient, partial(lncc, window=window), *images), repeats)
        row(f"LNCC, another window: {window} px", "printed", str(found), **asdict(found))


def accuracy(generator: torch.Generator, row: Row) -> None:
    """Patches of mean 200 and sd 1 beside dark ones, single precision: against the direct sum in double precision."""
    size, window = 96, 21
    noise = torch.randn(2, 1, 1, size, size, generator=generator)
    step = torch.where(torch.arange(size) < size // 2, 200.0, 3.0)
    a, b = noise[0] + step, 0.7 * noise[0] + noise[1] + step
    _, _, mask = pair(generator, size)
    direct = direct_lncc(a, b, mask, window // 2)
    found, pooled = abs(float(lncc(a, b, mask, window)) - direct), abs(float(pooled_lncc(a, b, mask, window)) - direct)
    integral = abs(float(integral_lncc(a, b, mask, window // 2)) - direct)
    row("LNCC on patches of mean 200, sd 1: off the direct sum", f"<= {REACH['parity']:.0e}", f"{found:.1e}",
        found <= REACH["parity"], error=found)  # fmt: skip
    row("  pooling, and integral sums, in single precision", "printed", f"{pooled:.1e}, {integral:.1e}",
        pooling=pooled, integral=integral)  # fmt: skip


def direct_lncc(a: Tensor, b: Tensor, mask: Tensor, radius: int) -> float:
    """The definition, window by window, two passes over each."""
    x, y, known = a[0, 0].double().numpy(), b[0, 0].double().numpy(), mask[0, 0].numpy()
    top, whole = 0.0, 0
    for r, c in np.argwhere(known):
        window = slice(max(0, r - radius), r + radius + 1), slice(max(0, c - radius), c + radius + 1)
        u, v = x[window][known[window]], y[window][known[window]]
        u, v = u - u.mean(), v - v.mean()
        power = (u @ u) * (v @ v)
        top, whole = top + len(u) * (u @ v / np.sqrt(power) if power > 0 else 0.0), whole + len(u)
    return float(top / whole)


def integral_lncc(a: Tensor, b: Tensor, mask: Tensor, radius: int) -> Tensor:
    """LNCC by integral images in the images' own precision."""
    w, size = mask.to(a.dtype), 2 * radius + 1

    def sums(x: Tensor) -> Tensor:
        table = functional.pad(x, (radius + 1, radius, radius + 1, radius)).cumsum(-1).cumsum(-2)
        rows = table[..., size:, :] - table[..., :-size, :]
        return rows[..., size:] - rows[..., :-size]

    n = sums(w).clamp_min(1e-6)
    sum_a, sum_b = sums(w * a), sums(w * b)
    var_a, var_b = (sums(w * x * x) - s * s / n for x, s in ((a, sum_a), (b, sum_b)))
    local = (sums(w * a * b) - sum_a * sum_b / n) / (var_a.clamp_min(1e-9) * var_b.clamp_min(1e-9)).sqrt()
    return (local * w * n).flatten(1).sum(1) / (w * n).flatten(1).sum(1)


def every(generator: torch.Generator, row: Row, repeats: int) -> None:
    """All measures with default settings, one image."""
    for name, similarity in SIMILARITIES.items():
        images = pair(generator, channels=MOVING_CHANNELS.get(name, 1))
        both = taken(partial(value_and_gradient, similarity, *images), repeats)
        alone = taken(partial(similarity, *images), repeats)
        row(f"{name}: value and gradient", "printed", str(both), **asdict(both))
        row(f"{name}: value", "printed", str(alone), **asdict(alone))


def references(generator: torch.Generator, row: Row, repeats: int) -> None:
    """Compiled measures against their own torch references."""

    def torch_lncc(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        return lncc_torch(*checked(a, b, mask), LnccConfig(WINDOW))

    def torch_lc2(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        return lc2_torch(*checked(a, b, mask, (1, 2)), Lc2Config())

    def torch_mi(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        return information_torch(*checked(a, b, mask), 32, False)

    for name, slow in (("lncc", torch_lncc), ("lc2", torch_lc2), ("mi", torch_mi)):
        images = pair(generator, channels=MOVING_CHANNELS.get(name, 1))
        times = [taken(partial(value_and_gradient, s, *images), repeats) for s in (SIMILARITIES[name], slow)]
        ratio = times[1].ms / times[0].ms
        row(f"{name}: its torch reference", "printed", f"{times[1].ms:.1f} ms, {ratio:.1f} times as long", ratio=ratio,
            cpu_ratio=times[1].cpu / times[0].cpu)  # fmt: skip


def peer(generator: torch.Generator, row: Row, repeats: int) -> None:
    """MONAI's LNCC of the same window, where it is installed; it knows no mask."""
    try:
        from monai.losses import LocalNormalizedCrossCorrelationLoss
    except ImportError:
        row("MONAI's LocalNormalizedCrossCorrelationLoss", "printed", "not installed")
        return
    loss = LocalNormalizedCrossCorrelationLoss(spatial_dims=2, kernel_size=WINDOW)
    a, b, mask = pair(generator)
    theirs = taken(partial(value_and_gradient, lambda x, y, _: -loss(x, y)[None], a, b, mask), min(5, repeats))
    own = taken(partial(value_and_gradient, lncc, a, b, mask), repeats)
    ratio = theirs.ms / own.ms
    row("MONAI's LocalNormalizedCrossCorrelationLoss", "printed", f"{theirs.ms:.0f} ms, {ratio:.0f} times as long",
        ratio=ratio, **asdict(theirs))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
