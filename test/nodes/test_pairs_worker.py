# SPDX-License-Identifier: Apache-2.0
"""Messages of one stamp find each other; the worker takes the newest item and never dies."""

import threading
import time
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from usreg.nodes.diagnostics import Diagnostics  # noqa: E402
from usreg.nodes.pairs import StampPairs  # noqa: E402
from usreg.nodes.worker import NewestWorker  # noqa: E402

PARTS = ("image", "geometry", "pose")


@given(st.permutations([(part, float(k)) for part in PARTS for k in range(4)]))
def test_every_set_comes_out_once_whatever_the_order(order: list[tuple[str, float]]) -> None:
    pairs, whole = StampPairs(PARTS), []
    for part, stamp_s in order:
        found = pairs.add(part, stamp_s, (part, stamp_s))
        if found is not None:
            assert found == {p: (p, stamp_s) for p in PARTS}
            whole.append(stamp_s)
    assert sorted(whole) == [0.0, 1.0, 2.0, 3.0]
    assert len(pairs) == 0


def test_what_waits_is_bounded_and_told() -> None:
    lost: list[tuple[float, dict[str, Any]]] = []
    pairs = StampPairs(PARTS, limit=5, on_drop=lambda stamp_s, found: lost.append((stamp_s, found)))
    for k in range(8):
        assert pairs.add("image", float(k), k) is None
    assert len(pairs) == 5
    assert lost == [(0.0, {"image": 0}), (1.0, {"image": 1}), (2.0, {"image": 2})]


def test_overdue_sets_are_given_up() -> None:
    pairs = StampPairs(PARTS)
    pairs.add("image", 1.0, "a")
    assert pairs.overdue(10.0) == []
    time.sleep(0.02)
    pairs.add("image", 2.0, "b")
    assert pairs.overdue(0.015) == [(1.0, {"image": "a"})]
    assert len(pairs) == 1
    pairs.reset()
    assert len(pairs) == 0


def test_the_newest_item_wins() -> None:
    done, skipped, gate = [], [], threading.Event()

    def work(item: int) -> None:
        gate.wait(5)
        done.append(item)

    worker = NewestWorker(work, skipped.append)
    worker.put(1)
    while worker.waiting():
        time.sleep(0.001)
    for item in (2, 3, 4):
        worker.put(item)
    gate.set()
    assert worker.idle(5)
    worker.stop()
    assert (done, skipped) == ([1, 4], [2, 3])


def test_an_unexpected_error_is_logged_and_the_next_item_is_worked_on(caplog: pytest.LogCaptureFixture) -> None:
    done: list[float] = []
    worker = NewestWorker(lambda item: done.append(1 / item))
    worker.put(0)
    assert worker.idle(5)
    worker.put(2)
    assert worker.idle(5)
    worker.stop()
    assert done == [0.5]
    assert "ZeroDivisionError" in caplog.text


def test_diagnostics_tell_rate_latency_age_and_drops(bench: Any) -> None:
    heard = bench.hear(DiagnosticArray, "/diagnostics")
    diagnostics = Diagnostics(bench.probe, "stage")
    now_s = bench.probe.get_clock().now().nanoseconds * 1e-9
    for k in range(5):
        diagnostics.done(now_s - 0.25 - 0.001 * k, 0.01)
    diagnostics.drop("no pose", 2)
    name = f"/{bench.namespace}/probe: stage"
    bench.until(lambda: any(s.name == name for m in heard for s in m.status))
    status = next(s for m in heard for s in m.status if s.name == name)
    values = {row.key: row.value for row in status.values}
    assert status.level == b"\x01" and "2 dropped" in status.message
    assert 3.0 < float(values["rate_hz"]) < 8.0
    assert 0.25 < float(values["latency_median_s"]) < 1.0
    assert 0.25 < float(values["age_s"]) < 5.0
    assert float(values["work_median_s"]) == pytest.approx(0.01)
    assert (values["results"], values["drops"], values["drops: no pose"]) == ("5", "2", "2")
