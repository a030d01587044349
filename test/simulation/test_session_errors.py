# SPDX-License-Identifier: Apache-2.0
"""What a session refuses, how it says so, and that nothing is left behind when it stops half-way."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from usreg.data.bags import BagWriter
from usreg.errors import ConfigError, KinematicsError, MissingFileError, NoOverlapError, WriteError
from usreg.simulation import SimulationConfig, session, simulate
from usreg.simulation.paths import PathConfig
from usreg.simulation.scan import TimingConfig

WEIGHT = session.BODY_SHARE


def no_body(*_: Any) -> None:
    raise AssertionError("a body takes minutes: what is wrong must be told before")


@pytest.fixture
def ready(phantom: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`simulate` of what is prepared already, so that a test only writes."""

    def prepare(kind: str, seed: int, seconds: float, progress: Any, config: Any) -> Any:
        return replace(phantom.prepared, progress=session.Steps(progress, WEIGHT, 15, 24))

    monkeypatch.setattr(session, "prepare", prepare)
    return lambda folder, progress=None: simulate("phantom", folder, 5, 4.0, progress, phantom.config)


@pytest.mark.parametrize(
    "values",
    [{"seconds": 0.0}, {"seconds": -4.0}, {"seconds": 2.9}, {"seconds": math.nan}, {"seconds": math.inf}, {"seed": -1},
     {"seed": 2**31}],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["phantom", "volunteer"])
def test_bad_arguments(kind: Any, values: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "make_body", no_body)
    with pytest.raises(ConfigError, match=next(iter(values))):
        simulate(kind, tmp_path / "s", **values)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [({"arm": "no_arm"}, MissingFileError, "no_arm"), ({"probe": "no_probe"}, MissingFileError, "no_probe"),
     ({"depths_mm": (125.0, 4.0)}, ConfigError, "depth_mm"), ({"depths_mm": (math.nan, 9.0)}, ConfigError, "depth_mm")],
)  # fmt: skip
def test_what_is_wrong_is_told_before_the_body_is_made(
    change: dict, error: type, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "make_body", no_body)
    with pytest.raises(error, match=named):
        simulate("phantom", tmp_path / "s", config=SimulationConfig(**change))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "values"),
    [(SimulationConfig, {"change_share": 0.0}), (SimulationConfig, {"change_share": 1.5}),
     (SimulationConfig, {"sweep_s": 0.0}), (SimulationConfig, {"sweep_hz": math.nan}),
     (SimulationConfig, {"volume_spacing_mm": 0.0}), (SimulationConfig, {"ct_margin_mm": -1.0}),
     (SimulationConfig, {"draw_mm": -1.0}), (SimulationConfig, {"draw_deg": math.inf}),
     (TimingConfig, {"frame_hz": 0.0}), (TimingConfig, {"joint_hz": 50.0}), (TimingConfig, {"joint_hz": 1000.0}),
     (TimingConfig, {"jitter_s": 0.1}), (TimingConfig, {"latency_s": -1.0}), (TimingConfig, {"drop_share": 0.9}),
     (TimingConfig, {"latency_jitter_s": 0.1}), (TimingConfig, {"calibration_mm": math.nan}),
     (TimingConfig, {"calibration_deg": -0.1}), (PathConfig, {"sweep_s": 0.5}), (PathConfig, {"speed_mm_s": math.nan})],
)  # fmt: skip
def test_values_out_of_their_range_are_named(part: type, values: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        part(**values)


@pytest.mark.parametrize("kind", ["phantom", "volunteer"])
def test_a_patient_out_of_the_arms_reach(kind: str, workshop: Any, tmp_path: Path) -> None:
    with pytest.raises(KinematicsError, match="out of reach.*move the arm's foot or the bed"):
        workshop.make(kind, tmp_path / "far", 5, patient_mm=(1900.0, 30.0, 60.0))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_at_once_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "make_body", no_body)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("keep")
    with pytest.raises(WriteError, match="exists already"):
        simulate("phantom", tmp_path / "there")
    assert [p.name for p in tmp_path.rglob("*")] == ["there", "mine.txt"]
    assert (tmp_path / "there" / "mine.txt").read_text() == "keep"


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "make_body", no_body)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(WriteError, match="cannot write the folder 's'"):
        simulate("phantom", tmp_path / "file" / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_stop_in_the_sweep_leaves_nothing(
    workshop: Any, phantom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "make_body", workshop.body)
    with pytest.raises(KeyboardInterrupt):
        simulate("phantom", tmp_path / "half", 5, 4.0, stop_at(WEIGHT + 4), phantom.config)
    assert list(tmp_path.iterdir()) == []


def test_a_stop_in_the_middle_of_the_bag_leaves_nothing(ready: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ready(tmp_path / "half", stop_at(WEIGHT + 27))
    assert list(tmp_path.iterdir()) == []
    ready(tmp_path / "half")
    assert (tmp_path / "half" / "session.yaml").is_file()


def stop_at(limit: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= limit:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("error", [WriteError("full"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_disk_that_fills_up_in_the_middle_of_the_bag_leaves_nothing(
    error: Exception, ready: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = BagWriter.write, 0

    def fails(self: BagWriter, *args: Any) -> None:
        nonlocal count
        count += 1
        if count > 150:
            raise error
        write(self, *args)

    monkeypatch.setattr(BagWriter, "write", fails)
    with pytest.raises(WriteError, match="full|No space left"):
        ready(tmp_path / "full")
    assert count == 151 and list(tmp_path.iterdir()) == []


def test_a_frame_that_cannot_be_made_stops_the_session(
    ready: Callable[..., None], phantom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = type(phantom.prepared.scene.scanner).frame

    def fails(self: Any, pose: Any, t_s: float, *args: Any) -> Any:
        if t_s > 2.0:
            raise NoOverlapError("no tissue in the plane")
        return frame(self, pose, t_s, *args)

    monkeypatch.setattr(type(phantom.prepared.scene.scanner), "frame", fails)
    with pytest.raises(NoOverlapError, match="no tissue"):
        ready(tmp_path / "half")
    assert list(tmp_path.iterdir()) == []
