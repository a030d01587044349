# SPDX-License-Identifier: Apache-2.0
"""`usreg view`: an address that answers, an end by Ctrl-C, and every bad input as one readable line."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from usreg.web.wire import unpack

TOP = Path(__file__).resolve().parents[2]
Started = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def view() -> Iterator[Started]:
    """Start the command in a process of its own; returns it and the line with its address."""
    begun: list[subprocess.Popen[str]] = []

    def start(*words: object) -> tuple[subprocess.Popen[str], str]:
        environment = os.environ | {"PYTHONPATH": str(TOP / "src" / "usreg")}
        command = [sys.executable, "-m", "usreg.cli", "view", *map(str, words)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=TOP
        )
        begun.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def first_messages(url: str, wanted: int) -> list[dict[str, Any]]:
    """Headers until so many frames have come."""
    address, found, frames = urlsplit(url), list[dict[str, Any]](), 0
    where = f"ws://{address.netloc}/ws" + (f"?{address.query}" if address.query else "")
    async with aiohttp.ClientSession() as session, session.ws_connect(where, max_msg_size=0) as ws:
        while frames < wanted:
            header, _ = unpack((await asyncio.wait_for(ws.receive(), 60.0)).data)
            found.append(header)
            if header["type"] == "frame":
                frames += 1
                await ws.send_json({"type": "ack", "seq": header["seq"], "drawn_server_s": None})
    return found


def test_a_session_is_served_until_ctrl_c(view: Started) -> None:
    process, line = view("volunteer", "--port", 0, "--no-register", "--loop", "--rate", "8")
    url = next(word for word in line.split() if word.startswith("http"))
    assert line.startswith("volunteer: ") and urlsplit(url).hostname == "127.0.0.1" and "token" not in url
    found = asyncio.run(first_messages(url, 5))
    hello = next(h for h in found if h["type"] == "hello")
    assert (hello["title"], hello["kind"], hello["replay"]["count"]) == ("volunteer", "replay", 166)
    assert [h["width"] for h in found if h["type"] == "frame"] == [208] * 5
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err
    assert "not registered" in err  # what is missing is told


def test_another_host_needs_the_token_that_is_printed(view: Started, depth_change_session: Any) -> None:
    process, line = view(depth_change_session.folder, "--host", "0.0.0.0", "--port", 0, "--no-register", "--read-only")
    url = next(word for word in line.split() if word.startswith("http"))
    address = urlsplit(url)
    assert len(address.query.removeprefix("token=")) >= 16
    local = f"http://127.0.0.1:{address.port}/?{address.query}"
    found = asyncio.run(first_messages(local, 1))
    hello = next(h for h in found if h["type"] == "hello")
    assert hello["read_only"] and "landmark" not in hello["commands"] and "seek" in hello["commands"]
    with pytest.raises(aiohttp.WSServerHandshakeError):
        asyncio.run(first_messages(f"http://127.0.0.1:{address.port}/", 1))
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


def assert_one_line(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    lines = [line for line in err.strip().splitlines() if line.startswith("usreg:")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err, result
    for word in words:
        assert word in lines[0]


def test_a_port_in_use(usreg: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(usreg("view", "phantom", "--port", port), str(port), "port")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nowhere",), ("nowhere", "phantom")),
        (("README.md",), ("not a bag",)),
        (("phantom", "--session", "volunteer"), ("--session",)),
        (("phantom", "--rate", "0"), ("speed",)),
        (("phantom", "--host", "198.51.100.1"), ("198.51.100.1",)),
        (("--loop",), ("--loop", "recording")),
        (("--no-register", "--session", "phantom"), ("--session, --register",)),
    ],
)
def test_bad_input_is_one_line(usreg: Any, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    port = ("--port", "0") if "--host" not in words else ()
    assert_one_line(usreg("view", *(str(TOP / w) if w == "README.md" else w for w in words), *port), *told)


def test_the_browser_is_opened_where_asked_for(monkeypatch: pytest.MonkeyPatch, usreg: Any) -> None:
    import threading
    import webbrowser

    opened: list[str] = []

    def open_it(url: str) -> bool:
        opened.append(url)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return True

    monkeypatch.setattr(webbrowser, "open", open_it)
    code, out, _ = usreg("view", "phantom", "--port", 0, "--no-register", "--open")
    assert code == 0 and opened and opened[0] in out
