# SPDX-License-Identifier: Apache-2.0
"""`usreg evaluate --protocol s2v`: frames to a 3D ultrasound by the tables of DeepRS2V, all methods on one draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.atomic import write_text
from ..errors import ConfigError, UsregError, WriteError
from ..evaluation.result import dump_json
from ..evaluation.s2v import MethodRun, as_text, case_lines, curves, error_lines, pairs_json, start_rows, time_lines
from ..evaluation.s2v.cases import by_case
from ..evaluation.s2v.errors import ErrorLine
from ..evaluation.s2v.page import StudyPage, report_page, write_pictures
from ..evaluation.s2v.show import (
    beside_table,
    error_table,
    landmark_table,
    learning_curves,
    published_table,
    time_table,
    training_table,
)
from ..evaluation.s2v.tables import Table
from .clips import Clip, liver_clip, subject_clip
from .methods import CONTROL, METHODS, PUBLISHED_CONTROL
from .reached import Check, above_truth, checks_of, checks_table
from .run_method import Progress, RunConfig, run_method
from .studies import Study

Say = Callable[[str], None]
Bar = Callable[[str], AbstractContextManager[Progress]]
START = "start"
TITLE = "Frames to a 3D ultrasound"


@dataclass(frozen=True)
class S2vConfig:
    """What is run.

    Args:
        studies, methods: in their order. control: the method that Dunnett's test compares the others with.
        subjects: folders of simulated subjects. liver: folder with the real sweep; none: it is left out.
        run: how methods are run.
    """

    studies: tuple[Study, ...]
    methods: tuple[str, ...]
    control: str = CONTROL
    subjects: tuple[Path, ...] = ()
    liver: Path | None = None
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.control not in METHODS:
            raise ConfigError(f"the control '{self.control}' is no method; choose one of {list(METHODS)}")
        if not self.studies or not self.methods:
            raise ConfigError("at least one study and one method are needed")


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A study with the runs of all methods, and why some were not run."""

    study: Study
    runs: tuple[MethodRun, ...]
    notes: tuple[str, ...]


def evaluate_s2v(config: S2vConfig, out: Path, say: Say, bar: Bar) -> dict[str, Any]:
    """Run everything, say the tables, and write `result.json`, `index.html` and the cumulative curves.

    Args:
        out: folder; partial results lie in `out/runs`, and what is there already is not run again.
        say: called with lines of text. bar: makes a progress bar for a label.

    Returns:
        The content of `result.json`.

    Raises:
        UsregError: a clip that cannot be read, or a folder that cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder '{out}': {error.strerror}") from error
    results = []
    kept: dict[str, list[Clip]] = {}
    for study in config.studies:
        if study.on not in kept:
            kept[study.on] = _clips(study.on, config)
        clips = kept[study.on]
        if not clips:
            say(f"{study.title}: nothing to run it on, left out")
            continue
        results.append(run_study(study, clips, config, out / "runs", say, bar))
        for table in tables_of(results[-1], config.control):
            say("\n".join(["", f"{study.title}: {table.title}", *as_text(table)[1:]]))
    content = result_of(results, config)
    overall = checks_over(results, config.control)
    if overall:
        say("\n".join(["", *as_text(checks_table(overall))]))
    write_text(out / "result.json", dump_json(content))
    pages = [page_of(r, config.control) for r in results]
    for each in pages:
        write_pictures(each, out)
    notes = [f"{r.study.title}: {note}" for r in results for note in r.notes]
    trained = [run for run in _first_runs(results) if run.training]
    training = training_table(trained, _labels()) if trained else None
    if training is not None:
        say("\n".join(["", *as_text(training)]))
    learning = learning_curves(trained, _labels())
    write_text(out / "index.html", report_page(TITLE, _facts(config), pages, notes, training, learning))
    return content


def _first_runs(results: Sequence[StudyResult]) -> list[MethodRun]:
    """One run of each method: its weights are the same in all studies."""
    return list({run.method: run for r in reversed(results) for run in r.runs}.values())


def label(name: str) -> str:
    """How tables name a method."""
    return "start, nothing done" if name == START else METHODS[name].label


def _labels() -> dict[str, str]:
    return {name: label(name) for name in (START, *METHODS)}


def _clips(on: str, config: S2vConfig) -> list[Clip]:
    if on == "bodies":
        return [subject_clip(folder) for folder in config.subjects]
    return [liver_clip(config.liver)] if config.liver is not None and config.liver.is_dir() else []


def run_study(
    study: Study, clips: Sequence[Clip], config: S2vConfig, folder: Path, say: Say, bar: Bar
) -> StudyResult:  # fmt: skip
    """All methods; one that cannot be made is left out with a note."""
    runs: list[MethodRun] = []
    notes: list[str] = []
    for name in config.methods:
        try:
            with bar(f"{study.name}: {label(name)}") as progress:
                run = run_method(name, study, clips, config.run, folder, progress, _equal_s(name, runs, config))
        except UsregError as error:
            notes.append(f"{label(name)} was left out: {error}")
            say(notes[-1])
            continue
        runs.append(run)
        (line,) = time_lines([run])
        (error_line,) = error_lines({name: run.rows}, "")
        say(
            f"{study.name}: {label(name)}: {line.count} pairs in {line.total_s:.0f} s, "
            f"{error_line.distance_mm[0]:.2f} mm, {error_line.angle_deg[0]:.2f} degrees"
            f"{', ' + run.note if run.note else ''}"
        )
    return StudyResult(study, tuple(runs), tuple(notes))


def _equal_s(name: str, runs: Sequence[MethodRun], config: S2vConfig) -> float:
    """Median time of the processor of the method that this one is to be as slow as; NaN where that was not run."""
    if config.run.equal_s or not METHODS[name].equal_to:
        return config.run.equal_s
    lines = [line for line in time_lines(runs) if line.method == METHODS[name].equal_to]
    return lines[0].cpu_s if lines else float("nan")


def lines_of(result: StudyResult, control: str) -> list[ErrorLine]:
    """Lines of Table 1, the starts first."""
    rows = {run.method: run.rows for run in result.runs}
    undertrained = [run.method for run in result.runs if run.undertrained]
    lines = error_lines(rows, control, undertrained)
    longest = max(rows.values(), key=len, default=())
    return [*error_lines({START: start_rows(longest)}, ""), *lines] if longest else lines


def tables_of(result: StudyResult, control: str) -> list[Table]:
    """Every table of a study."""
    lines = lines_of(result, control)
    tables = [error_table("Table 1", lines, control, _labels()), beside_table(lines, _labels())]
    if result.study.name == "paper":
        tables.append(published_table(lines_of(result, PUBLISHED_CONTROL), PUBLISHED_CONTROL, _labels()))
    shown = _shown(result, control)
    if shown and result.study.on == "bodies":
        tables.append(landmark_table(case_lines(shown.rows), label(shown.method)))
    tables.append(time_table(time_lines(result.runs), _labels()))
    tables.append(checks_table(checks_of(result.study.name, lines)))
    return [table for table in tables if table.lines]


def _shown(result: StudyResult, control: str) -> MethodRun | None:
    """The run whose cases are shown: the control's, or the longest."""
    runs = [run for run in result.runs if run.rows]
    return max(runs, key=lambda run: (run.method == control, len(run.rows)), default=None)


