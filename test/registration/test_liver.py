# SPDX-License-Identifier: Apache-2.0
"""The real liver sweep: frames that are not in the volume are found from drawn starts, the same way every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from usreg.data.calibration import read_calibration
from usreg.data.sequences import read_sequence
from usreg.data.tracked import tracked_frames
from usreg.data.types import TrackedFrame, Volume
from usreg.reconstruction import ReconstructionConfig, reconstruct
from usreg.study import run_study
from usreg.systems import build

Sweep = tuple[Volume, list[TrackedFrame]]


@pytest.fixture(scope="module")
def sweep(data_dir: Path) -> Sweep:
    """Volume of the even frames at 1 mm, and the odd frames."""
    folder = data_dir / "liver_sweep"
    if not folder.is_dir():
        pytest.skip("the folder of real recordings holds no liver_sweep")
    calibration = read_calibration(folder / "liver_sweep_device_set.xml", image_size=(369, 296))
    frames = tracked_frames(read_sequence(folder / "liver_sweep.igs.mha"), calibration)
    volume = reconstruct(frames[0:79:2], ReconstructionConfig(1.0))
    return volume, [f for f in frames[1:79:2] if f is not None]


def test_near_starts_are_found(sweep: Sweep) -> None:
    volume, targets = sweep
    rows = run_study(targets, volume, build("intensity"), (10, 10, 5, 5, 5, 10), starts=20, seed=4)
    assert sum(r.accepted for r in rows) >= 19
    assert all(r.final_tre_mm < 2.0 for r in rows if r.accepted)
    assert sum(r.final_tre_mm for r in rows) / len(rows) < 0.6


def test_far_starts_repeat_to_the_bit(sweep: Sweep) -> None:
    volume, targets = sweep
    first, second = (
        run_study(targets[::5], volume, build("intensity"), (20, 20, 10, 10, 10, 20), starts=8, seed=5)
        for _ in range(2)
    )
    assert [(r.final_tre_mm, r.score, r.nees) for r in first] == [(r.final_tre_mm, r.score, r.nees) for r in second]
    assert sum(r.final_tre_mm < 2.0 for r in first) >= 7


def test_a_frame_of_other_tissue_is_refused(sweep: Sweep) -> None:
    """The image mirrored left to right belongs nowhere in the volume."""

    volume, targets = sweep
    turned = [replace(t, frame=replace(t.frame, image=t.frame.image.flip(1).contiguous())) for t in targets[5:35:6]]
    rows = run_study(turned, volume, build("intensity"), (5, 5, 2, 3, 3, 3), seed=6)
    assert not any(r.accepted for r in rows) and all(r.reason for r in rows)
