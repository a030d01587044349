# SPDX-License-Identifier: Apache-2.0
"""Do the stated covariances fit the errors? Frames cut from a speckled volume, each with its own correlated noise."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from usreg.data.types import Frame, Problem, TrackedFrame, Volume, start_estimate
from usreg.evaluation import covariance_consistency
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import SectorGeometry
from usreg.rendering import slice_volume
from usreg.study import draw_twists
from usreg.systems import build

ROOT = Path(__file__).resolve().parents[1]
REACH_NEES, REACH_COVERAGE = (0.5, 2.0), (0.88, 0.99)
# standard deviation of the noise in grey values, and of its blur across and along the beam, mm
CASES = [(12.0, 0.9, 0.45), (25.0, 0.9, 0.45), (50.0, 0.9, 0.45), (25.0, 0.3, 0.3), (25.0, 1.5, 0.6)]
STARTS = (2.0, 2.0, 1.0, 2.0, 2.0, 3.0)


def main() -> None:
    options = _options()
    rows = [case(options.frames, options.seed, *c) for c in CASES]
    print("reach: normalised squared error per degree of freedom 0.5 to 2; 95 % ellipsoid covers 88 to 99 %")
    print(f"{'noise':>6}{'blur mm':>12}{'frames':>8}{'NCC':>7}{'accepted':>10}{'error/dof':>11}{'covered':>9}")
    for r in rows:
        word = "reached" if r["reached"] else "MISSED"
        across, along = r["blur_mm"]
        print(
            f"{r['noise']:6.0f}{across:7.2f}x{along:.2f}{r['frames']:8d}{r['score']:7.3f}"
            f"{100 * r['accepted_share']:9.1f}%{r['nees_per_dof']:11.2f}{100 * r['coverage_95']:8.1f}%  {word}"
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"covariance": rows}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "covariance.json")
    return parser.parse_args()


def case(frames: int, seed: int, noise: float, across_mm: float, along_mm: float) -> dict[str, Any]:
    """One kind of noise: `frames` frames at different poses in two volumes."""
    errors, covariances, scores, accepted = [], [], [], []
    for part in range(2):
        rng = np.random.default_rng([seed, part])
        volume, registrar = speckled_volume(rng), build("intensity")
        registrar.prepare(volume)
        for twist in draw_twists(STARTS, frames // 2, seed + part):
            tracked = noisy_frame(volume, rng, noise, (along_mm, across_mm))
            start = se3.right_at_centre(tracked.world_T_image, twist[:3], twist[3:], tracked.frame.plane.centre_mm)
            begin = start_estimate(tracked.world_T_image @ se3.inverse(start), volume)
            found = registrar(Problem((tracked,), volume, begin))
            errors.append(se3.error_at_pivot(found.world_T_ct, se3.identity(), found.pivot))
            covariances.append(found.covariance)
            scores.append(found.score)
            accepted.append(found.accepted)
    fit = covariance_consistency(torch.stack(errors), torch.stack(covariances))
    inside = REACH_NEES[0] <= fit.nees_per_dof <= REACH_NEES[1]
    return {
        "noise": noise,
        "blur_mm": [across_mm, along_mm],
        "frames": fit.count,
        "score": float(np.mean(scores)),
        "accepted_share": float(np.mean(accepted)),
        "nees_per_dof": fit.nees_per_dof,
        "coverage_95": fit.coverage_95,
        "reached": bool(inside and REACH_COVERAGE[0] <= fit.coverage_95 <= REACH_COVERAGE[1]),
    }


def speckled_volume(rng: np.random.Generator, size: int = 112, spacing_mm: float = 0.8) -> Volume:
    """Speckle of about 2 mm over structures of about 10 mm; `ct` is `world`."""
    speckle, tissue = (_unit(gaussian_filter(rng.standard_normal((size,) * 3), s, mode="wrap")) for s in (1.3, 5.0))
    data = np.clip(np.round(128 + 28 * speckle + 22 * tissue), 0, 255).astype(np.uint8)
    return Volume(torch.from_numpy(data)[None], VoxelGrid((size,) * 3, (spacing_mm,) * 3, (-20.0, 10.0, 30.0)), "US")


def convex_geometry(spacing_mm: float = 0.45) -> SectorGeometry:
    """A small convex sector, 150x120 pixels."""
    width, height, half = 149 * spacing_mm, 119 * spacing_mm, math.radians(30)
    plane = PlaneGrid(120, 150, ((spacing_mm, 0.0), (0.0, spacing_mm)))
    return SectorGeometry("convex", plane, (width / 2, -25), (27, 76), (-half, half), (0, 0, width, height), 49.0)


def noisy_frame(volume: Volume, rng: np.random.Generator, noise: float, blur_mm: tuple[float, float]) -> TrackedFrame:
    """The volume on a plane of any direction near its centre, with noise of this frame alone."""
    geometry = convex_geometry()
    while True:
        axis = torch.from_numpy(rng.normal(size=3))
        turn = axis / axis.norm() * rng.uniform(0, math.pi)
        place = volume.grid.centre_ct + torch.from_numpy(rng.uniform(-6, 6, 3))
        pose = se3.translation(place) @ se3.exp(torch.cat([torch.zeros(3, dtype=torch.float64), turn]))
        pose = pose @ se3.translation(-geometry.plane.centre_mm)
        image, mask = slice_volume(volume, pose, geometry.plane)
        if mask[0, 0][geometry.mask()].double().mean() >= 0.7:
            break
    sigma = [mm / s for mm, s in zip(blur_mm, reversed(geometry.plane.spacing_mm), strict=True)]
    field = _unit(gaussian_filter(rng.standard_normal(image.shape[-2:]), sigma, mode="wrap"))
    pixels = np.clip(np.round(image[0, 0].numpy() + noise * field), 0, 255).astype(np.uint8)
    return TrackedFrame(Frame(torch.from_numpy(pixels), geometry, 0.0), pose)


def _unit(field: np.ndarray) -> np.ndarray:
    return field / field.std()


if __name__ == "__main__":
    sys.exit(main())
