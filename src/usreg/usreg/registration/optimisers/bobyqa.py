# SPDX-License-Identifier: Apache-2.0
"""Bound-constrained optimisation by quadratic models, without derivatives: COBYQA (Ragonneau and Zhang 2024).

COBYQA is the successor in the family of Powell's BOBYQA (2009), with which LC2 was published: a trust region over
quadratic models that interpolate 2 n + 1 points. scipy ships it. One unit is 1 mm of image motion.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from .agreement import Budget, Found, Objective, Terms, Walk

LACK = 10.0  # score that is taken away for a lack of overlap of one


class _TimeIsUpError(Exception):
    """Ends a climb from inside the function that scipy calls."""


class Bobyqa:
    """The optimiser "bobyqa": one start after the other."""

    def __call__(self, objective: Objective, starts: Tensor, terms: Terms, budget: Budget) -> Found:
        """Climb from poses (B, 4, 4), see `Optimiser`."""
        walk = Walk(objective, starts, terms, budget, slopes=False)
        for row in range(len(starts)):
            try:
                self._climb(walk, row)
            except _TimeIsUpError:
                break
        return walk.found()

    def _climb(self, walk: Walk, row: int) -> None:
        terms, rows = walk.terms, torch.tensor([row])
        first = -float(walk.first.score[row])

        def loss(u: npt.NDArray[np.float64]) -> float:
            if not u.any():
                return first  # the start was looked at already
            if walk.over():
                raise _TimeIsUpError
            looked = walk.look(torch.from_numpy(np.array(u, np.float64))[None], rows)
            return LACK * float(looked.lack) - float(looked.score)

        if walk.left()[row] < 1:
            return
        final = max(1e-6, min(terms.tolerance_mm, terms.step_mm))
        options = {
            "maxfev": int(walk.budget.evaluations),
            "initial_tr_radius": terms.step_mm,
            "final_tr_radius": final,
        }
        minimize(loss, np.zeros(6), method="COBYQA", bounds=[(-terms.reach_mm, terms.reach_mm)] * 6, options=options)
