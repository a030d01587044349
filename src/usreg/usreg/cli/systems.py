# SPDX-License-Identifier: Apache-2.0
"""Which registrar the options of a command mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any


def build_registrar(
    system: str,
    similarity: str,
    optimizer: str,
    sweep: int,
    keyframes: int,
    global_start: bool,
    modality: str,
    mode: str = "",
    weights: str = "",
) -> Any:
    """A registrar of single frames or of sweeps; `mode` and `weights` are those of the system deep_s2v.

    Raises:
        ConfigError: a name that does not exist; the message lists those that do.
    """
    from ..registration.sweep import Sweep, SweepConfig
    from ..systems import build

    options = {"similarity": similarity, "optimizer": optimizer, "mode": mode, "weights": weights}
    registrar = build(system, {key: value for key, value in options.items() if value}, modality)
    if sweep == 1 and not global_start:
        return registrar
    settings = SweepConfig()
    chosen = replace(settings.keyframes, count=keyframes or settings.keyframes.count)
    return Sweep(registrar, replace(settings, keyframes=chosen), _search() if global_start else None)


def _search() -> Any:
    from ..registration.global_start import find_starts

    return find_starts
