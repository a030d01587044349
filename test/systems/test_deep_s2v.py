# SPDX-License-Identifier: Apache-2.0
"""The system deep_s2v from weights: its modes, its workflow, bad weights, and a live session that leaves the volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from usreg.config import from_mapping, load_yaml, to_mapping
from usreg.data.types import Calibration, Estimate, Frame, Problem, TrackedFrame, Volume, start_estimate
from usreg.errors import ConfigError, FileFormatError, MissingFileError, NoOverlapError, UsregError
from usreg.fusion import Fuser
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.navigator import Navigator
from usreg.networks.correspondence import Correspondence, CorrespondenceConfig
from usreg.networks.dot_fusion_regressor import DotFusionConfig, DotFusionRegressor
from usreg.networks.frame_volume_regressor import FrameVolumeConfig, FrameVolumeRegressor
from usreg.registration.correction import Correction
from usreg.registration.learned.correspond import Correspond
from usreg.registration.learned.crop import Crop
from usreg.registration.learned.hypothesised import Hypothesised
from usreg.registration.learned.load import build_regressor
from usreg.registration.learned.regress import Regress, RegressConfig
from usreg.registration.learned.weights import save_weights
from usreg.registration.refine import RefineConfig
from usreg.registration.registrar import Registrar
from usreg.registration.temporal import Temporal, TemporalConfig
from usreg.rendering import slice_volume
from usreg.smoothing import PoseFilter
from usreg.systems import build, deep_s2v
from usreg.tracking import Tracker

CROP = {"spacing_mm": 3.0, "size": [20, 16, 12]}
PAPER = DotFusionConfig(
    widths=(4, 8, 8), pools=((2, 2, 2), (2, 2, 2)), fused=(2, 2, 2), decoder=(4, 8),
    decoder_pools=((1, 2, 2), (1, 1, 1)), pooled=(1, 1, 1), hidden=(8,),
)  # fmt: skip
FVR = FrameVolumeConfig(
    depth=12, widths=(4, 8), kernels=(3, 3), layers=(1, 1), planes=(8, 8), cardinality=2, hidden=(8,)
)
SMALL = CorrespondenceConfig((8, 8, 8), (8, 8, 8), descriptor=8)
NETWORKS: dict[str, tuple[Callable[[Any], nn.Module], Any, dict[str, Any]]] = {
    "paper": (DotFusionRegressor, PAPER, {"crop": CROP}),
    "fvr": (FrameVolumeRegressor, FVR, {"crop": CROP}),
    "usreg": (Correspondence, SMALL, {"view": {"volume_mm": 3.0, "frame_mm": 1.5}}),
}
QUICK = {"levels": [{"sigma_mm": 2.0, "step_mm": 4.0}, {"sigma_mm": 1.0, "step_mm": 3.0}], "structure_level": 0}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained networks, small, as files."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for mode, (make, config, metadata) in NETWORKS.items():
        found[mode] = folder / f"{mode}.safetensors"
        save_weights(found[mode], mode, to_mapping(config), make(config).state_dict(), metadata)
    return found


def options(weights: dict[str, Path], mode: str, **more: Any) -> dict[str, Any]:
    return {"mode": mode, "weights": str(weights[mode]), "refine": QUICK} | more


def made(weights: dict[str, Path], mode: str, **more: Any) -> Temporal:
    registrar = build("deep_s2v", options(weights, mode, **more), "US")
    assert isinstance(registrar, Temporal) and registrar.config.system == "deep_s2v"
    return registrar


@pytest.fixture(scope="module")
def volume() -> Volume:
    noise = np.random.default_rng(5).normal(128, 30, (1, 40, 44, 48)).clip(0, 255).astype(np.uint8)
    return Volume(torch.from_numpy(noise), VoxelGrid((48, 44, 40), (1.5, 1.5, 1.5), (-20.0, 7.0, 30.0)), "US")


def frame_of(volume: Volume, stamp_s: float = 0.0) -> TrackedFrame:
    """A frame through the volume's centre; world is ct."""
    geometry = full_rectangle(PlaneGrid(40, 50, ((1.0, 0.0), (0.0, 1.0))))
    pose = se3.translation(volume.grid.centre_ct - geometry.plane.centre_mm)
    image, _ = slice_volume(volume, pose, geometry.plane)
    return TrackedFrame(Frame(image[0, 0].round().to(torch.uint8), geometry, stamp_s), pose)


def problem_of(volume: Volume, x_mm: float = 2.0) -> Problem:
    start = start_estimate(se3.translation(torch.tensor([x_mm, 0.0, 0.0], dtype=torch.float64)), volume)
    return Problem((frame_of(volume),), volume, start)


