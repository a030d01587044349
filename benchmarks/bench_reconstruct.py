# SPDX-License-Identifier: Apache-2.0
"""Reconstruction against the reference volumes of PLUS, and its time against plain numpy in the same run."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from usreg.data.calibration import read_calibration
from usreg.data.sequences import read_sequence
from usreg.data.tracked import tracked_frames
from usreg.data.types import TrackedFrame, Volume
from usreg.data.volumes import read_volume
from usreg.geometry.grid import VoxelGrid
from usreg.reconstruction import ReconstructionConfig, grid_for, insertion, reconstruct
from usreg.reconstruction.reconstruct import index_A_pixel

ROOT = Path(__file__).resolve().parents[1]
REACH_R, REACH_SHARE, REACH_SECONDS = 0.98, 0.02, 3.0
SPINE_XML = "PlusDeviceSet_SpinePhantomFreehandReconstructionOnly.xml"
# reference volume, insertion, compounding; "mean_8bit" repeats the 8-bit arithmetic that the references were made with
SPINE = [
    ("SpinePhantomFreehandReconstructed.mha", "linear", "mean"),
    ("SpinePhantomFreehandReconstructed.mha", "linear", "mean_8bit"),
    ("vtkVolumeReconstructorTestNNMEANvolumeRef.mha", "nearest", "mean"),
    ("vtkVolumeReconstructorTestNNMEANvolumeRef.mha", "nearest", "mean_8bit"),
]


def main() -> None:
    options = _options()
    if not options.data.is_dir():
        print(f"no data folder at '{options.data}': give it with --data; nothing was measured")
        return
    torch.set_num_threads(options.threads)
    result = {
        "compile_or_load_s": _warm_up(),
        "threads": options.threads,
        "spine": spine(options.data / "spine_phantom"),
        "liver": liver(options.data / "liver_sweep", options.repeats),
    }
    _table(result)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with spine_phantom, liver_sweep"
    )
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "reconstruct.json")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def _load(folder: Path, sequence: str, calibration: str, world: str = "") -> list[TrackedFrame | None]:
    recording = read_sequence(folder / sequence)
    assert recording.images is not None
    cal = read_calibration(folder / calibration, image_size=(recording.images.shape[2], recording.images.shape[1]))
    return tracked_frames(recording, dataclasses.replace(cal, world_name=world) if world else cal)


def _warm_up() -> float:
    """Compile (or load from the cache) all kernels on a tiny sweep; seconds."""
    from usreg.data.types import Frame
    from usreg.geometry import se3
    from usreg.geometry.plane import PlaneGrid
    from usreg.geometry.sector import full_rectangle

    image = torch.zeros(4, 4, dtype=torch.uint8)
    frame = TrackedFrame(Frame(image, full_rectangle(PlaneGrid(4, 4, ((1.0, 0.0), (0.0, 1.0)))), 0.0), se3.identity())
    start = time.perf_counter()
    reconstruct([frame], ReconstructionConfig(1.0))
    reconstruct([frame], ReconstructionConfig(1.0, interpolation="nearest"))
    return time.perf_counter() - start


def spine(folder: Path) -> list[dict[str, Any]]:
    """The spine phantom at 0.5 mm against the two volumes that PLUS made, in the frame `Reference`."""
    frames = _load(folder, "SpinePhantomFreehand.igs.mha", SPINE_XML, world="Reference")
    rows = []
    for name, interpolation, compounding in SPINE:
        config = ReconstructionConfig(0.5, interpolation=interpolation, compounding=compounding)  # type: ignore[arg-type]
        rows.append({"reference": name, "interpolation": interpolation, "compounding": compounding}
                    | compare(reconstruct(frames, config), read_volume(folder / name)))  # fmt: skip
    return rows


def compare(ours: Volume, reference: Volume) -> dict[str, Any]:
    """Correlation over voxels filled in both, and shares of filled voxels in the reference's box.

    The files hold grey values only: "filled" is a grey value above zero, in both. The grids share origin and axes.
    """
    offset = np.abs(np.subtract(ours.grid.origin_mm, reference.grid.origin_mm)).max()
    if offset > 1e-3 or ours.grid.spacing_mm != reference.grid.spacing_mm:
        raise SystemExit(f"the grids differ by {offset} mm: cannot be compared voxel by voxel")
    size = [min(a, b) for a, b in zip(ours.data.shape[1:], reference.data.shape[1:], strict=True)]
    a, b = (v.data[0, : size[0], : size[1], : size[2]].numpy().astype(np.float64) for v in (ours, reference))
    both = (a > 0) & (b > 0)
    share, wanted = float((a > 0).mean()), float((b > 0).mean())
    r = float(np.corrcoef(a[both], b[both])[0, 1])
    return {
        "origin_difference_mm": float(offset),
        "r": r,
        "filled_share": share,
        "reference_share": wanted,
        "share_ratio": share / wanted,
        "bias_grey": float((a[both] - b[both]).mean()),
        "reached": bool(r >= REACH_R and abs(share - wanted) <= REACH_SHARE),
    }


def liver(folder: Path, repeats: int) -> dict[str, Any]:
    """80 frames of 369x296 into 0.8 mm: whole reconstruction, and its insertion alone against plain numpy."""
    frames = [f for f in _load(folder, "liver_sweep.igs.mha", "liver_sweep_device_set.xml") if f is not None]
    grid = grid_for(frames, 0.8)
    whole, insert, peer = [], [], []
    for _ in range(repeats):
        whole.append(_seconds(lambda: reconstruct(frames, ReconstructionConfig(0.8))))
        insert.append(_seconds(lambda: reconstruct(frames, ReconstructionConfig(0.8, hole_filling="none"))))
    for _ in range(2):
        peer.append(_seconds(lambda: numpy_insertion(frames, grid)))
    total, fast, slow = map(statistics.median, (whole, insert, peer))
    return {
        "frames": len(frames),
        "size": list(grid.size),
        "median_s": total,
        "worst_s": max(whole),
        "insertion_median_s": fast,
        "numpy_insertion_median_s": slow,
        "times_faster_than_numpy": slow / fast,
        "reached": total <= REACH_SECONDS,
    }


def numpy_insertion(frames: list[TrackedFrame], grid: VoxelGrid) -> np.ndarray:
    """The peer: linear insertion and mean with `np.add.at`, frame by frame, no holes filled."""
    w, h, d = grid.size
    voxels = np.zeros((d, h, w, 2))
    for f in frames:
        inside = f.frame.geometry.mask().numpy()  # type: ignore[union-attr]
        insertion.insert_reference(voxels, f.frame.image.numpy(), inside, index_A_pixel(f, grid), True, insertion.MEAN)
    weight = voxels[..., 1]
    return np.divide(voxels[..., 0], weight, out=np.zeros_like(weight), where=weight > 0)


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _table(result: dict[str, Any]) -> None:
    def word(row: dict[str, Any]) -> str:
        return "reached" if row["reached"] else "MISSED"

    print(f"kernels compiled or loaded in {result['compile_or_load_s']:.2f} s (not in the times below)")
    print("\nspine phantom, 0.5 mm, holes filled, voxels above grey 0")
    print(f"reach: r >= {REACH_R} over voxels filled in both, filled share within {100 * REACH_SHARE:.0f} points")
    print(f"{'insertion':10}{'compounding':12}{'r':>8}{'filled':>9}{'reference':>11}{'bias':>7}")
    for row in result["spine"]:
        print(f"{row['interpolation']:10}{row['compounding']:12}{row['r']:8.4f}{100 * row['filled_share']:8.2f}%"
              f"{100 * row['reference_share']:10.2f}%{row['bias_grey']:7.1f}  {word(row)}")  # fmt: skip
    row = result["liver"]
    size = "x".join(map(str, row["size"]))
    print(
        "mean_8bit repeats PLUS: its nearest insertion rounds the mean down at each pixel, so that dark voxels become 0"
    )
    print(f"\nliver sweep, {row['frames']} frames into {size} at 0.8 mm, {result['threads']} threads")
    print(f"reach: {REACH_SECONDS} s")
    print(f"whole reconstruction   {row['median_s']:7.2f} s median, {row['worst_s']:.2f} s worst  {word(row)}")
    print(f"insertion alone        {row['insertion_median_s']:7.2f} s median")
    print(f"numpy insertion (peer) {row['numpy_insertion_median_s']:7.2f} s median")
    print(f"times faster           {row['times_faster_than_numpy']:7.1f} (insertion; numpy uses one thread)")


if __name__ == "__main__":
    sys.exit(main())
