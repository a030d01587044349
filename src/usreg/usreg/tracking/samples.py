# SPDX-License-Identifier: Apache-2.0
"""A stream of stamped samples: what brackets a stamp, and every reason why nothing may be given at that stamp."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..config import check_range
from ..errors import StalePoseError, TimeError


@dataclass(frozen=True)
class StreamConfig:
    """When a stream counts as broken.

    Args:
        max_gap_s: largest distance of two neighbours that may be interpolated.
        max_frozen_s: equal values for longer than this while stamps advance are a dead stream that repeats itself.
        Optical and
            electromagnetic trackers always carry noise; encoders at rest may not: None switches the check off.
        max_samples: how many are kept; the oldest fall out.
    """

    max_gap_s: float = 0.1
    max_frozen_s: float | None = None
    max_samples: int = 4096

    def __post_init__(self) -> None:
        check_range("max_gap_s", self.max_gap_s, 1e-6, 60.0)
        check_range("max_samples", self.max_samples, 2, 1_000_000)
        if self.max_frozen_s is not None:
            check_range("max_frozen_s", self.max_frozen_s, 1e-6, 3600.0)


class Sample(NamedTuple):
    """One message: `key` is compared for equality to find frozen streams, `since_s` is the stamp since which it is
    unchanged.

    `problem` says why the value may not be used; empty when it may.
    """

    stamp_s: float
    key: Any
    value: Any
    since_s: float
    problem: str


class SampleBuffer:
    """Keeps the newest samples and finds the two around a stamp. Memory is bounded; adding costs a few microseconds."""

    def __init__(self, config: StreamConfig, what: str) -> None:
        self.config = config
        self.what = what
        self._samples: deque[Sample] = deque(maxlen=config.max_samples)

    def __len__(self) -> int:
        return len(self._samples)

    def reset(self) -> None:
        """Forget everything (a time jump, another recording)."""
        self._samples.clear()

    @property
    def oldest_s(self) -> float:
        """Stamp of the oldest sample; NaN when empty."""
        return self._samples[0].stamp_s if self._samples else math.nan

    @property
    def newest_s(self) -> float:
        """Stamp of the newest sample; NaN when empty."""
        return self._samples[-1].stamp_s if self._samples else math.nan

    def add(self, stamp_s: float, key: Any, value: Any, problem: str = "") -> None:
        """Append a sample.

        Raises:
            TimeError: the stamp is not finite, repeats or runs backwards; the sample is not taken.
        """
        last = self._samples[-1] if self._samples else None
        if not math.isfinite(stamp_s):
            raise TimeError(f"the stamp of the {self.what} is {stamp_s}: a finite time in seconds is expected")
        if last is not None and stamp_s <= last.stamp_s:
            how = "repeats" if stamp_s == last.stamp_s else f"runs backwards by {last.stamp_s - stamp_s:.4f} s"
            raise TimeError(
                f"the stamp {stamp_s:.6f} of the {self.what} {how}: stamps must rise; after a jump of the clock "
                "call reset()"
            )
        same = last is not None and not problem and not last.problem and last.key == key
        self._samples.append(Sample(stamp_s, key, value, last.since_s if same and last else stamp_s, problem))

    def bracket(self, stamp_s: float) -> tuple[Sample, Sample, float]:
        """The two samples around a stamp and the share u in [0, 1] of the second; the same sample twice on an exact
        hit.

        Raises:
            StalePoseError: nothing there, outside the measured interval, gap too wide, a sample with a problem, or a
            frozen stream.
        """
        a, b = self._neighbours(stamp_s)
        for sample in (a, b):
            self._check(sample)
        gap = b.stamp_s - a.stamp_s
        if gap > self.config.max_gap_s:
            raise StalePoseError(
                f"gap of {gap:.3f} s in the {self.what} around {stamp_s:.3f} s; the limit is "
                f"{self.config.max_gap_s} s: samples were lost"
            )
        return a, b, (stamp_s - a.stamp_s) / gap if gap else 0.0

    def _neighbours(self, stamp_s: float) -> tuple[Sample, Sample]:
        samples = self._samples
        if not samples:
            raise StalePoseError(
                f"no {self.what} has arrived yet (asked for {stamp_s:.3f} s): check that its topic is published"
            )
        if not samples[0].stamp_s <= stamp_s <= samples[-1].stamp_s:
            raise StalePoseError(self._outside(stamp_s))
        index = bisect_left(samples, stamp_s, key=_stamp)
        b = samples[index]
        return (b, b) if b.stamp_s == stamp_s else (samples[index - 1], b)

    def _outside(self, stamp_s: float) -> str:
        if stamp_s > self.newest_s:
            return (
                f"the newest {self.what} is {stamp_s - self.newest_s:.3f} s older than the frame at {stamp_s:.3f} s; "
                "measured poses are never extrapolated (limit 0 s): wait for the next one, or check that its "
                "stream still runs"
            )
        if stamp_s < self.oldest_s:
            return (
                f"the frame at {stamp_s:.3f} s is {self.oldest_s - stamp_s:.3f} s older than the oldest {self.what} "
                "that is kept "
                f"({self.config.max_samples} at most): it came too late, or before the stream began"
            )
        return f"the frame's stamp is {stamp_s}: a finite time in seconds is expected"

    def _check(self, sample: Sample) -> None:
        if sample.problem:
            raise StalePoseError(f"the {self.what} at {sample.stamp_s:.3f} s is not usable: {sample.problem}")
        limit, frozen = self.config.max_frozen_s, sample.stamp_s - sample.since_s
        if limit is not None and frozen > limit:
            raise StalePoseError(
                f"the {self.what} is frozen: exactly equal for {frozen:.3f} s while its stamps advance, the limit "
                f"is {limit} s; restart its driver, "
                "or raise max_frozen_s if this device repeats values at rest"
            )


def _stamp(sample: Sample) -> float:
    return sample.stamp_s
