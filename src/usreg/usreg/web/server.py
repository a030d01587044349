# SPDX-License-Identifier: Apache-2.0
"""The server of the live page: HTTP and one WebSocket, in a thread of its own with its own event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from ..config import check_range
from ..errors import ConfigError, UsregError
from .access import ALL_INTERFACES, Access, choose_token, host_in_url
from .commands import Controls
from .desk import Desk
from .hub import Hub
from .listening import listen, reachable
from .pages import Made, make_app
from .visitors import Visitors

log = logging.getLogger(__name__)
START_S, STOP_S = 10.0, 5.0
KEEPALIVE_S = 15.0  # of a connection that asks for nothing
NO_FILES: Mapping[str, Made] = {}


@dataclass(frozen=True)
class ViewConfig:
    """Where the page is served and what clients may do.

    Args:
        host: 127.0.0.1 unless told otherwise; another one needs a token.
        port: 0 picks a free one.
        token: "" has one made where it is needed.
        read_only: no commands, but for the playback of a replay.
        max_clients: connections at the socket.
        max_message_bytes: of one message of a client.
        command_s: after which a command is answered with a timeout.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    token: str = ""
    read_only: bool = False
    max_clients: int = 8
    max_message_bytes: int = 65536
    command_s: float = 10.0

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, 65535)
        check_range("max_clients", self.max_clients, 1, 64)
        check_range("max_message_bytes", self.max_message_bytes, 256, 16 * 1024 * 1024)
        check_range("command_s", self.command_s, 0.01, 600.0)
        choose_token(self.host, self.token)


class Server:
    """Serves a hub's messages. `start` and `stop` are called from the program's own thread.

    Args:
        hub: what clients get.
        controls: what they may do.
        files: content type and content (bytes, or a path) of further paths, "/volume.nii.gz"; made when asked for.
    """

    def __init__(
        self, hub: Hub, controls: Controls, config: ViewConfig | None = None, files: Mapping[str, Made] = NO_FILES
    ) -> None:
        self.config = config or ViewConfig()
        self._hub, self._controls, self._files = hub, controls, dict(files)
        self._token = choose_token(self.config.host, self.config.token)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.port = 0

    def start(self) -> str:
        """Listen; returns the address to open, with the token where one is needed.

        Raises:
            PortInUseError: another program has the port.
            ConfigError: the host is not one of this machine, or the port is not allowed.
        """
        if self._thread is not None:
            raise ConfigError("this server runs already")
        listener = listen(self.config.host, self.config.port)
        self.port = listener.getsockname()[1]
        ready = threading.Event()
        failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(listener, ready, failed), name="view", daemon=True)
        self._thread.start()
        if not ready.wait(START_S) or failed:
            listener.close()
            self.stop()
            raise UsregError(f"the view's server did not start: {failed[0] if failed else 'no answer'}")
        shown = reachable() if self.config.host in ALL_INTERFACES else self.config.host
        return f"http://{host_in_url(shown)}:{self.port}/" + (f"?token={self._token}" if self._token else "")

    def stop(self) -> None:
        """Tell the clients, close, free the port. A second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        thread.join(STOP_S)
        if thread.is_alive():
            log.warning("the view's server is still closing")

    # --- in the server's thread ---

    def _run(self, listener: socket.socket, ready: threading.Event, failed: list[BaseException]) -> None:
        try:
            asyncio.run(self._serve(listener, ready))
        except Exception as error:
            failed.append(error)
            log.exception("the view's server ended")
        finally:
            listener.close()
            ready.set()

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = self.config
        desk = Desk(self._controls, config.read_only, config.command_s)
        visitors = Visitors(self._hub, desk, config.max_clients, config.max_message_bytes)
        access = Access(config.host, self.port, self._token, (socket.gethostname().lower(),))
        app = make_app(access, visitors.connect, self._files)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            ready.set()
            await self._stop.wait()
            await visitors.send_away("the server stops")
        finally:
            desk.close()
            await runner.cleanup()
