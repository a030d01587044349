# SPDX-License-Identifier: Apache-2.0
"""A run from subjects in a folder to weights that registration reads; and what goes wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from usreg.cli import app
from usreg.config import from_mapping
from usreg.data.share import share_dir
from usreg.errors import ConfigError, FileFormatError, MissingFileError
from usreg.geometry import se3
from usreg.networks import dot_fusion_regressor, frame_volume_regressor
from usreg.networks.delta import corrected, correction
from usreg.registration.learned.crop import crop_frame, crop_volume
from usreg.registration.learned.load import load_regressor
from usreg.registration.learned.weights import load_weights
from usreg.simulation.subject_files import write_subject
from usreg.training.deep_s2v import MODES, load_config, train
from usreg.training.pairs import Pairs
from usreg.training.recipe import mean_figures, pose_figures
from usreg.training.regression import Eyes
from usreg.training.run import Run, TrainingConfig

NETWORKS = {
    "paper": {"widths": [8, 8], "pools": [[2, 2, 2]], "fused": [2, 2, 2], "decoder": [8], "decoder_pools": [[1, 2, 2]]},
    "fvr": {"depth": 8, "widths": [8, 8], "layers": [1], "planes": [8]},
}
CROP = {"spacing_mm": 4.0, "size": [16, 16, 8]}
# Neighbours of a mode's name that a card must not lose.
FILES = {"run.json", "log.jsonl", "checkpoint.safetensors", "weights.safetensors", "weights.md", "curve.png"}


def settings(mode: str = "paper", steps: int = 4, **pairs: object) -> TrainingConfig:
    content = {
        "trainer": {"steps": steps, "validate_steps": 2, "checkpoint_steps": 2, "log_steps": 1, "warmup_steps": 1},
        "pairs": {"batch": 2, **pairs},
        "network": NETWORKS[mode],
        "options": {"crop": CROP, "loss": {"window": 5}},
        "validation_pairs": 4,
        "device": "cpu",
    }
    return from_mapping(TrainingConfig, content)


@pytest.fixture
def data(tmp_path: Path, subject) -> Path:
    for seed in range(3):
        write_subject(subject(seed), tmp_path / "data" / str(seed))
    return tmp_path / "data"


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Run:
    return Run("paper", range(0, 2), tmp_path / "out", data, settings(), range(2, 3), command="usreg train deep_s2v")


@pytest.mark.parametrize("mode", ["paper", "fvr"])
def test_a_run_gives_weights_that_registration_reads(run: Run, mode: str) -> None:
    run = replace(run, mode=mode, config=settings(mode))
    told = []
    about = train(run, progress=told.append)
    assert {p.name for p in run.out.iterdir()} >= FILES
    assert [r.step for r in told] == [1, 2, 3, 4]
    weights = load_weights(run.out / "weights.safetensors", mode)
    assert weights.metadata == json.loads(json.dumps(about))
    assert (about["steps"], about["samples"], about["bodies"], about["validation"]) == (4, 8, [0, 1], [2])
    assert about["wall_s"] > 0 and about["processes"] == 1
    assert about["undertrained"] is True  # two points cannot tell
    assert about["figures"]["start_tre_mm"] > 1.0
    network, crop = load_regressor(run.out / "weights.safetensors", mode)
    assert crop.size == (16, 16, 8)
    assert sum(p.numel() for p in network.parameters()) == about["parameters"]
    card = (run.out / "weights.md").read_text()
    assert "usreg train deep_s2v" in card and "Bodies 0:2, validation 2:3" in card


def test_weights_reach_the_figures_in_their_header(run: Run, subject) -> None:
    train(run)
    weights = load_weights(run.out / "weights.safetensors")
    recipe = MODES["paper"](weights.network, run.config.options, 0)
    weights.into(recipe.network)
    recipe.network.eval()
    pairs = Pairs([subject(2)], replace(run.config.pairs, augment=None), 1_000_000)
    with torch.no_grad():
        found = mean_figures(recipe.figures, [pairs.batch(0), pairs.batch(1)])(recipe.network)
    assert found == pytest.approx(weights.metadata["figures"], rel=1e-5)


def test_a_resumed_run_gives_the_same_weights(run: Run, tmp_path: Path) -> None:
    train(run)
    other = replace(run, out=tmp_path / "other")
    train(replace(other, config=settings(steps=2)))
    with pytest.raises(ConfigError, match="--resume"):
        train(other)
    train(replace(other, resume=True))
    constant = [load_weights(p / "weights.safetensors").metadata["curve"] for p in (run.out, other.out)]
    assert constant[0][0] == pytest.approx(constant[1][0], rel=0.2)
    assert [c[0] for c in constant[0]] == [c[0] for c in constant[1]]


def test_same_seed_same_weights(run: Run, tmp_path: Path) -> None:
    train(run)
    train(replace(run, out=tmp_path / "other"))
    a, b = (load_weights(p / "weights.safetensors").tensors for p in (run.out, tmp_path / "other"))
    assert all(torch.equal(a[n], b[n]) for n in a)
    other = replace(run.config, trainer=replace(run.config.trainer, seed=1))
    train(replace(run, out=tmp_path / "third", config=other))
    c = load_weights(tmp_path / "third" / "weights.safetensors").tensors
    assert not any(torch.equal(a[n], c[n]) for n in a if n.endswith("conv.weight"))


def test_modes_meet_the_same_pairs() -> None:
    configs = [load_config(mode).pairs for mode in MODES]
    assert all(c == configs[0] for c in configs)
    assert all(load_config(mode).trainer.seed == 0 for mode in MODES)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("full", [False, True])
def test_shipped_configurations_are_read(mode: str, full: bool) -> None:
    config = load_config(mode, full, steps=7, minutes=None)
    assert config.trainer.steps == 7
    assert (share_dir() / "config" / "training").is_dir()


def test_full_networks_are_as_published() -> None:
    paper = from_mapping(dot_fusion_regressor.DotFusionConfig, load_config("paper", True).network)
    assert paper == dot_fusion_regressor.published()
    fvr = from_mapping(frame_volume_regressor.FrameVolumeConfig, load_config("fvr", True).network)
    assert replace(fvr, depth=32) == frame_volume_regressor.published()
    assert fvr.depth == load_config("fvr", True).options["crop"]["size"][2]


@pytest.mark.parametrize("mode", list(MODES))
def test_shipped_small_networks_are_below_five_million_parameters(mode: str) -> None:
    config = load_config(mode)
    assert MODES[mode](config.network, config.options, 0).parameters < 5_000_000


def test_the_network_is_fed_as_in_registration(subject) -> None:
    """Eyes on a batch and the stage's own crops of the whole frame and volume agree."""
    source = subject(1)
    config = settings().pairs
    pairs = Pairs([source], replace(config, augment=None, batch=4, frame_mm=1.0, volume_mm=1.0))
    batch = pairs.batch(3)
    recipe = MODES["paper"](NETWORKS["paper"], {"crop": CROP}, 0)
    eyes = Eyes(recipe.objective.steps[0].losses.crop)  # type: ignore[attr-defined]
    values, images, masks = eyes(batch)
    numbers = [f.frame.index for f in batch.frames]
    for i, number in enumerate(numbers):
        frame = source.frames[number].frame
        image, mask = crop_frame(frame, eyes.crop)
        assert torch.allclose(image[0], images[i], atol=1e-6) and torch.equal(mask[0], masks[i])
        start = batch.ct_T_start[i]
        value, _ = crop_volume(eyes.volume(batch), start, frame.geometry, eyes.crop)
        assert torch.equal(value[0], values[i])