def test_modes_are_made_of_their_stages(weights: dict[str, Path]) -> None:
    def kinds(mode: str, **more: Any) -> list[type]:
        return [type(s) for s in made(weights, mode, **more).stages]

    assert kinds("paper") == kinds("fvr") == [Regress]
    assert kinds("paper", correction=True) == kinds("fvr", correction=True) == [Regress, Correction]
    assert kinds("usreg") == [Hypothesised] and kinds("usreg", refine=None) == [Correspond]


def test_the_workflow_is_as_published_or_the_filters(weights: dict[str, Path]) -> None:
    assert made(weights, "paper").settings == made(weights, "fvr").settings == TemporalConfig("image", refused=True)
    assert made(weights, "usreg").settings == TemporalConfig("start")
    assert made(weights, "paper", workflow={"carry": "world"}).settings == TemporalConfig("world", refused=True)
    assert made(weights, "usreg", workflow={"carry": "world", "max_age_s": 1.0}).settings.max_age_s == 1.0


def test_options_reach_their_parts(weights: dict[str, Path]) -> None:
    regress, correct = made(
        weights, "paper", correction=True, descent={"window": 25}, similarity="lncc", optimizer="auto"
    ).stages
    assert isinstance(regress, Regress) and isinstance(correct, Correction)
    assert regress.config.crop.size == (20, 16, 12) and correct.config.window == 25
    assert correct.config.judge == regress.config.judge and regress.config.judge.similarity == "lncc"
    (both,) = made(weights, "usreg", look={"view_deg": 5.0}).stages
    assert isinstance(both, Hypothesised)
    assert both.correspond.config.view_deg == 5.0 and both.refine.config.structure_level == 0


@pytest.mark.parametrize("mode", sorted(NETWORKS))
def test_every_mode_registers_a_frame(weights: dict[str, Path], volume: Volume, mode: str) -> None:
    registrar = made(weights, mode, **({} if mode == "usreg" else {"correction": True, "descent": {"steps": 3}}))
    registrar.prepare(volume)
    found = [registrar(problem_of(volume)) for _ in range(2)]
    assert isinstance(found[0], Estimate) and found[0].system == "deep_s2v" and found[0].compute_s > 0
    assert torch.equal(found[0].world_T_ct, found[1].world_T_ct)  # the same frame again begins anew
    with pytest.raises(NoOverlapError):
        registrar(problem_of(volume, 500.0))


def test_wrong_options_are_refused(weights: dict[str, Path]) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"mode": "moon"}, "choose one of"),
        ({"step": 1}, "unknown key"),
        (options(weights, "paper", workflow={"carry": "moon"}), "choose one of"),
        (options(weights, "paper", refine={"min_overlapp": 1}), "unknown key"),
        (options(weights, "paper", correction=True, descent={"window": 4}), "odd"),
        (options(weights, "usreg", correction=True), "mode usreg refines"),
        (options(weights, "usreg", look={"pixels": 0}), "pixels"),
    ]
    for bad, message in wrong:
        with pytest.raises(ConfigError, match=message):
            build("deep_s2v", bad)
    with pytest.raises(ConfigError, match="choose system 'intensity'"):
        build("deep_s2v", options(weights, "paper"), "CT")
    with pytest.raises(ConfigError, match="no regression network 'moon'"):
        build_regressor("moon")


@pytest.mark.parametrize("mode", sorted(NETWORKS))
def test_bad_weights_are_refused(weights: dict[str, Path], mode: str, tmp_path: Path) -> None:
    make, config, metadata = NETWORKS[mode]
    path, tensors = tmp_path / "bad.safetensors", make(config).state_dict()
    bad = options({mode: path}, mode)
    with pytest.raises(MissingFileError, match="usreg train"):
        build("deep_s2v", bad)
    path.write_bytes(weights[mode].read_bytes()[:-100])
    with pytest.raises(FileFormatError, match="safetensors"):
        build("deep_s2v", bad)
    first = next(n for n, t in tensors.items() if t.is_floating_point())
    save_weights(path, mode, to_mapping(config), {n: t for n, t in tensors.items() if n != first}, metadata)
    with pytest.raises(ConfigError, match="do not fit the network"):
        build("deep_s2v", bad)
    save_weights(path, mode, to_mapping(config) | {"wings": 2}, tensors, metadata)
    with pytest.raises(ConfigError, match=r"unknown key \['wings'\]"):
        build("deep_s2v", bad)
    save_weights(path, mode, to_mapping(config), tensors, {})
    with pytest.raises(FileFormatError, match="does not say on which grid"):
        build("deep_s2v", bad)
    with pytest.raises(ConfigError, match="holds weights of mode"):
        build("deep_s2v", bad | {"mode": "fvr" if mode == "paper" else "paper"})


