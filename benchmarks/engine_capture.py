# SPDX-License-Identifier: Apache-2.0
"""From how far off each similarity still finds the pose: success against the size of the perturbation.

A perturbation of size s is a shift of s mm and a turn of s degrees, both in random directions, about the image's
centre. The capture range is the largest size up to which success stays at 90 % or above. A similarity alone is the
climb from the start, coarse to fine; "re-tries" is the whole registration, which looks around where it is not content.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from engine_attempts import Attempt, attempt, direction_variance, figures
from engine_cases import Named, cases, frame_targets, liver_targets, seeds_of, sweep_targets
from matplotlib.figure import Figure

from usreg.data.types import Volume
from usreg.errors import UsregError
from usreg.registration.registrar import Registrar
from usreg.similarity import SIMILARITIES
from usreg.study import draw_directions
from usreg.systems import build

SUCCESS = 0.9
SAME_MM, ACROSS_MM = 2.0, 5.0
LIVER_SPACING_MM = 0.8
PEER, RETRIES = "itk", ", re-tries"
OPEN = {  # lets everything through at once: the climb from the start is all that happens
    "min_overlap": 0.0, "min_score": -1.0, "min_structure": -1.0, "clear_overlap": 0.0, "max_sigma_mm": 1e6,
    "min_probability": 0.0, "clear_probability": 0.0,
}  # fmt: skip
Material = Callable[[], Iterator[tuple[Volume, list[Named]]]]


@dataclass(frozen=True)
class Kind:
    """What is registered to what. success_mm: a TRE below is one. modality: of the volume."""

    name: str
    success_mm: float
    modality: str
    material: Material


def capture(options: argparse.Namespace) -> dict[str, Any]:
    """Curves of every similarity and of the peer, within and across modalities."""
    whole = [f"{similarity}{RETRIES}" for similarity in ("ncc", options.similarity)]
    peer = [PEER] if options.peer != "none" else []
    names = options.capture_similarities or [*SIMILARITIES, *dict.fromkeys(whole), *peer]
    result: dict[str, Any] = {"sizes": options.sizes}
    for kind in _kinds(options):
        curves = {name: curve(name, kind, options) for name in names}
        _table(kind, curves, options.sizes)
        result[kind.name] = {"success_mm": kind.success_mm, "curves": curves}
    draw(result, options.out / "engine_capture.png")
    return result


def _kinds(options: argparse.Namespace) -> list[Kind]:
    same = liver_targets(options.data, LIVER_SPACING_MM, options.capture_bodies * options.capture_starts)
    seeds = list(seeds_of(options.seeds))[: options.capture_bodies]

    def across() -> Iterator[tuple[Volume, list[Named]]]:
        for case in cases(seeds, options.cases):
            n = options.capture_frames
            yield case.ct, frame_targets(case, options.capture_starts) if n == 1 else sweep_targets(case, n)

    kinds = [Kind("across: CT and ultrasound", ACROSS_MM, "CT", across)]
    if same is None:
        print(f"no liver_sweep in '{options.data}': the capture range of equal modalities was not measured")
        return kinds
    return [Kind("same: ultrasound of the liver", SAME_MM, "US", lambda: iter([same])), *kinds]


def curve(name: str, kind: Kind, options: argparse.Namespace) -> dict[str, Any]:
    """Success at every size, and the capture range; an error of the system is told in its place."""
    found: dict[float, list[Attempt]] = {size: [] for size in options.sizes}
    end = time.perf_counter() + options.capture_budget
    try:
        registrar = _registrar(name, kind, options)
        for volume, targets in kind.material():
            begin = time.perf_counter()
            registrar.prepare(volume)
            end += time.perf_counter() - begin
            for target in targets:
                if time.perf_counter() < end:
                    _all_sizes(found, target, volume, registrar, options.seed)
    except UsregError as error:
        print(f"  {name}: {error}", file=sys.stderr)
        return {"error": str(error)}
    points = [figures(found[size], kind.success_mm) for size in options.sizes]
    success = [p["success"] for p in points]
    seconds = float(np.median([a.seconds for rows in found.values() for a in rows]))
    print(f"  {kind.name}, {name}: capture range {range_of(options.sizes, success):g}, {1e3 * seconds:.0f} ms",
          file=sys.stderr, flush=True)  # fmt: skip
    return {
        "success": success, "range": range_of(options.sizes, success), "seconds": seconds, "count": points[0]["count"],
        "median_tre_mm": [p["median_tre_mm"] for p in points], "mean_tre_mm": [p["final"]["tre_mm"] for p in points],
        "initial_tre_mm": [p["initial"]["tre_mm"] for p in points],
    }  # fmt: skip


def _all_sizes(
    found: dict[float, list[Attempt]], named: Named, volume: Volume, registrar: Registrar, seed: int
) -> None:
    """One start of every size, the same for every similarity."""
    for size, rows in found.items():
        (twist,) = draw_directions(size, size, 1, seed + 1000 * len(rows) + round(10 * size))
        rows.append(attempt(*named, volume, registrar, twist, direction_variance(size, size, uniform=False)))


def _registrar(name: str, kind: Kind, options: argparse.Namespace) -> Registrar:
    """The peer, a similarity as it runs ("lc2, re-tries"), or its climb from the start alone."""
    if name == PEER:
        return build(PEER, json.loads(options.peer_set), kind.modality)
    similarity, whole, _ = name.partition(RETRIES)
    more = json.loads(options.set) if similarity == options.similarity and kind.modality == "CT" else {}
    gate = {} if whole else {"gate": OPEN}
    return build("intensity", {"similarity": similarity, **more, **gate}, kind.modality)


def range_of(sizes: list[float], success: list[float]) -> float:
    """Largest size up to which all are at 90 % or above; 0: none."""
    reached = 0.0
    for size, share in zip(sizes, success, strict=True):
        if not share >= SUCCESS:
            break
        reached = size
    return reached


def _table(kind: Kind, curves: dict[str, Any], sizes: list[float]) -> None:
    counts = [c["count"] for c in curves.values() if "count" in c]
    print(f"{kind.name}: share of starts that end below {kind.success_mm:g} mm, by size (mm and degrees at once), "
          f"{min(counts, default=0)} to {max(counts, default=0)} "
          "starts each")  # fmt: skip
    print(f"{'':16}" + "".join(f"{s:6g}" for s in sizes) + f"{'range':>8}{'time':>11}")
    for name, c in curves.items():
        if "error" in c:
            print(f"{name:16}not measured: {c['error']}")
            continue
        print(f"{name:16}" + "".join(f"{100 * v:5.0f}%" for v in c["success"]) + f"{c['range']:8g}"
              f"{1e3 * c['seconds']:8.0f} ms")  # fmt: skip


def draw(result: dict[str, Any], path: Path) -> None:
    """A panel for each kind, a line for each similarity."""
    kinds = [k for k in result if k != "sizes"]
    figure = Figure(figsize=(6.5 * len(kinds), 4.5), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for number, (name, c) in enumerate(result[kind]["curves"].items()):
            if "error" not in c:
                style = "k--" if name == PEER else f"C{number}-"
                axes.plot(result["sizes"], [100 * v for v in c["success"]], style, marker=".", label=name)
        axes.axhline(100 * SUCCESS, color="0.7", lw=0.8)
        axes.set(title=kind, xlabel="perturbation, mm and degrees at once", ylim=(-3, 103),
                 ylabel=f"TRE below {result[kind]['success_mm']:g} mm, % of starts")  # fmt: skip
        axes.legend(fontsize=8, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"drawn: {path}")
