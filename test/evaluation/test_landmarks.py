# SPDX-License-Identifier: Apache-2.0
"""Errors at landmarks: by hand, which points count, and what a summary and a page say of them."""

import math
from dataclasses import replace

import pytest
import torch

from usreg.errors import GeometryError, ShapeError
from usreg.evaluation import Row, landmark_tre_mm, result_json, summarise, vessel_points, write_report
from usreg.geometry import se3

POINTS = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0]], dtype=torch.float64)


def pose(*twist: float) -> torch.Tensor:
    return se3.exp(torch.tensor(twist, dtype=torch.float64))


def test_the_mean_distance_by_hand() -> None:
    truth = pose(5, -7, 9, 0.3, -0.2, 0.1)
    assert landmark_tre_mm(truth, truth, POINTS) == 0.0
    shifted = pose(3, 0, 4, 0, 0, 0) @ truth
    assert landmark_tre_mm(shifted, truth, POINTS) == pytest.approx(5.0)
    # turned about the first landmark by a right angle: the second one moves along the chord
    turned = truth @ pose(0, 0, 0, 0, 0, math.pi / 2)
    assert landmark_tre_mm(turned, truth, POINTS) == pytest.approx(100 * math.sqrt(2) / 2)


def test_bifurcations_count_and_all_points_where_there_are_none() -> None:
    named = {"portal_1": POINTS[0], "spleen_tip": POINTS[1] + 1, "hepatic_right": POINTS[1]}
    assert torch.equal(vessel_points(named), POINTS)
    assert torch.equal(vessel_points({"a": POINTS[0], "b": POINTS[1]}), POINTS)
    with pytest.raises(ShapeError, match="no landmarks"):
        vessel_points({})


def test_bad_poses_and_points_are_refused() -> None:
    with pytest.raises(GeometryError):
        landmark_tre_mm(2 * pose(0, 0, 0, 0, 0, 0), pose(0, 0, 0, 0, 0, 0), POINTS)
    with pytest.raises(ShapeError, match="landmarks"):
        landmark_tre_mm(pose(0, 0, 0, 0, 0, 0), pose(0, 0, 0, 0, 0, 0), POINTS[0])


def rows() -> list[Row]:
    good = Row(0, 0.0, final_tre_mm=0.5, accepted=True, landmark_tre_mm=1.0)
    gross, refused = replace(good, frame=1, landmark_tre_mm=12.0), replace(good, frame=2, accepted=False)
    return [good, gross, replace(refused, landmark_tre_mm=50.0)]


def test_the_summary_is_of_accepted_rows() -> None:
    found = summarise(rows())
    assert (found.landmark_tre_mm.mean, found.landmark_tre_mm.max) == (6.5, 12.0)
    assert found.gross_among_accepted == 1
    assert math.isnan(summarise([Row(0, 0.0, accepted=True)]).landmark_tre_mm.mean)


def test_the_page_tells_of_landmarks_where_there_are_some(tmp_path) -> None:
    result = result_json(rows())
    result["summary"] |= {"output_share": 0.915, "smoothed_landmark_tre_mm": {"mean": 1.25, "max": 3.5}}
    page = write_report(tmp_path / "with", result).read_text(encoding="utf-8")
    for said in ("mean TRE at the landmarks", "6.5 mm", "Output on 91.5 %", "mean 1.25 mm, worst 3.5 mm", "tracking"):
        assert said in page
    bare = write_report(tmp_path / "without", result_json([Row(0, 0.0, final_tre_mm=1.0)])).read_text(encoding="utf-8")
    assert "landmark" not in bare and "Output on" not in bare
