# SPDX-License-Identifier: Apache-2.0
"""How well the filter's motion models foretell a breathing liver, from noisy estimates of its pose with gaps.

The liver moves as in simulated bodies (`simulation/liver.py`). Errors are those of the liver's centre, in space.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usreg.errors import LostError
from usreg.geometry import se3
from usreg.simulation.breathing import BreathingConfig
from usreg.simulation.liver import EstimateConfig, RigidLiver, estimates
from usreg.smoothing import FilterConfig, PoseFilter

ROOT = Path(__file__).resolve().parents[1]
HORIZONS_MS = (50, 100, 150, 200, 250, 300)
REACH_MS, REACH_SHARE = 150, 0.5
HOLDS, COUGHS = ((24.0, 32.0), (44.0, 50.0)), (22.0, 35.0, 47.0, 48.5)
PATTERNS = {
    "regular": BreathingConfig(waveform="cos4"),
    "irregular": BreathingConfig(),
    "holds": BreathingConfig(holds_s=HOLDS),
    "coughs": BreathingConfig(coughs_s=COUGHS),
    "shallow, 5 mm": BreathingConfig(si_mm=5.0),
    "deep, 25 mm": BreathingConfig(si_mm=25.0, period_s=4.8),
}
WALKS = (1.0, 2.0, 4.0, 8.0, 16.0)  # mm/sqrt(s)
LIMITS = {"max_sigma_mm": 50.0, "max_sigma_rad": 1.0}  # so that every model has a prediction at every frame
MODELS = {name: FilterConfig(model=name, **LIMITS) for name in ("random_walk", "constant_velocity", "breathing")}


@dataclass
class Found:
    """What one model did in one run: stamps of predictions, errors (n, horizons) mm, squared errors in sigma."""

    stamps: list[float] = field(default_factory=list)
    errors: list[list[float]] = field(default_factory=list)
    nees: list[float] = field(default_factory=list)
    cost_s: list[float] = field(default_factory=list)
    refused: int = 0


def main() -> None:
    options = _options()
    tuned = _tuned(options)
    models = {**MODELS, f"random walk {tuned:.0f} mm/sqrt(s)": _walk(tuned)}
    print(f"error of the liver's centre {REACH_MS} ms ahead, mm: mean (95th percentile). Estimates at 12 Hz, noise of")
    print(f"{options.sigma_mm} mm on each axis, 15 % missing; {options.seeds} patients, {options.seconds:.0f} s each,")
    print(f"from {options.after:.0f} s on. Reach: breathing at most {REACH_SHARE} of random walk's.")
    rows = []
    for pattern, breathing in PATTERNS.items():
        runs = range(options.seeds)
        found = {name: [_run(config, breathing, seed, options) for seed in runs] for name, config in models.items()}
        rows.append(_row(pattern, found))
        _show(rows[-1])
        if pattern in ("holds", "coughs"):
            inside = _in_holds if pattern == "holds" else _near_coughs
            rows.append(_row(f"  {'in holds' if pattern == 'holds' else 'within 2 s of a cough'}", found, inside))
            _show(rows[-1])
    options.json.parent.mkdir(parents=True, exist_ok=True)
    settings = {"sigma_mm": options.sigma_mm, "seeds": options.seeds, "seconds": options.seconds}
    options.json.write_text(json.dumps({"settings": settings, "breathing": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"written: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--after", type=float, default=12.0, help="seconds that are not counted: learning")
    parser.add_argument("--sigma-mm", type=float, default=1.0, help="noise of an estimate; 0.01 rad for each mm")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "breathing.json")
    return parser.parse_args()


def _walk(mm: float) -> FilterConfig:
    return replace(MODELS["random_walk"], walk_mm=(mm,) * 3, walk_rad=(0.005 * mm,) * 3)


def _tuned(options: argparse.Namespace) -> float:
    """The random walk that foretells best, on a patient of its own."""
    runs = [_run(_walk(mm), PATTERNS["irregular"], 1000, options) for mm in WALKS]
    means = [np.mean([e[2] for e in r.errors]) for r in runs]  # NaN where estimates were refused for too long
    return WALKS[int(np.nanargmin(means))]


def _run(config: FilterConfig, breathing: BreathingConfig, seed: int, options: argparse.Namespace) -> Found:
    liver = RigidLiver(breathing, seed)
    noise = EstimateConfig(sigma_mm=options.sigma_mm, sigma_rad=0.01 * options.sigma_mm)
    smoother, found = PoseFilter(config), Found()
    for k, (stamp, estimate) in enumerate(estimates(liver, options.seconds, noise, np.random.default_rng([seed, 5]))):
        if k == 0:
            smoother.initialize(stamp, estimate.world_T_ct, 9 * estimate.covariance, estimate.pivot)
            continue
        begin = time.process_time()
        found.refused += not smoother.update(stamp, estimate).accepted
        found.cost_s.append(time.process_time() - begin)
        if stamp >= options.after and k % 2 == 0:
            _compare(found, smoother, liver, stamp)
    return found


def _compare(found: Found, smoother: PoseFilter, liver: RigidLiver, stamp: float) -> None:
    errors, nees = [], float("nan")
    for ms in HORIZONS_MS:
        try:
            ahead = smoother.predict(stamp + 1e-3 * ms)
        except LostError:  # the newest estimate was refused: at the longest horizons there is no pose
            errors.append(float("nan"))
            continue
        truth = liver.world_T_ct(ahead.stamp_s)
        errors.append(float((liver.centre(ahead.world_T_ct) - liver.centre(truth)).norm()))
        if ms == REACH_MS:
            off = se3.error_at_pivot(ahead.world_T_ct, truth, ahead.pivot)
            nees = float(off @ torch.linalg.solve(ahead.covariance, off)) / 6
    found.nees.append(nees)
    found.stamps.append(stamp)
    found.errors.append(errors)


def _in_holds(stamps: np.ndarray) -> np.ndarray:
    return np.any([(stamps > a + 0.5) & (stamps < b - 0.5) for a, b in HOLDS], axis=0)


def _near_coughs(stamps: np.ndarray) -> np.ndarray:
    return np.any([np.abs(stamps - c) < 2.0 for c in COUGHS], axis=0)


def _row(pattern: str, found: dict[str, list[Found]], inside: Any = None) -> dict[str, Any]:
    row: dict[str, Any] = {"pattern": pattern, "models": {}}
    for name, runs in found.items():
        errors, stamps = (np.concatenate([getattr(r, n) for r in runs]) for n in ("errors", "stamps"))
        nees, there = np.concatenate([r.nees for r in runs]), inside(stamps) if inside else np.ones(len(stamps), bool)
        errors = errors[there]
        row["models"][name] = {
            "mean_mm": dict(zip(map(str, HORIZONS_MS), np.nanmean(errors, 0).tolist(), strict=True)),
            "p95_mm": dict(zip(map(str, HORIZONS_MS), np.nanpercentile(errors, 95, axis=0).tolist(), strict=True)),
            "none_at_150ms": float(np.isnan(errors[:, HORIZONS_MS.index(REACH_MS)]).mean()),
            "nees_per_dof": float(np.nanmean(nees[there])),
            "refused": sum(r.refused for r in runs),
            "update_ms": 1e3 * float(np.median(np.concatenate([r.cost_s for r in runs]))),
        }
    means = {name: m["mean_mm"][str(REACH_MS)] for name, m in row["models"].items()}
    row["share_of_random_walk"] = means["breathing"] / means["random_walk"]
    row["share_of_best_random_walk"] = means["breathing"] / min(v for k, v in means.items() if k.startswith("random"))
    row["reached"] = row["share_of_random_walk"] <= REACH_SHARE
    return row


def _show(row: dict[str, Any]) -> None:
    word = "reached" if row["reached"] else "MISSED"
    print(f"{row['pattern']}: breathing has {row['share_of_random_walk']:.2f} of random walk's, "
          f"{row['share_of_best_random_walk']:.2f} of the best random walk's  {word}")  # fmt: skip
    for name, m in row["models"].items():
        steps = " ".join(f"{m['mean_mm'][str(h)]:5.2f}" for h in HORIZONS_MS)
        print(f"  {name.replace('_', ' '):24s}{m['mean_mm']['150']:6.2f} ({m['p95_mm']['150']:5.2f})  at "
              f"{HORIZONS_MS[0]}..{HORIZONS_MS[-1]} ms: {steps}  error/dof {m['nees_per_dof']:4.2f}  refused "
              f"{m['refused']:3d}  update {m['update_ms']:.2f} ms")  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
