# SPDX-License-Identifier: Apache-2.0
"""How far off: errors of poses, consistency of covariances, summaries and reports."""

from .consistency import Consistency, covariance_consistency, expected_error_mm, normalised_error
from .landmarks import landmark_tre_mm, vessel_points
from .logistic import fit_logistic
from .metrics import PoseError, pose_error, sample_points, tre_mm
from .reliability import Bin, Reliability, reliability, rows_reliability
from .report import Event, Snapshot, report_result, write_report
from .result import dump_json, read_result, result_json
from .summary import Row, Spread, Summary, row_of, spread, summarise

__all__ = [
    "Bin",
    "Consistency",
    "Event",
    "PoseError",
    "Reliability",
    "Row",
    "Snapshot",
    "Spread",
    "Summary",
    "covariance_consistency",
    "dump_json",
    "expected_error_mm",
    "fit_logistic",
    "landmark_tre_mm",
    "normalised_error",
    "pose_error",
    "read_result",
    "reliability",
    "report_result",
    "result_json",
    "row_of",
    "rows_reliability",
    "sample_points",
    "spread",
    "summarise",
    "tre_mm",
    "vessel_points",
    "write_report",
]
