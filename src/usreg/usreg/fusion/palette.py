# SPDX-License-Identifier: Apache-2.0
"""Colours that people with colour-vision deficiency can tell apart (Okabe and Ito 2008), RGB."""

from __future__ import annotations

from collections.abc import Iterable

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
GREY: Colour = (170, 170, 170)
ORANGE: Colour = (230, 159, 0)
SKY: Colour = (86, 180, 233)
GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
BLUE: Colour = (0, 114, 178)
VERMILION: Colour = (213, 94, 0)
PURPLE: Colour = (204, 121, 167)

_CYCLE = (SKY, ORANGE, GREEN, YELLOW, PURPLE, VERMILION, BLUE)


def distinct_colours(values: Iterable[int]) -> dict[int, Colour]:
    """Colours of a few labels that are shown alone: up to seven of them differ, which by value they need not."""
    return {value: label_colour(rank + 1) for rank, value in enumerate(sorted(values))}


def label_colour(value: int) -> Colour:
    """Colour of a label; the same for the same value in every view."""
    return _CYCLE[(value - 1) % len(_CYCLE)]
