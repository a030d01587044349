# SPDX-License-Identifier: Apache-2.0
"""What rests while frames come: the volume's box, its organs, landmarks and target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..data.types import Volume
from ..fusion import OverlayConfig
from ..fusion.organs import Look, organ_meshes
from ..fusion.overlay import display_window
from .letters import in_patient
from .wire import pack

VOLUME_URL, LABELS_URL = "/volume.nii.gz", "/labels.nii.gz"


def scene_message(
    volume: Volume | None,
    looks: Sequence[Look],
    config: OverlayConfig,
    landmarks: Mapping[str, Tensor],
    target_ct: Tensor | None,
) -> bytes:
    """The message "scene". No file name is in it: it may be a patient's."""
    return pack(
        {
            "type": "scene",
            "volume": None if volume is None else _volume(volume, config),
            "organs": [_look(look) for look in looks],
            "landmarks": [{"name": name, "ct": point.tolist()} for name, point in landmarks.items()],
            "target_ct": None if target_ct is None else target_ct.tolist(),
        }
    )


def organ_messages(volume: Volume) -> Iterator[tuple[str, bytes]]:
    """Messages "organ" with their keys, one at a time."""
    for organ in organ_meshes(volume):
        header = {"type": "organ", **_look(organ.look), "sha256": volume.sha256}
        buffers = {
            "vertices": organ.vertices_mm,
            "normals": organ.normals,
            "triangles": organ.triangles.astype(np.uint32),
        }
        yield f"organ/{organ.look.value}", pack(header, buffers)


def _look(look: Look) -> dict[str, Any]:
    return {"value": look.value, "name": look.name, "colour": look.colour, "opacity": look.opacity}


def _volume(volume: Volume, config: OverlayConfig) -> dict[str, Any]:
    grid = volume.grid
    return {
        "name": volume.modality or "volume",
        "modality": volume.modality,
        "sha256": volume.sha256,
        "size": grid.size,
        "spacing_mm": grid.spacing_mm,
        "ct_T_index": grid.ct_T_index.flatten().tolist(),
        "corners_ct": grid.corners_ct.tolist(),
        "window": display_window(volume, config),
        "in_patient": in_patient(volume),
        "url": VOLUME_URL,
        "labels_url": None if volume.labels is None else LABELS_URL,
    }
