# SPDX-License-Identifier: Apache-2.0
"""Logistic regression with a ridge and signs that are known beforehand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from ..errors import ShapeError

Array = npt.NDArray[np.float64]


def fit_logistic(features: Array, true: npt.ArrayLike, signs: npt.ArrayLike, ridge: float = 1.0) -> tuple[float, Array]:
    """Maximum of the penalised likelihood of p = 1 / (1 + exp(-(bias + features @ weights))).

    L-BFGS-B; the problem is convex, the bounds keep it so.

    Args:
        features: (N, K), standardised: the ridge treats all alike. true: (N,) outcomes, 0 or 1.
        signs: (K,) of the weights: 1 = not negative, -1 = not positive, 0 = free.
        ridge: half of it times the squared weights is added to the negative log likelihood; the bias is free.

    Returns:
        Bias and weights (K,).

    Raises:
        ShapeError: the shapes do not fit, or only one outcome ever occurs.
    """
    x, y, s = np.asarray(features, np.float64), np.asarray(true, np.float64), np.asarray(signs, np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or s.shape != x.shape[1:] or len(np.unique(y)) != 2:
        raise ShapeError(f"features (N, K), outcomes (N,) of both kinds and signs (K,): got {x.shape}, {y.shape}")

    def loss(parameters: Array) -> tuple[float, Array]:
        bias, weights = parameters[0], parameters[1:]
        logit = bias + x @ weights
        value = np.logaddexp(0.0, logit) - y * logit
        wrong = expit(logit) - y
        slope = np.concatenate([[wrong.sum()], wrong @ x + ridge * weights])
        return float(value.sum() + 0.5 * ridge * (weights**2).sum()) / len(y), slope / len(y)

    bounds = [(None, None), *((0.0 if v > 0 else None, 0.0 if v < 0 else None) for v in s)]
    share = y.mean()
    start = np.concatenate([[np.log(share / (1.0 - share))], np.zeros(len(s))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 2000, "ftol": 1e-12})
    return float(found.x[0]), found.x[1:]
