# SPDX-License-Identifier: Apache-2.0
"""Trains a toy for some steps and writes its weights; `test_trainer` runs this as one process and as two."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from usreg.losses.objective import Objective, Step
from usreg.registration.learned.weights import write_tensors
from usreg.training.distributed import processes
from usreg.training.pairs import generator_of
from usreg.training.schedule import TrainerConfig
from usreg.training.trainer import Trainer


@dataclass(frozen=True)
class ToyBatch:
    x: Tensor

    def __len__(self) -> int:
        return len(self.x)


class ToyPairs:
    def batch(self, step: int, rank: int = 0, world: int = 1) -> ToyBatch:
        return ToyBatch(torch.randn(6, 3, generator=generator_of(9, step * world + rank)))


def toy_losses(network: nn.Module, batch: ToyBatch) -> dict[str, Tensor]:
    noise = 0.01 * torch.randn(batch.x.shape)  # drawn by torch itself, under the trainer's seed
    error = (network(batch.x + noise)[:, 0] - batch.x.prod(1)).square().mean()
    return {"error": error, "logged": error.detach() * 2}


def toy(config: TrainerConfig, folder: Path, **more: object) -> Trainer:
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    objective = Objective((Step("toy", toy_losses, {"error": 1.0}),))
    return Trainer(config, network, objective, ToyPairs(), folder, **more)  # type: ignore[arg-type]


def main(folder: Path, accumulate: int) -> None:
    torch.set_num_threads(1)
    config = TrainerConfig(steps=5, accumulate=accumulate, learning_rate=0.05, warmup_steps=2, log_steps=1)
    with processes("cpu") as joined:
        trainer = toy(config, folder, processes=joined)
        trainer.run()
        write_tensors(folder / f"{joined.rank}.safetensors", trainer.network.state_dict(), {})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
