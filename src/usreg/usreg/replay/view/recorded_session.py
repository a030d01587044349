# SPDX-License-Identifier: Apache-2.0
"""A session whose measurements come from another bag: what a recorder wrote while it was played."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...data.sessions import Session


@dataclass(frozen=True)
class RecordedSession(Session):
    """The folder's volume, labels, arm and start with the bag of a recording."""

    recording: Path

    @property
    def bag_path(self) -> Path:
        """The recording."""
        return self.recording
