# SPDX-License-Identifier: Apache-2.0
"""What the stages say of themselves, as the page and the terminal show it."""

import math

import pytest

from usreg.web.status import Board, Recorder, Stage, Status, hello_message, status_message
from usreg.web.wire import pack, unpack

VALUES = {
    "rate_hz": "29.97", "latency_median_s": "0.0501", "latency_p99_s": "0.0904", "latency_max_s": "0.1", "drops": "4",
    "work_median_s": "0.002", "age_s": "0.03", "paused": "True",
}  # fmt: skip


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_is_read_from_its_values() -> None:
    stage = Stage.of("fusion", "OK", "fine", VALUES)
    assert stage.row() == {
        "name": "fusion", "level": "OK", "text": "fine", "rate_hz": 29.97, "latency_ms": 50.1, "latency_p99_ms": 90.4,
        "latency_max_ms": 100.0, "work_ms": 2.0, "age_s": 0.03, "drops": 4,
    }  # fmt: skip
    assert stage.facts["paused"] == "True"


@pytest.mark.parametrize("text", ["nan", "inf", "", "fast", "-inf"])
def test_numbers_that_are_none_are_left_open(text: str) -> None:
    stage = Stage.of("fusion", "OK", "", dict.fromkeys(VALUES, text))
    row = stage.row()
    assert row["rate_hz"] is None and row["latency_ms"] is None and row["drops"] == 0
    assert math.isnan(Stage.of("fusion", "OK", "", {}).age_s)


@pytest.mark.parametrize(
    ("namespace", "taken"), [("", "/fusion: fusion"), ("left", "/left/fusion: f"), ("/a/b/", "/a/b/fusion: f")]
)
def test_a_board_takes_the_stages_of_its_own_graph(namespace: str, taken: str) -> None:
    board = Board(namespace)
    for name in ("/fusion: fusion", "/left/fusion: f", "/a/b/fusion: f", "nonsense", ""):
        assert (board.take(name, "OK", "", VALUES) is not None) == (name == taken)
    assert [s.name for s in board.stages()] == ["fusion"]


def test_stages_stand_in_the_order_of_the_flow_and_a_silent_one_is_told() -> None:
    clock = Clock()
    board = Board("", clock)
    for name in ("web_view", "zebra", "registration", "player"):
        board.take(f"/{name}: x", "OK", "OK", VALUES)
    assert [s.name for s in board.stages()] == ["player", "registration", "web_view", "zebra"]
    assert board.fact("player", "paused") == "True" and board.fact("player", "nothing") == ""
    clock.now += 10.0
    board.take("/registration: x", "WARN", "late", VALUES)
    levels = {s.name: s.level for s in board.stages()}
    assert levels == {"player": "ERROR", "registration": "WARN", "web_view": "ERROR", "zebra": "ERROR"}
    assert "has it ended" in board.stages()[0].text and board.fact("player", "paused") == ""
    board.clear()
    assert board.stages() == []


def test_the_messages_hold_what_the_page_needs() -> None:
    stage = Stage.of("fusion", "OK", "", {})
    status = Status(
        "paused", False, Recorder(True, "/data/take"), (stage,), ({"rank": 0, "score": math.nan},), clients=2
    )
    header, buffers = unpack(status_message(status))
    assert buffers == {} and (header["type"], header["state"], header["accept"]) == ("status", "paused", False)
    assert header["recorder"] == {"recording": True, "path": "/data/take"} and header["clients"] == 2
    assert header["hypotheses"] == [{"rank": 0, "score": None}] and header["stages"][0]["rate_hz"] is None
    hello, _ = unpack(pack(hello_message("phantom", "live", ("reset",), False, "intensity")))
    assert hello["notice"] == "RESEARCH USE ONLY" and hello["commands"] == ["reset"] and hello["replay"] is None
    assert (hello["stale_min_s"], hello["stale_periods"]) == (0.3, 3)
