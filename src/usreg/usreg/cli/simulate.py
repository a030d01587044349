# SPDX-License-Identifier: Apache-2.0
"""`usreg simulate`: bodies, sessions and a page of pictures of the digital patient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import ConfigError
from .plain import PLAIN
from .show import progress_bar

simulate_app = typer.Typer(help="Make bodies and sessions whose truth is known.", **PLAIN)

Kind = Literal["phantom", "volunteer"]
Out = Annotated[Path | None, typer.Option(help="Folder to make; must not exist. With --live it gets no bag.")]
Seed = Annotated[int, typer.Option(help="Same seed, same bytes.")]
Seconds = Annotated[float, typer.Option(help="Length of the scan.")]
Live = Annotated[bool, typer.Option("--live", help="Stream over ROS 2 in real time instead of writing a bag.")]
Namespace = Annotated[str, typer.Option(help="Of the graph that listens (--live).")]


@simulate_app.command("phantom")
def simulate_phantom_command(
    out: Out = None, seed: Seed = 0, seconds: Seconds = 30.0, live: Live = False, namespace: Namespace = ""
) -> None:
    """Simulate a robot that scans a rigid phantom: bag, 3D ultrasound, CT, labels, landmarks, truth, session.yaml."""
    _simulate("phantom", out, seed, seconds, live, namespace)


@simulate_app.command("volunteer")
def simulate_volunteer_command(
    out: Out = None,
    seed: Seed = 0,
    seconds: Seconds = 12.0,
    live: Live = False,
    namespace: Namespace = "",
    roam: Annotated[
        Literal["windows", "sweep"],
        typer.Option(help="Where the free hand goes: all windows of the liver, or over what the sweep has seen."),
    ] = "windows",
    hz: Annotated[float, typer.Option(help="Frames a second of the scan.")] = 15.0,
) -> None:
    """Simulate a breathing volunteer under an encoder arm: a sweep in breath-hold, then free scanning."""
    from ..simulation.scenario import default_config

    config = default_config("volunteer")
    if live and (roam, hz) != (config.path.roam, config.timing.frame_hz):
        raise ConfigError("--roam and --hz go with a session that is written: leave out --live")
    timing, path = replace(config.timing, frame_hz=hz), replace(config.path, roam=roam)
    _simulate("volunteer", out, seed, seconds, live, namespace, replace(config, timing=timing, path=path))


def _simulate(
    kind: Kind, out: Path | None, seed: int, seconds: float, live: bool, namespace: str, config: Any = None
) -> None:
    if live:
        raise typer.Exit(_streamed(kind, out, seed, seconds, namespace))
    if out is None:
        raise ConfigError("name the folder to make: --out FOLDER")
    from ..simulation import simulate

    with progress_bar("simulating") as progress:
        simulate(kind, out, seed, seconds, progress, config)
    typer.echo(f"wrote {out}")


def _streamed(kind: Kind, out: Path | None, seed: int, seconds: float, namespace: str) -> int:
    try:
        from ..nodes import simulator
    except ImportError as error:
        raise ConfigError(
            f"ROS 2 is not importable here ({error}); run `make build`, or source your ROS 2 distribution"
        ) from error
    return simulator.stream(kind, seed, seconds, folder=out, namespace=namespace, say=typer.echo)


@simulate_app.command("body")
def simulate_body_command(
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    seed: Annotated[int, typer.Option(help="Of the anatomy, and of the images' noise.")] = 0,
    labels: Annotated[Path | None, typer.Option(help="Segmentation by TotalSegmentator to take instead.")] = None,
    ct: Annotated[Path | None, typer.Option(help="CT of that segmentation: gives skin, fat, muscle and gas.")] = None,
    names: Annotated[str | None, typer.Option(help="What its labels mean: v1, v2, mr, or a list (CSV, JSON).")] = None,
    contrast: Annotated[str, typer.Option(help="Phase of the CT: none, arterial or portal.")] = "portal",
    spacing: Annotated[float, typer.Option(help="Voxel size, mm.")] = 1.0,
) -> None:
    """Make a digital body: labels, CT, T1 and T2, landmarks, organ surfaces; from a seed or a segmentation."""
    from ..config import from_mapping
    from ..simulation.body import BodyFolderConfig, read_body_file, simulate_body

    voxels = {"spacing_mm": spacing}
    config = from_mapping(BodyFolderConfig, {"body": voxels, "labels": voxels, "ct": {"contrast": contrast}})
    with progress_bar("making the body") as progress:
        simulate_body(out, seed, labels, ct, names, config, progress)
    for unknown in read_body_file(out).unknown_labels:
        typer.echo(f"unknown label, taken as soft tissue: {unknown}", err=True)
    typer.echo(f"wrote {out}")


@simulate_app.command("cases")
def simulate_cases_command(
    seeds: Annotated[str, typer.Option(help="Seeds A:B, as a Python slice.")],
    out: Annotated[Path, typer.Option(help="Folder of the cases; those that it holds already are kept.")],
) -> None:
    """Make cases for registration: a body in held breath, its CT, and a robot's sweeps from several windows."""
    from ..simulation.case_files import write_cases

    with progress_bar("making cases") as progress:
        made = write_cases(_seeds(seeds), out, progress=progress)
    typer.echo(f"{len(made)} cases in {out}")


def _seeds(text: str) -> range:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ConfigError(f"--seeds is {text!r}; write A:B with whole numbers, A below B, for example 1000:1020")
    return range(int(first), int(last))


@simulate_app.command("gallery")
def simulate_gallery_command(
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    seed: Annotated[int, typer.Option(help="Same seed, same pictures.")] = 0,
    real: Annotated[Path | None, typer.Option(help="Sequence of real frames to lay beside the simulated ones.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Of that sequence: YAML or a PLUS device set.")] = None,
) -> None:
    """Make a page of pictures of the digital patient: body, ultrasound, numbers, arms, breathing."""
    from ..simulation.gallery import make_gallery

    with progress_bar("drawing") as progress:
        page = make_gallery(out, seed, real, calibration, progress)
    typer.echo(f"wrote {page}")
