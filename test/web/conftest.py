# SPDX-License-Identifier: Apache-2.0
"""Servers of the live page on free ports, and what a page says to them over real sockets; a real browser."""

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest

from usreg.web.commands import COMMANDS
from usreg.web.hub import Hub
from usreg.web.server import Server, ViewConfig
from usreg.web.wire import pack, unpack

IMAGE = np.zeros((564, 752), np.uint8)
WAIT_S = 20.0  # nothing here takes so long unless it is broken


class Controls:
    """Takes every command and remembers it."""

    kind, names = "live", tuple(COMMANDS)

    def __init__(self):
        self.calls = []

    def call(self, command):
        self.calls.append(command)
        return {"n": len(self.calls)}


@pytest.fixture
def serve():
    """Makes servers, all of which are stopped."""
    servers = []

    def make(hub=None, files=None, controls=None, **settings):
        server = Server(hub or Hub(), controls or Controls(), ViewConfig(**{"port": 0, **settings}), files or {})
        servers.append(server)
        return server, server.start()

    yield make
    for server in servers:
        server.stop()


class Page:
    """What a page does at the socket."""

    def __init__(self, connection):
        self.socket = connection

    async def say(self, **message):
        await self.socket.send_str(json.dumps(message))

    async def next(self, *kinds):
        """Header of the next message, of one of the kinds where given; others are passed over."""
        while True:
            message = await self.socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY, f"closed: {message}"
            header, _ = unpack(message.data)
            if not kinds or header["type"] in kinds:
                return header

    async def end(self):
        """(code, reason) of the server's close."""
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra
            assert message.type is aiohttp.WSMsgType.BINARY, message

    async def ack(self, seq):
        await self.say(type="ack", seq=seq, drawn_server_s=None)

    async def lives(self):
        """The server still answers."""
        await self.say(type="ping", client_ms=12.5)
        pong = await self.next("pong")
        assert pong["client_ms"] == 12.5 and pong["server_s"] > 0


class Talk:
    """Requests, sockets and messages."""

    Controls, Page = Controls, Page
    frame = staticmethod(lambda seq: pack({"type": "frame", "seq": seq}, {"image": IMAGE}))
    large = staticmethod(lambda seq: pack({"type": "frame", "seq": seq}, {"image": np.zeros(16_000_000, np.uint8)}))
    status = staticmethod(lambda: pack({"type": "status"}, {"image": IMAGE}))

    @staticmethod
    def run(work):
        return asyncio.run(asyncio.wait_for(work, WAIT_S))

    @classmethod
    def get(cls, url, path="/", **options):
        """(status, headers, body) of a request."""

        async def main():
            async with aiohttp.ClientSession() as session:
                async with session.get(url.rstrip("/") + path, allow_redirects=False, **options) as answer:
                    return answer.status, answer.headers, await answer.read()

        return cls.run(main())

    @staticmethod
    @asynccontextmanager
    async def page(url, **options):
        parts = urlsplit(url)
        place = f"ws://{parts.netloc}/ws" + (f"?{parts.query}" if parts.query else "")
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(place, max_msg_size=1 << 26, **options) as connection:
                yield Page(connection)

    @staticmethod
    async def raw_socket(url):
        """(reader, writer) after the handshake, of a client that reads only when the test does."""
        where = urlsplit(url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1024)
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: {where.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        return reader, writer

    @staticmethod
    def raw_text(text, opcode=1):
        """A masked WebSocket frame, by hand; the mask is zero."""
        data = text.encode()
        assert len(data) < 126
        return bytes([0x80 | opcode, 0x80 | len(data), 0, 0, 0, 0]) + data


@pytest.fixture
def talk():
    return Talk


@pytest.fixture(scope="module")
def chromium(top: Path) -> Iterator[Callable[..., AbstractContextManager[Any]]]:
    """Opens a tab of a fresh browser, `chromium(width, height)`: see benchmarks/live/browser.py.

    Without Chromium or playwright the test is skipped, unless USREG_BROWSER=required.
    """
    sys.path.insert(0, str(top / "benchmarks"))
    module = importlib.import_module("live.browser")
    if module.missing():
        assert os.environ.get("USREG_BROWSER") != "required", module.missing()
        pytest.skip(module.missing())
    with module.browsers() as opened:
        yield opened
    sys.path.remove(str(top / "benchmarks"))
