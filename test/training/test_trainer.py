# SPDX-License-Identifier: Apache-2.0
"""The loop: learns, resumes to the bit, shares work among processes, says what is wrong."""

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from usreg.errors import ConfigError, FileFormatError, UsregError
from usreg.registration.learned.weights import read_tensors
from usreg.training.checkpoint import NAME, read_checkpoint
from usreg.training.curve import Log, draw_curve, is_undertrained, read_log
from usreg.training.distributed import seeded
from usreg.training.schedule import TrainerConfig, rate_factor, used_share
from usreg.training.trainer import Report, Trainer

SCRIPT = Path(__file__).with_name("two_processes.py")
SPEC = importlib.util.spec_from_file_location("two_processes", SCRIPT)
assert SPEC is not None and SPEC.loader is not None
TOY = importlib.util.module_from_spec(SPEC)
sys.modules["two_processes"] = TOY
SPEC.loader.exec_module(TOY)


def config(**more: object) -> TrainerConfig:
    values = {"steps": 20, "learning_rate": 0.05, "warmup_steps": 3, "checkpoint_steps": 5, "log_steps": 2}
    return TrainerConfig(**{**values, **more})  # type: ignore[arg-type]


def distance(network: nn.Module) -> dict[str, float]:
    x = TOY.ToyPairs().batch(10_000).x
    return {"error": float((network(x)[:, 0] - x.prod(1)).square().mean().detach())}


def tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    optimizer = trainer.optimizers["toy"].state_dict()["state"]
    return {**trainer.network.state_dict(), **{f"ema.{n}": t for n, t in trainer.ema.items()}} | {
        f"{i}.{n}": t for i, s in optimizer.items() for n, t in s.items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[n], b[n]) for n in a)


def without_times(entries: list[dict]) -> list[dict]:
    return [{k: v for k, v in e.items() if k != "wall_s"} for e in entries]


class Stop(Exception):
    pass


def stop_at(step: int):
    def progress(report: Report) -> None:
        if report.step == step:
            raise Stop

    return progress


