# SPDX-License-Identifier: Apache-2.0
"""One registration after the other, and the figures over them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from usreg.data.types import Estimate, Problem, Volume
from usreg.errors import NoOverlapError
from usreg.evaluation import PoseError
from usreg.study import Target, draw_directions

BINS_MM = (0.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, math.inf)


class Registers(Protocol):
    """A registrar, or what stands around one."""

    def prepare(self, volume: Volume) -> None: ...

    def __call__(self, problem: Problem) -> Estimate: ...


@dataclass(frozen=True)
class Attempt:
    """A registration from a start off the truth; without a result it ends where it began.

    Args:
        seconds: wall time of the call. score: NaN where there is no result.
    """

    target: str
    initial: PoseError
    final: PoseError
    accepted: bool
    seconds: float
    score: float = math.nan
    probability: float = math.nan
    reason: str = ""

    @property
    def worse(self) -> bool:
        """Whether it ended farther from the truth than it began, by TRE."""
        return self.final.tre_mm > self.initial.tre_mm


def attempt(
    name: str, target: Target, volume: Volume, registrar: Registers, twist: Tensor, variance: Tensor | None = None
) -> Attempt:  # fmt: skip
    """Perturb by the twist (6,), register, compare with the truth. variance: (6,) of the twists, which is stated."""
    start = target.started(twist, volume, variance)
    initial, begin = target.error(start.world_T_ct), time.perf_counter()
    try:
        e = registrar(Problem(target.frames, volume, start))
    except NoOverlapError as error:
        return Attempt(name, initial, initial, False, time.perf_counter() - begin, reason=str(error))
    seconds, final = time.perf_counter() - begin, target.error(e.world_T_ct)
    return Attempt(name, initial, final, e.accepted, seconds, e.score, e.probability, e.reason)


def uniform_directions(mm: float, deg: float, count: int, seed: int) -> Tensor:
    """Twists (count, 6) in random directions, length and angle uniform up to these."""
    size = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return draw_directions(mm, deg, count, seed) * size.repeat_interleave(3, 1)


def direction_variance(mm: float, deg: float, uniform: bool = True) -> Tensor:
    """Variances (6,) of random directions with length and angle uniform up to these, or of exactly these."""
    size = torch.tensor([mm] * 3 + [math.radians(deg)] * 3, dtype=torch.float64)
    return size**2 / (9.0 if uniform else 3.0)


def figures(found: Sequence[Attempt], success_mm: float = 5.0) -> dict[str, Any]:
    """Figures over attempts; every one counts, accepted or not."""
    accepted = [a for a in found if a.accepted]
    return {
        "count": len(found),
        "initial": _means(found, lambda a: a.initial),
        "final": _means(found, lambda a: a.final),
        "median_tre_mm": _percentile(found, 50),
        "p95_tre_mm": _percentile(found, 95),
        "worst_tre_mm": _percentile(found, 100),
        "success": _share(a.final.tre_mm < success_mm for a in found),
        "success_mm": success_mm,
        "worse": _share(a.worse for a in found),
        "accepted": len(accepted) / max(1, len(found)),
        "accepted_mean": _means(accepted, lambda a: a.final),
        "accepted_success": _share(a.final.tre_mm < success_mm for a in accepted),
        "accepted_worst_mm": _percentile(accepted, 100),
        "no_result": _share(math.isnan(a.score) for a in found),
        "seconds": float(np.median([a.seconds for a in found] or [math.nan])),
        "p95_seconds": float(np.percentile([a.seconds for a in found] or [math.nan], 95)),
        "bins": bins(found, success_mm),
    }


def bins(found: Sequence[Attempt], success_mm: float) -> list[dict[str, Any]]:
    """What becomes of starts that are off by so much (TRE)."""
    rows = []
    for low, high in zip(BINS_MM, BINS_MM[1:], strict=False):
        part = [a for a in found if low <= a.initial.tre_mm < high]
        if part:
            rows.append(_bin(part, low, high, success_mm))
    return rows


def _bin(part: Sequence[Attempt], low: float, high: float, success_mm: float) -> dict[str, Any]:
    return {
        "from_mm": low, "to_mm": high if math.isfinite(high) else None, "count": len(part),
        "mean_tre_mm": _means(part, lambda a: a.final)["tre_mm"],
        "success": _share(a.final.tre_mm < success_mm for a in part), "worse": _share(a.worse for a in part),
        "accepted": _share(a.accepted for a in part),
    }  # fmt: skip


def plain(found: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [asdict(a) for a in found]


def _means(found: Sequence[Attempt], of: Callable[[Attempt], PoseError]) -> dict[str, float]:
    rows = [asdict(of(a)) for a in found]
    names = ("tre_mm", "translation_mm", "rotation_deg", "out_of_plane_mm")
    return {name: float(np.mean([r[name] for r in rows])) if rows else math.nan for name in names}


def _percentile(found: Sequence[Attempt], share: float) -> float:
    return float(np.percentile([a.final.tre_mm for a in found], share)) if found else math.nan


def _share(flags: Any) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else math.nan
