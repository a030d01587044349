# SPDX-License-Identifier: Apache-2.0
"""The `usreg` command. Each command is one call of the library; the heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError, UsregError
from .evaluate import evaluate
from .plain import PLAIN
from .show import progress_bar, show
from .simulate import simulate_app
from .train import train_app
from .view import view

app = typer.Typer(help="Register live ultrasound to a volume. Research use only.", **PLAIN)
bench_app = typer.Typer(help="Measure against a peer in the same run.", **PLAIN)
app.add_typer(bench_app, name="bench")
app.add_typer(simulate_app, name="simulate")
app.command()(evaluate)
app.command()(view)
app.add_typer(train_app, name="train")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Frames = Annotated[str, typer.Option(help="Frames A:B:S as a Python slice, for example 0:80:2.")]
Similarity = Annotated[
    str, typer.Option(help="auto (by the volume's modality), ncc, lncc, lc2, mind, ssc, mi, nmi, gc or ngf.")
]
Mode = Annotated[str, typer.Option(help="Of the system deep_s2v: usreg (default), paper or fvr.")]
WeightsFile = Annotated[
    Path | None, typer.Option("--weights", help="Of the system deep_s2v: a file of `usreg train`; default: shipped.")
]
Optimizer = Annotated[str, typer.Option(help="auto (by the similarity), lm, adam, lbfgs, bobyqa or cmaes.")]
CalibrationFile = Annotated[Path, typer.Option(help="Calibration: YAML or PLUS device-set XML.")]


@app.command()
def info(file: Path, as_json: JsonFlag = False) -> None:
    """Tell what a sequence, bag, volume or calibration holds: frames, sizes, transforms, rate, gaps."""
    from ..data.describe import describe

    show(describe(file), as_json, title=file.name)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN")],
    target: Annotated[Path, typer.Argument(metavar="OUT")],
    calibration: Annotated[Path | None, typer.Option(help="Calibration, where IN does not carry it.")] = None,
) -> None:
    """Convert a PLUS sequence to a bag, a bag to a PLUS sequence, or one sequence format to another."""
    from ..data.convert import convert_file

    with progress_bar("converting") as progress:
        for line in convert_file(source, target, calibration, progress=progress):
            typer.echo(line)


@app.command()
def reconstruct(
    sequence: Annotated[Path, typer.Argument(metavar="SEQ")],
    calibration: CalibrationFile,
    spacing: Annotated[float, typer.Option(help="Voxel size, mm.")],
    out: Annotated[Path, typer.Option(help="Volume to write (.nii.gz, .mha, .nrrd); its mask is written beside it.")],
    frames: Frames = ":",
    interpolation: Annotated[str, typer.Option(help="linear or nearest.")] = "linear",
    compounding: Annotated[str, typer.Option(help="mean, maximum or latest.")] = "mean",
) -> None:
    """Reconstruct a volume from a tracked sweep, in the world frame of its calibration."""
    from ..config import from_mapping
    from ..data.volumes import write_volume
    from ..reconstruction import ReconstructionConfig
    from ..reconstruction import reconstruct as build

    options = {"spacing_mm": spacing, "interpolation": interpolation, "compounding": compounding}
    config = from_mapping(ReconstructionConfig, options)
    tracked, _ = _load_frames(sequence, calibration, frames)
    with progress_bar("inserting frames") as progress:
        volume = build(tracked, config, progress=progress)
    write_volume(volume, out)
    size = "x".join(map(str, volume.grid.size))
    filled = 1.0 if volume.mask is None else volume.mask.double().mean().item()
    typer.echo(f"{out.name}: {size} voxels of {spacing} mm, {100 * filled:.1f} % filled")


@app.command()
def register(
    sequence: Annotated[Path, typer.Argument(metavar="SEQ")],
    volume: Annotated[Path, typer.Option(help="Volume in the world frame of the sequence (or see --world-t-ct).")],
    calibration: CalibrationFile,
    out: Annotated[Path, typer.Option(help="RESULT.json to write.")],
    frames: Frames = ":",
    system: Annotated[str, typer.Option(help="intensity, deep_s2v or itk.")] = "intensity",
    mode: Mode = "",
    weights: WeightsFile = None,
    similarity: Similarity = "",
    optimizer: Optimizer = "",
    modality: Annotated[str, typer.Option(help="Of the volume, where its file does not say: CT, MR or US.")] = "",
    sweep: Annotated[int, typer.Option(help="Register so many consecutive frames as one.", min=1)] = 1,
    keyframes: Annotated[int, typer.Option(help="Of each sweep, at most so many; 0 = as configured.", min=0)] = 0,
    global_start: Annotated[bool, typer.Option("--global-start", help="Search without any start.")] = False,
    perturb: Annotated[str, typer.Option(help="Limits of the start: MM,MM,MM,DEG,DEG,DEG.")] = "0,0,0,0,0,0",
    starts: Annotated[int, typer.Option(help="Starts in all, frames (sweeps) in turn; 0 = one of each.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the starts.")] = 0,
    world_t_ct: Annotated[
        Path | None,
        typer.Option(help="YAML with `world_T_ct` (4x4, mm), where the volume truly lies; default identity."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Register frames or sweeps of a sequence, each from a start off the tracked pose; write how far each was off."""
    from ..data.volumes import read_volume
    from ..evaluation import result_json
    from ..study import run_study
    from .systems import build_registrar

    limits = _six_numbers(perturb)
    given = (system, similarity, optimizer, sweep, keyframes, global_start)
    make = partial(build_registrar, *given, mode=mode, weights=str(weights or ""))
    make(modality)  # names are checked before files are read
    tracked, _ = _load_frames(sequence, calibration, frames)
    reference = read_volume(volume, modality)
    registrar = make(reference.modality)
    with progress_bar("registering") as progress:
        found, truth = [t for t in tracked if t is not None], _read_pose(world_t_ct)
        rows = run_study(found, reference, registrar, limits, starts, seed, truth=truth, progress=progress, sweep=sweep)
    result = result_json(rows)
    _write_text(out, json.dumps(result, indent=1, sort_keys=True) + "\n")
    show(result["summary"], as_json, title=f"{system}: {len(rows)} starts")


