# SPDX-License-Identifier: Apache-2.0
"""Convolutions with normalisation, residual bottlenecks, pooling that any size survives, repeatable first weights."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.1  # slope of the activation below zero
MOST_GROUPS = 8


def groups_of(channels: int) -> int:
    """Groups of a GroupNorm: up to eight, two channels or more in each where that is possible."""
    return math.gcd(channels, min(MOST_GROUPS, max(1, channels // 2)))


def conv(
    dims: int, inputs: int, outputs: int, kernel: int | tuple[int, ...] = 3, stride: int | tuple[int, ...] = 1,
    groups: int = 1, active: bool = True,
) -> Convolution:  # fmt: skip
    """Convolution, GroupNorm (batches of two are too small for BatchNorm) and, where `active`, leaky ReLU."""
    act = ("leakyrelu", {"negative_slope": LEAK, "inplace": True}) if active else None
    norm = ("group", {"num_groups": groups_of(outputs)})
    return Convolution(dims, inputs, outputs, stride, kernel, act=act, norm=norm, groups=groups, bias=False)


class Bottleneck(nn.Module):
    """1, 3, 1 convolutions beside a shortcut; with `groups` (cardinality) the block of ResNeXt (Xie et al. 2017)."""

    def __init__(
        self, dims: int, inputs: int, middle: int, outputs: int, stride: int | tuple[int, ...] = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(dims, inputs, middle, 1),
            conv(dims, middle, middle, 3, stride, groups),
            conv(dims, middle, outputs, 1, active=False),
        )
        same = inputs == outputs and stride in (1, (1,) * dims)
        self.shortcut = nn.Identity() if same else conv(dims, inputs, outputs, 1, stride, active=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, ...) to (B, outputs, ...)."""
        return functional.leaky_relu(self.body(x) + self.shortcut(x), LEAK)


def max_pool(x: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Maxima over cells of (B, C, ...); an axis shorter than its cell becomes one."""
    cell = [min(k, n) for k, n in zip(kernel, x.shape[2:], strict=True)]
    if max(cell) == 1:
        return x
    return functional.max_pool2d(x, cell) if len(cell) == 2 else functional.max_pool3d(x, cell)


def precise(x: Tensor) -> AbstractContextManager[Any]:
    """No mixed precision on a CPU, as it was elsewhere.

    oneDNN's 3D convolutions in bfloat16 write past their memory in the backward pass over thin volumes (torch 2.13 on
    processors with AMX), and give wrong values where the last axis shrinks to one (pytorch issue 169688).
    """
    return torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else nullcontext()


def initialise(network: nn.Module, seed: int) -> None:
    """Draw the weights of all convolutions and linear layers from a generator of its own (He et al. 2015).

    A layer with an attribute `start_scale` begins with weights that are scaled by it.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            scale = float(getattr(module, "start_scale", 1.0))
            drawn = torch.empty(module.weight.shape)
            nn.init.kaiming_normal_(drawn, LEAK, generator=generator)
            with torch.no_grad():
                module.weight.copy_(scale * drawn)
                if module.bias is not None:
                    module.bias.zero_()
