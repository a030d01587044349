# SPDX-License-Identifier: Apache-2.0
"""Similarity of images under a mask: higher is more alike."""

from .agreement import LeastSquares, Linearised, Similarity
from .differences import gradient_magnitude
from .gradient_correlation import gradient_correlation
from .lc2 import Lc2Config, lc2
from .lncc import LnccConfig, lncc
from .local import LocalResidual, PatchRule, TiledResidual, local_regression
from .mind import MindConfig, descriptors, mind, ssc
from .mutual_information import MutualInformationConfig, mutual_information, normalised_mutual_information
from .ncc import NccResidual, ncc
from .normalised_gradient_fields import NgfConfig, normalised_gradient_fields
from .table import LEAST_SQUARES, MOVING_CHANNELS, SIMILARITIES

__all__ = [
    "LEAST_SQUARES",
    "MOVING_CHANNELS",
    "SIMILARITIES",
    "Lc2Config",
    "LeastSquares",
    "Linearised",
    "LnccConfig",
    "LocalResidual",
    "MindConfig",
    "MutualInformationConfig",
    "NccResidual",
    "NgfConfig",
    "PatchRule",
    "Similarity",
    "TiledResidual",
    "descriptors",
    "gradient_correlation",
    "gradient_magnitude",
    "lc2",
    "lncc",
    "local_regression",
    "mind",
    "mutual_information",
    "ncc",
    "normalised_gradient_fields",
    "normalised_mutual_information",
    "ssc",
]
