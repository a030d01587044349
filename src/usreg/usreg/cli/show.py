# SPDX-License-Identifier: Apache-2.0
"""Tables and progress on a terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

Progress = Callable[[int, int], None]


def show(content: Any, as_json: bool, title: str) -> None:
    if as_json:
        typer.echo(json.dumps(content, indent=1, sort_keys=True))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in _flat(content):
        table.add_row(name, _text(value))
    Console().print(table)


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), content


def _text(value: Any) -> str:
    """One cell: numbers short but stamps whole, matrices and lists of records a line each."""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 1e5 else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list):
        nested = any(isinstance(v, (list, dict)) for v in value)
        return ("\n" if nested else ", ").join(map(_text, value)) or "none"
    return "none" if value is None else str(value)


@contextmanager
def progress_bar(label: str) -> Iterator[Progress]:
    """A bar on standard error on a terminal, nothing elsewhere; `progress(done, total)`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