def test_it_learns(tmp_path: Path) -> None:
    trainer = TOY.toy(config(steps=200), tmp_path, validate=distance)
    before = distance(trainer.network)["error"]
    state = trainer.run()
    assert (state.step, state.samples) == (200, 1200)
    assert state.best < 0.8 * before
    assert 0 < state.data_s + state.network_s <= state.wall_s
    entries = read_log(tmp_path / "log.jsonl")
    assert [e["validation"]["error"] for e in entries if "validation" in e] == [state.best]
    assert {"toy.error", "toy.logged"} == set(entries[0]["losses"])


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize("stop", [5, 7, 12])
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(tmp_path: Path, schedule: str, stop: int) -> None:
    c = config(schedule=schedule, validate_steps=4)
    whole = TOY.toy(c, tmp_path / "whole", validate=distance)
    whole.run()
    with pytest.raises(Stop):
        TOY.toy(c, tmp_path / "parts", validate=distance, progress=stop_at(stop)).run()
    parts = TOY.toy(c, tmp_path / "parts", validate=distance)
    parts.run(resume=True)
    assert same(tensors(whole), tensors(parts))
    logs = [without_times(read_log(tmp_path / name / "log.jsonl")) for name in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_a_run_can_be_made_longer(tmp_path: Path) -> None:
    TOY.toy(config(schedule="constant"), tmp_path / "parts").run()
    longer = TOY.toy(config(steps=30, schedule="constant"), tmp_path / "parts")
    longer.run(resume=True)
    whole = TOY.toy(config(steps=30, schedule="constant"), tmp_path / "whole")
    whole.run()
    assert same(tensors(whole), tensors(longer))


def test_batches_drawn_ahead_are_the_same(tmp_path: Path) -> None:
    one, two = (TOY.toy(config(ahead=ahead), tmp_path / str(ahead)) for ahead in (False, True))
    one.run()
    two.run()
    assert same(tensors(one), tensors(two))


def launch(folder: Path, world: int, accumulate: int) -> list[Path]:
    """Processes as torchrun starts them."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = str(Path(__file__).resolve().parents[2] / "src" / "usreg")
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": source}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(accumulate)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)},
        )
        for rank in range(world)
    ]  # fmt: skip
    assert [p.wait(timeout=120) for p in ranks] == [0] * world
    return [folder / f"{rank}.safetensors" for rank in range(world)]


def test_two_processes_do_what_one_does_with_both_batches(tmp_path: Path) -> None:
    (alone,) = launch(tmp_path / "one", 1, 2)
    first, second = (read_tensors(p)[0] for p in launch(tmp_path / "two", 2, 1))
    assert same(first, second)
    for name, tensor in read_tensors(alone)[0].items():
        assert torch.allclose(tensor, first[name], rtol=1e-5, atol=1e-7)
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    assert [e["samples"] for e in logs[0]] == [e["samples"] for e in logs[1]] == [12, 24, 36, 48, 60]


def test_bfloat16_learns(tmp_path: Path) -> None:
    trainer = TOY.toy(config(steps=100, precision="bfloat16"), tmp_path, validate=distance)
    before = distance(trainer.network)["error"]
    assert trainer.run().best < before
    assert all(p.dtype == torch.float32 for p in trainer.network.parameters())


def test_float16_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GPU"):
        TOY.toy(config(precision="float16"), tmp_path)


def test_minutes_end_a_run_and_are_counted_over_its_parts(tmp_path: Path) -> None:
    c = config(steps=10_000_000, minutes=0.5 / 60, checkpoint_steps=50)
    state = TOY.toy(c, tmp_path).run()
    assert 0.5 <= state.wall_s < 30
    again = TOY.toy(c, tmp_path).run(resume=True)
    assert again.step == state.step


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    kept: list[tuple[int, float]] = []

    def keep(network: nn.Module, trainer: Trainer) -> None:
        kept.append((trainer.state.step, distance(network)["error"]))

    state = TOY.toy(config(steps=40, validate_steps=5), tmp_path, validate=distance, keep=keep).run()
    assert kept[-1] == (state.best_step, state.best)
    errors = [e for _, e in kept]
    assert errors == sorted(errors, reverse=True)


def test_divergence_ends_the_run(tmp_path: Path) -> None:
    trainer = TOY.toy(config(most_skipped=3), tmp_path)
    with torch.no_grad():
        trainer.network[0].weight.fill_(math.nan)
    with pytest.raises(UsregError, match="3 times in a row"):
        trainer.run()


def test_other_settings_are_not_resumed(tmp_path: Path) -> None:
    TOY.toy(config(), tmp_path).run()
    with pytest.raises(ConfigError, match="learning_rate"):
        TOY.toy(config(learning_rate=0.01), tmp_path).run(resume=True)


def test_another_network_is_not_resumed(tmp_path: Path) -> None:
    TOY.toy(config(), tmp_path).run()
    other = TOY.toy(config(), tmp_path)
    other.network.add_module("more", nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="another configuration"):
        other.run(resume=True)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.99])
def test_damaged_checkpoint(tmp_path: Path, share: float) -> None:
    TOY.toy(config(), tmp_path).run()
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileFormatError, match=NAME):
        TOY.toy(config(), tmp_path).run(resume=True)


def test_checkpoint_of_something_else(tmp_path: Path) -> None:
    TOY.write_tensors(tmp_path / NAME, {"a": torch.zeros(1)}, {"usreg.checkpoint": "{}"})
    assert read_checkpoint(tmp_path / NAME)[1] == {}
    with pytest.raises(FileFormatError, match="another version"):
        TOY.toy(config(), tmp_path).run(resume=True)
    TOY.write_tensors(tmp_path / NAME, {"a": torch.zeros(1)}, {})
    with pytest.raises(FileFormatError, match="no checkpoint"):
        read_checkpoint(tmp_path / NAME)


def test_schedules() -> None:
    c = config(steps=100, warmup_steps=4)
    assert [rate_factor(c, s, 0.0) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert rate_factor(c, 50, 0.5) == pytest.approx(0.5)
    assert rate_factor(c, 100, 1.0) == pytest.approx(0.0)
    s = config(schedule="step", decay=0.8, decay_share=0.25, warmup_steps=0)
    assert [rate_factor(s, 1, u) for u in (0.0, 0.24, 0.25, 0.99)] == pytest.approx([1.0, 1.0, 0.8, 0.512])
    assert used_share(config(steps=10, minutes=1.0), 2, 45.0) == pytest.approx(0.75)
    assert used_share(config(steps=10, minutes=1.0), 9, 6.0) == pytest.approx(0.9)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"ema": 1.0}, {"learning_rate": 0.0}, {"clip_norm": -1.0}])
def test_config_is_checked(bad: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        config(**bad)


def test_undertrained_by_its_rule() -> None:
    flat = [(float(x), 5.0 + 0.01 * (-1) ** x) for x in range(1, 31)]
    falling = [(float(x), 10.0 * math.exp(-x / 15)) for x in range(1, 31)]
    settled = [(float(x), 2.0 + 10.0 * math.exp(-x / 3)) for x in range(1, 31)]
    assert not is_undertrained(flat)
    assert is_undertrained(falling)
    assert not is_undertrained(settled)
    slow = [(float(x), 10.0 - 0.05 * x) for x in range(1, 31)]  # 0.15 a tenth of the run, of a mean of 8.75: 1.7 %
    assert not is_undertrained(slow)
    quicker = [(float(x), 10.0 - 0.12 * x) for x in range(1, 31)]  # 0.36 of 7: 5.1 %
    assert is_undertrained(quicker)
    assert is_undertrained(flat[:2])
    assert is_undertrained([])


def test_log_drops_what_is_done_again_and_a_line_that_was_cut(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    for step in range(1, 6):
        log.add({"step": step, "samples": step, "loss": 1.0})
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"step": 6, "los')
    assert len(read_log(tmp_path / "log.jsonl")) == 5
    assert [e["step"] for e in Log(tmp_path / "log.jsonl", 3).entries] == [1, 2, 3]
    (tmp_path / "log.jsonl").write_text('{"step": "x"}\n{"step": 1}\n')
    with pytest.raises(FileFormatError, match="line 1"):
        read_log(tmp_path / "log.jsonl")


def test_curve_is_a_png_that_does_not_change(tmp_path: Path) -> None:
    entries = [{"step": i, "samples": i, "loss": 3.0 / (i + 1)} for i in range(9)]
    entries += [{"step": i, "samples": i, "validation": {"tre_mm": 9.0 - i}} for i in range(9)]
    for name in ("a.png", "b.png"):
        draw_curve(json.loads(json.dumps(entries)), "tre_mm", tmp_path / name, "toy")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_seeded_leaves_torchs_own_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    with seeded(3, 4):
        one = torch.rand(3)
    with seeded(3, 4):
        two = torch.rand(3)
    with seeded(3, 5):
        other = torch.rand(3)
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())
