# SPDX-License-Identifier: Apache-2.0
"""Networks from their weights: one table says which regression network a mode stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from ...config import from_mapping
from ...errors import ConfigError, FileFormatError
from ...networks.correspondence import Correspondence, CorrespondenceConfig
from .crop import Crop
from .view import ViewConfig
from .weights import Weights, load_weights

N = TypeVar("N", bound=nn.Module)


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
    """A trained regression network and the grid of its inputs.

    Raises:
        MissingFileError: no such file. FileFormatError: truncated, or not usable.
        ConfigError: weights of another mode or configuration.
    """
    weights = load_weights(path, mode)
    crop = from_mapping(Crop, _told(weights, "crop", path), "weights.crop")
    return _filled(build_regressor(mode, weights.network), weights), crop


def load_correspondence(path: str | Path, mode: str) -> tuple[Correspondence, ViewConfig]:
    """A trained correspondence network and the grids of its inputs; errors as `load_regressor`."""
    weights = load_weights(path, mode)
    view = from_mapping(ViewConfig, _told(weights, "view", path), "weights.view")
    return _filled(Correspondence(from_mapping(CorrespondenceConfig, weights.network, "network")), weights), view


def _told(weights: Weights, key: str, path: str | Path) -> Any:
    if key not in weights.metadata:
        raise FileFormatError(
            f"'{Path(path).name}' does not say on which grid it was trained ('{key}'): train it again"
        )
    return weights.metadata[key]


def _filled(network: N, weights: Weights) -> N:
    weights.into(network)
    return network.eval().requires_grad_(False)
