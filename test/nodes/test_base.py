# SPDX-License-Identifier: Apache-2.0
"""What every node shares: the library's log in ROS's log, errors of a callback, the end of a process."""

import logging
import os
import signal
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402

import usreg.nodes.base as base  # noqa: E402
from usreg.errors import GeometryError  # noqa: E402


class Small(base.Stage):
    """A node that only is there."""

    def __init__(self, **options: Any) -> None:
        super().__init__("small", "small", **options)
        self.ready()


def test_warnings_and_errors_of_the_library_reach_the_log_in_any_order(bench: Any) -> None:
    bench.add(Small)
    log = logging.getLogger("usreg.somewhere")
    for level in (logging.WARNING, logging.ERROR, logging.WARNING):
        log.log(level, "rclpy ties a line of code to one severity")


def test_a_node_tells_of_either_severity_and_not_too_often(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node, said = bench.add(Small), list[tuple[bool, str]]()
    node.tell("a", "warning")
    node.tell("b", "error", "error")
    monkeypatch.setattr(base, "say", lambda log, is_error, text: said.append((is_error, text)))
    for _ in range(3):
        node.tell("c", "once")
    assert said == [(False, "once")]


def test_a_callback_that_is_refused_is_counted_and_the_node_goes_on(bench: Any) -> None:
    node = bench.add(Small)

    def refuse(value: int) -> int:
        if value < 0:
            raise GeometryError("below zero")
        return value

    call = node.guarded(refuse)
    assert call(-1) is None and call(3) == 3
    assert node.diagnostics.drops == {"GeometryError": 1}


def told(messages: list[Any]) -> dict[str, str]:
    """Values of the newest word of the node `small`."""
    found = [s for m in messages for s in m.status if s.name.endswith("/small: small")]
    return {p.key: p.value for p in found[-1].values} if found else {}


def test_diagnostics_hold_the_tail_of_the_latency_over_ten_seconds(bench: Any) -> None:
    heard = bench.hear(DiagnosticArray, "/diagnostics", "diagnostics")
    node = bench.add(Small)
    now = node.now_s()
    for k in range(100):
        node.diagnostics.done(now - 0.001 * k, 0.002)
    node.diagnostics.publish()
    bench.until(lambda: told(heard).get("results") == "100")
    values = told(heard)
    assert float(values["latency_median_s"]) == pytest.approx(0.05, abs=0.03)
    assert 0.0 <= float(values["latency_p99_s"]) - float(values["latency_median_s"]) - 0.0485 < 0.002
    tail = values["latency_p99_s"]
    node.diagnostics.publish()  # nothing has come since
    bench.until(lambda: told(heard)["latency_median_s"] == "nan")
    assert told(heard)["latency_p99_s"] == tail
    for _ in range(10):
        node.diagnostics.publish()
    bench.until(lambda: told(heard)["latency_p99_s"] == "nan")


def test_a_change_is_published_at_once_and_costs_no_figure(bench: Any) -> None:
    heard = bench.hear(DiagnosticArray, "/diagnostics", "diagnostics")
    node = bench.add(Small)
    node.diagnostics.done(node.now_s())
    node.diagnostics.done(float("nan"))
    node.diagnostics.publish()
    bench.until(lambda: told(heard).get("results") == "2")
    rate = told(heard)["rate_hz"]
    node.diagnostics.done(node.now_s())
    node.diagnostics.fact("paused", True)
    node.diagnostics.publish_now()
    bench.until(lambda: told(heard).get("paused") == "True")
    assert told(heard)["rate_hz"] == rate and told(heard)["results"] == "3"


@pytest.fixture
def no_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    """What run_node asks of rclpy, without a second context in this process."""
    monkeypatch.setattr(base.rclpy, "init", lambda args=None, **options: None)
    monkeypatch.setattr(base.rclpy, "try_shutdown", lambda: None)
    monkeypatch.setattr(base, "make_executor", lambda: None)


def test_a_node_that_cannot_begin_ends_with_a_line_and_a_code(no_ros: None, capfd: pytest.CaptureFixture[str]) -> None:
    def make() -> base.Stage:
        raise GeometryError("no such thing")

    assert base.run_node(make) == base.EXIT_CONFIG
    errors = capfd.readouterr().err
    assert "Traceback" not in errors and "no such thing" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_interrupts_nothing(no_ros: None, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with base.ros_until_asked() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # Ctrl-C reaches a node twice: from the terminal and from its launcher
        assert asked()
    assert signal.getsignal(number) is before
