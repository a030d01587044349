# SPDX-License-Identifier: Apache-2.0
"""Which starts are asked for, and what is to be reached from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import ConfigError
from .clips import Draw

PAPER = (10.0, 10.0, 5.0, 5.0, 5.0, 10.0)
FAR = (40.0, 40.0, 40.0, 30.0, 30.0, 30.0)
NONE = (0.0,) * 6


@dataclass(frozen=True)
class Study:
    """Starts over clips of one kind.

    Args:
        on: "bodies" (simulated subjects) or "liver" (the real sweep).
        stated: limits of the draw whose covariance the starts state; NaN-free and those of `draw` as a rule.
    """

    name: str
    title: str
    on: str
    draw: Draw
    stated: tuple[float, ...]

    @property
    def text(self) -> str:
        """What a reader has to know of the starts."""
        x, y, z, a, b, c = (f"{v:g}" for v in self.draw.limits)
        where = f", at least {self.draw.least_start:.0%} of the frame in the volume" if self.draw.least_start else ""
        return (
            f"Starts within ±{x}, ±{y}, ±{z} mm and ±{a}, ±{b}, ±{c} degrees, uniform per axis, about the image's "
            f"centre in its own axes{where}; frames that truly lie in the volume by {self.draw.least_true:.0%}. "
            "A start states the covariance of the draw."
        )


STUDIES = {
    s.name: s
    for s in (
        Study("paper", "Paper's perturbations", "bodies", Draw(PAPER), PAPER),
        Study("far", "Far starts", "bodies", Draw(FAR, least_start=0.5), FAR),
        Study("liver", "Real liver sweep", "liver", Draw(PAPER), PAPER),
        Study("liver-truth", "Real liver sweep, from the truth", "liver", Draw(NONE), PAPER),
    )
}


def chosen_studies(names: str, starts: int, limits: tuple[float, ...] | None = None) -> list[Study]:
    """Studies by names separated by commas; "": all.

    Args:
        starts: of each clip. limits: replace those of the study "paper".

    Raises:
        ConfigError: a name that is not there.
    """
    asked = [n.strip() for n in names.split(",") if n.strip()] or list(STUDIES)
    unknown = sorted(set(asked) - set(STUDIES))
    if unknown:
        raise ConfigError(f"there is no study {unknown}; choose among {list(STUDIES)}, separated by commas")
    found = []
    for name in dict.fromkeys(asked):
        study = replace(STUDIES[name], draw=replace(STUDIES[name].draw, starts=starts))
        if name == "paper" and limits is not None:
            x, y, z, a, b, c = limits
            study = replace(study, draw=replace(study.draw, limits=(x, y, z, a, b, c)), stated=(x, y, z, a, b, c))
        found.append(study)
    return found
