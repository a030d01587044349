# SPDX-License-Identifier: Apache-2.0
"""What the tests of web_view share: a page without a picture, and the node with its graph played by the test."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from usreg.data.types import Estimate, Rigid, Volume
from usreg.data.volumes import write_volume
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.nodes import convert
from usreg.nodes.web_view import WebViewNode
from usreg.web.wire import unpack

GEOMETRY = full_rectangle(PlaneGrid(60, 80, ((0.5, 0.0), (0.0, 0.5))))
WORLD_T_CT = se3.exp(torch.tensor([30.0, -20.0, 10.0, 0.1, 0.2, 0.3], dtype=torch.float64))
CT_T_IMAGE = se3.exp(torch.tensor([2.0, 3.0, 15.0, 0.1, 0.0, 0.0], dtype=torch.float64))
WORLD_T_IMAGE = WORLD_T_CT @ CT_T_IMAGE
SPREAD = torch.diag(torch.tensor([0.04, 0.09, 0.16, 1e-4, 4e-4, 9e-4], dtype=torch.float64))
PICTURE = torch.arange(4800).remainder(251).to(torch.uint8).reshape(60, 80)


def block() -> Volume:
    data = torch.arange(27000).remainder(200).to(torch.uint8).reshape(1, 30, 30, 30)
    return Volume(data, VoxelGrid((30, 30, 30), (1.5, 1.5, 1.5)), "US")


class Page:
    """A page without a picture: acknowledges each frame at once, unless told not to."""

    def __init__(self, url: str, acknowledge: bool = True) -> None:
        self.acknowledge = acknowledge
        self.found: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._url, self._loop = url, asyncio.new_event_loop()
        self._socket: Any = None
        self._number = 0
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), daemon=True)
        self._thread.start()

    async def _run(self) -> None:
        base, _, query = self._url.partition("?")
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{base}ws?{query}", max_msg_size=1 << 26) as self._socket:
                async for message in self._socket:
                    header, buffers = unpack(message.data)
                    self.found.append((header, buffers))
                    if header["type"] == "frame" and self.acknowledge:
                        await self._socket.send_str(json.dumps({"type": "ack", "seq": header["seq"]}))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Headers of a kind, oldest first."""
        return [header for header, _ in list(self.found) if header["type"] == kind]

    def last(self, kind: str) -> dict[str, Any]:
        """The newest header of a kind; empty where none has come."""
        return (self.of(kind) or [{}])[-1]

    def buffers(self, kind: str) -> dict[str, Any]:
        """Arrays of the newest message of a kind."""
        return [buffers for header, buffers in list(self.found) if header["type"] == kind][-1]

    def ask(self, name: str, **args: Any) -> Callable[[], dict[str, Any]]:
        """Send a command; what is returned gives its reply, empty until it came."""
        self._number += 1
        number = self._number
        text = json.dumps({"type": "command", "id": number, "name": name, "args": args})
        asyncio.run_coroutine_threadsafe(self._socket.send_str(text), self._loop).result(5)
        return lambda: next((h for h in self.of("reply") if h["id"] == number), {})

    def close(self) -> None:
        if self._thread.is_alive() and self._socket is not None:
            asyncio.run_coroutine_threadsafe(self._socket.close(), self._loop).result(5)
        self._thread.join(5)


class View:
    """A node with its graph played by the test; what the graph says of a frame stands in the constants."""

    GEOMETRY, WORLD_T_CT, CT_T_IMAGE, WORLD_T_IMAGE = GEOMETRY, WORLD_T_CT, CT_T_IMAGE, WORLD_T_IMAGE
    SPREAD, PICTURE, block = SPREAD, PICTURE, staticmethod(block)

    def __init__(self, bench: Any, folder: Path, **parameters: Any) -> None:
        self.bench, self.pages = bench, list[Page]()
        write_volume(block(), folder / "volume.nii.gz")
        self.volume = str(folder / "volume.nii.gz")
        given = {"port": 0, "volume": self.volume, "modality": "US", "leave_s": 0.3, "wait_s": 0.1} | parameters
        remap = tuple(f"/{name}:=/{bench.namespace}/{name}" for name in ("tf", "tf_static", "diagnostics"))
        self.node = bench.add(WebViewNode, remap, **given)

    def open(self, **options: Any) -> Page:
        """A page that everything has reached: the volume is loaded, the node listens."""
        page = Page(self.node.url, **options)
        self.pages.append(page)
        self.bench.until(lambda: self.listens() and page.last("hello") and page.last("status"))
        if self.node.content._config.volume:
            self.bench.until(lambda: self.node.content.volume is not None)
        return page

    def listens(self) -> bool:
        return bool(self.node._inputs)

    def frame(self, stamp_s: float, leave_out: tuple[str, ...] = (), world_T_ct: torch.Tensor = WORLD_T_CT) -> None:
        """What the graph says of a frame."""
        centre = se3.transform_points(world_T_ct, block().grid.centre_ct[None])[0]
        parts = {
            "us/image": convert.image_to_msg(PICTURE, stamp_s, "us_image"),
            "us/geometry": convert.geometry_to_msg(GEOMETRY, stamp_s, "us_image"),
            "us/pose": convert.stamped_pose_to_msg(WORLD_T_IMAGE, SPREAD, stamp_s, "world"),
            "registration/smoothed": convert.stamped_pose_to_msg(world_T_ct, SPREAD, stamp_s, "world", centre),
        }
        for topic, message in parts.items():
            if topic not in leave_out:
                self.bench.say(topic, message)

    def estimate(self, stamp_s: float, status: str = "ACCEPTED", reason: str = "") -> None:
        found = Estimate(Rigid(WORLD_T_CT), SPREAD, WORLD_T_CT[:3, 3], 0.8, 0.9, status == "ACCEPTED", reason,
                         system="intensity", compute_s=0.04)  # fmt: skip
        self.bench.say("registration/estimate", convert.estimate_to_msg(found, stamp_s, "world", "ct", status))
        self.bench.until(lambda: self.node.moments.estimate is not None)

    def tell(self, node: str, **facts: str) -> None:
        """A node's word on /diagnostics."""
        pairs = [KeyValue(key=key, value=value) for key, value in facts.items()]
        status = DiagnosticStatus(name=f"/{self.bench.namespace}/{node}: part", message="OK", values=pairs)
        self.bench.say("diagnostics", DiagnosticArray(status=[status]))

    def close(self) -> None:
        for page in self.pages:
            page.close()
