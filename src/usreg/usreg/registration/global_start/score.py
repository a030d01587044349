# SPDX-License-Identifier: Apache-2.0
"""Scores of many poses, by likelihood where the volume is a CT and by correlation ratio elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...workers import run_ranges
from . import kernel
from .echoes import Echoes
from .table import Array
from .tissue_map import TissueMap

Known = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
AIR_MM, SKIN_MM, CARTILAGE_MM = 12.0, 9.0, 6.0  # see `kernel.walk`; a curved face leaves air at its edges
LEAST_POSES = 16  # of one thread


@dataclass(frozen=True, eq=False)
class Scorer:
    """How well a map explains echoes at poses.

    Args:
        table: (CLASSES, KINDS, MODELS) float32, for a CT.
    """

    tissue: TissueMap
    table: Array

    def scores(self, echoes: Echoes, ct_T_ref: Array) -> Array:
        """Scores (B,), higher is better, of poses (B, 4, 4) float64."""
        return self.index_scores(echoes, (self.tissue.index_T_ct @ ct_T_ref)[:, :3].astype(np.float32))

    def index_scores(self, echoes: Echoes, index_T_ref: Array) -> Array:
        """The same of poses (B, 3, 4) float32 into the map's index."""
        out = np.empty(len(index_T_ref))
        known, poses = self._known(echoes), np.ascontiguousarray(index_T_ref)

        def work(begin: int, end: int) -> None:
            if self.tissue.physical:
                kernel.likelihoods(*known, poses, echoes.kind, self.table, out, begin, end)
            else:
                kernel.relations(*known, poses, echoes.level, echoes.kind, out, begin, end)

        run_ranges(work, len(poses), LEAST_POSES)
        return out

    def meetings(self, echoes: Echoes, ct_T_ref: Array) -> tuple[Array, float]:
        """Counts (CLASSES, KINDS) of what a pose (4, 4) meets, and the share of samples that meet anything."""
        counts = np.zeros(self.table.shape[:2])
        pose = (self.tissue.index_T_ct @ ct_T_ref)[:3].astype(np.float32)
        seen = kernel.meetings(*self._known(echoes), pose, echoes.kind, counts)
        return counts, seen / max(1, int(echoes.length.sum()))

    def _known(self, echoes: Echoes) -> Known:
        """What the kernels take first, whatever the poses are."""
        step, tissue = echoes.step_mm, self.tissue
        limits = np.maximum(1, np.rint(np.array([AIR_MM, SKIN_MM, CARTILAGE_MM]) / step)).astype(np.int64)
        return (
            tissue.classes, tissue.hard, echoes.origin, echoes.direction, echoes.length.astype(np.int64),
            np.float32(echoes.first_mm), np.float32(step), limits,
        )  # fmt: skip
