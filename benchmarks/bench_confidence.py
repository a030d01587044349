# SPDX-License-Identifier: Apache-2.0
"""Is the stated probability of a TRE below 5 mm true, and does it tell good estimates from bad ones?

Estimates come from simulated bodies (`usreg simulate cases`), from starts off the truth by mixed amounts, so that a
good part of them fail. With --fit the coefficients in config/confidence are made anew from tuning bodies (1000:1020);
the figures that count are those of bodies which nobody has looked at (2000:2020).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from usreg.data.types import Estimate, Problem, TrackedFrame, Volume, start_estimate
from usreg.errors import NoOverlapError
from usreg.evaluation import Reliability, normalised_error, pose_error
from usreg.evaluation.figures import plot_reliability
from usreg.geometry import rotation, se3
from usreg.reconstruction import ReconstructionConfig, reconstruct
from usreg.registration.confidence import inflation
from usreg.registration.normal import world_T_ref
from usreg.registration.registrar import Registrar
from usreg.registration.sweep import Sweep
from usreg.simulation.case_files import read_case, write_cases
from usreg.simulation.cases import CaseConfig
from usreg.simulation.cases import Sweep as Recorded
from usreg.simulation.subject_files import read_subject
from usreg.systems import build

sys.path.insert(0, str(Path(__file__).resolve().parent))
from confidence_fit import dump_yaml, fit_confidence, folded, judged  # noqa: E402

# One sweep a body, frames so close that half of them make a volume: for ultrasound in ultrasound.
DENSE = CaseConfig(frames=80, sweep_s=8.0, most_sweeps=1, least_sweeps=1)
MOST_NOISE = 50.0  # grey values
FOREIGN = 0.15  # share of images that belong nowhere
ROOT = Path(__file__).resolve().parents[1]
REACH = {"auroc": 0.9, "calibration_error": 0.05, "failures": 0.2, "count": 2000}
OPEN: dict[str, Any] = {  # a gate that lets everything through at once
    "min_overlap": 0.0, "min_score": -1.0, "min_structure": -1.0, "clear_overlap": 0.0, "max_sigma_mm": 1e6,
    "min_probability": 0.0, "clear_probability": 0.0,
}  # fmt: skip
SHUT = {**OPEN, "min_score": 1.0}  # and one that is never content


@dataclass(frozen=True)
class Setting:
    """A kind of registration.

    Args:
        options: of the system `intensity`. frames: of one registration. limits: of the draw of starts, mm and degrees.
        evidence: names that may count; none: all.
    """

    limits: tuple[float, float]
    frames: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()


CORRESPOND = "correspond_frame"
SCORES = ("score", "structure", "overlap", "sigma_mm", "contrast")
PRIOR = ("prior_mm", "moved_mm", "moved_sigmas", "posterior_mm")
AROUND = ("mean_drop", "standout")  # what counts most across modalities, for 37 evaluations
ACROSS = SCORES + PRIOR + AROUND
KINDS = {
    "lncc_across_echo_frame": Setting((25.0, 25.0), 1, {}, ACROSS),  # a CT as it comes
    "lncc_across_echo_sweep": Setting((30.0, 30.0), 20, {}, ACROSS),
    "lc2_across_frame": Setting((12.0, 12.0), 1, {"similarity": "lc2"}, ACROSS),
    "lc2_across_sweep": Setting((30.0, 30.0), 20, {"similarity": "lc2"}, ACROSS),
    # of system deep_s2v: live frames of a breathing subject, as `usreg train` makes them (--subjects)
    CORRESPOND: Setting((40.0, 30.0), options={"mode": "usreg"}),
    "ncc_same_frame": Setting((30.0, 30.0), evidence=SCORES),  # in speckle of its own kind scores say it all
}


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    for kind in options.kinds:
        rows = _rows(kind, options)
        if not rows:
            print(
                f"{kind}: no cases of seeds {options.seeds}: `usreg simulate cases` makes them, --make the dense ones"
            )
            continue
        if options.fit:
            rows = [r for r in rows if r["evidence"]]
            rows = [r | {"evidence": _allowed(r["evidence"], setting_of(kind, options).evidence)} for r in rows]
            _fit(kind, rows, options)
            rows, stated = folded(rows)
        else:
            rows = [r for r in rows if r["stage"] == "as it runs"]
            stated = [r["probability"] for r in rows]
        result = judged(rows, stated)
        table(kind, rows, result, options.fit)
        _write(kind, rows, stated, result, options)


def _allowed(evidence: dict[str, float], names: tuple[str, ...]) -> dict[str, float]:
    return {k: v for k, v in evidence.items() if not names or k in names}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, default=ROOT / "build" / "bench" / "cases")
    parser.add_argument("--dense", type=Path, default=ROOT / "build" / "bench" / "dense", help="folder")
    parser.add_argument("--subjects", type=Path, default=ROOT / "build" / "subjects", help="folder of subjects")
    parser.add_argument("--make", action="store_true", help="make dense sweeps that are missing (half a minute each)")
    parser.add_argument("--seeds", default="2000:2020", help="bodies A:B")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--starts", type=int, default=120, help="a body")
    parser.add_argument("--set", default="{}", help="JSON: further options of the system, over those of the kind")
    parser.add_argument("--fit", action="store_true", help="make config/confidence anew from these bodies")
    parser.add_argument("--rows", type=Path, help="JSON of estimates that were gathered before: nothing is registered")
    parser.add_argument("--closer", action="store_true", help="all evidence may count, also what costs evaluations")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of the results")
    return parser.parse_args()


def setting_of(kind: str, options: argparse.Namespace) -> Setting:
    """The kind as the options want it."""
    setting = KINDS[kind]
    evidence = () if options.closer else setting.evidence
    return replace(setting, options=setting.options | json.loads(options.set), evidence=evidence)


def _rows(kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.rows:
        content = json.loads(options.rows.read_text(encoding="utf-8"))
        return [r for r in content["rows"] if r["kind"] == kind]
    setting = setting_of(kind, options)
    first, last = (int(n) for n in options.seeds.split(":"))
    rows: list[dict[str, Any]] = []
    folder = options.dense if "_same_" in kind else options.subjects if kind == CORRESPOND else options.cases
    for seed in range(first, last):
        if "_same_" in kind and options.make:
            write_cases([seed], folder, DENSE)
        if not (folder / str(seed)).is_dir():
            continue
        begin = time.perf_counter()
        source = subject_estimates if kind == CORRESPOND else estimates
        found = list(source(kind, setting, folder / str(seed), options.starts, options.fit))
        rows += found
        bad = np.mean([r["tre_mm"] >= 5.0 for r in found])
        print(f"{kind} body {seed}: {len(found)} estimates, {100 * bad:.0f} % of 5 mm or more, "
              f"{time.perf_counter() - begin:.0f} s", flush=True)  # fmt: skip
    return rows


def registrars(setting: Setting, modality: str, fit: bool) -> dict[str, Registrar]:
    """To fit: what is known at once, and what is known after a search. Else the system as it runs."""
    options, gates = setting.options, {"as it runs": {}}
    if fit:
        gates = {"first": {"gate": OPEN}, "searched": {"gate": SHUT}}
        closer = {"all": setting.evidence != SCORES} | ({"restarts": 0} if setting.evidence else {})
        options = options | {"evidence": options.get("evidence", {}) | closer}
    found = {}
    for stage, gate in gates.items():
        system = build("intensity", options | gate, modality)
        if stage != "searched" or system.stages[0].config.spread.count > 0:  # else it never searches
            found[stage] = system if setting.frames == 1 else Sweep(system)
    return found


def estimates(kind: str, setting: Setting, folder: Path, starts: int, fit: bool) -> Iterator[dict[str, Any]]:
    """Registrations of one body; sweeps are taken in turn, frames and starts are drawn."""
    case = read_case(folder)
    same = "_same_" in kind
    systems, count = registrars(setting, "US" if same else "CT", fit), 0
    for number, (sweep, volume) in enumerate(volumes(case.sweeps, case.ct, same)):
        for system in systems.values():
            system.prepare(volume)  # done once for a volume
        rng = np.random.default_rng([case.seed, number])
        for _ in range(-(-starts // len(case.sweeps))):
            count += 1
            chosen = drawn_frames(sweep, setting.frames, same, rng)
            start = drawn_start(sweep, chosen, volume, setting.limits, rng)
            shown = tuple(noisy(sweep.frames[n], rng) if same else sweep.frames[n] for n in chosen)
            foreign = same and bool(rng.uniform() < FOREIGN)
            problem = Problem(tuple(map(mirrored, shown)) if foreign else shown, volume, start)
            for stage, system in systems.items():
                row = {"kind": kind, "body": case.seed, "start": count, "sweep": sweep.name, "stage": stage}
                row |= one(problem, system, sweep, chosen) | ({"tre_mm": math.inf} if foreign else {})
                if fit:  # in units of the covariance as the residuals give it
                    row["nees"] = row.get("nees", math.nan) * inflation(kind)
                yield row


def subject_estimates(kind: str, setting: Setting, folder: Path, starts: int, fit: bool) -> Iterator[dict[str, Any]]:
    """Registrations of one subject's live frames by system deep_s2v; frames and starts are drawn."""
    subject = read_subject(folder)
    system = build("deep_s2v", setting.options, "US")
    system.prepare(subject.volume)
    rng = np.random.default_rng(subject.seed)
    for count in range(starts):
        number = int(rng.integers(len(subject.frames)))
        tracked, true = subject.frames[number], subject.ct_T_images[number]
        sweep = Recorded("live", (tracked,), subject.world_T_cts[number], true[None])
        problem = Problem((tracked,), subject.volume, drawn_start(sweep, [0], subject.volume, setting.limits, rng))
        row = {"kind": kind, "body": subject.seed, "start": count, "sweep": "live"}
        row |= {"stage": "first" if fit else "as it runs"} | one(problem, system, sweep, [0])
        if fit:
            row["nees"] = row.get("nees", math.nan) * inflation(kind)
        yield row


