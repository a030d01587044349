# SPDX-License-Identifier: Apache-2.0
"""What the options of a session mean to a system other than the one that they were written for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENGINE, NETWORKS = "intensity", "deep_s2v"
ENGINE_ALONE = ("window",)  # options of the one that the other has no use for


def options_for(system: str, chosen: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options for a system, from those that a session was written with for another.

    `deep_s2v` refines and judges by the engine of `intensity`: the options of the one are `refine` of the other. To
    any other system they mean nothing.

    Args:
        system: that is to run. chosen: that the options were written for.
    """
    if system == chosen:
        return dict(options)
    if (system, chosen) == (NETWORKS, ENGINE):
        refine = {key: value for key, value in options.items() if key not in ENGINE_ALONE}
        return {"refine": refine} if refine else {}
    if (system, chosen) == (ENGINE, NETWORKS):
        return dict(options.get("refine", {}))
    return {}
