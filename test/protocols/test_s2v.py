# SPDX-License-Identifier: Apache-2.0
"""The protocol on tiny subjects: the same starts for all, nothing run twice, what cannot be run is left out."""

from __future__ import annotations

import json
import math
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from usreg import cli
from usreg.data.types import Estimate, Problem, Rigid, Volume
from usreg.errors import ConfigError, NoOverlapError
from usreg.geometry import se3
from usreg.protocols import S2vConfig, evaluate_s2v, methods, run_method
from usreg.protocols.clips import Clip, Draw, evenly, overlap, pairs_of_clip, subject_clip
from usreg.protocols.methods import METHODS, Made, Method, chosen, equal_factor, make, scaled_spread
from usreg.protocols.reached import above_truth, checks_of
from usreg.protocols.run_method import RunConfig
from usreg.protocols.studies import STUDIES, chosen_studies

TINY = replace(STUDIES["paper"], draw=Draw((4.0, 4.0, 4.0, 5.0, 5.0, 5.0), 4), stated=(4.0, 4.0, 4.0, 5.0, 5.0, 5.0))


class Given:
    """A registrar that says where it began, moved by one shift along the world's x; counts what it does."""

    def __init__(self, shift_mm: float = 0.0, fails: bool = False) -> None:
        self.shift_mm, self.fails, self.calls, self.resets = shift_mm, fails, 0, 0

    def prepare(self, volume: Volume) -> None:
        pass

    def reset(self) -> None:
        self.resets += 1

    def __call__(self, problem: Problem) -> Estimate:
        self.calls += 1
        if self.fails:
            raise NoOverlapError("nothing there")
        shift = se3.translation(torch.tensor([self.shift_mm, 0.0, 0.0], dtype=torch.float64))
        return replace(problem.start, transform=Rigid(shift @ problem.start.world_T_ct), accepted=True)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Given]:
    """Methods "still", "worse" and "lost" in place of the real ones; `make` gives these."""
    found = {"still": Given(), "worse": Given(25.0), "lost": Given(fails=True)}
    table = {name: Method(name, name, slow=name == "worse") for name in found}
    monkeypatch.setattr(methods, "METHODS", table)
    monkeypatch.setattr(run_method, "METHODS", table)
    monkeypatch.setattr(
        run_method, "make", lambda m, *_: Made(found[m.system], 0.0, {}, undertrained=m.label == "lost")
    )
    return found


@pytest.fixture
def clips(folders: list[Path]) -> list[Clip]:
    return [subject_clip(f) for f in folders]


@contextmanager
def bar(label: str):
    yield lambda done, total: None


def test_starts_are_the_same_for_everybody_and_stay_in_the_volume(clips: list[Clip]) -> None:
    draw = Draw((10.0,) * 3 + (10.0,) * 3, 4, least_start=0.7)
    first, again = (pairs_of_clip(clips[0], draw, 3) for _ in range(2))
    assert [p.frame for p in first] == [0, 2, 3, 5] and [p.start for p in first] == [0, 1, 2, 3]
    assert all(torch.equal(a.twist, b.twist) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].twist, pairs_of_clip(clips[0], draw, 4)[0].twist)
    assert not torch.equal(first[0].twist, pairs_of_clip(clips[1], draw, 3)[0].twist)
    for pair in first:
        pose = pair.target.placed(pair.target.start(pair.twist))[0]
        assert overlap(clips[0].volume, pose, pair.target.frames[0].frame.geometry) >= 0.7
    assert [p.frame for p in pairs_of_clip(clips[0], replace(draw, starts=8), 3)] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert list(clips[0].landmarks) == ["portal_1"]


def test_starts_that_nobody_can_have_are_an_error(clips: list[Clip]) -> None:
    with pytest.raises(NoOverlapError, match="narrow"):
        pairs_of_clip(clips[0], Draw((900.0,) * 3 + (0.0,) * 3, 2, least_start=0.9), 0)
    away = replace(clips[0], targets=tuple(replace(t, world_T_ct=t.start(torch.tensor(
        [90.0, 0, 0, 0, 0, 0], dtype=torch.float64))) for t in clips[0].targets))  # fmt: skip
    with pytest.raises(NoOverlapError, match="no frame"):
        pairs_of_clip(away, Draw(), 0)
    with pytest.raises(ConfigError):
        Draw((1.0, 1.0, math.nan, 1.0, 1.0, 1.0))


def test_pairs_of_slow_methods_are_spread_evenly() -> None:
    assert evenly(10, 2) == [2, 7] and evenly(3, 0) == [0, 1, 2] and evenly(3, 5) == [0, 1, 2]


