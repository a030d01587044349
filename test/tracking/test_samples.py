# SPDX-License-Identifier: Apache-2.0
"""What a stream of samples refuses, and why."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usreg.errors import ConfigError, StalePoseError, TimeError
from usreg.tracking import SampleBuffer, StreamConfig


def filled(config: StreamConfig | None = None, count: int = 10, step: float = 0.01) -> SampleBuffer:
    buffer = SampleBuffer(config or StreamConfig(), "thing")
    for i in range(count):
        buffer.add(10 + i * step, i, i)
    return buffer


def test_bracket_finds_neighbours_and_share() -> None:
    a, b, u = filled().bracket(10.025)
    assert (a.value, b.value) == (2, 3) and u == pytest.approx(0.5)
    a, b, u = filled().bracket(10.0)
    assert a is b and a.value == 0 and u == 0.0


@given(st.lists(st.floats(1e-3, 0.09), min_size=1, max_size=30), st.floats(0, 1))
def test_bracket_encloses_the_stamp(steps: list[float], share: float) -> None:
    buffer = SampleBuffer(StreamConfig(), "thing")
    stamps = [5.0]
    for step in steps:
        stamps.append(stamps[-1] + step)
    for stamp in stamps:
        buffer.add(stamp, stamp, stamp)
    wanted = stamps[0] + share * (stamps[-1] - stamps[0])
    a, b, u = buffer.bracket(min(wanted, stamps[-1]))
    assert a.stamp_s <= wanted <= b.stamp_s or math.isclose(wanted, b.stamp_s)
    assert 0 <= u <= 1 and a.stamp_s + u * (b.stamp_s - a.stamp_s) == pytest.approx(wanted)


@pytest.mark.parametrize(("stamp", "match"), [
    (10.2, r"newest thing is 0\.110 s older.*never extrapolated"),
    (9.5, r"0\.500 s older than the oldest thing"),
    (math.nan, "finite"),
    (math.inf, "newest"),
])  # fmt: skip
def test_outside_the_measured_interval(stamp: float, match: str) -> None:
    with pytest.raises(StalePoseError, match=match):
        filled().bracket(stamp)


def test_empty_buffer_and_reset() -> None:
    buffer = filled()
    assert buffer.newest_s == pytest.approx(10.09) and buffer.oldest_s == 10.0
    buffer.reset()
    assert len(buffer) == 0 and math.isnan(buffer.newest_s)
    with pytest.raises(StalePoseError, match="no thing has arrived"):
        buffer.bracket(10.0)
    buffer.add(1.0, 1, 1)  # an earlier clock is fine after a reset
    assert buffer.bracket(1.0)[0].value == 1


def test_gap_above_the_limit_is_refused_but_its_ends_are_measured() -> None:
    buffer = SampleBuffer(StreamConfig(max_gap_s=0.1), "thing")
    buffer.add(1.0, 1, "a")
    buffer.add(1.25, 2, "b")
    with pytest.raises(StalePoseError, match=r"gap of 0\.250 s.*limit is 0\.1 s"):
        buffer.bracket(1.1)
    assert buffer.bracket(1.25)[0].value == "b"


def test_problem_is_refused_on_both_sides_and_said() -> None:
    buffer = filled(count=3)
    buffer.add(10.03, None, None, "the tracker's status is INVALID")
    buffer.add(10.04, 4, 4)
    for stamp in (10.025, 10.03, 10.035):
        with pytest.raises(StalePoseError, match="INVALID"):
            buffer.bracket(stamp)
    assert buffer.bracket(10.02)[0].value == 2 and buffer.bracket(10.04)[0].value == 4


@pytest.mark.parametrize(
    ("stamp", "match"), [(10.09, "repeats"), (10.05, "backwards by 0.04"), (math.nan, "finite"), (math.inf, "finite")]
)
def test_stamps_that_do_not_rise_are_refused_and_not_taken(stamp: float, match: str) -> None:
    buffer = filled()
    with pytest.raises(TimeError, match=match):
        buffer.add(stamp, 99, 99)
    assert len(buffer) == 10


def test_frozen_stream_is_refused_after_its_limit_and_recovers() -> None:
    buffer = SampleBuffer(StreamConfig(max_frozen_s=0.05), "thing")
    for i in range(20):
        buffer.add(1 + i * 0.01, min(i, 5), i)
    assert buffer.bracket(1.09)[0].value == 9  # equal since 1.05, which is below the limit
    with pytest.raises(StalePoseError, match=r"frozen.*limit is 0\.05 s"):
        buffer.bracket(1.15)
    buffer.add(1.2, 6, 20)
    assert buffer.bracket(1.2)[0].value == 20
    with pytest.raises(StalePoseError, match="frozen"):
        buffer.bracket(1.195)  # its left neighbour is still a repeated value


def test_equal_values_are_fine_where_the_check_is_off() -> None:
    buffer = SampleBuffer(StreamConfig(max_frozen_s=None), "thing")
    for i in range(2000):
        buffer.add(i * 0.01, 1, i)
    assert buffer.bracket(19.0)[0].value == 1900


def test_memory_is_bounded_and_what_fell_out_is_refused() -> None:
    buffer = filled(StreamConfig(max_samples=16), 1000)
    assert len(buffer) == 16
    with pytest.raises(StalePoseError, match="16 at most"):
        buffer.bracket(10.5)


@pytest.mark.parametrize(
    "values", [{"max_gap_s": 0.0}, {"max_gap_s": math.nan}, {"max_samples": 1}, {"max_frozen_s": 0.0}]
)
def test_bad_configuration(values: dict) -> None:
    with pytest.raises(ConfigError):
        StreamConfig(**values)
