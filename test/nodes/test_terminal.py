# SPDX-License-Identifier: Apache-2.0
"""What `usreg run` shows: a table that is redrawn on a terminal, plain lines elsewhere, a clean terminal afterwards."""

import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from usreg.nodes import terminal  # noqa: E402
from usreg.web.status import Stage  # noqa: E402

PATIENCE_S = 60.0
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
STAGES = (
    Stage("registration", "OK", "OK", 9.5, 80.4, 121.6, 200.0, 30.0, 0.1, 0),
    Stage("fusion", "WARN", "LOST: not registered", 30.0, drops=7),
)


def drawn(table: Any, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def test_the_table_says_how_each_stage_does() -> None:
    rows = [line.split() for line in drawn(terminal.table_of(STAGES)).splitlines() if line.strip()]
    assert ["registration", "9.5", "80", "122", "-", "OK"] in rows
    assert ["fusion", "30.0", "-", "-", "7", "WARN", "LOST:", "not", "registered"] in rows
    assert max(map(len, drawn(terminal.table_of(STAGES), 60).splitlines())) <= 60


@pytest.mark.parametrize(
    ("live", "options"),
    [(True, {}), (False, {"force_terminal": True}), (True, {"force_terminal": True, "_environ": {"TERM": "dumb"}})],
)
def test_plain_lines_where_no_table_can_be_drawn(live: bool, options: dict[str, Any]) -> None:
    said: list[str] = []
    console = Console(file=io.StringIO(), **options)
    with terminal.display(said.append, live, console) as shown:
        assert not shown.live
        shown.line("9.5 registrations/s")
        shown.show(STAGES, "never seen")
    assert said == ["9.5 registrations/s"] and console.file.getvalue() == ""


def test_the_cursor_comes_back_whatever_ends_the_session() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with pytest.raises(ZeroDivisionError), terminal.display(pytest.fail, True, console) as shown:
        shown.show(STAGES, "score 0.7")
        shown.line("a line [not markup]")
        raise ZeroDivisionError
    text = console.file.getvalue()
    assert "score 0.7" in text and "a line [not markup]" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


class Terminal:
    """A command on a terminal of its own; what it writes is read all the time."""

    def __init__(self, folder: Path, *words: str) -> None:
        code = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
        usreg = [sys.executable, "-c", "from usreg.cli import main; main()", *words]
        environment = os.environ | {"COLUMNS": "110", "LINES": "40", "TERM": "xterm-256color"}
        environment |= {"ROS_DOMAIN_ID": str(1 + (int(os.environ["ROS_DOMAIN_ID"]) + 60) % 101)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen([sys.executable, "-c", code, *usreg], cwd=folder, env=environment, **pipes)
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while data := os.read(self.process.stdout.fileno(), 65536):
            self.text += data.decode(errors="replace")

    def until(self, reached: Any) -> None:
        end = time.monotonic() + PATIENCE_S
        while not reached(self.text):
            assert self.process.poll() is None and time.monotonic() < end, self.text[-3000:]
            time.sleep(0.05)

    def press_ctrl_c(self) -> int:
        """As a key: the terminal sends SIGINT to what runs on it."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\x03")
        self.process.stdin.flush()
        code = self.process.wait(30)
        self._reader.join(5)
        return code


def test_on_a_terminal_a_table_is_kept_up_to_date_and_ctrl_c_ends_it_cleanly(ros: None, tmp_path: Path) -> None:
    """The whole graph with the view, on a pseudo-terminal."""
    run = Terminal(tmp_path, "run", "phantom", "loop:=true", "view_port:=0")
    try:
        run.until(lambda text: ESCAPE.sub("", text).count("rate Hz") > 6 and re.search(r"score 0\.\d", text))
        code = run.press_ctrl_c()
    finally:
        run.process.kill()
    plain = ESCAPE.sub("", run.text)
    assert code == 0, plain[-2000:]
    for name in ("player", "us_acquisition", "arm_tracking", "registration", "pose_smoothing", "fusion", "web_view"):
        assert re.search(rf"^ ?{name} +\d", plain, re.MULTILINE), name
    assert all(word in plain for word in ("rate Hz", "p50 ms", "p99 ms", "drops", "state"))
    assert "\x1b[1A" in run.text, "it is drawn again in its place"
    assert "view: http://127.0.0.1:" in plain
    assert run.text.rindex("\x1b[?25h") > run.text.rindex("\x1b[?25l"), "the cursor is shown again"
    assert re.search(r"\d+ registrations: \d+ accepted", plain)
    assert "Traceback" not in plain
    assert not (tmp_path / "recordings").exists(), "nobody has asked for a recording"