@app.command()
def replay(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="Session folder, or the name of a session that ships.")],
    report: Annotated[Path, typer.Option(help="Folder for the report.")],
    system: Annotated[str, typer.Option(help="intensity, deep_s2v or itk; default: the session's own.")] = "",
    mode: Mode = "",
    weights: WeightsFile = None,
    similarity: Similarity = "",
    optimizer: Optimizer = "",
    register_to: Annotated[str, typer.Option(help="A further volume of the session, for example ct.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Play a session through the Navigator, without ROS, and report how far each frame was off."""
    from ..replay import ReplayConfig, replay_session

    _make_folder(report)
    config = ReplayConfig(system, register_to, similarity, optimizer, mode, str(weights or ""))
    with progress_bar("replaying") as progress:
        summary = replay_session(bag, report, progress=progress, config=config)
    show(summary, as_json, title=bag.name)
    typer.echo(f"report: {report / 'index.html'}", err=as_json)


@app.command()
def run(
    session: Annotated[str, typer.Argument(help="phantom, volunteer, replay or live.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME:=VALUE]...", help="As `ros2 launch` takes them: probe:=linear.")
    ] = None,
    bag: Annotated[Path | None, typer.Option(help="Session to play; default: the one that ships.")] = None,
    rate: Annotated[float, typer.Option(help="Speed of the player.")] = 1.0,
    record: Annotated[Path | None, typer.Option(help="Bag to record into.")] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the report.")] = None,
    processes: Annotated[str, typer.Option(help="one or many.")] = "one",
    step: Annotated[
        bool, typer.Option("--step", help="Each frame waits for the results of the one before: all are registered.")
    ] = False,
    network: Annotated[
        bool, typer.Option("--network", help="Let ROS talk to other machines; default: loopback only.")
    ] = False,
) -> None:
    """Start the nodes of a session over ROS 2, as the launch files do, until it ends or Ctrl-C."""
    try:
        from ..nodes import runner
    except ImportError as error:
        raise ConfigError(
            f"ROS 2 is not importable here ({error}); run `make build`, or source your ROS 2 distribution"
        ) from error

    write = None if report is None else _reporter(report)
    table, say = sys.stdout.isatty(), typer.echo
    code = runner.run_session(
        session, bag, rate, record, write, processes, network, arguments or [], say, table, step=step
    )
    raise typer.Exit(code)


def _reporter(folder: Path) -> Callable[[Path, Any], None]:
    from ..replay.recorded import report_recording

    _make_folder(folder)

    def write(recording: Path, session: Any) -> None:
        typer.echo("writing the report")
        show(report_recording(recording, session, folder), False, title=session.folder.name)
        typer.echo(f"report: {folder / 'index.html'}")

    return write


def _bench(name: str) -> Callable[..., None]:
    def command(context: typer.Context) -> None:
        import runpy

        from ..data.share import share_dir

        script = share_dir() / "benchmarks" / f"bench_{name}.py"
        sys.argv = [str(script), *context.args]
        runpy.run_path(str(script), run_name="__main__")

    command.__doc__ = f"Run the benchmark `{name}`; further options go to it (try --help after --)."
    return command


for _name in ("refine", "live", "reconstruct", "covariance", "render", "scanner", "sessions", "breathing", "confidence",
              "engine", "similarity", "global", "s2v", "view"):  # fmt: skip
    bench_app.command(_name, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(_bench(_name))


def _load_frames(sequence: Path, calibration: Path, frames: str) -> tuple[list[Any], Any]:
    from ..data.calibration import read_calibration
    from ..data.sequences import read_sequence
    from ..data.tracked import tracked_frames

    chosen = _slice(frames)
    recording = read_sequence(sequence)
    size = None if recording.images is None else (recording.images.shape[2], recording.images.shape[1])
    cal = read_calibration(calibration, image_size=size)
    tracked = tracked_frames(recording, cal, frames=chosen)
    if not any(t is not None for t in tracked):
        raise ConfigError(
            f"'{sequence.name}' has no frame with a valid pose among {frames!r}; `usreg info` shows what it holds"
        )
    return tracked, cal


def _slice(text: str) -> slice:
    parts = text.split(":")
    try:
        numbers = [int(p) if p.strip() else None for p in parts]
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= 3 or (len(numbers) == 3 and numbers[2] == 0):
        raise ConfigError(f"--frames is {text!r}; write A:B or A:B:S with whole numbers, for example 0:80:2")
    return slice(*numbers)


def _six_numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(p) for p in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 6 or not all(0 <= n < 1000 for n in numbers):
        raise ConfigError(f"--perturb is {text!r}; write six limits MM,MM,MM,DEG,DEG,DEG, none negative")
    return numbers


def _read_pose(path: Path | None) -> Any:
    import torch

    from ..config import load_yaml
    from ..geometry import se3

    if path is None:
        return se3.identity()
    try:
        matrix = torch.tensor(load_yaml(path)["world_T_ct"], dtype=torch.float64)
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"'{path.name}' must hold `world_T_ct`, a 4x4 matrix in mm") from error
    return se3.check_rigid(matrix, "world_T_ct")


def _make_folder(folder: Path) -> None:
    """Before the long work, so that a folder that cannot be written is known at once."""
    from ..errors import WriteError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder '{folder}': {error.strerror}") from error


def _write_text(path: Path, text: str) -> None:
    from ..errors import WriteError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write '{path}': {error.strerror}") from error


def main() -> None:
    """Entry point: every error is one readable line and exit code 2; USREG_DEBUG=1 shows the traceback."""
    try:
        app()
    except (UsregError, OSError) as error:
        if os.environ.get("USREG_DEBUG"):
            raise
        typer.echo(f"usreg: {str(error) or type(error).__name__}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("USREG_DEBUG"):
            raise
        name = type(error).__name__
        typer.echo(f"usreg: internal error ({name}: {error}); USREG_DEBUG=1 shows where: please report it", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