def test_what_has_been_run_is_not_run_again(given: dict[str, Given], clips: list[Clip], tmp_path: Path) -> None:
    run = run_method.run_method("still", TINY, clips, RunConfig(), tmp_path)
    assert len(run.rows) == run.planned == 8 and given["still"].calls == given["still"].resets == 8
    assert all(r.final == pytest.approx(r.initial) or r.final.distance_mm > 0 for r in run.rows)
    assert [r.final.distance_mm for r in run.rows] == pytest.approx([r.initial.distance_mm for r in run.rows])
    again = run_method.run_method("still", TINY, clips, RunConfig(), tmp_path)
    assert given["still"].calls == 8 and [r.start for r in again.rows] == [r.start for r in run.rows]
    assert again.rows[3].final.shift_mm == pytest.approx(run.rows[3].final.shift_mm, rel=1e-6)
    run_method.run_method("still", TINY, clips, RunConfig(seed=1), tmp_path)
    assert given["still"].calls == 16  # another seed, another run
    (tmp_path / "paper_still.json").write_text("{}", encoding="utf-8")
    run_method.run_method("still", TINY, clips, RunConfig(), tmp_path)
    assert given["still"].calls == 24


def test_a_run_that_was_stopped_goes_on(given: dict[str, Given], clips: list[Clip], tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_method.run_method("still", TINY, clips, RunConfig(), tmp_path, stop)
    assert given["still"].calls == 6
    run = run_method.run_method("still", TINY, clips, RunConfig(), tmp_path)
    assert given["still"].calls == 10  # the first clip had been kept
    assert [(r.case, r.start) for r in run.rows] == [(c.name, n) for c in clips for n in range(4)]


def test_slow_methods_get_fewer_pairs_and_a_bounded_time(given, clips: list[Clip], tmp_path: Path) -> None:
    run = run_method.run_method("worse", TINY, clips, RunConfig(slow_starts=2), tmp_path)
    assert [r.start for r in run.rows] == [1, 3, 1, 3] and run.planned == 8
    short = run_method.run_method("still", TINY, clips, RunConfig(minutes=1e-9), tmp_path)
    assert [r.start for r in short.rows] == [0, 0] and "stopped" in short.note


def test_a_pair_without_a_result_ends_where_it_began(given, clips: list[Clip], tmp_path: Path) -> None:
    run = run_method.run_method("lost", TINY, clips[:1], RunConfig(), tmp_path)
    assert all(not r.found and not r.accepted and r.reason == "nothing there" for r in run.rows)
    assert all(r.final == r.initial and r.tre_mm == pytest.approx(r.initial_tre_mm) for r in run.rows)


def test_the_whole_protocol_writes_its_report(given, folders: list[Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("usreg.protocols.s2v.METHODS", run_method.METHODS)
    config = S2vConfig((TINY, STUDIES["liver"]), ("still", "worse", "lost"), "still", tuple(folders))
    said: list[str] = []
    content = evaluate_s2v(config, tmp_path / "out", said.append, bar)
    text = "\n".join(said)
    assert "Table 1" in text and "[undertrained]" in text and "Real liver sweep: nothing to run it on" in text
    lines = {x["method"]: x for x in content["studies"]["paper"]["lines"]}
    assert lines["start"]["distance_mm"] == pytest.approx(lines["still"]["distance_mm"])
    assert lines["worse"]["distance_mm"][0] > 15 and lines["worse"]["p_distance"] < 1e-3
    assert math.isnan(lines["lost"]["p_distance"]) and lines["lost"]["nothing"] == 1.0
    stored = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert len(stored["studies"]["paper"]["rows"]["still"]) == 8
    assert stored["studies"]["paper"]["cases"]["still"][0]["landmarks"] == 1
    assert "Research use only" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "cumulative_paper.png").is_file()


def test_weights_that_are_missing_leave_a_line_out(folders: list[Path], tmp_path: Path) -> None:
    config = S2vConfig((TINY,), ("paper",), subjects=tuple(folders), run=RunConfig(weights=tmp_path))
    said: list[str] = []
    content = evaluate_s2v(config, tmp_path / "out", said.append, bar)
    assert content["studies"]["paper"]["lines"] == []
    (note,) = content["studies"]["paper"]["notes"]
    assert "DeepRS2V was left out" in note and "deep_s2v_paper.safetensors" in note
    with pytest.raises(ConfigError, match="no method"):
        S2vConfig((TINY,), ("paper",), "nobody")


def test_equal_time_is_found_by_steps_along_a_line() -> None:
    assert equal_factor(lambda f: 0.02 + 0.1 * f, 0.25) == pytest.approx(2.3)
    assert equal_factor(lambda f: 0.02 + 0.1 * f, 1e6) == 64.0
    assert equal_factor(lambda f: 0.02 + 0.1 * f, 1e-6) == pytest.approx(1 / 32)
    assert equal_factor(lambda f: 1.0, 2.0) > 2.0  # a time that does not answer
    spread = scaled_spread(0.25, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))["spread"]
    assert spread == {"count": 64, "climb": 6, "finish": 1, "reach_mm": [1.0, 2.0, 3.0], "reach_deg": [4.0, 5.0, 6.0]}
    make(METHODS["refine-equal"], None, {"spread": scaled_spread(1 / 32, (1.0,) * 6)["spread"]})


def test_equal_time_needs_the_method_that_it_is_equal_to(clips: list[Clip], tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="run that too"):
        run_method.run_method("refine-equal", TINY, clips, RunConfig(), tmp_path)
    few = replace(TINY, draw=replace(TINY.draw, starts=1))
    monkeypatch.setattr(run_method, "equal_factor", lambda median_s, target_s: 1 / 32 if median_s(1 / 32) > 0 else 0.0)
    run = run_method.run_method("refine-equal", few, clips[:1], RunConfig(), tmp_path, equal_s=1e-4)
    assert run.options["spread"]["count"] == 8 and run.options["spread"]["reach_mm"] == [4.0, 4.0, 4.0]


def test_names_of_methods_and_studies_are_checked() -> None:
    assert chosen("refine-equal,usreg") == ["usreg", "refine-equal"] and set(chosen("")) == set(METHODS)
    with pytest.raises(ConfigError, match="wish"):
        chosen("usreg,wish")
    (study,) = chosen_studies("paper", 3, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    assert study.draw.limits == study.stated == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0) and study.draw.starts == 3
    assert [s.name for s in chosen_studies("", 3)] == list(STUDIES)
    with pytest.raises(ConfigError, match="near"):
        chosen_studies("near", 3)
    assert "±40" in STUDIES["far"].text and "50%" in STUDIES["far"].text


def test_what_is_to_be_reached_is_judged_from_the_lines() -> None:
    from usreg.evaluation.s2v import PairError, PairRow, error_lines

    def rows(mm: float) -> list[PairRow]:
        error = PairError((mm, 0.0, 0.0), (mm, 0.0, 0.0))
        return [PairRow("a", 0, n, error, error, mm, mm, seconds=0.05) for n in range(2)]

    lines = error_lines({"usreg": rows(1.0), "itk": rows(2.0), "usreg-network": rows(5.0)}, "")
    assert [c.passed for c in checks_of("paper", lines)] == [True, True, True, True, True, False, False]
    far = error_lines({"usreg": rows(1.0), "refine-equal": rows(4.0)}, "")
    assert [(c.value, c.passed) for c in checks_of("far", far)] == [(100.0, True)] * 3
    assert checks_of("paper", lines[1:2]) == [] and checks_of("liver", lines) == []
    (above,) = above_truth(error_lines({"usreg": rows(1.3)}, ""), error_lines({"usreg": rows(1.0)}, ""))
    assert above.value == pytest.approx(0.3) and not above.passed
    assert above_truth(far, []) == []


def test_the_command_runs_a_method_and_says_what_is_wrong(folders: list[Path], tmp_path: Path, monkeypatch, capsys):
    def usreg(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["usreg", "evaluate", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    common = ("--protocol", "s2v", "--data", folders[0].parent, "--bodies", "1:3", "--out", tmp_path / "out")
    task = ("--studies", "paper", "--starts", 2, "--limits", "2,2,2,2,2,2", "--methods", "refine-ncc,fvr")
    code, out, err = usreg(*common, *task, "--weights", tmp_path)
    assert code == 0 and "Table 3" in out and "FVR-Net was left out" in out and "report:" in out
    assert (tmp_path / "out" / "index.html").is_file()
    code, out, _ = usreg(*common, *task, "--weights", tmp_path, "--json")
    line = json.loads(out)["studies"]["paper"]["lines"][1]
    assert code == 0 and line["method"] == "refine-ncc" and line["distance_mm"][0] < 1.0
    for words, expected in (
        ((), "--protocol"), (("--protocol", "s3v"), "s3v"), ((*common, "--bodies", "3:1"), "--bodies"),
        ((*common, "--limits", "1,2"), "--limits"), ((*common, "--methods", "wish"), "wish"),
    ):  # fmt: skip
        code, _, err = usreg(*words)
        assert code == 2 and expected in err
