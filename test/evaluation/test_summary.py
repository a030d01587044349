# SPDX-License-Identifier: Apache-2.0
"""Figures over rows, and the file that holds them."""

import json
import math
from dataclasses import replace

import pytest
import torch

from usreg.data.types import Estimate, Frame, Rigid, TrackedFrame
from usreg.errors import FileFormatError, MissingFileError
from usreg.evaluation import Row, dump_json, read_result, result_json, row_of, spread, summarise
from usreg.geometry import se3

ISSUE_KEYS = {
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


def _rows(*finals: float) -> list[Row]:
    return [Row(n, float(n), 10.0, f, accepted=f < 9, seconds=0.1) for n, f in enumerate(finals)]


def test_figures_by_hand():
    s = summarise(_rows(1.0, 3.0, 6.0, 20.0))
    assert (s.count, s.with_truth, s.rejected, s.accepted_share) == (4, 4, 1, 0.75)
    assert (s.success_2mm, s.success_5mm, s.success_10mm) == (0.25, 0.5, 0.75)
    assert s.failures_among_accepted == 1  # 6 mm was accepted, 20 mm was not
    assert (s.final_tre_mm.mean, s.final_tre_mm.median, s.final_tre_mm.max) == (7.5, 4.5, 20.0)
    assert s.accepted_tre_mm.max == 6.0 and s.initial_tre_mm.mean == 10.0 and s.median_seconds == pytest.approx(0.1)


def test_rows_without_truth_do_not_count_as_success_or_failure():
    s = summarise([*_rows(1.0), Row(7, 7.0, score=0.9, accepted=True)])
    assert (s.count, s.with_truth, s.success_2mm, s.accepted_share, s.failures_among_accepted) == (2, 1, 1.0, 1.0, 0)


def test_no_rows():
    s = summarise([])
    assert s.count == 0 and math.isnan(s.accepted_share) and math.isnan(s.final_tre_mm.max)
    assert json.loads(dump_json(result_json([])))["summary"]["accepted_share"] is None


def test_spread_leaves_out_what_is_not_known():
    assert spread([1.0, math.nan, 3.0, math.inf]) == spread([1.0, 3.0])


def test_consistency_is_of_accepted_rows(rows):
    s = summarise(rows)
    assert 0.6 < s.nees_per_dof < 1.5 and s.lost == 6
    worse = [r if r.accepted else replace(r, nees=1e9) for r in rows]
    assert summarise(worse).nees_per_dof == s.nees_per_dof


def test_the_keys_of_the_issue(rows):
    content = json.loads(dump_json(result_json(rows, system="intensity", seed=3)))
    assert all(set(start) >= ISSUE_KEYS for start in content["starts"])
    assert content["summary"]["count"] == 60 and content["system"] == "intensity"


def test_the_text_is_deterministic_and_strict(rows):
    text = dump_json(result_json(rows))
    assert text == dump_json(result_json(list(rows))) and text.endswith("\n")
    assert "NaN" not in text and "Infinity" not in text
    assert dump_json({"b": 0.1 + 0.2, "a": math.nan}) == dump_json({"a": math.inf, "b": 0.3})
    assert '"stamp_s": 1721990000.123457' in dump_json({"stamp_s": 1721990000.123456789})


def test_reading_gives_what_was_written(tmp_path, rows):
    path = tmp_path / "RESULT.json"
    path.write_text(dump_json(result_json(rows, system="itk")), encoding="utf-8")
    again = read_result(path)
    assert dump_json(again) == path.read_text(encoding="utf-8")


def test_a_forged_summary_is_computed_again(tmp_path, rows):
    content = result_json(rows)
    content["summary"]["success_2mm"] = 1.0
    path = tmp_path / "RESULT.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_result(path)["summary"]["success_2mm"] == result_json(rows)["summary"]["success_2mm"] < 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable JSON"),
        ("[" * 100_000, "not readable JSON"),
        ("\xff\xfe", "not readable JSON"),
        ("[1, 2]", "must hold a list `starts`"),
        ('{"starts": 3}', "must hold a list `starts`"),
        ('{"starts": [3]}', r"starts\[0\]"),
        ('{"starts": [{"frame": 1}]}', "at least `frame` and `stamp_s`"),
        ('{"starts": [{"frame": 1, "stamp_s": "now"}]}', r"starts\[0\].stamp_s"),
        ('{"starts": [{"frame": 1, "stamp_s": 0, "accepted": 1}]}', r"starts\[0\].accepted"),
    ],
)
def test_broken_files(tmp_path, text, message):
    path = tmp_path / "RESULT.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FileFormatError, match=message):
        read_result(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match="no file 'RESULT.json'"):
        read_result(tmp_path / "RESULT.json")


def test_row_of_an_estimate(sector):
    """The volume lies at the truth; the start is 6 mm off, the estimate 1 mm, both along the image's normal."""
    image = torch.zeros(120, 160, dtype=torch.uint8)
    frame = TrackedFrame(Frame(image, sector, 4.5, 9), se3.identity())
    truth, start, found = (se3.translation(torch.tensor([0.0, 0, z], dtype=torch.float64)) for z in (0, 6, 1))
    pivot = torch.tensor([60.0, 40, 0], dtype=torch.float64)
    estimate = Estimate(Rigid(found), torch.eye(6, dtype=torch.float64), pivot, 0.8, 0.9, True, compute_s=0.02)
    row = row_of(frame, start, estimate, truth)
    assert (row.frame, row.stamp_s, row.accepted, row.seconds) == (9, 4.5, True, 0.02)
    assert row.initial_tre_mm == pytest.approx(6) and row.final_tre_mm == pytest.approx(1)
    assert row.out_of_plane_mm == pytest.approx(1) and row.nees == pytest.approx(1) and row.predicted_mm > 1.7
    blind = row_of(frame, start, estimate)
    assert math.isnan(blind.final_tre_mm) and math.isnan(blind.nees) and blind.score == 0.8
    lost = row_of(frame, start, None, truth, status="LOST", reason="no overlap")
    assert not lost.accepted and lost.reason == "no overlap" and lost.initial_tre_mm == pytest.approx(6)