def test_figures_of_the_truth_are_zero(subject) -> None:
    batch = Pairs([subject(0)]).batch(0)
    found = pose_figures(batch, batch.ct_T_true)
    assert all(float(found[name].max()) < 1e-5 for name in ("tre_mm", "translation_mm", "failed_share"))
    delta = correction(batch.ct_T_start, batch.ct_T_true, batch.geometry.plane.centre_mm)
    again = corrected(batch.ct_T_start, delta, batch.geometry.plane.centre_mm)
    assert torch.allclose(again, batch.ct_T_true, atol=1e-9)
    assert torch.allclose(se3.inverse(again) @ batch.ct_T_true, torch.eye(4, dtype=torch.float64).expand(4, 4, 4))


def test_folder_of_another_mode(run: Run) -> None:
    train(run)
    with pytest.raises(ConfigError, match="mode 'paper', not 'fvr'"):
        train(replace(run, mode="fvr", config=settings("fvr"), resume=True))


def test_folder_of_other_bodies(run: Run) -> None:
    train(run)
    with pytest.raises(ConfigError, match="another bodies"):
        train(replace(run, bodies=range(0, 1), resume=True))


def test_damaged_folder(run: Run) -> None:
    train(run)
    (run.out / "run.json").write_text("{")
    with pytest.raises(FileFormatError, match="damaged"):
        train(replace(run, resume=True))


def test_without_validation_the_last_weights_are_kept(run: Run) -> None:
    about = train(replace(run, validation=range(0)))
    assert about["kept_at_step"] == 4
    assert about["figures"] == {} and about["undertrained"] is True


def test_a_split_is_by_subject(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"\[1\]"):
        replace(run, validation=range(1, 2))
    with pytest.raises(ConfigError, match="no bodies"):
        replace(run, bodies=())
    with pytest.raises(ConfigError, match="no mode"):
        train(replace(run, mode="other"))


def test_missing_subject(run: Run) -> None:
    with pytest.raises(MissingFileError, match="7"):
        train(replace(run, bodies=(0, 7)))


@pytest.mark.parametrize("bodies", ["5", "7:5", "a:b", ""])
def test_command_says_how_bodies_are_named(tmp_path: Path, bodies: str) -> None:
    arguments = ["train", "deep_s2v", "--mode", "paper", "--bodies", bodies, "--out", str(tmp_path / "o")]
    found = CliRunner().invoke(app, arguments)
    assert isinstance(found.exception, ConfigError)
    assert "A:B" in str(found.exception)
    assert not (tmp_path / "o").exists()


def test_command_runs(data: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps({
        "trainer": {"steps": 3, "log_steps": 1}, "pairs": {"batch": 2}, "network": NETWORKS["paper"],
        "options": {"crop": CROP, "loss": {"window": 5}}, "validation_pairs": 2,
    }))  # fmt: skip
    arguments = [
        "train", "deep_s2v", "--mode", "paper", "--bodies", "0:2", "--validation", "2:3", "--out", str(tmp_path / "o"),
        "--data", str(data), "--steps", "2", "--config", str(tmp_path / "tiny.yaml"), "--device", "cpu",
    ]  # fmt: skip
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert found.exit_code == 0
    assert "weights.safetensors" in found.output
    about = load_weights(tmp_path / "o" / "weights.safetensors", "paper").metadata
    assert about["steps"] == 2
    assert str(tmp_path) not in json.dumps(about)
    assert about["command"] == (
        "usreg train deep_s2v --mode paper --bodies 0:2 --validation 2:3 --out o --steps 2 --config tiny.yaml"
    )
