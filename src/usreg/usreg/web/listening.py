# SPDX-License-Identifier: Apache-2.0
"""The socket that the server listens at."""

from __future__ import annotations

import asyncio
import errno
import socket

from ..errors import ConfigError, PortInUseError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one. Raises as `Server.start`."""
    name = "127.0.0.1" if host == "localhost" else host or None
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=64)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} of {host or 'this machine'} is taken by another program: "
                "stop it, choose another port, or port 0 for any free one"
            ) from error
        raise ConfigError(f"cannot listen at {host}:{port}: {error}; give an address of this machine") from error


def notice_dead_peer(transport: asyncio.BaseTransport | None) -> None:
    """A connection whose other end has vanished is closed by the system, some time later."""
    connection = transport.get_extra_info("socket") if transport else None
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def reachable() -> str:
    """An address of this machine that others reach, as far as it can be known without asking anybody."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation; a datagram socket sends nothing here
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
