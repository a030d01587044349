# SPDX-License-Identifier: Apache-2.0
"""Commands of the page: what is taken, what is refused and how, and the desk that runs them one at a time."""

import asyncio
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usreg.errors import ConfigError, LostError
from usreg.web.commands import (
    COMMANDS,
    InitializePairs,
    Landmark,
    NoControls,
    Pair,
    Pause,
    Reset,
    Seek,
    Target,
    allowed,
    finite,
    parse_command,
)
from usreg.web.desk import Desk

PAIR = {"world": [1, 2.5, -3], "ct": [4.0, 5.0, 6.0]}


class All:
    kind = "replay"
    names = tuple(COMMANDS)

    def __init__(self, act=lambda command: {"done": type(command).__name__}):
        self.call = act


GOOD = [
    ("initialize_hypothesis", {"rank": 0}),
    ("initialize_pairs", {"pairs": [PAIR] * 3}),
    ("reset", {}),
    ("accept", {"on": False}),
    ("target", {"ct": [1.0, 2.0, 3.0]}),
    ("target", {"ct": None}),
    ("record", {"on": True}),
    ("pause", {"on": True}),
    ("step", {}),
    ("seek", {"index": 12}),
    ("speed", {"factor": 2}),
    ("landmark", {"world": [0, 0, 0], "ct": [1, 1, 1], "name": "bifurcation é"}),
    ("clear_landmarks", {}),
]


@pytest.mark.parametrize("name, args", GOOD)
def test_each_command_is_read(name, args):
    assert type(parse_command(name, args, All())) is COMMANDS[name]


def test_values_arrive():
    assert parse_command("seek", {"index": 7}, All()) == Seek(7)
    assert parse_command("target", {"ct": [1, 2, 3]}, All()) == Target((1.0, 2.0, 3.0))
    pairs = parse_command("initialize_pairs", {"pairs": [PAIR] * 3}, All())
    assert pairs == InitializePairs((Pair((1.0, 2.5, -3.0), (4.0, 5.0, 6.0)),) * 3)
    assert parse_command("landmark", PAIR, All()) == Landmark((1.0, 2.5, -3.0), (4.0, 5.0, 6.0), "")


@pytest.mark.parametrize(
    "name, args",
    [
        ("format_disk", {}),
        (None, {}),
        (["reset"], {}),
        ("reset", {"now": True}),
        ("reset", None),
        ("reset", []),
        ("accept", {}),
        ("accept", {"on": 1}),
        ("accept", {"on": "yes"}),
        ("target", {}),
        ("target", {"ct": [1, 2]}),
        ("target", {"ct": [1, 2, 1e9]}),
        ("target", {"ct": [1, 2, math.nan]}),
        ("target", {"ct": [1, 2, 10**400]}),
        ("target", {"ct": "abc"}),
        ("initialize_pairs", {"pairs": [PAIR] * 2}),
        ("initialize_pairs", {"pairs": [PAIR] * 21}),
        ("initialize_pairs", {"pairs": [{"world": [0, 0, 0]}] * 3}),
        ("initialize_pairs", {"pairs": {"world": [0, 0, 0]}}),
        ("initialize_hypothesis", {"rank": -1}),
        ("initialize_hypothesis", {"rank": 0.5}),
        ("seek", {"index": -1}),
        ("seek", {"index": True}),
        ("speed", {"factor": 0.0}),
        ("speed", {"factor": 8.1}),
        ("speed", {"factor": math.inf}),
        ("landmark", {**PAIR, "name": "x" * 65}),
        ("landmark", {**PAIR, "name": "a\nb"}),
        ("landmark", {**PAIR, "name": 5}),
    ],
)
def test_what_does_not_fit_is_refused(name, args):
    with pytest.raises(ConfigError):
        parse_command(name, args, All())


WORDS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["ct", "world", "on", "pairs"]), inner),
    max_leaves=8,
)


@given(st.sampled_from([*COMMANDS, "other"]), WORDS)
def test_whatever_comes_is_a_command_or_a_clear_refusal(name, args):
    try:
        assert type(parse_command(name, args, All())) is COMMANDS[name]
    except ConfigError as error:
        assert str(error)


def test_refusals_say_what_was_expected():
    with pytest.raises(ConfigError, match="there are initialize_hypothesis, .*clear_landmarks"):
        parse_command("rest", {}, All())
    with pytest.raises(ConfigError, match="needs {on}"):
        parse_command("accept", {}, All())
    with pytest.raises(ConfigError, match="does not take it now"):
        parse_command("reset", {}, NoControls())


def test_read_only_leaves_the_playback_of_a_replay():
    live = All()
    live.kind = "live"
    assert allowed(All(), True) == ("pause", "step", "seek", "speed")
    assert allowed(live, True) == () and allowed(live, False) == tuple(COMMANDS)
    assert parse_command("pause", {"on": True}, All(), read_only=True) == Pause(True)
    for name, args in GOOD:
        if name not in allowed(All(), True):
            with pytest.raises(ConfigError, match="read only"):
                parse_command(name, args, All(), read_only=True)


@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, 10**400, [1]])
def test_numbers_that_are_none(value):
    assert not finite(value)


# --- the desk ---


def serve(controls, *calls, timeout_s=10.0, waiting=8):
    """Answers of several calls at once."""

    async def main():
        desk = Desk(controls, False, timeout_s, waiting)
        try:
            return await asyncio.gather(*(desk.serve(name, args) for name, args in calls))
        finally:
            desk.close()

    return asyncio.run(main())


def test_the_desk_answers_with_data():
    assert serve(All(), ("reset", {})) == [(True, "", {"done": "Reset"})]
    assert serve(All(lambda command: None), ("reset", {})) == [(True, "", {})]


def test_errors_of_the_source_become_answers():
    def act(command):
        raise {Reset: LostError("place three pairs"), Pause: ZeroDivisionError("a secret path")}[type(command)]

    (lost, failed) = serve(All(act), ("reset", {}), ("pause", {"on": True}))
    assert lost == (False, "place three pairs", {})
    assert not failed[0] and "secret" not in failed[1] and "pause" in failed[1]


def test_data_that_json_cannot_hold_is_an_error_of_the_command():
    ((ok, message, data),) = serve(All(lambda command: {"x": object()}), ("reset", {}))
    assert not ok and "JSON" in message and data == {}


def test_one_at_a_time_in_another_thread():
    inside, threads = [], set()

    def act(command):
        threads.add(threading.current_thread())
        inside.append(1)
        count = len(inside)
        time.sleep(0.01)
        inside.pop()
        return {"count": count}

    answers = serve(All(act), *[("reset", {})] * 5)
    assert [data["count"] for _, _, data in answers] == [1] * 5
    assert threading.main_thread() not in threads and len(threads) == 1


def test_a_slow_command_is_answered_and_what_waits_behind_it_is_dropped():
    go, done = threading.Event(), []

    def act(command):
        done.append(type(command))
        go.wait(10)
        return {}

    try:
        slow, behind = serve(All(act), ("reset", {}), ("seek", {"index": 1}), timeout_s=0.1)
    finally:
        go.set()
    assert not slow[0] and "may still take effect" in slow[1]
    assert not behind[0] and "not begun" in behind[1]
    assert done == [Reset]


def test_too_many_that_wait():
    answers = serve(All(lambda command: {}), *[("reset", {})] * 4, waiting=2)
    assert [ok for ok, _, _ in answers] == [True, True, False, False]
    assert "wait already" in answers[2][1]
