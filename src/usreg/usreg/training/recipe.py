# SPDX-License-Identifier: Apache-2.0
"""What makes a mode of a system trainable, and how good its poses are on subjects that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..config import to_mapping
from ..evaluation.metrics import pose_error
from ..losses.objective import Objective
from .pairs import Batch

SUCCESS_MM = 10.0  # successful pairs of the DeepRS2V paper's Table 1
Figures = Callable[[nn.Module, Batch], Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Recipe:
    """How one mode is trained.

    Args:
        network: not trained yet, made under the run's seed.
        network_config: dataclass from which it is built again.
        objective: what is minimised.
        figures: (network, batch) -> name -> (B,) of each frame; the first is the one that counts, lower is better.
            Called without gradients.
        metadata: what registration must know besides, as JSON: sizes and spacings of what the network sees.
    """

    network: nn.Module
    network_config: Any
    objective: Objective
    figures: Figures
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network_mapping(self) -> dict[str, Any]:
        """Configuration of the network for the header of its weights."""
        return to_mapping(self.network_config)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.network.parameters())


def pose_figures(batch: Batch, ct_T_images: Tensor) -> dict[str, Tensor]:
    """Errors (B,) of poses (B, 4, 4) that were found for a batch, and of its starts."""
    found = ct_T_images.detach().to("cpu", torch.float64)
    true, start = batch.ct_T_true.cpu(), batch.ct_T_start.cpu()
    now, before = ([pose_error(p, t, batch.geometry) for p, t in zip(x, true, strict=True)] for x in (found, start))
    rows = {
        "tre_mm": [e.tre_mm for e in now],
        "translation_mm": [e.translation_mm for e in now],
        "rotation_deg": [e.rotation_deg for e in now],
        "out_of_plane_mm": [e.out_of_plane_mm for e in now],
        "failed_share": [float(e.translation_mm >= SUCCESS_MM) for e in now],
        "start_tre_mm": [e.tre_mm for e in before],
    }
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in rows.items()}


def mean_figures(figures: Figures, batches: Sequence[Batch]) -> Callable[[nn.Module], dict[str, float]]:
    """A validation: means over the frames of batches that are drawn once."""

    def validate(network: nn.Module) -> dict[str, float]:
        rows: dict[str, list[Tensor]] = {}
        for batch in batches:
            for name, values in figures(network, batch).items():
                rows.setdefault(name, []).append(values.reshape(-1).double().cpu())
        return {name: float(torch.cat(values).nanmean()) for name, values in rows.items()}

    return validate
