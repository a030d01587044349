# SPDX-License-Identifier: Apache-2.0
"""RESULT.json: rows and summary as plain numbers that are the same bytes for the same poses."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import from_mapping
from ..errors import ConfigError, FileFormatError, MissingFileError
from .summary import Row, summarise

MAX_BYTES = 256 * 1024 * 1024
STAMP_DECIMALS, DIGITS = 6, 9
TIMES = ("seconds", "median_seconds", "p95_seconds")  # wall time: never in the result.json of a report


def result_json(rows: Sequence[Row], **more: Any) -> dict[str, Any]:
    """`{"starts": [...], "summary": {...}}` of plain values; `more` adds keys beside them (system, seed, ...)."""
    starts = plain([vars(r) for r in rows])
    # from the rounded rows, so that who reads the file finds the same summary
    summary = summarise(rows_of({"starts": starts}))
    return plain({**more, "starts": starts, "summary": summary})


def plain(value: Any, key: str = "") -> Any:
    """Only dicts, lists, strings and numbers: floats with nine digits (stamps: microseconds), NaN and Inf as None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, key) for v in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return round(value, STAMP_DECIMALS) if key == "stamp_s" else float(f"{value:.{DIGITS}g}")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    return value


def dump_json(content: Any) -> str:
    """Text with sorted keys and a newline at its end."""
    return json.dumps(plain(content), indent=1, sort_keys=True, allow_nan=False) + "\n"


def without_times(content: Any) -> Any:
    """The same without any wall time."""
    if isinstance(content, Mapping):
        return {k: without_times(v) for k, v in content.items() if k not in TIMES}
    return [without_times(v) for v in content] if isinstance(content, list) else content


def rows_of(content: Mapping[str, Any]) -> list[Row]:
    """The rows of a RESULT.json; unknown keys are left out, null is NaN."""
    return [_row(start, n) for n, start in enumerate(content["starts"])]


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a RESULT.json from outside; its summary is computed again from its rows.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: not JSON, too large, or without usable `starts`.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': `usreg register` writes one")
    if path.stat().st_size > MAX_BYTES:
        raise FileFormatError(f"'{path.name}' has {path.stat().st_size} bytes; a result has at most {MAX_BYTES}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"'{path.name}' is not readable JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("starts"), list):
        raise FileFormatError(
            f"'{path.name}' is no result: it must hold a list `starts`, as `usreg register` writes it"
        )
    more = {k: v for k, v in content.items() if k not in ("starts", "summary")}
    try:
        return result_json(rows_of(content), **more)
    except ConfigError as error:
        raise FileFormatError(f"'{path.name}': {error}") from error


def _row(start: Any, number: int) -> Row:
    where = f"starts[{number}]"
    if not isinstance(start, dict) or not {"frame", "stamp_s"} <= set(start):
        raise ConfigError(f"'{where}' must be a mapping with at least `frame` and `stamp_s`")
    known = {f.name for f in dataclasses.fields(Row)}
    values = {k: math.nan if v is None else v for k, v in start.items() if k in known}
    return from_mapping(Row, values, where)
