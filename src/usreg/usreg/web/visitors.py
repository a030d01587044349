# SPDX-License-Identifier: Apache-2.0
"""Who is connected at the socket: so many at most, and all are told when the server stops."""

from __future__ import annotations

import asyncio

from aiohttp import web

from .client import Client
from .connection import BUSY, GOING_AWAY, Connection
from .desk import Desk
from .hub import Hub
from .listening import notice_dead_peer

FAREWELL_S = 1.0  # for clients to hear that the server stops


class Visitors:
    """Takes WebSockets.

    Args:
        hub, desk: what clients get, and who does what they ask for.
        max_clients: connections; one more is refused, or takes the place of a client that has stalled.
        max_message_bytes: of a client.
    """

    def __init__(self, hub: Hub, desk: Desk, max_clients: int, max_message_bytes: int) -> None:
        self._hub, self._desk, self._most, self._max_message_bytes = hub, desk, max_clients, max_message_bytes
        self._clients: dict[Client, None] = {}

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it goes."""
        connection = Connection(self._max_message_bytes)
        await connection.prepare(request)
        notice_dead_peer(request.transport)
        if len(self._clients) >= self._most and not self._make_room():
            await connection.leave(f"{self._most} clients are connected, no more are taken", BUSY)
            return connection
        client = Client(connection, self._hub, self._desk)
        self._clients[client] = None
        try:
            await client.run()
        finally:
            self._clients.pop(client, None)
        return connection

    async def send_away(self, reason: str) -> None:
        """End all connections; a client that does not read is cut off."""
        clients = list(self._clients)
        leaving = [client.connection.leave(reason, GOING_AWAY) for client in clients]
        try:
            await asyncio.wait_for(asyncio.gather(*leaving, return_exceptions=True), FAREWELL_S)
        except asyncio.TimeoutError:
            for client in clients:
                client.connection.abort()

    def _make_room(self) -> bool:
        stalled = [client for client in self._clients if client.watcher.stalled]
        if not stalled:
            return False
        longest = max(stalled, key=lambda client: client.watcher.unacknowledged_s)
        del self._clients[longest]
        longest.dismiss("no frame was acknowledged for long, and another client came")
        return True