def test_the_files_that_ship_say_what_the_code_does(weights: dict[str, Path], top: Path) -> None:
    content = load_yaml(top / "config" / "systems" / "deep_s2v_paper.yaml")
    settings = build("deep_s2v", content | {"weights": str(weights["paper"])})
    assert isinstance(settings, Temporal) and settings.settings == deep_s2v.PUBLISHED
    assert replace(settings.stages[1].config, judge=made(weights, "paper").stages[0].config.judge) == replace(  # type: ignore[attr-defined]
        made(weights, "paper", correction=True).stages[1].config,  # type: ignore[attr-defined]
    )


def sized(volume: Volume, height: int, width: int, mm: float) -> Problem:
    """A frame of another size through the volume's centre."""
    geometry = full_rectangle(PlaneGrid(height, width, ((mm, 0.0), (0.0, mm))))
    image = torch.arange(height * width).remainder(200).to(torch.uint8).reshape(height, width)
    pose = se3.translation(volume.grid.centre_ct - geometry.plane.centre_mm)
    return Problem((TrackedFrame(Frame(image, geometry, 0.0), pose),), volume, start_estimate(se3.identity(), volume))


def small(volume: Volume) -> Volume:
    """The middle of a volume, 9 mm wide: smaller than any crop or view."""
    corner = (volume.grid.centre_ct - 3.75).tolist()
    return Volume(volume.data[:, 17:23, 19:25, 21:27], VoxelGrid((6, 6, 6), (1.5,) * 3, tuple(corner)), "US")


def unknown(volume: Volume) -> Volume:
    return replace(volume, data=torch.full(volume.data.shape, torch.nan))


def with_gaps(volume: Volume) -> Volume:
    data = volume.data.to(torch.float32).clone()
    data[:, ::5] = torch.nan
    return replace(volume, data=data)


BAD_INPUT: dict[str, Callable[[Volume], Problem]] = {
    "a flat frame": lambda v: sized(v, 3, 200, 0.3),
    "a few pixels": lambda v: sized(v, 4, 5, 8.0),
    "a tall frame": lambda v: sized(v, 500, 61, 0.11),
    "a volume smaller than the crop": lambda v: replace(problem_of(v), moving=small(v)),
    "a volume of NaN": lambda v: replace(problem_of(v), moving=unknown(v)),
    "a volume with NaN": lambda v: replace(problem_of(v), moving=with_gaps(v)),
}


@pytest.mark.parametrize("mode", sorted(NETWORKS))
@pytest.mark.parametrize("what", BAD_INPUT)
def test_bad_input_is_refused_or_an_error_that_says_why(
    weights: dict[str, Path], volume: Volume, mode: str, what: str
) -> None:
    """Whatever is shown to it: an estimate of finite numbers, or an error of the family."""
    registrar, problem = made(weights, mode), BAD_INPUT[what](volume)
    try:
        found = registrar(problem)
    except UsregError as error:
        assert len(str(error)) > 20 and what != "a volume with NaN"
        return
    assert bool(torch.isfinite(found.world_T_ct).all()) and (not found.accepted or found.score > 0.4)
    assert what != "a volume of NaN"


class Poses:
    """A pose source that is moved by the test."""

    pose = se3.identity()

    def at(self, stamp_s: float) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pose, torch.zeros(6, 6, dtype=torch.float64)

    def reset(self) -> None:
        """Nothing to forget."""


@pytest.mark.parametrize("carry", ["start", "world", "image"])
def test_a_probe_that_leaves_the_volume_is_predicted_then_lost(volume: Volume, carry: str) -> None:
    gate = {"min_score": 0.2, "min_structure": 0.2, "max_sigma_mm": 50.0, "min_probability": 0.0}
    judge = from_mapping(RefineConfig, QUICK | {"gate": gate})
    still = RegressConfig(from_mapping(Crop, CROP), judge=judge)
    stage = Regress(lambda volume, frame: (torch.zeros(1, 3), torch.eye(3)[None]), still)
    registrar = Temporal(Registrar([stage]), TemporalConfig(carry))  # type: ignore[arg-type]
    poses, tracked = Poses(), frame_of(volume)
    tracker = Tracker(Calibration(se3.identity(), ((1.0, 0.0), (0.0, 1.0))), poses)
    navigator = Navigator(tracker, registrar, PoseFilter(), Fuser(), volume)
    navigator.initialize(0.0, se3.identity(), 0.01 * torch.eye(6, dtype=torch.float64))
    away = se3.translation(torch.tensor([0.0, 0.0, 500.0], dtype=torch.float64))
    statuses = []
    for number in range(8):
        poses.pose = tracked.world_T_image if number < 3 else away @ tracked.world_T_image
        result = navigator.step(replace(tracked.frame, stamp_s=0.1 * number))
        statuses.append(result.status)
        assert (result.prediction is None) == (result.status == "LOST")
    assert statuses == ["TRACKING"] * 3 + ["NO_OVERLAP"] * 3 + ["LOST"] * 2, result.reason
