# SPDX-License-Identifier: Apache-2.0
"""Every similarity by its name, with default settings."""

from __future__ import annotations

from .agreement import LeastSquares, Similarity
from .gradient_correlation import gradient_correlation
from .lc2 import lc2
from .lncc import lncc
from .local import PatchRule, TiledResidual
from .mind import mind, ssc
from .mutual_information import mutual_information, normalised_mutual_information
from .ncc import NccResidual, ncc
from .normalised_gradient_fields import normalised_gradient_fields

SIMILARITIES: dict[str, Similarity] = {
    "ncc": ncc,
    "lncc": lncc,
    "lc2": lc2,
    "mind": mind,
    "ssc": ssc,
    "mi": mutual_information,
    "nmi": normalised_mutual_information,
    "gc": gradient_correlation,
    "ngf": normalised_gradient_fields,
}
MOVING_CHANNELS = {"lc2": 2}  # what a similarity wants of the moving image, where that is not one channel
LEAST_SQUARES: dict[str, LeastSquares] = {
    "ncc": NccResidual(),
    "lncc": TiledResidual(12),
    "lc2": TiledResidual(12, PatchRule((1e-3,), relative=True)),
}
