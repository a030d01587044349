# SPDX-License-Identifier: Apache-2.0
"""Frames to a 3D ultrasound, pair by pair: the tables and the curve of DeepRS2V."""

from .cases import CaseLine, by_case, case_lines, cumulative, curves
from .errors import ErrorLine, dunnett_p, error_line, error_lines, start_rows
from .pairs import (
    PairError,
    PairRow,
    landmark_errors_mm,
    pair_error,
    pairs_json,
    pairs_of,
    seen_landmarks,
)
from .tables import Table, as_html, as_text
from .times import MethodRun, TimeLine, time_line, time_lines

__all__ = [
    "CaseLine",
    "ErrorLine",
    "MethodRun",
    "PairError",
    "PairRow",
    "Table",
    "TimeLine",
    "as_html",
    "as_text",
    "by_case",
    "case_lines",
    "cumulative",
    "curves",
    "dunnett_p",
    "error_line",
    "error_lines",
    "landmark_errors_mm",
    "pair_error",
    "pairs_json",
    "pairs_of",
    "seen_landmarks",
    "start_rows",
    "time_line",
    "time_lines",
]