def volumes(sweeps: tuple[Recorded, ...], ct: Volume, same: bool) -> Iterator[tuple[Recorded, Volume]]:
    """Each sweep with what it is registered to: the CT, or the volume that its own even frames make."""
    for sweep in sweeps:
        if not same:
            yield sweep, ct
            continue
        even = [TrackedFrame(f.frame, pose) for f, pose in zip(sweep.frames[::2], sweep.ct_T_images[::2], strict=True)]
        yield sweep, reconstruct(even, ReconstructionConfig(0.8))


def noisy(tracked: TrackedFrame, rng: np.random.Generator) -> TrackedFrame:
    """The frame with noise of its own, more or less of it: speckle changes between one day and another."""
    spacing = tracked.frame.plane.spacing_mm
    blur = [mm / s for mm, s in zip(rng.uniform(0.2, 1.2, 2), reversed(spacing), strict=True)]
    field = gaussian_filter(rng.standard_normal(tuple(tracked.frame.image.shape)), blur, mode="wrap")
    grey = tracked.frame.image.numpy() + rng.uniform(0.0, MOST_NOISE) * field / field.std()
    image = torch.from_numpy(np.clip(np.round(grey), 0, 255).astype(np.uint8))
    return replace(tracked, frame=replace(tracked.frame, image=image))


