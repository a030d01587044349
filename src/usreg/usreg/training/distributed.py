# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one network, as `torchrun` starts them; one process alone where nothing was started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from ..errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))

    @property
    def first(self) -> bool:
        """Whether this one writes files, validates and reports."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            dist.barrier()

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """What the first has, all have."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def average_gradients(self, parameters: Iterable[Parameter]) -> None:
        """Replace every gradient by the mean over the processes; who has none counts as zero."""
        if self.world == 1:
            return
        owned = list(parameters)
        for p in owned:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.reshape(-1) for p in owned if p.grad is not None])
        dist.all_reduce(flat)
        flat /= self.world
        for p, part in zip(owned, flat.split([p.numel() for p in owned]), strict=True):
            p.grad = part.view_as(p)

    def agreed(self, value: float) -> float:
        """The first process's number."""
        if self.world == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(number, 0)
        return float(number)


@contextmanager
def processes(device: str = "") -> Iterator[Processes]:
    """Join the processes that `torchrun` started, by gloo on CPUs and nccl on GPUs, and leave at the end.

    Args:
        device: "cpu", "cuda" or a further device of torch; "": a GPU where there is one.

    Raises:
        ConfigError: the device is not there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device '{device}' is asked for, but torch finds no GPU here: leave --device out")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(device=torch.device(device))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device("cuda", local) if device == "cuda" else torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world, place)
    finally:
        dist.destroy_process_group()


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Torch's own random numbers (first weights, dropout) as a function of these numbers; afterwards as before."""
    from .pairs import generator_of

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        generator = generator_of(*numbers)
        torch.random.set_rng_state(generator.get_state())
        for device in devices:
            on_device = torch.Generator(f"cuda:{device}").manual_seed(generator.initial_seed())
            torch.cuda.set_rng_state(on_device.get_state(), device)
        yield