def page_of(result: StudyResult, control: str) -> StudyPage:
    """What the report shows of a study."""
    shown = _shown(result, control)
    return StudyPage(
        result.study.name, result.study.title, result.study.text, tuple(tables_of(result, control)),
        curves({label(run.method): run.rows for run in result.runs}),
        curves({f"case {n}": rows for n, rows in by_case(shown.rows).items()}) if shown else {},
        label(shown.method) if shown else "",
    )  # fmt: skip


def result_of(results: Sequence[StudyResult], config: S2vConfig) -> dict[str, Any]:
    """Everything as plain values."""
    studies = {}
    for r in results:
        lines = lines_of(r, config.control)
        studies[r.study.name] = {
            "draw": vars(r.study.draw), "lines": [vars(x) for x in lines], "notes": list(r.notes),
            "lines_published_control": [vars(x) for x in lines_of(r, PUBLISHED_CONTROL)],
            "cases": {run.method: [vars(c) for c in case_lines(run.rows)] for run in r.runs},
            "times": [vars(t) for t in time_lines(r.runs)],
            "checks": [vars(c) | {"passed": c.passed} for c in checks_of(r.study.name, lines)],
            "options": {run.method: run.options for run in r.runs},
            "training": {run.method: run.training for run in r.runs if run.training},
            "rows": {run.method: pairs_json(run.rows) for run in r.runs},
        }  # fmt: skip
    over = [vars(c) | {"passed": c.passed} for c in checks_over(results, config.control)]
    return {**_facts(config), "studies": studies, "checks": over}


def checks_over(results: Sequence[StudyResult], control: str) -> list[Check]:
    """Checks that need two studies."""
    lines = {r.study.name: lines_of(r, control) for r in results}
    return above_truth(lines.get("liver", []), lines.get("liver-truth", []))


def _facts(config: S2vConfig) -> dict[str, str]:
    return {
        "seed": str(config.run.seed), "threads": str(config.run.threads), "control": label(config.control),
        "subjects": ", ".join(folder.name for folder in config.subjects) or "none",
    }  # fmt: skip
