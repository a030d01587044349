# SPDX-License-Identifier: Apache-2.0
"""Everything that a training needs to go on, in one safetensors file: tensors, and numbers as JSON in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import ConfigError, FileFormatError
from ..registration.learned.weights import read_tensors, write_tensors

NAME = "checkpoint.safetensors"
KEY = "usreg.checkpoint"


def write_checkpoint(
    path: Path, parts: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]
) -> None:  # fmt: skip
    """Write groups of tensors, by group and name, and numbers; whole or not at all."""
    tensors = {f"{group}/{name}": t for group, members in parts.items() for name, t in members.items()}
    write_tensors(path, tensors, {KEY: json.dumps(dict(numbers))})


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Groups of tensors and numbers.

    Raises:
        MissingFileError, FileFormatError: no such file, truncated, or not a checkpoint.
    """
    tensors, header = read_tensors(path)
    try:
        numbers = json.loads(header[KEY])
        if not isinstance(numbers, dict):
            raise ValueError("no mapping")
    except (KeyError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"'{path.name}' in '{path.parent}' is no checkpoint of a training: remove it to begin anew"
        ) from error
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, member = name.partition("/")
        parts.setdefault(group, {})[member] = tensor
    return parts, numbers


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, by "index/name"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}/{name}": torch.as_tensor(v) for i, members in state.items() for name, v in members.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`; rates stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        if not index.isdecimal():
            raise FileFormatError(f"the checkpoint holds '{key}', which is no state of an optimiser")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def restore_tensors(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy tensors into others of exactly these names and sizes.

    Raises:
        ConfigError: the network is of another configuration.
    """
    wrong = sorted(set(own) ^ set(tensors)) or sorted(n for n, t in own.items() if t.shape != tensors[n].shape)
    if wrong:
        raise ConfigError(
            f"{what} is of a network of another configuration: {len(wrong)} tensors differ in name or size, the first "
            f"is '{wrong[0]}'; take the configuration it was made with, or begin anew in another folder"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
