# SPDX-License-Identifier: Apache-2.0
"""The methods that are compared, by name: each is a system with options."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..data.share import share_dir
from ..data.types import Estimate, Problem, Volume
from ..errors import ConfigError
from ..registration.learned.weights import FOLDER, load_weights
from ..registration.refine_options import merged, preset
from ..registration.spread import SpreadConfig
from ..simulation.scenario import FOLLOWED
from ..systems import build

PRESET = "s2v"  # the refinement's settings, the same in all lines that refine
SEARCHED: dict[str, Any] = {"preset": PRESET, "gate": {"min_structure": 1.0}}  # nothing is clear at once
MODALITY = "US"
TOLD = ("parameters", "bodies", "steps", "samples", "wall_s", "curve", "command")  # of the weights' metadata


class Registers(Protocol):
    """A registrar, or what stands around one."""

    def prepare(self, volume: Volume) -> None: ...

    def reset(self) -> None: ...

    def __call__(self, problem: Problem) -> Estimate: ...


@dataclass(frozen=True)
class Method:
    """How a method is made.

    Args:
        label: as tables name it. system, options: see `systems.build`.
        mode: of the weights that it needs; "": none.
        slow: seconds a pair: it gets fewer pairs.
        equal_to: its re-tries are scaled until its median time is that of this method.
    """

    label: str
    system: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mode: str = ""
    slow: bool = False
    equal_to: str = ""


@dataclass(frozen=True, eq=False)
class Made:
    """A registrar with what its weights say of themselves."""

    registrar: Registers
    build_s: float
    options: dict[str, Any]
    undertrained: bool = False
    training: dict[str, Any] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    "itk": Method("ITK (gradient descent, global NCC)", "itk", {"preset": "deep_s2v"}, slow=True),
    "fvr": Method("FVR-Net", "deep_s2v", {"mode": "fvr", "refine": FOLLOWED}, "fvr"),  # of which the gate is taken
    "paper": Method("DeepRS2V", "deep_s2v", {"mode": "paper", "refine": FOLLOWED}, "paper"),
    "paper+correction": Method(
        "DeepRS2V + correction", "deep_s2v", {"mode": "paper", "correction": True, "refine": FOLLOWED}, "paper"
    ),
    "usreg": Method("usreg", "deep_s2v", {"mode": "usreg"}, "usreg"),
    "usreg-network": Method("usreg, network alone", "deep_s2v", {"mode": "usreg", "refine": None}, "usreg"),
    "refine": Method("refinement alone", "intensity", {"preset": PRESET}),
    "refine-searched": Method("refinement alone, all re-tries", "intensity", SEARCHED),
    "refine-equal": Method("refinement alone, equal time", "intensity", SEARCHED, equal_to="usreg"),
    "refine-ncc": Method("refinement alone, NCC as for a still body", "intensity"),
}
CONTROL = "usreg"
PUBLISHED_CONTROL = "paper+correction"


def chosen(names: str) -> list[str]:
    """Names of methods separated by commas, those that others are scaled to first; "": all.

    Raises:
        ConfigError: a name that is not there.
    """
    asked = [n.strip() for n in names.split(",") if n.strip()] or list(METHODS)
    unknown = sorted(set(asked) - set(METHODS))
    if unknown:
        raise ConfigError(f"there is no method {unknown}; choose among {list(METHODS)}, separated by commas")
    first = {METHODS[n].equal_to for n in asked}
    return sorted(dict.fromkeys(asked), key=lambda n: (n not in first, bool(METHODS[n].equal_to)))


def make(method: Method, weights: Path | None = None, more: Mapping[str, Any] | None = None) -> Made:
    """The registrar of a method.

    Args:
        weights: folder with deep_s2v_<mode>.safetensors; None: the weights that ship.
        more: options that replace the method's own.

    Raises:
        MissingFileError: weights that are not there. ConfigError, FileFormatError: others, or unusable ones.
    """
    options, file = dict(method.options) | dict(more or {}), None
    if method.system == "intensity" and "preset" in options:
        options = merged(preset(str(options.pop("preset"))), options)
    if method.mode:
        file = weights_file(method.mode, weights)
        options |= {"weights": str(file)}
    begin = time.perf_counter()
    registrar = build(method.system, options, MODALITY)
    seconds = time.perf_counter() - begin
    if file is None:
        return Made(registrar, seconds, options)
    about = load_weights(file, method.mode).metadata
    training = {key: about[key] for key in TOLD if key in about}
    return Made(registrar, seconds, options | {"weights": file.name}, bool(about.get("undertrained", False)), training)


def weights_file(mode: str, folder: Path | None) -> Path:
    """Where the weights of a mode are to lie."""
    return (folder or share_dir() / FOLDER) / f"deep_s2v_{mode}.safetensors"


def scaled_spread(factor: float, limits: tuple[float, ...]) -> dict[str, Any]:
    """Options of re-tries within the limits (mm and degrees) of a draw, their numbers by a factor of the usual ones."""
    usual = SpreadConfig()
    climb = max(2, round(factor * usual.climb))
    return {
        "spread": {
            "count": max(climb, round(factor * usual.count)),
            "climb": climb,
            "finish": min(climb, max(1, round(factor * usual.finish))),
            "reach_mm": list(limits[:3]),
            "reach_deg": list(limits[3:]),
        }
    }


def equal_factor(median_s: Callable[[float], float], target_s: float, rounds: int = 4) -> float:
    """The factor at which `median_s` (of a factor) comes near a time: time is taken as a + b * factor.

    Two factors are tried first, then where the line through the last two meets the target; 1/32 at least, 64 at most.
    """
    tried = [(f, median_s(f)) for f in (0.5, 2.0)]
    for _ in range(rounds - 2):
        (f0, t0), (f1, t1) = tried[-2:]
        slope = (t1 - t0) / (f1 - f0) if f1 != f0 else 0.0
        factor = f1 + (target_s - t1) / slope if slope > 0 else f1 * target_s / t1
        factor = min(64.0, max(1.0 / 32.0, factor))
        tried.append((factor, median_s(factor)))
    return min(tried, key=lambda one: (abs(one[1] - target_s), -one[0]))[0]
