# SPDX-License-Identifier: Apache-2.0
"""Stamps that repeat, run backwards or are not finite: which frames are to blame."""

from __future__ import annotations

import bisect
import math

import torch
from torch import Tensor


def increasing_stamps(stamps_s: Tensor) -> Tensor:
    """Flag (N,) a longest strictly increasing run of stamps (N,); false = repeated, backwards or not finite.

    The longest run blames as few frames as possible: one wild stamp in the middle does not condemn all that follow it.
    Of two runs of one length the earlier recorded frames are kept.
    """
    index = torch.isfinite(stamps_s).nonzero().flatten().tolist()
    stamps = [float(stamps_s[i]) for i in index]
    before = _run_lengths(stamps)
    after = _run_lengths([-s for s in reversed(stamps)])[::-1]
    longest = max(before, default=0)
    good, level, last = torch.zeros(len(stamps_s), dtype=torch.bool), 0, -math.inf
    for i, stamp, reached, follow in zip(index, stamps, before, after, strict=True):
        if reached == level + 1 and reached + follow == longest + 1 and stamp > last:
            good[i], level, last = True, reached, stamp
    return good


def _run_lengths(stamps: list[float]) -> list[int]:
    """Length of the longest strictly increasing run that ends at each stamp (patience sorting)."""
    tails: list[float] = []
    lengths = []
    for stamp in stamps:
        k = bisect.bisect_left(tails, stamp)
        tails[k : k + 1] = [stamp]
        lengths.append(k + 1)
    return lengths


def stamp_problems(stamps_s: Tensor, good: Tensor) -> list[str]:
    """What is wrong with the stamps, in words."""
    problems = []
    missing = int((~torch.isfinite(stamps_s)).sum())
    if missing:
        problems.append(f"{missing} frames have no usable timestamp")
    rest = (~good).nonzero().flatten().tolist()
    rest = [i for i in rest if bool(torch.isfinite(stamps_s[i]))]
    if rest:
        shown = ", ".join(map(str, rest[:5])) + (", ..." if len(rest) > 5 else "")
        problems.append(f"the timestamps of {len(rest)} frames repeat or run backwards (frames {shown})")
    return problems
