# SPDX-License-Identifier: Apache-2.0
"""The report folder: its bytes, its page, and what it does without truth or space."""

import base64
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from usreg.data.types import Trajectory
from usreg.errors import ShapeError, WriteError
from usreg.evaluation import Event, Snapshot, report_result, result_json, write_report
from usreg.geometry import se3

VOID = {"meta", "img", "br"}


class _Page(HTMLParser):
    """Collects tags with their attributes and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture
def trajectories():
    stamps = torch.arange(20, dtype=torch.float64)
    poses = se3.exp(torch.stack([stamps.sin(), *[0 * stamps] * 5], -1))
    return {"estimate": Trajectory(stamps, poses, stamps != 4), "nothing": Trajectory(stamps, poses, stamps < 0)}


def _write(folder, rows, trajectories, **more):
    pictures = [
        Snapshot(np.full((40, 60, 3), (200, 10, 30), np.uint8), "frame 3"),
        Snapshot(torch.zeros(8, 8, dtype=torch.uint8), "b"),
    ]
    timing = {"stages": {"tracking": [0.001, 0.002], "registration": [0.03, 0.04, 0.1]}}
    events = (Event(12.0, "STALE_POSE", "no pose at 12.000 s"),)
    return write_report(
        folder, {**result_json(rows, system="intensity", **more), "events": events}, timing, trajectories, pictures
    )


def test_the_page_needs_no_network(tmp_path, rows, trajectories):
    text = _write(tmp_path / "report", rows, trajectories).read_text(encoding="utf-8")
    for tag, attributes in _Page(text).tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith(("#", "data:image/png;base64,"))
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert all(a.startswith("http://www.w3.org/") for a in addresses)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_what_the_page_says(tmp_path, rows, trajectories):
    text = _write(tmp_path, rows, trajectories).read_text(encoding="utf-8")
    words = _Page(text).words
    for word in (
        "Research use only",
        "median TRE",
        "Error over time",
        "Distribution of the error",
        "Time of each stage",
        "Fused views",
    ):
        assert word in words
    for word in (
        "LOST: 6",
        "STALE_POSE: 1",
        "no pose at 12.000 s",
        "intensity",
        "NEES per dof",
        "prefers-color-scheme",
    ):
        assert word in words
    assert "score 0.41 is below 0.6 <b>&" in words and "<b>&" not in text  # text from outside is escaped
    assert text.count("<svg") == 6


def test_snapshots_keep_their_pixels(tmp_path, rows, trajectories):
    page = _Page(_write(tmp_path, rows, trajectories).read_text(encoding="utf-8"))
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert [p["alt"] for p in pictures] == ["frame 3", "b"]
    png = base64.b64decode(pictures[0]["src"].split(",")[1])
    bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert bgr.shape == (40, 60, 3) and (bgr == (30, 10, 200)).all()


def test_result_json_knows_no_time(tmp_path, rows, trajectories):
    """Other computing times, same poses: the same bytes."""
    slow = [replace(r, seconds=9 * r.seconds) for r in rows]
    for name, some in (("a", rows), ("b", slow)):
        _write(tmp_path / name, some, trajectories)
    a, b = ((tmp_path / name / "result.json").read_bytes() for name in "ab")
    assert a == b and b"seconds" not in a and str(tmp_path).encode() not in a
    content = json.loads(a)
    assert content["events"] == [{"reason": "no pose at 12.000 s", "stamp_s": 12.0, "status": "STALE_POSE"}]
    times = json.loads((tmp_path / "b" / "timing.json").read_text(encoding="utf-8"))
    assert times["starts"][0] == pytest.approx(9 * rows[0].seconds) and times["stages"]["registration"] == [
        0.03,
        0.04,
        0.1,
    ]


def test_the_page_is_deterministic(tmp_path, rows, trajectories):
    a, b = (_write(tmp_path / n, rows, trajectories).read_bytes() for n in "ab")
    assert a == b


def test_without_truth(tmp_path, rows):
    blind = [
        replace(
            r,
            initial_tre_mm=math.nan,
            final_tre_mm=math.nan,
            translation_mm=math.nan,
            rotation_deg=math.nan,
            nees=math.nan,
        )
        for r in rows
    ]
    words = _Page(report_result(result_json(blind), tmp_path).read_text(encoding="utf-8")).words
    assert "Score over time" in words and "truth is not known" in words and "Error over time" not in words
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["summary"]["final_tre_mm"]["max"] is None


def test_nothing_to_show(tmp_path):
    words = _Page(write_report(tmp_path, result_json([])).read_text(encoding="utf-8")).words
    assert "Research use only" in words and sorted(p.name for p in tmp_path.iterdir()) == [
        "index.html",
        "result.json",
        "timing.json",
    ]


def test_errors_of_zero_are_drawn(tmp_path, rows):
    exact = [replace(r, final_tre_mm=0.0, initial_tre_mm=0.0, predicted_mm=0.0) for r in rows]
    assert report_result(result_json(exact), tmp_path).stat().st_size > 10_000


def test_a_folder_that_cannot_be_made(tmp_path, rows):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot make the folder"):
        write_report(tmp_path / "file" / "report", result_json(rows))


def test_a_full_disk_leaves_the_old_report(tmp_path, rows, monkeypatch):
    report_result(result_json(rows), tmp_path)
    before = (tmp_path / "result.json").read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        report_result(result_json(rows[:3]), tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_snapshots_that_are_no_pictures(tmp_path, rows, image):
    with pytest.raises(ShapeError, match="a snapshot is uint8"):
        write_report(tmp_path, result_json(rows), snapshots=[Snapshot(image, "x")])