def mirrored(tracked: TrackedFrame) -> TrackedFrame:
    """An image that belongs nowhere in the volume: no pose of it is right."""
    return replace(tracked, frame=replace(tracked.frame, image=tracked.frame.image.flip(1).contiguous()))


def drawn_frames(sweep: Recorded, count: int, same: bool, rng: np.random.Generator) -> list[int]:
    """Frames of one registration: one, or so many in a row; of those that did not make the volume."""
    free = list(range(1, len(sweep.frames), 2)) if same else list(range(len(sweep.frames)))
    first = int(rng.integers(max(1, len(free) - count + 1)))
    return free[first : first + count]


def drawn_start(
    sweep: Recorded, chosen: list[int], volume: Volume, limits: tuple[float, float], rng: np.random.Generator
) -> Estimate:
    """A start off the truth about the images' centre: the draw's size is itself drawn, evenly, and stated."""
    frames = tuple(sweep.frames[n] for n in chosen)
    reference = world_T_ref(frames)
    middle = chosen[len(chosen) // 2]
    ct_T_world = sweep.ct_T_images[middle] @ se3.inverse(sweep.frames[middle].world_T_image)
    size = rng.uniform(0.05, 1.0)
    half = size * np.array([limits[0]] * 3 + [math.radians(limits[1])] * 3)
    twist = torch.from_numpy(half * rng.uniform(-1, 1, 6))
    moved = ct_T_world @ reference @ se3.from_parts(rotation.exp(twist[3:]), twist[:3])
    world_T_ct = reference @ se3.inverse(moved)
    return start_estimate(world_T_ct, volume, stated_covariance(half, reference, world_T_ct, volume))


def stated_covariance(half: np.ndarray, world_T_ref: torch.Tensor, world_T_ct: torch.Tensor, volume: Volume) -> Any:
    """Of a uniform draw within plus and minus `half` in axes of the images, in world axes about the volume's centre."""
    pivot = se3.transform_points(world_T_ct, volume.grid.centre_ct[None])[0]
    a = se3.adjoint(se3.translation(-pivot) @ world_T_ref)
    covariance = a @ torch.diag(torch.from_numpy(half**2 / 3.0)) @ a.T
    return 0.5 * (covariance + covariance.T)


def one(problem: Problem, system: Registrar, sweep: Recorded, chosen: list[int]) -> dict[str, Any]:
    """One estimate: its error over all of its frames, what it says of itself, and its evidence."""

    def tre(world_T_ct: torch.Tensor) -> float:
        errors = [
            pose_error(
                se3.inverse(world_T_ct) @ sweep.frames[n].world_T_image,
                sweep.ct_T_images[n],
                sweep.frames[n].frame.geometry,
            ).tre_mm
            for n in chosen
        ]
        return float(np.mean(errors))

    initial = tre(problem.start.world_T_ct)
    try:
        found = system(problem)
    except NoOverlapError:
        return {"initial_mm": initial, "tre_mm": initial, "evidence": {}, "probability": 0.0, "accepted": False}
    middle = chosen[len(chosen) // 2]
    true = sweep.frames[middle].world_T_image @ se3.inverse(sweep.ct_T_images[middle])
    return {
        "initial_mm": initial,
        "tre_mm": tre(found.world_T_ct),
        "nees": normalised_error(found.world_T_ct, true, found.covariance, found.pivot),
        "evidence": dict(found.evidence),
        "probability": found.probability,
        "accepted": found.accepted,
        "seconds": found.compute_s,
    }


def _fit(kind: str, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    bodies = sorted({r["body"] for r in rows})
    more = (" --closer" if options.closer else "") + ("" if options.set == "{}" else f" --set '{options.set}'")
    more += " --make" if "_same_" in kind else ""
    command = f"usreg bench confidence -- --fit --kinds {kind} --seeds {options.seeds} --starts {options.starts}{more}"
    what = f"{len(rows)} estimates of {len(bodies)} bodies, starts within {KINDS[kind].limits} mm and degrees"
    path = ROOT / "config" / "confidence" / f"{kind}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(dump_yaml(fit_confidence(rows, command, what, "_across_" in kind), kind), "utf-8")
    print(f"written: {path}")


def table(kind: str, rows: list[dict[str, Any]], found: Reliability, fit: bool) -> None:
    """Print the figures."""
    bodies = len({r["body"] for r in rows})
    how = "each body judged by a fit on others" if fit else "as it runs"
    initial, final = (float(np.median([r[k] for r in rows])) for k in ("initial_mm", "tre_mm"))
    print(
        f"\n{kind}: {found.count} estimates of {bodies} bodies, {how}; TRE {initial:.1f} mm before, {final:.1f} after"
    )
    print(
        f"  failures {100 * found.failures:.1f} %   AUROC {found.auroc:.3f}   calibration error "
        f"{100 * found.calibration_error:.1f} %   Brier {found.brier:.3f} (base rate {found.brier_base:.3f})"
    )
    print("  stated  " + " ".join(f"{b.stated:6.2f}" for b in found.bins))
    print("  observed" + " ".join(f"{b.observed:6.2f}" for b in found.bins))
    if not fit:
        good = [r["tre_mm"] for r in rows if r["accepted"]]
        wrong = sum(t >= 5.0 for t in good)
        print(f"  accepted {100 * len(good) / len(rows):.1f} %, of them {wrong} of 5 mm or more"
              + (f", worst {max(good):.1f} mm" if good else ""))  # fmt: skip
    for name, value in judge(found).items():
        print(f"  {'reached' if value else 'MISSED ':8} {name}")


def judge(found: Reliability) -> dict[str, bool]:
    """Which figures are reached."""
    return {
        f"{REACH['count']} estimates or more": found.count >= REACH["count"],
        f"failures {REACH['failures']:.0%} or more": found.failures >= REACH["failures"],
        f"AUROC {REACH['auroc']} or more": found.auroc >= REACH["auroc"],
        f"calibration error {REACH['calibration_error']:.0%} or less": found.calibration_error
        <= REACH["calibration_error"],
        "Brier score below the base rate's": found.brier < found.brier_base,
    }


def _write(
    kind: str, rows: list[dict[str, Any]], stated: list[float], found: Reliability, options: argparse.Namespace
) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    content = {**asdict(found), "kind": kind, "reached": judge(found), "seeds": options.seeds, "fitted": options.fit}
    content["rows"] = [r | {"stated": None if math.isnan(p) else p} for r, p in zip(rows, stated, strict=True)]
    name = f"confidence_{kind}{'_fit' if options.fit else ''}"
    (options.out / f"{name}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=(5.0, 4.2), layout="constrained")
        plot_reliability(figure.add_subplot(), found)
        figure.savefig(options.out / f"{name}.png", dpi=120)
    print(f"  written: {options.out / name}.json and .png\n")


if __name__ == "__main__":
    sys.exit(main())
