# SPDX-License-Identifier: Apache-2.0
"""Commands of all clients, one at a time, in a worker thread; a slow one is answered with a timeout."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import ConfigError, UsregError
from .commands import Controls, parse_command
from .wire import pack

log = logging.getLogger(__name__)
Answer = tuple[bool, str, dict[str, Any]]


class Desk:
    """Checks and runs commands.

    Args:
        timeout_s: a command that takes longer is answered with that; one that had not begun is not run any more.
        waiting: commands that wait at most.
    """

    def __init__(self, controls: Controls, read_only: bool, timeout_s: float, waiting: int = 8) -> None:
        self._controls, self._read_only, self._timeout_s, self._most = controls, read_only, timeout_s, waiting
        self._worker = ThreadPoolExecutor(1, "view-commands")
        self._waiting = 0

    async def serve(self, name: Any, args: Any) -> Answer:
        """(done, what to tell the person, data). Never raises for what a client sent or a source could not do."""
        try:
            command = parse_command(name, args, self._controls, self._read_only)
        except ConfigError as error:
            return False, str(error), {}
        if self._waiting >= self._most:
            return False, f"'{name}' was not done: {self._most} commands wait already", {}
        self._waiting += 1
        work = self._worker.submit(self._controls.call, command)
        try:
            data = await asyncio.wait_for(asyncio.wrap_future(work), self._timeout_s)
            pack({"data": data})  # what JSON cannot hold is an error of this command, not of the connection
            return True, "", data or {}
        except UsregError as error:
            return False, str(error), {}
        except asyncio.TimeoutError:
            fate = "it was not begun and is dropped" if work.cancel() else "it may still take effect"
            return False, f"'{name}' was not done within {self._timeout_s:g} s; {fate}", {}
        except Exception:
            log.exception("command '%s' failed", name)
            return False, f"'{name}' failed; the log says why", {}
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Drop what waits; what runs is not waited for."""
        self._worker.shutdown(wait=False, cancel_futures=True)
