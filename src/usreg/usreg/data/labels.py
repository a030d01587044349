# SPDX-License-Identifier: Apache-2.0
"""Names of organ labels from JSON, YAML or a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..config import MAX_YAML_BYTES, load_yaml
from ..errors import FileFormatError, MissingFileError


def read_label_names(path: str | Path) -> dict[int, str]:
    """Names by label value.

    Args:
        path: `.json` or `.yaml` with a mapping (value to name or name to value, also under the key `labels`), or a text
            table with the value first and the name after it or after colour columns (`.csv`, `.tsv`, `.txt`, `.ctbl`).

    Raises:
        MissingFileError: no such file. FileFormatError: not such a list, too large, or a value twice.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    if path.stat().st_size > MAX_YAML_BYTES:
        raise FileFormatError(f"'{path.name}' has more than {MAX_YAML_BYTES} bytes: this is no list of labels")
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return _from_mapping(load_yaml(path), path.name)
    try:
        text = path.read_text(encoding="utf-8")
        return _from_mapping(json.loads(text), path.name) if suffix == ".json" else _from_table(text, path.name)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FileFormatError(f"'{path.name}' is no readable list of labels: {error}") from error


def _from_mapping(content: Any, name: str) -> dict[int, str]:
    if isinstance(content, dict) and isinstance(content.get("labels"), dict):
        content = content["labels"]
    if not isinstance(content, dict):
        raise FileFormatError(f"'{name}' must map label values to names")
    pairs = [(k, v) if _whole(k) is not None else (v, k) for k, v in content.items()]
    return _collect(pairs, name)


def _from_table(text: str, name: str) -> dict[int, str]:
    pairs: list[tuple[Any, Any]] = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        quoted = line.split('"')
        cells = [c for c in line.replace(",", " ").replace(";", " ").replace("\t", " ").split() if c]
        words = [c for c in cells[1:] if _number(c) is None]
        if _whole(cells[0]) is None:
            continue  # a heading
        pairs.append((cells[0], quoted[1] if len(quoted) >= 3 else " ".join(words)))
    return _collect(pairs, name)


def _collect(pairs: list[tuple[Any, Any]], name: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for key, value in pairs:
        number = _whole(key)
        if number is None or not isinstance(value, str) or not value or number in names:
            raise FileFormatError(
                f"'{name}' has the entry {key!r}: {value!r}; expected each whole number once, with a name"
            )
        names[number] = value
    if not names:
        raise FileFormatError(f"'{name}' holds no label: expected lines such as '1 liver'")
    return names


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) and -32768 <= number <= 32767 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None
