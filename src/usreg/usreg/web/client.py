# SPDX-License-Identifier: Apache-2.0
"""One browser at the socket: a task writes what the hub has for it, a loop reads and answers what it asks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Coroutine
from typing import Any

from aiohttp import ClientConnectionError, WSMsgType, web

from ..errors import ConfigError
from .commands import finite
from .desk import Desk
from .hub import Hub
from .wire import pack

log = logging.getLogger(__name__)
MESSAGES_A_SECOND = 200
PING_S = 10.0
CLOSE_S = 2.0  # for the client's part of the closing handshake
LINGER_S = 0.5
TOO_MUCH, TOO_BIG, BUSY, GOING_AWAY = 1008, 1009, 1013, 1001


class Socket(web.WebSocketResponse):
    """A WebSocket without compression that says why a message was too large."""

    def __init__(self, max_message_bytes: int) -> None:
        super().__init__(compress=False, max_msg_size=max_message_bytes + 1, timeout=CLOSE_S)
        self._too_big = f"a message may have {max_message_bytes} bytes at most".encode()
        self.leaving = False

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """As the base class, which closes by itself, and without a reason, after a message that is too large.

        What is left of that message is on its way: were the connection closed now, the client would see it reset
        before it reads why.
        """
        self.leaving = True
        if code == TOO_BIG and not message and not self.closed:
            message = self._too_big
            await self.send_frame(code.to_bytes(2, "big") + message, WSMsgType.CLOSE)
            await asyncio.sleep(LINGER_S)
        return await super().close(code=code, message=message, drain=drain)


async def refuse(socket: Socket, reason: str, code: int = BUSY) -> None:
    """Tell the client why, then close."""
    with contextlib.suppress(ClientConnectionError, ConnectionError):
        await socket.send_bytes(pack({"type": "bye", "reason": reason}))
        await socket.close(code=code, message=reason.encode()[:120])


class Client:
    """A connection from join to leave."""

    def __init__(self, socket: Socket, transport: asyncio.Transport | None, hub: Hub, desk: Desk) -> None:
        self._socket, self._transport, self._hub, self._desk = socket, transport, hub, desk
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._tokens, self._counted_s = float(MESSAGES_A_SECOND), time.monotonic()
        self._work: set[asyncio.Task] = set()
        self.watcher = hub.join(self._wake_up)

    async def run(self) -> None:
        """Until the client goes, or is sent away."""
        writing = asyncio.create_task(self._write())
        try:
            async for message in self._socket:
                if not self._in_time():
                    await refuse(self._socket, f"more than {MESSAGES_A_SECOND} messages a second", TOO_MUCH)
                    break
                if not self._take(message.data if message.type is WSMsgType.TEXT else None):
                    await refuse(self._socket, "replies are not read", TOO_MUCH)
                    break
        finally:
            self._hub.leave(self.watcher)
            for task in (writing, *self._work):
                task.cancel()
            await asyncio.gather(writing, *self._work, return_exceptions=True)

    async def send_away(self, reason: str, code: int = GOING_AWAY) -> None:
        """Close the connection from this side."""
        await refuse(self._socket, reason, code)

    def dismiss(self, reason: str) -> None:
        """As `send_away`, without waiting for it."""
        self._begin(self.send_away(reason))

    def abort(self) -> None:
        """End the connection without waiting for what the client has not read."""
        if self._transport is not None:
            self._transport.abort()

    def _wake_up(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be woken
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _write(self) -> None:
        """The next message each time the one before has left: nothing queues here."""
        pinged_s = 0.0
        while not self._socket.leaving:
            self._wake.clear()
            message = self.watcher.take()
            try:
                if message is not None:
                    await self._socket.send_bytes(message)  # returns when the transport has room again
                    continue
                if self.watcher.stalled and time.monotonic() - pinged_s >= PING_S:
                    pinged_s = time.monotonic()
                    await self._socket.ping()
            except (ClientConnectionError, ConnectionError):
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

    def _take(self, text: str | None) -> bool:
        """One message of the page. False: the client does not read its answers."""
        try:
            message = _parse(text)
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
            await refuse(self._socket, "replies are not read", TOO_MUCH)


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
