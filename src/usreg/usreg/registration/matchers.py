# SPDX-License-Identifier: Apache-2.0
"""The matcher of a similarity and an optimiser, by their names."""

from __future__ import annotations

from ..errors import ConfigError
from .local import FORMS, LocalConfig, LocalMatcher
from .matching import Matcher
from .ncc_matcher import NccMatcher
from .optimisers import OPTIMISERS, OptimiserConfig
from .torch_matcher import TorchConfig, TorchMatcher

LEAST_SQUARES = ("ncc", *FORMS)


def build_matcher(similarity: str, optimizer: str, local: LocalConfig) -> Matcher:
    """A matcher.

    Args:
        similarity: a name of `similarity.SIMILARITIES`. optimizer: "lm", or a name of `optimisers.OPTIMISERS`.
        local: of LNCC and LC2 with "lm".

    Raises:
        ConfigError: an unknown name, or Levenberg-Marquardt for a similarity without a least-squares form.
    """
    if optimizer == "lm":
        if similarity not in LEAST_SQUARES:
            raise ConfigError(
                f"Levenberg-Marquardt ('lm') needs a similarity with a least-squares form, one of {LEAST_SQUARES}, got "
                f"'{similarity}'; choose another optimizer for it"
            )
        return NccMatcher() if similarity == "ncc" else LocalMatcher(similarity, local)
    if optimizer not in OPTIMISERS:
        raise ConfigError(f"there is no optimizer '{optimizer}'; choose one of {('lm', *OPTIMISERS)}")
    return TorchMatcher(similarity, TorchConfig(OptimiserConfig(optimizer), local.window))
