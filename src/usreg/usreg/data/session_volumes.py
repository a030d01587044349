# SPDX-License-Identifier: Apache-2.0
"""A session registered to another of its volumes: the CT of the same body, for example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..geometry import se3
from .sessions import InitialPose, Session, SessionConfig
from .volumes import read_volume

MODALITIES = ("CT", "MR", "US")
STILL = {"frames": 8, "apart_mm": 20.0, "max_age_s": 60.0}


def with_volume(session: Session, name: str) -> Session:
    """The session with one of its further volumes in the place of its own; "" leaves it as it is.

    The start stays where it is, its covariance moves to the other volume's centre. Labels (they lie on the grid of the
    session's own volume), system and options (they were chosen for it) are left out. The modality is the name, where it
    is one. Where the body lies still, recent frames are registered together with the newest (`registration.window`).

    Raises:
        ConfigError: the session has no volume of this name.
    """
    if not name:
        return session
    c = session.config
    if name not in c.volumes:
        raise ConfigError(
            f"session '{session.folder.name}' has no further volume '{name}'; choose one of {sorted(c.volumes)}, "
            "or leave it empty for its own"
        )
    initial = None if c.initial is None else _about(c.initial, session, session.volume_paths[name])
    modality = name.upper() if name.upper() in MODALITIES else ""
    options = {"window": dict(STILL)} if c.still else {}
    changes: dict[str, Any] = {
        "system": SessionConfig.system,
        "labels": "",
        "label_names": {},
        "options": options,
        "initial": initial,
        "modality": modality,
    }
    return replace(session, config=replace(c, volume=c.volumes[name], **changes))


def _about(initial: InitialPose, session: Session, other: Path) -> InitialPose:
    """The start with its covariance about the centre of another volume."""
    if session.volume_path is None:
        return initial
    turn = initial.pose[:3, :3]
    offset = turn @ (_centre(other) - _centre(session.volume_path))
    covariance = se3.move_pivot(initial.covariance_matrix, offset)
    return InitialPose.of(initial.pose, 0.5 * (covariance + covariance.T), initial.draw_mm, initial.draw_deg)


def _centre(path: Path) -> Tensor:
    return read_volume(path).grid.centre_ct
