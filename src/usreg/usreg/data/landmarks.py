# SPDX-License-Identifier: Apache-2.0
"""Named points in a volume's frame: YAML here, Slicer's markups for others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ..config import load_yaml
from ..errors import FileFormatError, WriteError

MAX_POINTS = 100_000


def read_landmarks(path: str | Path) -> dict[str, Tensor]:
    """Points (3,) float64, LPS mm, by name.

    Args:
        path: YAML: `name: [x, y, z]` a line.

    Raises:
        MissingFileError: no such file. FileFormatError: not such a list, or a coordinate that is not finite.
    """
    path = Path(path)
    content = load_yaml(path)
    if not content or len(content) > MAX_POINTS:
        raise FileFormatError(f"'{path.name}' holds {len(content)} points; expected 1 to {MAX_POINTS}")
    return {str(name): _point(name, value, path.name) for name, value in content.items()}


def _point(name: Any, value: Any, file: str) -> Tensor:
    numbers = value if isinstance(value, list) else []
    plain = all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in numbers)
    if len(numbers) != 3 or not plain:
        raise FileFormatError(f"'{file}' gives {name!r} as {value!r}; expected [x, y, z] in mm")
    return torch.tensor(numbers, dtype=torch.float64)


def write_landmarks(path: str | Path, landmarks: Mapping[str, Tensor]) -> None:
    """Write points (3,), LPS mm, to the micrometre: `.yaml`, or `.mrk.json` for 3D Slicer.

    Raises:
        WriteError: no permission or a full disk.
    """
    path = Path(path)
    points = {name: [round(v, 3) for v in map(float, p)] for name, p in landmarks.items()}
    if path.name.endswith(".mrk.json"):
        text = json.dumps(_markups(points), indent=1) + "\n"
    else:
        text = yaml.safe_dump(points, sort_keys=False, default_flow_style=None)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write '{path.name}': {error.strerror}") from error


def _markups(points: Mapping[str, list[float]]) -> dict[str, Any]:
    """Slicer's markups file, in the fields that its schema asks for."""
    schema = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    control = [
        {"id": str(i + 1), "label": name, "position": p, "positionStatus": "defined"}
        for i, (name, p) in enumerate(points.items())
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": control}
    return {"@schema": f"{schema}markups-schema-v1.0.3.json#", "markups": [markup]}
