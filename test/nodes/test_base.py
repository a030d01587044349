# SPDX-License-Identifier: Apache-2.0
"""What every node shares: the library's log in ROS's log, errors of a callback, the end of a process."""

import logging
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
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


@pytest.mark.parametrize("error", [GeometryError("no such thing"), KeyboardInterrupt()])
def test_a_node_that_cannot_begin_ends_with_a_line_and_a_code(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(base.rclpy, "init", lambda args=None: None)
    monkeypatch.setattr(base.rclpy, "try_shutdown", lambda: None)
    monkeypatch.setattr(base, "make_executor", lambda: None)

    def make() -> base.Stage:
        raise error

    code = base.run_node(make)
    assert code == (0 if isinstance(error, KeyboardInterrupt) else base.EXIT_CONFIG)
    errors = capfd.readouterr().err
    assert "Traceback" not in errors and ("no such thing" in errors) == bool(code)
