# SPDX-License-Identifier: Apache-2.0
"""The tables of DeepRS2V: errors about the image's centre, Table 1 with Dunnett's test, Table 2, Table 3, Fig. 7."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from usreg.config import from_mapping
from usreg.errors import ConfigError, ShapeError
from usreg.evaluation.s2v import (
    MethodRun,
    PairError,
    PairRow,
    as_html,
    as_text,
    case_lines,
    cumulative,
    curves,
    dunnett_p,
    error_line,
    error_lines,
    landmark_errors_mm,
    pair_error,
    pairs_json,
    pairs_of,
    published,
    seen_landmarks,
    start_rows,
    time_line,
    time_lines,
)
from usreg.evaluation.s2v.page import StudyPage, report_page, write_pictures
from usreg.evaluation.s2v.show import (
    beside_table,
    error_table,
    landmark_table,
    learning_curves,
    published_table,
    time_table,
    training_table,
)
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle

GEOMETRY = full_rectangle(PlaneGrid(41, 61, ((1.0, 0.0), (0.0, 1.0))))
TRUE = se3.exp(torch.tensor([40.0, -3.0, 7.0, 0.4, -0.2, 0.9], dtype=torch.float64))
START = PairError((6.0, 0.0, 8.0), (0.0, 3.0, 4.0))


def row(mm: float, case: str = "a", start: int = 0, **more) -> PairRow:
    """A pair that ends `mm` off, mostly out of the plane, and half as many degrees."""
    final = PairError((0.6 * mm, 0.0, -0.8 * mm), (0.0, 0.5 * mm, 0.0))
    return PairRow(case, start, start, START, final, 10.0, mm, accepted=mm < 10, seconds=0.1 * (start + 1), **more)


def rows(values, case: str = "a") -> list[PairRow]:
    return [row(float(v), case, n) for n, v in enumerate(values)]


def test_errors_are_about_the_centre_in_the_axes_of_the_true_image() -> None:
    centre = GEOMETRY.plane.centre_mm
    shift = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    turn = torch.deg2rad(torch.tensor([3.0, -4.0, 5.0], dtype=torch.float64))
    error = pair_error(se3.right_at_centre(TRUE, shift, turn, centre), TRUE, centre)
    assert error.shift_mm == pytest.approx((1.0, -2.0, 3.0)) and error.turn_deg == pytest.approx((3.0, -4.0, 5.0))
    assert error.distance_mm == pytest.approx(math.sqrt(14)) and error.angle_deg == pytest.approx(math.sqrt(50))
    moved = se3.exp(torch.tensor([9.0, 8.0, 7.0, 0.3, 0.2, 0.1], dtype=torch.float64))
    other = pair_error(moved @ se3.right_at_centre(TRUE, shift, turn, centre), moved @ TRUE, centre)
    assert other.shift_mm == pytest.approx(error.shift_mm)  # the volume's axes do not matter
    same = pair_error(TRUE, TRUE, centre)
    assert same.distance_mm == pytest.approx(0.0, abs=1e-12) and same.angle_deg == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ShapeError):
        pair_error(TRUE[:3], TRUE, centre)


def test_landmarks_count_where_the_true_image_shows_them() -> None:
    in_image = {"seen": (30.0, 20.0, 4.0), "beyond": (30.0, 20.0, 6.0), "beside": (90.0, 20.0, 0.0)}
    points = torch.tensor(list(in_image.values()), dtype=torch.float64)
    landmarks = dict(zip(in_image, se3.transform_points(TRUE, points), strict=True))
    assert list(seen_landmarks(landmarks, TRUE, GEOMETRY)) == ["seen"]
    assert set(seen_landmarks(landmarks, TRUE, GEOMETRY, near_mm=10.0)) == {"seen", "beyond"}
    off = TRUE @ se3.translation(torch.tensor([0.0, 3.0, 4.0], dtype=torch.float64))
    assert landmark_errors_mm(landmarks, off, TRUE) == pytest.approx(dict.fromkeys(in_image, 5.0))


def test_table_1_is_a_function_of_rows() -> None:
    line = error_line("m", rows([1.0, 2.0, 3.0, 20.0]))
    assert line.count == 4 and line.successful == 3
    assert line.shift_mm == pytest.approx((3.9, 0.0, 5.2)) and line.turn_deg == pytest.approx((0.0, 3.25, 0.0))
    assert line.distance_mm == pytest.approx((6.5, np.std([1, 2, 3, 20], ddof=1)))
    assert line.angle_deg[0] == pytest.approx(3.25)
    assert line.worst_mm == pytest.approx(20.0) and line.worst_pair == "a/3" and line.worst_deg == pytest.approx(10.0)
    assert line.below_3mm == 0.5 and line.tre_below_3mm == 0.5 and line.refused == 0.25 and line.nothing == 0.0
    assert line.accepted_mm == pytest.approx(2.0) and line.initial_mm == 10.0 and line.initial_deg == 5.0
    assert line.median_s == pytest.approx(0.25)
    (start,) = error_lines({"start": start_rows(rows([1.0, 2.0]))}, "")
    assert start.distance_mm == (10.0, 0.0) and start.tre_mm == 10.0
    one = error_line("m", rows([1.0]))
    assert math.isnan(one.distance_mm[1])
    assert error_lines({"m": []}, "m") == []


def test_dunnett_is_that_of_scipy_and_of_nobody_who_was_undertrained() -> None:
    rng = np.random.default_rng(3)
    samples = {"own": rng.normal(1, 0.5, 30), "near": rng.normal(1.1, 0.5, 30), "far": rng.normal(3, 0.5, 25),
               "young": rng.normal(4, 0.5, 30)}  # fmt: skip
    samples = {name: np.abs(v) for name, v in samples.items()}
    lines = {x.method: x for x in error_lines({n: rows(v) for n, v in samples.items()}, "own", {"young"})}
    expected = stats.dunnett(samples["near"], samples["far"], control=samples["own"], rng=np.random.default_rng(0))
    assert lines["near"].p_distance == pytest.approx(expected.pvalue[0], abs=1e-4)
    assert lines["far"].p_distance == pytest.approx(expected.pvalue[1], abs=1e-4) and lines["far"].p_distance < 1e-3
    assert lines["near"].p_distance > 0.05
    assert lines["far"].p_angle == pytest.approx(lines["far"].p_distance, abs=1e-3)  # the angles are half the distances
    assert math.isnan(lines["own"].p_distance) and math.isnan(lines["young"].p_distance)
    assert lines["young"].undertrained
    table = error_table("t", list(lines.values()), "own", {"young": "Young"})
    text = "\n".join(as_text(table))
    assert "Young [undertrained]" in text and "no claim" in text and "control" in text and "< 0.001" in text
    again = dunnett_p(samples, "own")
    assert again == dunnett_p(samples, "own") and set(again) == {"near", "far", "young"}


@pytest.mark.parametrize(
    "samples", [{"a": [1.0, 2.0]}, {"b": [1.0, 2.0], "c": [1.0, 2.0]}, {"a": [1.0], "b": [1.0, 2.0]},
                {"a": [1.0, 1.0], "b": [2.0, 2.0]}],
)  # fmt: skip
def test_dunnett_without_a_control_or_enough_values_claims_nothing(samples) -> None:
    assert dunnett_p(samples, "a") == {}


def test_table_2_counts_landmarks_and_sightings_of_each_case() -> None:
    found = [
        row(1.0, "one", 0, landmarks_mm={"portal_1": 1.0, "hepatic_1": 3.0}, liver_mm=4.0),
        row(7.0, "one", 1, landmarks_mm={"portal_1": 2.0}, liver_mm=6.0),
        row(2.0, "two", 0),
    ]
    first, second = case_lines(found)
    assert (first.case, first.pairs, first.landmarks, first.measured) == ("one", 2, 2, 3)
    assert first.tre_mm == pytest.approx((2.0, 1.0)) and first.liver_mm == 5.0 and first.below_5mm == 0.5
    assert second.measured == 0 and math.isnan(second.tre_mm[0])
    text = "\n".join(as_text(landmark_table([first, second], "m")))
    assert "published 4" in text and "3.41 ± 4.76" in text


def test_a_cumulative_curve_ends_at_one() -> None:
    assert cumulative(rows([3.0, 1.0])) == (pytest.approx([1.0, 3.0]), [0.5, 1.0])
    assert list(curves({"a": rows([3.0, 1.0]), "b": []})) == ["a (2)"]


def test_the_first_pair_is_not_in_the_warm_median() -> None:
    run = MethodRun("itk", tuple(rows([1.0, 1.0, 1.0])), build_s=0.5, prepare_s=(2.0, 1.0), threads=2)
    line = time_line(run)
    assert line.first_s == pytest.approx(0.1) and line.median_s == pytest.approx(0.25) and line.prepare_s == 2.0
    assert line.total_s == pytest.approx(0.6) and line.threads == 2
    assert time_line(MethodRun("m", (row(1.0),))).median_s == pytest.approx(0.1)
    assert time_lines([MethodRun("m")]) == []
    assert "10-20 s" in "\n".join(as_text(time_table([line], {})))


def test_measured_lines_stand_beside_the_published_ones() -> None:
    lines = error_lines({"itk": rows([1.0, 2.0]), "usreg": rows([1.0, 1.5])}, "itk")
    table = published_table(lines, "paper+correction", {"itk": "ITK"})
    assert [line[0] for line in table.lines] == ["ITK: measured", "ITK: published"]
    assert table.lines[1][-1] == "192/193" and "2.70 ± 1.62" in table.lines[1]
    assert any(note.startswith("ITK: ") for note in table.notes)
    assert set(published.DIFFERS) == set(published.TABLE_1) == set(published.TABLE_3) == set(published.BOUNDS)


def test_how_networks_were_trained_stands_beside_what_they_reach() -> None:
    told = {"parameters": 5, "bodies": [3000, 3001], "steps": 2, "samples": 8, "wall_s": 90.0,
            "curve": [[4, 9.0], [8, 3.0]]}  # fmt: skip
    runs = [MethodRun("usreg", training=told), MethodRun("network", training=told, undertrained=True), MethodRun("itk")]
    table = training_table(runs, {})
    assert table.lines[0] == ("usreg", "5", "3000 to 3001 (2)", "2", "8", "1.5", "9.0 > 3.0", "flat")
    assert table.lines[1][-1] == "undertrained" and len(table.lines) == 2 and "same number" in table.notes[0]
    other = MethodRun("paper", training={"samples": 9})
    assert "differ" in training_table([*runs, other], {}).notes[0]
    learning = learning_curves([*runs, other], {})
    assert learning == {"usreg": ([4.0, 8.0], [9.0, 3.0])}
    page = report_page("Title", {}, [], [], table, learning)
    assert "Training of the networks" in page and "samples seen" in page


def test_rows_come_back_from_json() -> None:
    before = [row(1.0, landmarks_mm={"portal_1": 1.5}), PairRow("b", 1, 2, START, START, reason="nothing", found=False)]
    after = pairs_of(json.loads(json.dumps(pairs_json(before))))
    assert after[0] == before[0]
    assert after[1].reason == "nothing" and math.isnan(after[1].seconds) and after[1].final == START
    with pytest.raises(ConfigError, match="rows"):
        pairs_of([{"case": "a"}])
    assert from_mapping(PairError, {"shift_mm": [1, 2, 3], "turn_deg": [0, 0, 0]}).distance_mm > 3.7


def test_the_page_holds_every_table_and_is_the_same_every_time(tmp_path) -> None:
    lines = error_lines({"own": rows([1.0, 2.0]), "<other>": rows([3.0, 5.0])}, "own")
    both = curves({"own": rows([1.0, 2.0])})
    tables = (error_table("Table 1", lines, "own", {}), beside_table(lines, {}))
    study = StudyPage("near", "Near & far", "text", tables, both, both, "own")
    page = report_page("Title", {"seed": "0"}, [study], ["itk was left out"])
    assert page == report_page("Title", {"seed": "0"}, [study], ["itk was left out"])
    for words in ("Research use only", "Near &amp; far: Table 1", "&lt;other&gt;", "itk was left out", "<svg"):
        assert words in page
    assert "<other>" not in page and "ITK" not in as_html(tables[0])
    (picture,) = write_pictures(study, tmp_path)
    assert picture.stat().st_size > 1000
