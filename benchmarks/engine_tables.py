# SPDX-License-Identifier: Apache-2.0
"""Figures of the engine as tables, and whether they reach what they are to reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from usreg.protocols.reached import Check


def report(checks: Sequence[Check]) -> None:
    """A line each."""
    for c in checks:
        word = "at least" if c.at_least else "at most"
        print(f"{'PASS  ' if c.passed else 'MISSED'} {c.name}: {c.value:.3g} ({word} {c.limit:g})")


def table(rows: dict[str, dict[str, Any]]) -> None:
    """A line for each system or draw; errors before -> after."""
    print(f"{'':20}{'starts':>7}{'TRE mm':>15}{'median':>8}{'p95':>7}{'worst':>7}{'shift mm':>14}{'out mm':>14}"
          f"{'rot deg':>14}{'success':>9}{'worse':>7}{'accepted':>10}{'(mean)':>8}{'time':>11}{'p95':>9}")  # fmt: skip
    for name, f in rows.items():
        if not f["count"]:
            continue
        a, b = f["initial"], f["final"]
        print(f"{name:20}{f['count']:7d}{_pair(a, b, 'tre_mm'):>15}{f['median_tre_mm']:8.2f}{f['p95_tre_mm']:7.1f}"
              f"{f['worst_tre_mm']:7.1f}{_pair(a, b, 'translation_mm'):>14}{_pair(a, b, 'out_of_plane_mm'):>14}"
              f"{_pair(a, b, 'rotation_deg'):>14}{100 * f['success']:8.1f}%{100 * f['worse']:6.1f}%"
              f"{100 * f['accepted']:9.1f}%{f['accepted_mean']['tre_mm']:8.2f}{1e3 * f['seconds']:8.1f} ms"
              f"{1e3 * f['p95_seconds']:6.0f} ms")  # fmt: skip


def _pair(before: dict[str, float], after: dict[str, float], name: str) -> str:
    return f"{before[name]:.2f} > {after[name]:.2f}"


def table_of_bins(f: dict[str, Any]) -> None:
    """By how far the start was off."""
    print(f"{'initial TRE':>14}{'starts':>8}{'mean TRE':>10}{'success':>9}{'worse':>8}{'accepted':>10}")
    for b in f["bins"]:
        high = math.inf if b["to_mm"] is None else b["to_mm"]
        print(f"{b['from_mm']:6g} to {high:4g}{b['count']:8d}{b['mean_tre_mm']:10.2f}{100 * b['success']:8.1f}%"
              f"{100 * b['worse']:7.1f}%{100 * b['accepted']:9.1f}%")  # fmt: skip
