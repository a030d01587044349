# SPDX-License-Identifier: Apache-2.0
"""Weights of networks as safetensors, with what they are, how they were made and what they reached in the header.

Files are untrusted: sizes are bounded, nothing is unpickled, and what does not fit is a readable error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ...data.atomic import atomic_file
from ...errors import ConfigError, FileFormatError, MissingFileError

MAX_BYTES = 2 * 1024**3
MAX_TENSORS = 20_000
MAX_HEADER_BYTES = 8 * 1024**2
SHIPPED_BYTES = 15_000_000  # larger files are kept as float16
KEY = "usreg.weights"
VERSION = 1
FOLDER = "config/weights"


@dataclass(frozen=True, eq=False)
class Weights:
    """A trained network.

    Args:
        mode: what it is, for example "paper".
        network: its configuration, as a mapping from which it is built.
        tensors: float32, by the names of its `state_dict`.
        metadata: whatever else was written: crop, spacings, command, bodies, steps, samples, wall_s, figures,
            undertrained.
    """

    mode: str
    network: dict[str, Any]
    tensors: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    def into(self, network: nn.Module) -> None:
        """Copy into a network.

        Raises:
            ConfigError: names or sizes differ: the network was built from another configuration.
        """
        own = network.state_dict()
        wrong = sorted(set(own) ^ set(self.tensors))
        wrong = wrong or sorted(n for n, t in own.items() if t.shape != self.tensors[n].shape)
        if wrong:
            raise ConfigError(
                f"weights of mode '{self.mode}' do not fit the network: {len(wrong)} tensors differ in name or size, "
                f"the first is '{wrong[0]}'; build the network from the configuration in the weights' header"
            )
        network.load_state_dict(self.tensors)


def save_weights(
    path: str | Path, mode: str, network: Mapping[str, Any], tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
) -> None:
    """Write weights, whole or not at all; as float16 where float32 would not stay below 15 MB.

    Raises:
        WriteError: disk full, no permission. FileFormatError: a tensor is not finite, or JSON cannot hold the rest.
    """
    _check_finite(tensors, Path(path).name)
    size = sum(t.numel() * 4 for t in tensors.values())
    kept = {n: _kept(t, torch.float16 if size > SHIPPED_BYTES - 200_000 else torch.float32) for n, t in tensors.items()}
    content = {"version": VERSION, "mode": mode, "network": dict(network), "metadata": dict(metadata)}
    try:
        header = json.dumps(content, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"what is to stand in the header of '{Path(path).name}' is not JSON: {error}") from error
    write_tensors(path, kept, {KEY: header})


def _kept(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)


def load_weights(path: str | Path, mode: str = "") -> Weights:
    """Read weights.

    Args:
        mode: that they must be of; "": any.

    Raises:
        MissingFileError: no such file. FileFormatError: truncated, too large, no weights of usreg, or a tensor that is
            not finite. ConfigError: of another mode.
    """
    path = Path(path)
    tensors, header = read_tensors(path)
    try:
        content = json.loads(header[KEY])
        version, found = content["version"], str(content["mode"])
        network, metadata = dict(content["network"]), dict(content["metadata"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"'{path.name}' holds tensors but does not say what they are: give weights that `usreg train` wrote"
        ) from error
    if version != VERSION:
        raise FileFormatError(f"'{path.name}' is of version {version}, this usreg reads {VERSION}: train it again")
    if mode and found != mode:
        raise ConfigError(
            f"'{path.name}' holds weights of mode '{found}', not '{mode}': choose mode {found}, or others"
        )
    tensors = {n: t.to(torch.float32) if t.is_floating_point() else t for n, t in tensors.items()}
    _check_finite(tensors, path.name)
    return Weights(found, network, tensors, metadata)


def _check_finite(tensors: Mapping[str, Tensor], name: str) -> None:
    bad = [n for n, t in tensors.items() if t.is_floating_point() and not math.isfinite(float(t.double().sum()))]
    if bad:
        raise FileFormatError(
            f"'{name}': tensor '{bad[0]}' (and {len(bad) - 1} more) holds NaN or infinity: train again"
        )


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors and texts as one safetensors file, whole or not at all."""
    content = save({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, dict(header))
    with atomic_file(path) as stream:
        stream.write(content)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a safetensors file that is not trusted.

    Raises:
        MissingFileError: no such file. FileFormatError: truncated, too large, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name, or train with `usreg train`")
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if size > MAX_BYTES or size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise FileFormatError(
            f"'{path.name}' ({size} bytes) is truncated, larger than {MAX_BYTES} bytes, or no safetensors file"
        )
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise FileFormatError(f"'{path.name}' holds {len(names)} tensors; at most {MAX_TENSORS} are read")
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(
            f"'{path.name}' is no readable safetensors file ({error}): copy or train it again"
        ) from error
