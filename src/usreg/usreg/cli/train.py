# SPDX-License-Identifier: Apache-2.0
"""`usreg train`: networks, from bodies by seed to weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import ConfigError
from .plain import PLAIN
from .show import progress_bar, show

train_app = typer.Typer(help="Train networks on simulated bodies; runs under torchrun as well.", **PLAIN)
Mode = Literal["paper", "usreg", "fvr"]
SHOWN = ("steps", "samples", "wall_s", "data_s", "network_s", "figures", "best", "curve", "undertrained")


@train_app.callback()
def networks() -> None:
    """Train networks on simulated bodies; runs under torchrun as well."""


@train_app.command("deep_s2v")
def train_deep_s2v_command(
    bodies: Annotated[str, typer.Option(help="Seeds A:B of the bodies to train on.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoint, log, curve, weights.")],
    mode: Annotated[Mode, typer.Option(help="usreg, paper (DeepRS2V as published) or fvr (FVR-Net).")] = "usreg",
    validation: Annotated[str, typer.Option(help="Seeds A:B of other bodies to validate on.")] = "",
    steps: Annotated[int | None, typer.Option(help="Of the optimiser; default: as configured.", min=1)] = None,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock time that ends the run if it is earlier.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the folder's run stopped.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of the subjects; what it lacks is made.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The full configuration, for a GPU.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML in place of the configuration that ships.")] = None,
    threads: Annotated[int, typer.Option(help="Of the processor; 0: as torch chooses.", min=0)] = 0,
    seed: Annotated[int | None, typer.Option(help="Of first weights and pairs.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: as configured.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda; default: a GPU where there is one.")] = "",
) -> None:
    """Train 2D to 3D ultrasound registration; bodies that the data folder lacks are simulated first."""
    import torch

    from ..simulation.subject_files import write_subjects
    from ..training.deep_s2v import load_config, missing_subjects, train
    from ..training.distributed import processes
    from ..training.run import Run

    if threads:
        torch.set_num_threads(threads)
    settings = load_config(mode, full, config, steps=steps, minutes=minutes, seed=seed, precision=precision)
    seeds = _seeds("--bodies", bodies), _seeds("--validation", validation) if validation else range(0)
    folder = data if data is not None else out / "subjects"
    command = _command(
        mode=mode, bodies=bodies, validation=validation, out=out.name, steps=steps, minutes=minutes, seed=seed,
        precision=precision, config=config and config.name, threads=threads, full=full,
    )  # fmt: skip
    run = Run(mode, seeds[0], out, folder, settings, seeds[1], resume, command)
    with processes(device or settings.device) as joined:
        if joined.first:
            missing = missing_subjects(run)
            if missing:
                with progress_bar(f"simulating {len(missing)} bodies (in hundredths)") as progress:
                    write_subjects(missing, run.data, progress=progress)
        joined.barrier()
        with training_bar(joined.first) as (reading, report):
            about = train(run, reading, report, joined)
        if joined.first:
            show({name: about[name] for name in SHOWN}, False, title=f"deep_s2v {mode}")
            typer.echo(f"weights: {out / 'weights.safetensors'}")


def _command(**given: Any) -> str:
    """What makes the weights again, for their header: without folders of this machine."""
    options = ("" if value is True else f" {value}" for value in given.values() if value)
    names = (name for name, value in given.items() if value)
    return "usreg train deep_s2v" + "".join(f" --{name}{value}" for name, value in zip(names, options, strict=True))


def _seeds(option: str, text: str) -> range:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ConfigError(f"{option} is {text!r}; write A:B with whole numbers, A below B, for example 3000:3040")
    return range(int(first), int(last))


@contextmanager
def training_bar(shown: bool = True) -> Iterator[tuple[Callable[[int, int], None], Callable[[Any], None]]]:
    """A bar: subjects that are read, then loss, validation and the time that remains; without a terminal a line for
    each validation."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(20), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )  # fmt: skip
    with Bar(*columns, console=console, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("reading subjects", total=None)
        told = _Told()

        def reading(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        def report(report: Any) -> None:
            if not told.begun:
                bar.reset(task, total=1.0)
            text = told(report)
            if report.validation is not None and shown and not console.is_terminal:
                typer.echo(_line(report, told.loss), err=True)
            bar.update(task, completed=report.used, description=text)

        yield reading, report


class _Told:
    """The text beside the bar: step, a running mean of the loss, the last validation's first figure."""

    def __init__(self) -> None:
        self.begun, self.loss, self.found = False, float("nan"), ""

    def __call__(self, report: Any) -> str:
        if report.loss == report.loss:  # it is NaN in the last report
            self.loss = 0.95 * self.loss + 0.05 * report.loss if self.begun else report.loss
            self.begun = True
        if report.validation is not None:
            self.found = "".join(f", {n} {v:.3g}" for n, v in list(report.validation.items())[:1])
        return f"step {report.step}: loss {self.loss:.4g}{self.found}"


def _line(report: Any, loss: float) -> str:
    figures = ", ".join(f"{n} {v:.3f}" for n, v in report.validation.items())
    spent = report.state.wall_s
    return f"step {report.step} ({report.used:.0%}, {spent:.0f} s): loss {loss:.4f}; validation: {figures}"
