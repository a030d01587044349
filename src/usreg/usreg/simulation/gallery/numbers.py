# SPDX-License-Identifier: Apache-2.0
"""What frames look like in numbers: real ones, the renderer's, the scanner's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ...evaluation.appearance import SpeckleConfig, depth_profile, grey_histogram, speckle_size
from ...evaluation.figures import BLUE, ORANGE, RED, draw
from .echo import Frames

COLOUR = {"real": RED, "renderer": BLUE, "scanner": ORANGE, "paper mode": "#8a63c9"}
OTHER_COLOUR = "#3a9d6e"
DARK = 5.0  # grey level below which there is no echo to see


@dataclass(frozen=True, eq=False)
class Appearance:
    """Means over frames.

    Args:
        grey, share: centres and shares of the histogram. depth_mm, level: mean grey level over depth.
        axial_mm, lateral_mm: size of the speckle, weighted by `patches`; NaN where no patch is uniform enough.
    """

    name: str
    frames: int
    grey: NDArray[np.float64]
    share: NDArray[np.float64]
    depth_mm: NDArray[np.float64]
    level: NDArray[np.float64]
    axial_mm: float
    lateral_mm: float
    patches: int

    @property
    def mean(self) -> float:
        """Mean grey level."""
        return float((self.grey * self.share).sum())

    @property
    def spread(self) -> float:
        """Standard deviation of the grey levels."""
        return math.sqrt(float(((self.grey - self.mean) ** 2 * self.share).sum()))

    @property
    def dark(self) -> float:
        """Share of the pixels without a visible echo."""
        return float(self.share[self.grey < DARK].sum())

    def at(self, depth_mm: float) -> float:
        """Mean grey level at a depth; NaN below the image."""
        return float(np.interp(depth_mm, self.depth_mm, self.level, math.nan, math.nan))


def appearance(frames: Frames, config: SpeckleConfig | None = None) -> Appearance:
    """Measure frames; `config`: where the size of the speckle is measured."""
    g = frames.geometry
    grey = grey_histogram(frames.images[0], g)[0]
    share = np.mean([grey_histogram(i, g)[1] for i in frames.images], 0)
    depth = depth_profile(frames.images[0], g)[0]
    level = np.mean([depth_profile(i, g)[1] for i in frames.images], 0)
    found = [s for s in (speckle_size(i, g, config) for i in frames.images) if s.patches]
    count = sum(s.patches for s in found)
    axial = sum(s.axial_mm * s.patches for s in found) / count if count else math.nan
    lateral = sum(s.lateral_mm * s.patches for s in found) / count if count else math.nan
    return Appearance(frames.name, len(frames.images), grey, share, depth, level, axial, lateral, count)


def histogram_plot(rows: Sequence[Appearance], note: str) -> str:
    """Grey levels of the sectors' pixels, logarithmic."""

    def plot(axes: Axes) -> None:
        for r in rows:
            axes.step(r.grey, np.where(r.share > 0, r.share, math.nan), where="mid", color=_colour(r), label=r.name)
        axes.set(xlabel="grey level", ylabel="share of pixels", yscale="log", xlim=(0, 256))
        finish(axes, note)

    return draw(plot, 5.0, 3.2)


def depth_plot(rows: Sequence[Appearance], note: str) -> str:
    """Mean grey level over depth."""

    def plot(axes: Axes) -> None:
        for r in rows:
            axes.plot(r.depth_mm, r.level, color=_colour(r), label=r.name)
        axes.set(xlabel="depth below the probe / mm", ylabel="mean grey level", ylim=(0, None))
        finish(axes, note)

    return draw(plot, 5.0, 3.2)


def speckle_plot(rows: Sequence[Appearance], note: str) -> str:
    """Axial and lateral size of the speckle."""

    def plot(axes: Axes) -> None:
        wide = 0.8 / len(rows)
        for i, r in enumerate(rows):
            at = [k - 0.4 + wide * (i + 0.5) for k in (0, 1)]
            axes.bar(at, [r.axial_mm, r.lateral_mm], 0.9 * wide, color=_colour(r), label=r.name)
        axes.set_xticks([0, 1], ["axial", "lateral"])
        axes.set(ylabel="speckle, FWHM / mm")
        finish(axes, note)

    return draw(plot, 5.0, 3.2)


def finish(axes: Axes, note: str) -> None:
    """Legend above the plot, and the words that every picture bears."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=8, fontsize=8, borderaxespad=0.2)
    axes.text(1.0, -0.26, note, transform=axes.transAxes, fontsize=6, ha="right", va="top", alpha=0.7)


def _colour(row: Appearance) -> str:
    return COLOUR.get(row.name, OTHER_COLOUR)
