# SPDX-License-Identifier: Apache-2.0
"""Stamps that repeat, run backwards or are not finite: which frames are to blame."""

from __future__ import annotations

import bisect

import torch
from torch import Tensor


def increasing_stamps(stamps_s: Tensor) -> Tensor:
    """Flag (N,) a longest strictly increasing run of stamps (N,); false = repeated, backwards or not finite.

    The longest run blames as few frames as possible: one wild stamp in the middle does not condemn all that follow it.
    """
    tails: list[float] = []
    last: list[int] = []
    before = [-1] * len(stamps_s)
    finite = torch.isfinite(stamps_s).tolist()
    for i, stamp in enumerate(stamps_s.tolist()):
        if not finite[i]:
            continue
        k = bisect.bisect_left(tails, stamp)
        before[i] = last[k - 1] if k else -1
        if k == len(tails):
            tails.append(stamp)
            last.append(i)
        elif stamp < tails[k]:  # of equal stamps the first is kept
            tails[k], last[k] = stamp, i
    good = torch.zeros(len(stamps_s), dtype=torch.bool)
    i = last[-1] if last else -1
    while i >= 0:
        good[i] = True
        i = before[i]
    return good


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
