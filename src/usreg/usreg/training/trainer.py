# SPDX-License-Identifier: Apache-2.0
"""The loop that trains any network: one optimiser per step of an objective, checkpoints, validation, a log.

A run that is stopped and resumed gives the numbers of one that was not; only a limit in minutes depends on the clock.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from ..config import to_mapping
from ..errors import ConfigError, FileFormatError, UsregError
from ..losses.objective import Objective, Step
from .checkpoint import (
    NAME,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    restore_tensors,
    write_checkpoint,
)
from .curve import Log
from .distributed import Processes, seeded
from .schedule import TrainerConfig, ema_decay, rate_factor, used_share

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FREE = ("steps", "minutes", "checkpoint_steps", "validate_steps", "log_steps")  # may change when a run is resumed
Validate = Callable[[nn.Module], dict[str, float]]


class Batches(Protocol):
    """Where batches come from; batch (step, rank) of a world is a pure function of these numbers."""

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Any: ...


@dataclass
class State:
    """What a run has reached; goes into the checkpoint.

    Args:
        wall_s, data_s, network_s, validation_s, cpu_s: spent so far: in all; on batches; on passes and steps of the
            optimiser; on the validation; by the processor.
        best: of the validation's first figure, lower is better. best_step: when.
    """

    step: int = 0
    samples: int = 0
    wall_s: float = 0.0
    data_s: float = 0.0
    network_s: float = 0.0
    cpu_s: float = 0.0
    validation_s: float = 0.0
    skipped: int = 0
    skipped_in_row: int = 0
    best: float = math.inf
    best_step: int = -1
    scale: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """One step, for a progress bar."""

    step: int
    used: float
    loss: float
    state: State
    validation: Mapping[str, float] | None = None


class Trainer:
    """Trains a network on batches until its budget is used up."""

    def __init__(
        self,
        config: TrainerConfig,
        network: nn.Module,
        objective: Objective,
        pairs: Batches,
        folder: Path,
        validate: Validate | None = None,
        keep: Callable[[nn.Module, Trainer], None] | None = None,
        progress: Callable[[Report], None] | None = None,
        processes: Processes | None = None,
    ) -> None:
        """
        Args:
            folder: of the checkpoint and the log; made where it is missing.
            validate: figures of a network, lower is better, the first is the one that counts.
            keep: called with the network when it is the best so far, and without a validation at the end.
        """
        self.config, self.objective, self.pairs = config, objective, pairs
        self.folder, self.validate, self.keep, self.progress = Path(folder), validate, keep, progress
        self.processes = processes or Processes()
        if config.precision == "float16" and self.processes.device.type != "cuda":
            raise ConfigError("precision float16 needs a GPU; on a processor take bfloat16 or float32")
        self.network = network.to(self.processes.device)
        self.optimizers = {s.name: self._optimizer(s) for s in objective.steps}
        self.ema = {n: t.detach().clone() for n, t in self.network.state_dict().items()} if config.ema else {}
        self.scaler = torch.amp.GradScaler(self.processes.device.type, enabled=config.precision == "float16")
        self.state = State()
        self.log: Log | None = None
        self._sums: dict[str, float] = {}
        self._pool = ThreadPoolExecutor(1) if config.ahead else None
        self._ahead: Future[list[Any]] | None = None

    def _optimizer(self, step: Step) -> Optimizer:
        c = self.config
        kind = AdamW if c.optimizer == "adamw" else Adam
        return kind(step.parameters(self.network), lr=c.learning_rate, weight_decay=c.weight_decay)

    # --- the loop ------------------------------------------------------------------------------------------------

    def run(self, resume: bool = False) -> State:
        """Train until the budget is used up.

        Args:
            resume: go on from the checkpoint of the folder, if there is one.

        Raises:
            UsregError: the gradient stays infinite: the run has diverged. ConfigError: the checkpoint is of another
            configuration. FileFormatError: it is damaged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if resume and (self.folder / NAME).is_file():
            self._restore()
        if self.processes.first:
            self.log = Log(self.folder / "log.jsonl", self.state.step)
        self.processes.broadcast(self.network.state_dict().values())
        clock, cpu = time.perf_counter() - self.state.wall_s, time.process_time() - self.state.cpu_s
        try:
            while (used := self._used(clock)) < 1.0:
                loss = self._step(used)
                self.state.wall_s, self.state.cpu_s = time.perf_counter() - clock, time.process_time() - cpu
                self._after(used, loss)
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
        if self.processes.first:
            self._finish(clock, cpu)
        self.processes.barrier()
        return self.state

    def _used(self, clock: float) -> float:
        wall_s = time.perf_counter() - clock
        if self.config.minutes > 0:
            wall_s = self.processes.agreed(wall_s)
        return used_share(self.config, self.state.step, wall_s)

    def _step(self, used: float) -> float:
        """One turn of every optimiser; returns the sum of their losses."""
        begin = time.perf_counter()
        batches = self._batches()
        self.state.data_s += time.perf_counter() - begin
        begin = time.perf_counter()
        factor, loss = rate_factor(self.config, self.state.step, used), 0.0
        self.network.train()
        for number, step in enumerate(self.objective.steps):
            loss += self._turn(number, step, batches, factor)
        self._average_weights()
        self.state.step += 1
        self.state.samples += sum(map(len, batches)) * self.processes.world
        self.state.network_s += time.perf_counter() - begin
        return loss

    def _batches(self) -> list[Any]:
        """This process's share of the step's batches; those of the next step are begun meanwhile."""
        drawn = self._ahead.result() if self._ahead is not None else self._drawn(self.state.step)
        self._ahead = self._pool.submit(self._drawn, self.state.step + 1) if self._pool is not None else None
        device = self.processes.device
        return drawn if device.type == "cpu" else [batch.to(device) for batch in drawn]

    def _drawn(self, step: int) -> list[Any]:
        return [self.pairs.batch(step, rank, self._world) for rank in self._ranks]

    @property
    def _world(self) -> int:
        """Batches of a step, of all processes."""
        return self.processes.world * self.config.accumulate

    @property
    def _ranks(self) -> range:
        """Which of them are this process's."""
        n = self.config.accumulate
        return range(self.processes.rank * n, self.processes.rank * n + n)

    def _turn(self, number: int, step: Step, batches: list[Any], factor: float) -> float:
        optimizer = self.optimizers[step.name]
        for group in optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        optimizer.zero_grad(set_to_none=True)
        loss = self.gradient(number, step, batches)
        self.scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.clip_norm or math.inf))
        if math.isfinite(norm):
            self.scaler.step(optimizer)
        self._count_skipped(norm)
        self.scaler.update()
        self._sum("gradient", norm)
        return loss

    def gradient(self, number: int, step: Step, batches: list[Any]) -> float:
        """Leave the mean gradient over all processes' batches in the parameters; returns this process's mean loss.

        What network and objective draw is a function of the seed, the step and the batch, whoever has it.
        """
        whole = 0.0
        for rank, batch in zip(self._ranks, batches, strict=True):
            with seeded(self.config.seed, 2 + number, self.state.step, rank), self._autocast():
                losses = step.losses(self.network, batch)
            total = step.total(losses)
            self.scaler.scale(total / len(batches)).backward()
            whole += float(total.detach()) / len(batches)
            for name, value in losses.items():
                self._sum(f"{step.name}.{name}", float(value.detach()) / len(batches))
        self.processes.average_gradients(step.parameters(self.network))
        return whole

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.processes.device.type, PRECISIONS[self.config.precision])

    def _count_skipped(self, norm: float) -> None:
        good = math.isfinite(norm)
        self.state.skipped += not good
        self.state.skipped_in_row = 0 if good else self.state.skipped_in_row + 1
        if self.state.skipped_in_row >= self.config.most_skipped:
            raise UsregError(
                f"the gradient was not finite {self.state.skipped_in_row} times in a row, at step {self.state.step}: "
                "the run has diverged; lower learning_rate or clip_norm, or take float32, and begin anew"
            )

    def _average_weights(self) -> None:
        if not self.ema:
            return
        decay = ema_decay(self.config, self.state.step)
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                if tensor.is_floating_point():
                    self.ema[name].lerp_(tensor, 1.0 - decay)
                else:
                    self.ema[name].copy_(tensor)

    # --- between steps -------------------------------------------------------------------------------------------

    def _after(self, used: float, loss: float) -> None:
        self._sum("loss", loss)
        if not self.processes.first:
            return
        c, step = self.config, self.state.step
        found = self._validated() if self.validate is not None and step % c.validate_steps == 0 else None
        if step % c.log_steps == 0 or step % c.checkpoint_steps == 0:
            self._write_log()
        if step % c.checkpoint_steps == 0:
            self.checkpoint()
        if self.progress is not None:
            self.progress(Report(step, used, loss, self.state, found))

    def _finish(self, clock: float, cpu: float) -> None:
        """The last validation and the last checkpoint."""
        self._write_log()
        assert self.log is not None
        done = bool(self.log.entries) and any(
            e["step"] == self.state.step and "validation" in e for e in self.log.entries[-3:]
        )  # fmt: skip
        if self.validate is not None and not done and self.state.step:
            found = self._validated()
            if self.progress is not None:
                self.progress(Report(self.state.step, 1.0, math.nan, self.state, found))
        if self.validate is None and self.keep is not None:
            self._with_average(lambda: self._keep())
        self.state.wall_s, self.state.cpu_s = time.perf_counter() - clock, time.process_time() - cpu
        self.checkpoint()

    def _validated(self) -> dict[str, float]:
        """Figures of the mean weights; kept where they are the best so far."""
        assert self.validate is not None and self.log is not None
        found: dict[str, float] = {}

        def look() -> None:
            self.network.eval()
            with torch.no_grad(), seeded(self.config.seed, 1):
                found.update(self.validate(self.network))  # type: ignore[misc]
            self.log.add(self._entry(validation=dict(found)))  # type: ignore[union-attr]
            value = next(iter(found.values()))
            if value < self.state.best:
                self.state.best, self.state.best_step = value, self.state.step
                self._keep()

        begin = time.perf_counter()
        self._with_average(look)
        self.state.validation_s += time.perf_counter() - begin
        return found

    def _keep(self) -> None:
        if self.keep is not None:
            self.keep(self.network, self)

    def _with_average(self, call: Callable[[], None]) -> None:
        """Run with the mean of the weights in the network."""
        own = {n: t.detach().clone() for n, t in self.network.state_dict().items()}
        try:
            self.network.load_state_dict(self.ema or own)
            call()
        finally:
            self.network.load_state_dict(own)

    def _sum(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value
        self._sums[f"#{name}"] = self._sums.get(f"#{name}", 0.0) + 1.0

    def _write_log(self) -> None:
        if not self._sums or self.log is None:
            return
        means = {n: v / self._sums[f"#{n}"] for n, v in self._sums.items() if not n.startswith("#")}
        self._sums = {}
        self.log.add(
            self._entry(loss=means.pop("loss", math.nan), gradient=means.pop("gradient", math.nan), losses=means)
        )

    def _entry(self, **more: Any) -> dict[str, Any]:
        return {"step": self.state.step, "samples": self.state.samples, "wall_s": round(self.state.wall_s, 3), **more}

    # --- files ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Write what a resumed run needs, whole or not at all."""
        parts: dict[str, dict[str, Tensor]] = {"network": dict(self.network.state_dict()), "ema": self.ema}
        parts |= {f"optimizer.{name}": optimizer_tensors(o) for name, o in self.optimizers.items()}
        self.state.scale = self.scaler.state_dict()
        numbers = {"state": vars(self.state), "config": to_mapping(self.config), "world": self.processes.world}
        write_checkpoint(self.folder / NAME, parts, numbers)

    def _restore(self) -> None:
        parts, numbers = read_checkpoint(self.folder / NAME)
        ours = to_mapping(self.config)
        try:
            theirs, state = dict(numbers["config"]), State(**numbers["state"])
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"'{NAME}' was written by another version of usreg: begin anew in another folder"
            ) from error
        changed = sorted(k for k in {*ours, *theirs} - {*FREE} if ours.get(k) != theirs.get(k))
        if changed:
            raise ConfigError(
                f"the run in '{self.folder.name}' was begun with other settings ({', '.join(changed)}): resume it with "
                "those, or begin anew in another folder"
            )
        restore_tensors(self.network.state_dict(), parts.get("network", {}), f"'{NAME}'")
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, parts.get(f"optimizer.{name}", {}))
        if self.ema:
            restore_tensors(self.ema, parts.get("ema", {}), f"'{NAME}'")
        if state.scale:
            self.scaler.load_state_dict(state.scale)
        self.state = state
