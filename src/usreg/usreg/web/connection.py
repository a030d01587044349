# SPDX-License-Identifier: Apache-2.0
"""A WebSocket that the server can leave with a reason and within a bounded time."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientConnectionError, web

from .wire import pack

CLOSE_S = 1.0  # for the client's part of the closing handshake
LINGER_S = 0.5
GOING_AWAY, TOO_MUCH, TOO_BIG, BUSY = 1001, 1008, 1009, 1013
GONE = (ClientConnectionError, ConnectionError)


class Connection(web.WebSocketResponse):
    """Without compression; pings are left to the reader, who counts them with all other messages.

    Args:
        max_message_bytes: of the client; a larger one ends the connection with code 1009.
    """

    def __init__(self, max_message_bytes: int) -> None:
        super().__init__(compress=False, autoping=False, max_msg_size=max_message_bytes + 1, timeout=CLOSE_S)
        self._too_big = f"a message may have {max_message_bytes} bytes at most".encode()
        self._transport: asyncio.Transport | None = None
        self.leaving = False

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Answer the handshake."""
        self._transport = request.transport
        return await super().prepare(request)

    async def close(self, *, code: int = 1000, message: bytes = b"", **options: Any) -> bool:
        """As the base class, but never for long: a client that does not read is cut off."""
        self.leaving = True
        try:
            return await asyncio.wait_for(self._close(code, message, options), LINGER_S + 1.5 * CLOSE_S)
        except asyncio.TimeoutError:
            self.abort()
            return True

    async def _close(self, code: int, message: bytes, options: dict[str, Any]) -> bool:
        """aiohttp closes by itself, and without a reason, after a message that is too large.

        What is left of that message is on its way: were the connection closed now, the client would see it reset
        before it reads why.
        """
        if code == TOO_BIG and not message and self._writer is not None and not self.closed:
            message = self._too_big
            await self._writer.close(code, message)
            await asyncio.sleep(LINGER_S)
        return await super().close(code=code, message=message, **options)

    async def leave(self, reason: str, code: int) -> None:
        """Tell the client why, then close; a client that does not read is cut off."""
        self.leaving = True
        try:
            await asyncio.wait_for(self._say_goodbye(reason, code), 1.5 * CLOSE_S)
        except GONE:
            pass
        except asyncio.TimeoutError:
            self.abort()

    def abort(self) -> None:
        """End the connection without waiting for what the client has not read."""
        if self._transport is not None:
            self._transport.abort()

    async def _say_goodbye(self, reason: str, code: int) -> None:
        await self.send_bytes(pack({"type": "bye", "reason": reason}))
        await self.close(code=code, message=reason.encode()[:120])
