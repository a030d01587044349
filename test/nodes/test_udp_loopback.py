# SPDX-License-Identifier: Apache-2.0
"""A node's process listens on 127.0.0.1 alone, as every way of starting sets it up; without that it would not."""

import ipaddress
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
from usreg.nodes import graph  # noqa: E402

NODE = "from usreg.nodes.pose_smoothing import main; main()"
VIEW = "from usreg.nodes.web_view import main; main(['--ros-args', '-p', 'port:=0'])"
LISTEN = "0A"  # state of a TCP socket
PATIENCE_S = 30.0


def address(text: str) -> str:
    """IP address of a row of /proc/net: words of four bytes in the processor's order, hexadecimal."""
    host = bytes.fromhex(text.partition(":")[0])
    words = [host[i : i + 4] for i in range(0, len(host), 4)]
    return str(ipaddress.ip_address(b"".join(w[::-1] if sys.byteorder == "little" else w for w in words)))


def listening(pid: int) -> set[tuple[str, str]]:
    """(local address, inode) of a process's UDP sockets and of its TCP sockets that listen."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
        except FileNotFoundError:
            continue  # closed in the meantime
        inodes |= {found[1]} if found else set()
    addresses = set()
    for table in ("udp", "udp6", "tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            words = row.split()
            if words[9] in inodes and (table.startswith("udp") or words[3] == LISTEN):
                addresses.add((address(words[1]), words[9]))
    return addresses


@contextmanager
def node(environment: dict[str, str], code: str = NODE) -> Iterator[int]:
    """A real node in a process of its own; its id once it is in the graph."""
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + PATIENCE_S
        while not ready(child.pid):
            assert child.poll() is None, child.stderr.read().decode() if child.stderr else ""
            assert time.monotonic() < end, "the node did not start"
            time.sleep(0.1)
        yield child.pid
    finally:
        child.send_signal(signal.SIGINT)
        try:
            child.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()


def ready(pid: int) -> bool:
    """Whether the middleware is up: it holds sockets, and none was added for half a second."""
    before = listening(pid)
    time.sleep(0.5)
    return bool(before) and listening(pid) == before


@pytest.fixture
def environment(clean_leftovers: Callable[[float], list[str]]) -> Iterator[dict[str, str]]:
    began = time.time()
    yield dict(os.environ) | graph.environment()
    clean_leftovers(began)


@pytest.mark.parametrize("code", [NODE, VIEW], ids=["node", "page"])
def test_a_node_listens_on_loopback_alone(environment: dict[str, str], code: str) -> None:
    with node(environment, code) as pid:
        found = listening(pid)
    assert found and all(ipaddress.ip_address(a).is_loopback for a, _ in found), found


def test_without_the_profile_it_would_listen_everywhere(environment: dict[str, str]) -> None:
    """So the test above can fail."""
    del environment["FASTDDS_DEFAULT_PROFILES_FILE"]
    with node(environment) as pid:
        assert "0.0.0.0" in {a for a, _ in listening(pid)}


def test_addresses_are_read_as_they_are() -> None:
    little = sys.byteorder == "little"
    assert address("0100007F:1CE9" if little else "7F000001:1CE9") == "127.0.0.1"
    assert address("00000000:0035") == "0.0.0.0"
    loopback = "0" * 24 + ("01000000" if little else "00000001")
    assert address(f"{loopback}:0050") == "::1"
