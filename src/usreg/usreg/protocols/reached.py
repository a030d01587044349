# SPDX-License-Identifier: Apache-2.0
"""What is to be reached, and whether it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.s2v.errors import ErrorLine
from ..evaluation.s2v.show import share_line
from ..evaluation.s2v.tables import Table

BASELINES = ("itk", "fvr", "paper", "paper+correction")


@dataclass(frozen=True)
class Check:
    """A figure and its limit; NaN passes nothing."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def checks_of(study: str, lines: Sequence[ErrorLine]) -> list[Check]:
    """The checks of a study whose methods have been run."""
    known = {line.method: line for line in lines}
    if "usreg" not in known:
        return []
    own = known["usreg"]
    if study == "paper":
        return _paper(own, known)
    if study == "far":
        equal = share_line(lines, "usreg", "refine-equal")
        return [
            Check("usreg: share below 3 mm, %", 100.0 * own.below_3mm, 90.0, True),
            Check("usreg: share with a TRE below 3 mm, %", 100.0 * own.tre_below_3mm, 90.0, True),
            *(
                [Check("points above refinement alone at equal time", equal, 20.0, True)]
                if math.isfinite(equal)
                else []
            ),
        ]
    return []


def _paper(own: ErrorLine, known: dict[str, ErrorLine]) -> list[Check]:
    checks = [
        Check("usreg: mean distance, mm", own.distance_mm[0], 1.5),
        Check("usreg: mean angle, degrees", own.angle_deg[0], 1.5),
        Check("usreg: pairs below 10 mm, %", 100.0 * own.successful / own.count, 100.0, True),
        Check("usreg: time of a pair, ms", 1e3 * own.median_s, 100.0),
    ]
    for name in (n for n in BASELINES if n in known):
        checks.append(
            Check(f"usreg: distance below that of {name}, mm", own.distance_mm[0], known[name].distance_mm[0])
        )
    if "usreg-network" in known:
        network = known["usreg-network"]
        checks.append(Check("network alone: mean distance, mm", network.distance_mm[0], 4.0))
        checks.append(Check("network alone: mean angle, degrees", network.angle_deg[0], 3.0))
    return checks


def above_truth(near: Sequence[ErrorLine], truth: Sequence[ErrorLine]) -> list[Check]:
    """The real sweep: how much farther off a registration ends than one that began at the truth."""
    a, b = ({line.method: line for line in lines}.get("usreg") for lines in (near, truth))
    if a is None or b is None:
        return []
    return [Check("usreg: mean TRE above that from a start at the truth, mm", a.tre_mm - b.tre_mm, 0.2)]


def checks_table(checks: Sequence[Check]) -> Table:
    """A line each."""
    lines = tuple(
        ("reached" if c.passed else "MISSED", c.name, f"{c.value:.3g}", f"{'>=' if c.at_least else '<='} {c.limit:.3g}")
        for c in checks
    )
    return Table("What is to be reached", ("", "figure", "value", "limit"), lines)
