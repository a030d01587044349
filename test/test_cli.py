# SPDX-License-Identifier: Apache-2.0
"""The command line: every command on real files, and every bad input as one readable line with exit code 2."""

import json
from pathlib import Path

import pytest

PHANTOM = Path(__file__).resolve().parents[1] / "bags" / "phantom"


@pytest.fixture(scope="module")
def liver(data_dir):
    folder = data_dir / "liver_sweep"
    return folder / "liver_sweep.igs.mha", folder / "liver_sweep_device_set.xml"


def assert_one_line(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    lines = [line for line in err.strip().splitlines() if line.startswith("usreg:")]
    assert code == 2, result
    assert "Traceback" not in err
    assert len(lines) == 1, err
    for word in words:
        assert word in lines[0]


def test_help_names_every_command(usreg):
    code, out, _ = usreg("--help")
    assert code == 0
    for command in ("info", "convert", "reconstruct", "register", "evaluate", "replay", "run", "bench", "simulate"):
        assert command in out


def test_info_of_a_sequence(usreg, liver):
    code, out, _ = usreg("info", liver[0], "--json")
    content = json.loads(out)
    assert code == 0
    assert content["frames"] == 80
    assert content["transforms"]["ProbeToTracker"]["invalid"] == 0


def test_info_of_the_shipped_session(usreg):
    code, out, _ = usreg("info", PHANTOM, "--json")
    assert code == 0
    assert "us/image" in out


def test_sweep_from_file_to_report(usreg, liver, tmp_path):
    sequence, calibration = liver
    volume, result, report = tmp_path / "volume.nii.gz", tmp_path / "result.json", tmp_path / "report"
    common = (sequence, "--calibration", calibration)
    assert usreg("reconstruct", *common, "--frames", "0:80:2", "--spacing", "1.2", "--out", volume)[0] == 0
    limits = ("--perturb", "5,5,5,3,3,3", "--starts", "4", "--seed", "3")
    code, out, _ = usreg(
        "register", *common, "--volume", volume, "--frames", "21:60:10", *limits, "--out", result, "--json"
    )
    assert code == 0
    summary = json.loads(out)
    content = json.loads(result.read_text(encoding="utf-8"))
    assert [s["frame"] for s in content["starts"]] == [21, 31, 41, 51]
    expected = {
        "frame",
        "stamp_s",
        "initial_tre_mm",
        "final_tre_mm",
        "translation_mm",
        "rotation_deg",
        "out_of_plane_mm",
        "score",
        "accepted",
        "seconds",
    }
    assert expected <= set(content["starts"][0])
    assert summary["initial_tre_mm"]["mean"] > 2.0
    assert summary["final_tre_mm"]["max"] < 1.5
    assert usreg("evaluate", result, "--report", report)[0] == 0
    assert "Research use only" in (report / "index.html").read_text(encoding="utf-8")


def test_a_sweep_is_registered_as_one_and_names_are_checked(usreg, liver, tmp_path):
    sequence, calibration = liver
    volume, result = tmp_path / "volume.nii.gz", tmp_path / "result.json"
    common = (sequence, "--calibration", calibration)
    assert usreg("reconstruct", *common, "--frames", "20:60:2", "--spacing", "2", "--out", volume)[0] == 0
    task = ("register", *common, "--volume", volume, "--frames", "31:39:2", "--out", result)
    limits = ("--perturb", "3,3,3,2,2,2", "--sweep", "4", "--keyframes", "2", "--similarity", "ncc")
    code, out, _ = usreg(*task, *limits, "--json")
    assert code == 0 and json.loads(out)["final_tre_mm"]["max"] < 2.0
    assert len(json.loads(result.read_text(encoding="utf-8"))["starts"]) == 1
    assert_one_line(usreg(*task, "--similarity", "likeness"), "likeness", "lc2", "ngf")
    assert_one_line(usreg(*task, "--optimizer", "guess"), "guess", "bobyqa", "cmaes")
    assert_one_line(usreg(*task, "--sweep", "9"), "sweep")


@pytest.mark.parametrize("frames", ["", "7", "a:b", "0:80:0", "1:2:3:4"])
def test_frames_that_are_no_slice(usreg, liver, tmp_path, frames):
    result = usreg(
        "reconstruct",
        liver[0],
        "--calibration",
        liver[1],
        "--frames",
        frames,
        "--spacing",
        "1",
        "--out",
        tmp_path / "v.mha",
    )
    assert_one_line(result, "--frames")


def test_frames_beyond_the_end(usreg, liver, tmp_path):
    result = usreg(
        "reconstruct",
        liver[0],
        "--calibration",
        liver[1],
        "--frames",
        "500:600",
        "--spacing",
        "1",
        "--out",
        tmp_path / "v.mha",
    )
    assert_one_line(result, "500:600")


@pytest.mark.parametrize("perturb", ["1,2,3", "a,b,c,d,e,f", "-1,0,0,0,0,0", "nan,0,0,0,0,0"])
def test_perturb_that_is_no_limit(usreg, liver, tmp_path, perturb):
    result = usreg(
        "register",
        liver[0],
        "--volume",
        tmp_path / "v.mha",
        "--calibration",
        liver[1],
        "--out",
        tmp_path / "r.json",
        f"--perturb={perturb}",
    )
    assert_one_line(result, "--perturb")


@pytest.mark.parametrize("command", [("info",), ("evaluate",)])
def test_a_file_that_is_not_there(usreg, tmp_path, command):
    assert_one_line(usreg(*command, tmp_path / "missing.mha"), "missing.mha")


def test_a_session_that_is_not_there(usreg, tmp_path):
    assert_one_line(usreg("replay", tmp_path / "missing", "--report", tmp_path / "r"), "missing")


def test_a_file_of_no_known_kind(usreg, tmp_path):
    file = tmp_path / "noise.mha"
    file.write_bytes(bytes(range(256)) * 8)
    assert_one_line(usreg("info", file), "noise.mha")


def test_unknown_system(usreg, liver, tmp_path):
    result = usreg(
        "register",
        liver[0],
        "--volume",
        tmp_path / "v.mha",
        "--calibration",
        liver[1],
        "--out",
        tmp_path / "r.json",
        "--system",
        "magic",
    )
    assert_one_line(result, "magic", "intensity")


def test_unknown_session_kind(usreg):
    pytest.importorskip("rclpy", reason="ROS 2 is not importable here")
    assert_one_line(usreg("run", "surgery"), "surgery", "phantom")


def test_simulate_refuses_a_folder_that_exists(usreg, tmp_path):
    assert_one_line(usreg("simulate", "phantom", "--out", tmp_path), tmp_path.name)


def test_simulate_refuses_a_way_that_no_stream_takes(usreg):
    assert_one_line(usreg("simulate", "volunteer", "--live", "--roam", "sweep"), "--roam", "--live")


def test_a_report_that_cannot_be_written(usreg, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert_one_line(usreg("replay", PHANTOM, "--report", blocked / "report"), "file")
