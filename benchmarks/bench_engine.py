# SPDX-License-Identifier: Apache-2.0
"""The registration engine on simulated bodies: CT to ultrasound by frames and sweeps, capture ranges, global start.

The bodies are cases of `usreg simulate cases`; those that are missing are made. Parameters were chosen on 1000:1020;
the figures that count are those of bodies which nobody has looked at, 2000:2020. Errors are those of the images
against where they truly lie; every start counts, accepted or not, and one without a result ends where it began. A start
states the covariance of its draw, and nothing else is known of the truth.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_refine import _set_threads  # noqa: E402
from engine_attempts import (  # noqa: E402
    Attempt,
    Registers,
    attempt,
    direction_variance,
    figures,
    plain,
    uniform_directions,
)
from engine_capture import capture  # noqa: E402
from engine_cases import cases, frame_targets, make_missing, seeds_of, sweep_targets  # noqa: E402
from engine_global import global_starts  # noqa: E402
from engine_tables import Check, report, table, table_of_bins  # noqa: E402

from usreg.registration.keyframes import KeyframeConfig  # noqa: E402
from usreg.registration.registrar import Registrar  # noqa: E402
from usreg.registration.sweep import Sweep, SweepConfig  # noqa: E402
from usreg.simulation.cases import Case  # noqa: E402
from usreg.study import draw_twists, variance_of  # noqa: E402
from usreg.systems import build  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FRAME = {"translation_mm": 2.4, "of_initial": 0.5, "rotation_deg": 1.6, "worse": 0.05, "seconds": 0.1}
SWEEP = {"translation_mm": 3.0, "rotation_deg": 2.0, "success": 0.95, "seconds": 1.0}
MODALITY = "CT"


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    _set_threads(options.threads)
    studies: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "frame": frame_study, "sweep": sweep_study, "capture": capture, "global": global_starts,
    }  # fmt: skip
    make_missing(seeds_of(options.seeds), options.cases)
    for name in options.studies:
        begin = time.perf_counter()
        result = studies[name](options)
        result |= {"seeds": options.seeds, "threads": options.threads, "seed": options.seed,
                   "took_s": time.perf_counter() - begin}  # fmt: skip
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"engine_{name}.json"
        path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"written: {path}\n")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--studies", nargs="+", default=["frame", "sweep", "capture", "global"],
                   choices=["frame", "sweep", "capture", "global"])  # fmt: skip
    p.add_argument("--cases", type=Path, default=ROOT / "build" / "bench" / "cases", help="folder of cases")
    p.add_argument("--seeds", default="2000:2020", help="bodies A:B")
    p.add_argument("--similarity", default="lc2", help="of frames and sweeps")
    p.add_argument("--optimizer", default="auto")
    p.add_argument("--set", default="{}", help="JSON: further options of the system `intensity`")
    p.add_argument("--peer", default="itk", choices=["itk", "none"])
    p.add_argument("--peer-set", default="{}", help="JSON: options of the peer")
    p.add_argument("--peer-starts", type=int, default=1, help="a body; the peer is slow")
    p.add_argument("--perturb", default="5,5,5,5,5,5", help="of frames: MM,MM,MM,DEG,DEG,DEG, uniform per axis")
    p.add_argument("--starts", type=int, default=20, help="frames a body, one start each")
    p.add_argument("--sweep", type=int, default=20, help="frames of a sweep")
    p.add_argument("--sweep-perturb", type=float, nargs=2, default=(15.0, 15.0), metavar=("MM", "DEG"))
    p.add_argument("--sweep-starts", type=int, default=1, help="a sweep and draw")
    p.add_argument("--keyframes", type=int, default=0, help="most frames of a sweep that are used; 0 = all")
    p.add_argument("--capture-bodies", type=int, default=5)
    p.add_argument("--capture-starts", type=int, default=5, help="a body, size and similarity")
    p.add_argument("--capture-frames", type=int, default=1, help="registered together")
    p.add_argument("--capture-similarities", nargs="+", help="default: all, and the peer")
    p.add_argument("--sizes", type=float, nargs="+", default=[2, 4, 6, 8, 10, 15, 20, 30],
                   help="of the capture range: mm and degrees at once")  # fmt: skip
    p.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with liver_sweep")
    p.add_argument("--capture-budget", type=float, default=120.0, help="seconds for a curve; fewer starts beyond it")
    p.add_argument("--global-sweeps", type=int, default=1, help="a body; windows change from body to body")
    p.add_argument("--global-set", default="{}", help="JSON: options of the global start")
    p.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of the results")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args(arguments)


def own(options: argparse.Namespace, sweep: bool = False) -> Registrar:
    """The registrar that is measured."""
    given = {"similarity": options.similarity, "optimizer": options.optimizer} | json.loads(options.set)
    registrar = build("intensity", given, MODALITY)
    if sweep and options.keyframes:
        return Sweep(registrar, SweepConfig(KeyframeConfig(count=options.keyframes)))
    return registrar


def frame_study(options: argparse.Namespace) -> dict[str, Any]:
    """Single frames from starts within a box."""
    limits = [float(v) for v in options.perturb.split(",")]
    systems: dict[str, Registers] = {options.similarity: own(options)}
    if options.peer != "none" and options.peer_starts:
        systems["itk"] = build("itk", json.loads(options.peer_set))
    found: dict[str, list[Attempt]] = {name: [] for name in systems}
    beside: list[Attempt] = []  # own results on the starts that the peer had
    warm, prepare_s = False, []
    for case in cases(seeds_of(options.seeds), options.cases):
        for system in systems.values():
            begin = time.perf_counter()
            system.prepare(case.ct)
            prepare_s.append(time.perf_counter() - begin)
        targets = frame_targets(case, options.starts)
        twists, variance = draw_twists(limits, len(targets), options.seed + case.seed), variance_of(limits)
        if not warm:
            attempt(*targets[0], case.ct, systems[options.similarity], 0.1 * twists[0], variance)
            warm = True
        every = max(1, len(targets) // max(1, options.peer_starts))
        for k, ((name, target), twist) in enumerate(zip(targets, twists, strict=True)):
            own_one = attempt(name, target, case.ct, systems[options.similarity], twist, variance)
            found[options.similarity].append(own_one)
            if "itk" in systems and k % every == every // 2:
                found["itk"].append(attempt(name, target, case.ct, systems["itk"], twist, variance))
                beside.append(own_one)
        _told("frame", case, found[options.similarity])
    result = {name: figures(rows) for name, rows in found.items()}
    if beside:
        result[f"{options.similarity} beside it"] = figures(beside)
    print(f"CT to ultrasound, one frame, starts within {options.perturb} (mm, degrees, uniform per axis about the "
          f"image's centre); volume prepared in {max(prepare_s):.1f} s at most")  # fmt: skip
    table(result)
    table_of_bins(result[options.similarity])
    checks = judge_frame(result[options.similarity])
    if beside:
        ratio = result["itk"]["seconds"] / result[f"{options.similarity} beside it"]["seconds"]
        print(f"itk takes {ratio:.0f} times as long")
    report(checks)
    return {"perturb": limits, "figures": result, "checks": [vars(c) for c in checks],
            "rows": {name: plain(rows) for name, rows in found.items()}}  # fmt: skip


def judge_frame(f: dict[str, Any]) -> list[Check]:
    """Against what is to be reached."""
    moved = f["final"]["translation_mm"]
    share = moved / max(1e-9, f["initial"]["translation_mm"])
    return [
        Check("translation error, mm", moved, FRAME["translation_mm"]),
        Check("translation error as a share of the initial one", share, FRAME["of_initial"]),
        Check("rotation error, degrees", f["final"]["rotation_deg"], FRAME["rotation_deg"]),
        Check("share that ends worse than it began (TRE)", f["worse"], FRAME["worse"]),
        Check("seconds a frame (median)", f["seconds"], FRAME["seconds"]),
    ]


def sweep_study(options: argparse.Namespace) -> dict[str, Any]:
    """Breath-held sweeps from starts within a box, and in random directions with length and angle uniform up to it."""
    mm, deg = options.sweep_perturb
    registrar: Registers = own(options, sweep=True)
    names = {"per axis": f"each of three axes uniform within {mm:g} mm and {deg:g} degrees",
             "directions": f"random directions, length and angle uniform up to {mm:g} mm and {deg:g} deg"}  # fmt: skip
    found: dict[str, list[Attempt]] = {name: [] for name in names}
    for case in cases(seeds_of(options.seeds), options.cases):
        registrar.prepare(case.ct)
        targets = sweep_targets(case, options.sweep) * options.sweep_starts
        seed = options.seed + case.seed
        box = (mm,) * 3 + (deg,) * 3
        draws = {
            "per axis": (draw_twists(box, len(targets), seed), variance_of(box)),
            "directions": (uniform_directions(mm, deg, len(targets), seed), direction_variance(mm, deg)),
        }
        for draw, (twists, variance) in draws.items():
            for (name, target), twist in zip(targets, twists, strict=True):
                found[draw].append(attempt(name, target, case.ct, registrar, twist, variance))
        _told("sweep", case, found["per axis"])
    result = {name: figures(rows) for name, rows in found.items()}
    print(f"CT to ultrasound, {options.similarity}, sweeps of {options.sweep} frames"
          + (f", {options.keyframes} keyframes" if options.keyframes else ""))  # fmt: skip
    for name, text in names.items():
        print(f"{name}: {text}")
    table(result)
    table_of_bins(result["per axis"])
    checks = judge_sweep(result["per axis"], "per axis") + judge_sweep(result["directions"], "directions")
    report(checks)
    return {"perturb": [mm, deg], "keyframes": options.keyframes, "figures": result,
            "checks": [vars(c) for c in checks],
            "rows": {name: plain(rows) for name, rows in found.items()}}  # fmt: skip


def judge_sweep(f: dict[str, Any], draw: str) -> list[Check]:
    """Against what is to be reached."""
    return [
        Check(f"{draw}: translation error, mm", f["final"]["translation_mm"], SWEEP["translation_mm"]),
        Check(f"{draw}: rotation error, degrees", f["final"]["rotation_deg"], SWEEP["rotation_deg"]),
        Check(f"{draw}: share below 5 mm TRE", f["success"], SWEEP["success"], at_least=True),
        Check(f"{draw}: seconds a sweep (median)", f["seconds"], SWEEP["seconds"]),
    ]


def _told(study: str, case: Case, found: Sequence[Attempt]) -> None:
    f = figures(found)
    print(f"  {study} {case.seed}: {f['count']} starts, mean TRE {f['final']['tre_mm']:.2f} mm, "
          f"{100 * f['success']:.0f} % below 5 mm", file=sys.stderr, flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
