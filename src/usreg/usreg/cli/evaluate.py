# SPDX-License-Identifier: Apache-2.0
"""`usreg evaluate`: a RESULT.json, or a whole protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .show import progress_bar, show


def evaluate(
    result: Annotated[Path | None, typer.Argument(metavar="[RESULT.json]", help="To summarise; or see below.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Folder for the report (result.json, timing.json, index.html).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    protocol: Annotated[str, typer.Option(help="s2v: frames to a 3D ultrasound, by the tables of DeepRS2V.")] = "",
    data: Annotated[Path, typer.Option(help="Folder of subjects; those that are missing are made.")] = Path("subjects"),
    bodies: Annotated[str, typer.Option(help="Subjects A:B to test on, none of which was trained on.")] = "3200:3205",
    studies: Annotated[str, typer.Option(help="paper, far, liver, liver-truth; default: all that have data.")] = "",
    methods: Annotated[str, typer.Option(help="Names separated by commas; default: all.")] = "",
    control: Annotated[str, typer.Option(help="The method that Dunnett's test compares with.")] = "usreg",
    starts: Annotated[int, typer.Option(help="Starts of each subject.", min=1)] = 40,
    slow_starts: Annotated[int, typer.Option(help="Of ITK, which takes seconds; 0 = as many.", min=0)] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the starts.", min=0)] = 0,
    limits: Annotated[str, typer.Option(help="Of the study `paper`: MM,MM,MM,DEG,DEG,DEG.")] = "10,10,5,5,5,10",
    minutes: Annotated[float, typer.Option(help="Most time of a method in a study; 0 = no limit.", min=0)] = 0.0,
    equal_ms: Annotated[
        float, typer.Option(help="Time of the refinement at equal time; 0 = as usreg takes.", min=0)
    ] = 0.0,
    weights: Annotated[Path | None, typer.Option(help="Folder of weights; default: those that ship.")] = None,
    liver: Annotated[Path | None, typer.Option(help="Folder of the real liver sweep.")] = None,
    threads: Annotated[int, typer.Option(help="Of the processor; 0 = as found.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the report; what was run there is not run again.")] = Path("s2v"),
) -> None:
    """Summarise a RESULT.json, with --report also draw it; or run a protocol with --protocol."""
    if protocol:
        if protocol != "s2v":
            raise ConfigError(f"there is no protocol '{protocol}'; choose s2v")
        options = {"seed": seed, "slow_starts": slow_starts, "minutes": minutes, "weights": weights,
                   "threads": _threads(threads), "equal_s": 1e-3 * equal_ms}  # fmt: skip
        content = _s2v(
            data, bodies, studies, methods, control, starts, _six(limits), liver, out, options, quiet=as_json
        )
        if as_json:
            show(_without_rows(content), True, "s2v")
        return
    if result is None:
        raise ConfigError("give a RESULT.json to summarise, or --protocol s2v to run one")
    from ..evaluation import read_result, report_result

    content = read_result(result)
    if report is not None:
        report_result(content, report)
    show(content["summary"], as_json, title=result.name)


def _s2v(
    data: Path, bodies: str, studies: str, methods: str, control: str, starts: int, limits: tuple[float, ...],
    liver: Path | None, out: Path, options: dict[str, Any], quiet: bool,
) -> dict[str, Any]:  # fmt: skip
    from ..protocols import S2vConfig, evaluate_s2v
    from ..protocols.methods import chosen
    from ..protocols.run_method import RunConfig
    from ..protocols.studies import chosen_studies

    asked = chosen_studies(studies, starts, limits)
    names, seeds = tuple(chosen(methods)), _seeds(bodies)
    subjects: tuple[Path, ...] = ()
    if any(s.on == "bodies" for s in asked):
        subjects = _subjects(seeds, data)
    config = S2vConfig(tuple(asked), names, control, subjects, liver, RunConfig(**options))
    content = evaluate_s2v(config, out, lambda line: typer.echo(line, err=quiet), progress_bar)
    typer.echo(f"report: {out / 'index.html'}", err=quiet)
    return content


def _subjects(seeds: range, data: Path) -> tuple[Path, ...]:
    """Folders of the subjects; those that are missing are made."""
    from ..simulation.subject_files import write_subjects

    data.mkdir(parents=True, exist_ok=True)
    with progress_bar("making subjects") as progress:
        return tuple(write_subjects(list(seeds), data, progress=progress))


def _seeds(text: str) -> range:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ConfigError(f"--bodies is {text!r}; write A:B with whole numbers, A below B, for example 3200:3205")
    return range(int(first), int(last))


def _six(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(p) for p in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 6 or not all(0 <= n < 1000 for n in numbers):
        raise ConfigError(f"--limits is {text!r}; write six limits MM,MM,MM,DEG,DEG,DEG, none negative")
    return numbers


def _threads(count: int) -> int:
    """Set the threads of the kernels, of torch and of ITK, and tell how many there are."""
    from .. import workers

    if count:
        import SimpleITK as sitk
        import torch

        os.environ["USREG_THREADS"] = str(count)
        workers.thread_count.cache_clear()
        torch.set_num_threads(count)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    return workers.thread_count()


def _without_rows(content: dict[str, Any]) -> dict[str, Any]:
    studies = {n: {k: v for k, v in s.items() if k != "rows"} for n, s in content["studies"].items()}
    return {**content, "studies": studies}
