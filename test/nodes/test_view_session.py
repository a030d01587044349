# SPDX-License-Identifier: Apache-2.0
"""A session with its page over the real middleware: frames, a recording, a page's node that dies or cannot serve.

Each run is a `usreg run` of its own, on a private domain, over the first seconds of the phantom's session.
"""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from usreg.data.bags import BagReader  # noqa: E402
from usreg.web.wire import unpack  # noqa: E402

PATIENCE_S = 180.0


class Run:
    """`usreg run replay` over the first seconds of the phantom; what it says is read all the time."""

    def __init__(self, session: Path, folder: Path, offset: int, *words: str) -> None:
        self.command = ["run", "replay", "--bag", str(session), *words]
        domain = str(1 + (int(os.environ["ROS_DOMAIN_ID"]) + offset) % 101)
        environment = os.environ | {"ROS_DOMAIN_ID": domain, "XDG_CACHE_HOME": str(folder / "cache")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        code = [sys.executable, "-c", "from usreg.cli import main; main()"]
        self.process = subprocess.Popen(
            [*code, *self.command], cwd=folder, env=environment, start_new_session=True, **pipes
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def until(self, reached: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE_S
        while not (found := reached()):
            assert self.process.poll() is None and time.monotonic() < end, f"no {what}:\n{self.said[-3000:]}"
            time.sleep(0.05)
        return found

    def url(self, number: int = 1) -> str:
        """The page's address, as it was printed for the n-th time."""
        urls = lambda: re.findall(r"^view: (http\S+)", self.said, re.MULTILINE)  # noqa: E731
        return self.until(lambda: len(urls()) >= number and urls()[-1], "address")

    def end(self) -> int:
        """Wait for the end of the bag."""
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self._reader.join(5)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def run(depth_change_session: Any, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def start(*words: str) -> Run:
        made.append(Run(depth_change_session.folder, tmp_path, 20 + len(made), *words))
        return made[-1]

    yield start
    for one in made:
        one.kill()


async def watch(url: str, until: Callable[[dict[str, list[Any]]], bool], ask: tuple[Any, ...] = ()) -> dict[str, list]:
    """Headers by type until enough has come; some frames after each other commands (name, args) are sent."""
    found: dict[str, list[Any]] = {}
    asked = seen = 0
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}ws", max_msg_size=1 << 26) as page:
        while not until(found):
            message = await page.receive(timeout=60)
            assert message.type == aiohttp.WSMsgType.BINARY, message
            header, _ = unpack(message.data)
            found.setdefault(header["type"], []).append(header)
            seen = 0 if header["type"] == "reply" else seen + (header["type"] == "frame")
            if header["type"] == "frame":
                await page.send_str(json.dumps({"type": "ack", "seq": header["seq"]}))
            stands = found.get("frame", [{}])[-1].get("paused", False)
            if asked < len(ask) and len(found.get("reply", [])) == asked and (seen > 3 or stands):
                name, args = ask[asked]
                asked += 1
                await page.send_str(json.dumps({"type": "command", "id": asked, "name": name, "args": args}))
    return found


def child(pid: int, word: str) -> int:
    """The child of a process whose command holds a word."""
    for other in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split():
        if word in Path(f"/proc/{other}/cmdline").read_text(encoding="utf-8"):
            return int(other)
    raise AssertionError(f"no child of {pid} runs {word}")


def test_the_page_shows_records_and_pauses_and_the_session_outlives_its_node(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    session = run("view_port:=0", "loop:=true", "--rate", "0.5")
    url = session.url()
    ask = (("record", {"on": True}), ("target", {"ct": [0, 0, 20]}), ("pause", {"on": True}), ("pause", {"on": False}),
           ("record", {"on": False}))  # fmt: skip
    known = lambda f: any(frame["tre_mm"] for frame in f.get("frame", []))  # noqa: E731  read from the bag's file
    found = asyncio.run(watch(url, lambda f: len(f.get("reply", [])) == len(ask) and known(f), ask))
    assert [r["message"] for r in found["reply"] if not r["ok"]] == []
    shown = [f for f in found["frame"] if f["fused"] and f["status"] == "ACCEPTED"]
    assert shown and {"lbr_link_0", "us_probe"} <= {link["name"] for link in shown[-1]["links"]}
    assert min(f["tre_mm"] for f in found["frame"] if f["tre_mm"]) < 5.0
    assert all(0.0 <= f["age_s"] < 30.0 for f in found["frame"]) and any(f["paused"] for f in found["frame"])
    (recording,) = (tmp_path / "recordings").iterdir()
    with BagReader(recording) as bag:
        assert not bag.truncated and {"/us/image", "/us/pose", "/target", "/tf_static"} <= set(bag.topics)
        assert bag.topics["/us/image"].count > 0 and bag.topics["/tf_static"].count > 0
    os.kill(child(session.process.pid, "usreg.nodes.web_view"), signal.SIGKILL)
    again = session.url(2)
    asyncio.run(watch(again, lambda f: any(frame["fused"] for frame in f.get("frame", []))))
    session.process.send_signal(signal.SIGINT)
    assert session.end() == 0, session.said
    assert "web_view has ended with -9" in session.said and "the other nodes go on" in session.said


def test_a_page_that_cannot_be_served_does_not_end_the_session(run: Callable[..., Run]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = run(f"view_port:={port}", "--rate", "4", "--processes", "one")
        refused = run("view_host:=203.0.113.9", "--rate", "4", "--processes", "many")  # not of this machine
        assert taken.end() == 0, taken.said
    assert f"port {port}" in taken.said and "choose another port" in taken.said and "session goes on" in taken.said
    assert refused.end() == 0, refused.said
    assert "cannot listen at 203.0.113.9" in refused.said and "goes on without it" in refused.said
    for session in (taken, refused):
        assert re.search(r"[1-9]\d* accepted", session.said), session.said


def test_a_session_that_is_killed_leaves_no_process(
    run: Callable[..., Run], clean_leftovers: Callable[[float], list[str]]
) -> None:
    since = time.time()
    session = run("view_port:=0", "loop:=true")
    session.url()
    page = child(session.process.pid, "usreg.nodes.web_view")
    session.process.kill()
    session.process.wait(5)
    end = time.monotonic() + 15
    while Path(f"/proc/{page}/cmdline").exists() and Path(f"/proc/{page}/cmdline").read_bytes():
        assert time.monotonic() < end, "the page's process lives on"
        time.sleep(0.1)
    clean_leftovers(since)
