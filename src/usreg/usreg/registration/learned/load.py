# SPDX-License-Identifier: Apache-2.0
"""Regression networks from their weights: one table says which class a mode stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ...config import from_mapping
from ...errors import ConfigError, FileFormatError
from .crop import Crop
from .weights import load_weights


def paper(config: Mapping[str, Any]) -> nn.Module:
    """DeepRS2V: encoders of frame and volume, joined by the dot product."""
    from ...networks.dot_fusion_regressor import DotFusionConfig, DotFusionRegressor  # MONAI takes two seconds

    return DotFusionRegressor(from_mapping(DotFusionConfig, config, "network"))


def fvr(config: Mapping[str, Any]) -> nn.Module:
    """FVR-Net: two balanced branches and a 3D ResNeXt."""
    from ...networks.frame_volume_regressor import FrameVolumeConfig, FrameVolumeRegressor

    return FrameVolumeRegressor(from_mapping(FrameVolumeConfig, config, "network"))


REGRESSORS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {"paper": paper, "fvr": fvr}


def build_regressor(mode: str, config: Mapping[str, Any] | None = None) -> nn.Module:
    """An untrained network of a mode; its configuration's defaults where none is given.

    Raises:
        ConfigError: an unknown mode, key or value.
    """
    if mode not in REGRESSORS:
        raise ConfigError(f"there is no regression network '{mode}'; choose one of {sorted(REGRESSORS)}")
    return REGRESSORS[mode](config or {})


def load_regressor(path: str | Path, mode: str) -> tuple[nn.Module, Crop]:
    """A trained network and the grid of its inputs.

    Raises:
        MissingFileError: no such file. FileFormatError: truncated, or not usable.
        ConfigError: weights of another mode or configuration.
    """
    weights = load_weights(path, mode)
    if "crop" not in weights.metadata:
        raise FileFormatError(f"'{Path(path).name}' does not say on which grid it was trained ('crop'): train it again")
    network, crop = build_regressor(mode, weights.network), from_mapping(Crop, weights.metadata["crop"], "weights.crop")
    weights.into(network)
    return network.eval().requires_grad_(False), crop
