# SPDX-License-Identifier: Apache-2.0
"""One browser at the socket: a task writes what the hub has for it, a loop reads and answers what it asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Coroutine
from typing import Any

from aiohttp import WSMessage, WSMsgType

from ..errors import ConfigError
from .commands import finite
from .connection import GOING_AWAY, GONE, TOO_MUCH, Connection
from .desk import Desk
from .hub import Hub
from .wire import pack

MESSAGES_A_SECOND = 200
PING_S = 10.0


class Client:
    """A connection from join to leave."""

    def __init__(self, connection: Connection, hub: Hub, desk: Desk) -> None:
        self.connection, self._hub, self._desk = connection, hub, desk
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._tokens, self._counted_s = float(MESSAGES_A_SECOND), time.monotonic()
        self._work: set[asyncio.Task] = set()
        self.watcher = hub.join(self._wake_up)

    async def run(self) -> None:
        """Until the client goes, or is sent away."""
        writing = asyncio.create_task(self._write())
        try:
            async for message in self.connection:
                if message.type is WSMsgType.ERROR:
                    break  # too large, or not a WebSocket frame: closed already
                if not self._in_time():
                    await self.connection.leave(f"more than {MESSAGES_A_SECOND} messages a second", TOO_MUCH)
                    break
                if message.type is WSMsgType.PING:
                    await self.connection.pong(message.data)
                elif message.type is not WSMsgType.PONG and not self._take(message):
                    await self.connection.leave("replies are not read", TOO_MUCH)
                    break
        except GONE:
            pass  # while it was answered
        finally:
            self._hub.leave(self.watcher)
            for task in (writing, *self._work):
                task.cancel()
            await asyncio.gather(writing, *self._work, return_exceptions=True)

    def dismiss(self, reason: str) -> None:
        """Begin to send the client away."""
        self._begin(self.connection.leave(reason, GOING_AWAY))

    def _wake_up(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be woken
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _write(self) -> None:
        """The next message each time the one before has left: nothing queues here."""
        pinged_s = 0.0
        while not self.connection.leaving:
            self._wake.clear()
            message = self.watcher.take()
            try:
                if message is not None:
                    await self.connection.send_bytes(message)  # returns when the transport has room again
                    continue
                if self.watcher.stalled and time.monotonic() - pinged_s >= PING_S:
                    pinged_s = time.monotonic()
                    await self.connection.ping()
            except GONE:
                return  # the reading loop ends as well
            await self._sleep(min(self.watcher.wait_s(), PING_S if not self.watcher.ready else math.inf))

    async def _sleep(self, seconds: float) -> None:
        if seconds == math.inf:
            await self._wake.wait()
        elif seconds > 0.0:
            timer = self._loop.call_later(seconds, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    def _in_time(self) -> bool:
        """A bucket of messages that fills at the allowed rate."""
        now_s = time.monotonic()
        filled = self._tokens + (now_s - self._counted_s) * MESSAGES_A_SECOND
        self._tokens, self._counted_s = min(filled, float(MESSAGES_A_SECOND)) - 1.0, now_s
        return self._tokens >= 0.0

    def _take(self, received: WSMessage) -> bool:
        """One message of the page. False: the client does not read its answers."""
        try:
            message = _parse(received.data if received.type is WSMsgType.TEXT else None)
            kind = message.get("type")
            if kind == "ack":
                self._acknowledge(message)
                return True
            if kind == "ping":
                if not finite(message.get("client_ms")):
                    raise ConfigError("a ping needs the number 'client_ms'")
                pong = {"type": "pong", "client_ms": message["client_ms"], "server_s": time.monotonic()}
                return self.watcher.answer(pack(pong))
            if kind == "command":
                self._start(message)
                return True
            raise ConfigError(f"a message is of type ack, ping or command, not {kind!r:.50}")
        except ConfigError as error:
            return self.watcher.answer(reply(None, False, str(error)))

    def _acknowledge(self, message: dict[str, Any]) -> None:
        seq, drawn_s = message.get("seq"), message.get("drawn_server_s")
        if type(seq) is not int or not (drawn_s is None or finite(drawn_s)):
            raise ConfigError("an ack needs the whole number 'seq', and 'drawn_server_s' as a number or null")
        self.watcher.acknowledge(seq, drawn_s)

    def _start(self, message: dict[str, Any]) -> None:
        """Commands run aside, so that frames and pings go on meanwhile."""
        number = message.get("id")
        if type(number) is not int or abs(number) >= 2**53:
            raise ConfigError("a command needs a whole number 'id'")
        self._begin(self._answer(number, message.get("name"), message.get("args", {})))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _answer(self, number: int, name: Any, args: Any) -> None:
        ok, text, data = await self._desk.serve(name, args)
        if not self.watcher.answer(reply(number, ok, text, data)):
            await self.connection.leave("replies are not read", TOO_MUCH)


def reply(number: int | None, ok: bool, text: str, data: dict[str, Any] | None = None) -> bytes:
    """Answer to a command; number None where a message could not be read."""
    return pack({"type": "reply", "id": number, "ok": ok, "message": text, "data": data or {}})


def _parse(text: str | None) -> dict[str, Any]:
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"a message must be JSON text: {error}") from error
    if not isinstance(message, dict):
        raise ConfigError("a message must be a JSON object")
    return message
