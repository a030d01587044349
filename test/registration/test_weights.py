# SPDX-License-Identifier: Apache-2.0
"""Weights: what is written is read; what is damaged, of another mode or of another network is a clear error."""

from pathlib import Path

import pytest
import torch
from torch import nn

from usreg.errors import ConfigError, FileFormatError, MissingFileError
from usreg.registration.learned.weights import MAX_HEADER_BYTES, load_weights, save_weights, write_tensors


@pytest.fixture
def network() -> nn.Module:
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(6.0).reshape(2, 3) / 7)
        layer.bias.copy_(torch.tensor([1.0, -2.0]))
    return layer


@pytest.fixture
def path(tmp_path: Path, network: nn.Module) -> Path:
    file = tmp_path / "weights.safetensors"
    save_weights(file, "paper", {"widths": [1, 2]}, network.state_dict(), {"crop": {"spacing_mm": 2.0}, "steps": 3})
    return file


def test_round_trip(path: Path, network: nn.Module) -> None:
    weights = load_weights(path, "paper")
    assert weights.mode == "paper"
    assert weights.network == {"widths": [1, 2]}
    assert weights.metadata == {"crop": {"spacing_mm": 2.0}, "steps": 3}
    other = nn.Linear(3, 2)
    weights.into(other)
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_any_mode_where_none_is_asked_for(path: Path) -> None:
    assert load_weights(path).mode == "paper"


def test_other_mode(path: Path) -> None:
    with pytest.raises(ConfigError, match="mode 'paper', not 'fvr'"):
        load_weights(path, "fvr")


@pytest.mark.parametrize("other", [nn.Linear(3, 3), nn.Linear(3, 2, bias=False), nn.Conv1d(3, 2, 1)])
def test_network_of_another_configuration(path: Path, other: nn.Module) -> None:
    before = {n: t.clone() for n, t in other.state_dict().items()}
    with pytest.raises(ConfigError, match="do not fit"):
        load_weights(path).into(other)
    assert all(torch.equal(t, before[n]) for n, t in other.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileFormatError, match="weights.safetensors"):
        load_weights(path)


def test_header_that_claims_too_much(path: Path) -> None:
    path.write_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + bytes(100))
    with pytest.raises(FileFormatError):
        load_weights(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="usreg train"):
        load_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_not_finite(path: Path, network: nn.Module, value: float) -> None:
    tensors = {n: torch.full_like(t, value) for n, t in network.state_dict().items()}
    with pytest.raises(FileFormatError, match="NaN or infinity"):
        save_weights(path, "paper", {}, tensors, {})
    load_weights(path)  # what was there is intact
    header = '{"version": 1, "mode": "paper", "network": {}, "metadata": {}}'
    write_tensors(path, tensors, {"usreg.weights": header})
    with pytest.raises(FileFormatError, match="NaN or infinity"):
        load_weights(path)


@pytest.mark.parametrize(
    "header", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "mode": "a", "network": 3}', "[" * 9999]
)
def test_tensors_that_are_no_weights(path: Path, network: nn.Module, header: str) -> None:
    write_tensors(path, network.state_dict(), {"usreg.weights": header})
    with pytest.raises(FileFormatError, match="does not say what they are"):
        load_weights(path)


def test_another_version(path: Path, network: nn.Module) -> None:
    header = '{"version": 99, "mode": "paper", "network": {}, "metadata": {}}'
    write_tensors(path, network.state_dict(), {"usreg.weights": header})
    with pytest.raises(FileFormatError, match="version 99"):
        load_weights(path)


def test_metadata_that_is_not_json(tmp_path: Path, network: nn.Module) -> None:
    with pytest.raises(FileFormatError, match="not JSON"):
        save_weights(tmp_path / "w.safetensors", "paper", {}, network.state_dict(), {"figure": float("nan")})


def test_large_networks_are_kept_in_half_precision_below_15_mb(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(4_500_000, generator=torch.Generator().manual_seed(0))}
    save_weights(tmp_path / "w.safetensors", "usreg", {}, tensors, {})
    assert (tmp_path / "w.safetensors").stat().st_size < 15_000_000
    found = load_weights(tmp_path / "w.safetensors").tensors["a"]
    assert found.dtype == torch.float32
    assert torch.allclose(found, tensors["a"], atol=5e-4)
