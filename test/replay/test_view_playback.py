# SPDX-License-Identifier: Apache-2.0
"""Laws of the playback's clock: order, pause, step, seek, speed, end, and what happened on the timeline."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data.types import ImageGeometry
from usreg.errors import ConfigError, TimeError
from usreg.geometry.plane import PlaneGeometry, PlaneGrid
from usreg.replay.view.events import MOST, events_of
from usreg.replay.view.known import FrameNote, Result
from usreg.replay.view.playback import Playback

STAMPS = [10.0, 10.1, 10.2, 10.5, 10.6]


class Clock:
    """Time that moves when told."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def move(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def playing(clock: Clock, **options: Any) -> Playback:
    return Playback(STAMPS, clock=clock, **options)


def test_it_plays_in_order_and_ends_on_the_last_frame(clock: Clock) -> None:
    p, seen = playing(clock), []
    while p.state == "running":
        seen.append(p.index)
        assert p.age_s(p.index) == pytest.approx(0.0, abs=1e-6)
        clock.move(p.wait_s + 1e-7)
    assert seen == [0, 1, 2, 3] and (p.index, p.state, p.wait_s) == (4, "ended", math.inf)
    clock.move(1000.0)
    assert (p.index, p.position_s) == (4, STAMPS[-1])
    p.pause(False)  # play again
    assert (p.index, p.state) == (0, "running")


def test_a_loop_begins_again_one_period_after_the_last_frame(clock: Clock) -> None:
    p = playing(clock, loop=True)
    clock.move(0.6 + 1e-6)
    assert (p.index, p.state) == (4, "running")
    assert p.wait_s == pytest.approx(0.1, abs=1e-5)
    clock.move(p.wait_s + 1e-6)
    assert (p.index, p.state) == (0, "running")
    clock.move(7 * 0.7)
    assert p.index == 0


def test_a_pause_stands_still_and_goes_on_from_there(clock: Clock) -> None:
    p = playing(clock)
    clock.move(0.15)
    p.pause(True)
    clock.move(50.0)
    assert (p.index, p.state, p.wait_s, p.age_s(0)) == (1, "paused", math.inf, 0.0)
    p.pause(False)
    clock.move(0.051)
    assert p.index == 2


def test_the_age_is_since_a_frame_was_due_on_the_wall(clock: Clock) -> None:
    p = playing(clock, speed=2.0)
    clock.move(0.1)  # 0.2 s of the recording
    assert p.age_s(0) == pytest.approx(0.1)
    assert p.age_s(1) == pytest.approx(0.05)


def test_speed_changes_from_here_on(clock: Clock) -> None:
    p = playing(clock)
    clock.move(0.1)
    p.set_speed(0.5)
    assert p.position_s == pytest.approx(10.1)
    clock.move(0.19)
    assert p.index == 1
    clock.move(0.011)
    assert p.index == 2
    for bad in (0.05, 9.0, math.nan):
        with pytest.raises(ConfigError, match="speed"):
            p.set_speed(bad)


def test_steps_pause_and_stay_inside(clock: Clock) -> None:
    p = playing(clock)
    for expected in (1, 2, 3, 4, 4):
        p.step()
        assert (p.index, p.state) == (expected, "paused")
    p.step(-9)
    assert p.index == 0


@given(st.lists(st.integers(0, len(STAMPS) - 1), min_size=1), st.booleans())
def test_the_newest_seek_wins(wanted: list[int], paused: bool) -> None:
    clock = Clock()
    p = playing(clock)
    p.pause(paused)
    for index in wanted:
        p.seek(index)
    assert p.index == wanted[-1] and p.position_s == STAMPS[wanted[-1]]
    clock.move(0.001)
    assert p.index == wanted[-1]


def test_a_seek_outside_is_refused_and_changes_nothing(clock: Clock) -> None:
    p = playing(clock)
    p.seek(3)
    for index in (-1, 5):
        with pytest.raises(ConfigError, match="0 to 4"):
            p.seek(index)
    assert p.index == 3


def test_holds_add_up(clock: Clock) -> None:
    p = playing(clock)
    p.hold("a", True)
    p.hold("b", True)
    clock.move(5.0)
    p.hold("a", False)
    assert (p.index, p.state) == (0, "waiting")
    p.seek(2)
    assert (p.index, p.state, p.wait_s) == (2, "waiting", math.inf)
    p.hold("b", False)
    assert (p.index, p.state) == (2, "running")


@pytest.mark.parametrize("stamps", [[], [1.0, 1.0], [2.0, 1.0]])
def test_stamps_that_do_not_rise_are_refused(stamps: list[float]) -> None:
    with pytest.raises(TimeError):
        Playback(stamps)


def test_one_frame_is_its_own_end(clock: Clock) -> None:
    assert Playback([1.0], clock=clock).state == "ended"
    assert Playback([1.0], loop=True, clock=clock).state == "ended"


# --- events -----------------------------------------------------------------------------------------------------------


def geometry() -> ImageGeometry:
    return PlaneGeometry(PlaneGrid(4, 4, ((1.0, 0.0), (0.0, 1.0))))


def notes(*stamps_s: float) -> list[FrameNote]:
    return [FrameNote(s, (0, 0), geometry()) for s in stamps_s]


def kinds(results: list[Result | None], frames: list[FrameNote] | None = None) -> list[tuple[int, str]]:
    found = events_of(frames or notes(*(0.1 * k for k in range(len(results)))), results)
    return [(e["index"], e["kind"]) for e in found]


def test_events_stand_where_a_state_begins() -> None:
    words = "WAITING ACCEPTED REJECTED REJECTED ERROR ACCEPTED LOST LOST REJECTED ACCEPTED NOT_TRACKED ACCEPTED".split()
    assert kinds([Result(w, "why") for w in words]) == [
        (1, "initialized"), (2, "rejected"), (6, "lost"), (8, "rejected"), (9, "found"), (10, "gap"),
    ]  # fmt: skip


def test_a_jump_of_the_filter_is_told_and_frames_without_result_are_not() -> None:
    again = Result("ACCEPTED", "re-initialised by 5 estimates that agree")
    assert kinds([None, Result("ACCEPTED"), None, again, None]) == [(1, "initialized"), (3, "initialized")]


def test_gaps_and_messages_that_were_left_out() -> None:
    frames = notes(0.0, 0.1, 0.2, 0.9, 1.0)
    found = events_of(frames, [None] * 5, [(0.15, "bad a"), (0.16, "bad b"), (7.0, "the end is missing")])
    assert [(e["index"], e["kind"], e["text"]) for e in found] == [
        (2, "gap", "bad a (and 1 more)"), (3, "gap", "no frame for 0.70 s"), (4, "gap", "the end is missing"),
    ]  # fmt: skip
    assert all(e["stamp_s"] == frames[e["index"]].stamp_s for e in found)


def test_the_number_of_events_is_bounded() -> None:
    results = [Result("LOST" if k % 2 else "ACCEPTED") for k in range(3 * MOST)]
    found = events_of(notes(*(0.1 * k for k in range(len(results)))), results)
    assert len(found) == MOST and "more events" in found[-1]["text"]
    assert torch.isfinite(torch.tensor([e["stamp_s"] for e in found])).all()
