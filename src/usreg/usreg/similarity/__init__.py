# SPDX-License-Identifier: Apache-2.0
"""Similarity of images under a mask: higher is more alike."""

from .agreement import LeastSquares, Linearised, Similarity
from .local import LocalResidual, PatchRule, local_regression
from .ncc import NccResidual, ncc

__all__ = [
    "LeastSquares",
    "Linearised",
    "LocalResidual",
    "NccResidual",
    "PatchRule",
    "Similarity",
    "local_regression",
    "ncc",
]
