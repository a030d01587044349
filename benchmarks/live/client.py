# SPDX-License-Identifier: Apache-2.0
"""A client of the view that draws nothing: it reads frames, acknowledges them, and notes how old they were on arrival.

Usage: client.py URL SECONDS [--delay-ms N] [--stall]. On one machine the monotonic clocks of two processes are one, so
that ages need no measured offset. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from usreg.web.wire import unpack

MAX_BYTES = 64 * 1024 * 1024
LATE_S = 0.3  # from the server's hands to here: by then a newer one was there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="between a frame and its acknowledgement")
    parser.add_argument("--stall", action="store_true", help="never acknowledge")
    options = parser.parse_args()
    found = asyncio.run(listen(options.url, options.seconds, options.delay_ms / 1000, options.stall))
    sys.stdout.write(json.dumps(found) + "\n")


async def listen(url: str, seconds: float, delay_s: float, stall: bool) -> dict[str, Any]:
    """Ages of all frames, what else came, and the first frame's content in words."""
    noted = Noted()
    end = time.monotonic() + seconds
    async with aiohttp.ClientSession() as session:
        address = urlsplit(url)
        where = f"ws://{address.netloc}/ws" + (f"?{address.query}" if address.query else "")
        async with session.ws_connect(where, max_msg_size=MAX_BYTES, compress=0, autoping=True) as socket:
            while (left := end - time.monotonic()) > 0:
                try:
                    message = await asyncio.wait_for(socket.receive(), left)  # its own limit begins anew at each ping
                except asyncio.TimeoutError:
                    break
                if message.type != aiohttp.WSMsgType.BINARY:
                    noted.closed = f"{message.type.name} {message.data} {message.extra}"
                    break
                header = noted.take(message.data)
                if header["type"] == "frame" and not stall:
                    await asyncio.sleep(delay_s)
                    ack = {"type": "ack", "seq": header["seq"], "drawn_server_s": time.monotonic()}
                    await socket.send_str(json.dumps(ack))
    return noted.told(seconds)


class Noted:
    """What came."""

    def __init__(self) -> None:
        self.ages_s: list[float] = []
        self.made_s: list[float] = []
        self.kinds: dict[str, int] = {}
        self.bytes = 0
        self.backwards = 0
        self.closed = ""
        self._seq = -1
        self._size: list[int] = []

    def take(self, data: bytes) -> dict[str, Any]:
        """Note a message; its header."""
        now = time.monotonic()
        header, _ = unpack(data)
        self.kinds[header["type"]] = self.kinds.get(header["type"], 0) + 1
        self.bytes += len(data)
        if header["type"] == "frame":
            self.backwards += header["seq"] <= self._seq
            self._seq, self._size = header["seq"], [header["width"], header["height"]]
            self.made_s.append(now - header["made_server_s"])
            self.ages_s.append(header["age_s"] + now - header["made_server_s"])
        return header

    def told(self, seconds: float) -> dict[str, Any]:
        """The figures."""
        cpu = time.process_time()
        return {
            "frames": len(self.ages_s), "frames_hz": len(self.ages_s) / seconds, "size": self._size,
            "megabytes_a_second": self.bytes / seconds / 1e6, "kinds": self.kinds, "out_of_order": self.backwards,
            "late": sum(made > LATE_S for made in self.made_s),
            "made_to_here_ms": _quantiles(self.made_s), "stamp_to_here_ms": _quantiles(self.ages_s),
            "closed": self.closed, "own_processor": cpu / seconds,
        }  # fmt: skip


def _quantiles(values_s: list[float]) -> dict[str, float | None]:
    if not values_s:
        return {"median": None, "p99": None, "max": None}
    ms = 1000 * np.array(values_s)
    return {"median": float(np.median(ms)), "p99": float(np.percentile(ms, 99)), "max": float(ms.max())}


if __name__ == "__main__":
    main()
