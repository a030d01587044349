# SPDX-License-Identifier: Apache-2.0
"""Frames and tracker poses of an OpenIGTLink server, such as PlusServer. Message sizes are bounded."""

from __future__ import annotations

import logging
import math
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..config import check_range
from ..data.types import Frame, ImageGeometry
from ..errors import ConfigError, FileFormatError, SourceError
from .agreement import AcquisitionConfig
from .live import Acquirer

log = logging.getLogger(__name__)
HEADER_BYTES = 58
BAD_CONTENT = (struct.error, ValueError, KeyError, IndexError, TypeError, NotImplementedError, OverflowError)


@dataclass(frozen=True)
class OpenIGTLinkConfig:
    """Where the server is and what is taken from it.

    Args:
        host, port: of the server.
        device: name of the images' device; "" takes every image.
        timeout_s: silence after which the source gives up.
        max_message_bytes: a message that declares more ends the connection.
    """

    host: str = "127.0.0.1"
    port: int = 18944
    device: str = ""
    timeout_s: float = 5.0
    max_message_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        check_range("port", self.port, 1, 65535)
        check_range("timeout_s", self.timeout_s, 0.01, 3600.0)
        check_range("max_message_bytes", self.max_message_bytes, 1024, 2**31)
        if not self.host:
            raise ConfigError("'host' is empty; give the address of the OpenIGTLink server")


class OpenIGTLinkSource:
    """Frames of a server, as they arrive. Use it as a context manager, or call `close`.

    Args:
        clock: time of arrival in seconds; None: the stamps that the server sends.
        on_transform: called with (stamp_s, name, matrix (4, 4)) for every TRANSFORM, for example "ProbeToTracker".
        on_drop: told why a message was left out.

    Raises:
        SourceError: no connection; on iteration also silence, and a message beyond the limit.
    """

    def __init__(
        self,
        config: OpenIGTLinkConfig,
        geometry: ImageGeometry,
        acquisition: AcquisitionConfig | None = None,
        clock: Callable[[], float] | None = None,
        on_transform: Callable[[float, str, Tensor], None] | None = None,
        on_drop: Callable[[str], None] = log.warning,
    ) -> None:
        self._config, self._clock = config, clock
        self._acquirer = Acquirer(geometry, acquisition)
        self._on_transform, self._on_drop = on_transform, on_drop
        try:
            self._socket = socket.create_connection((config.host, config.port), config.timeout_s)
        except OSError as error:
            raise SourceError(f"no OpenIGTLink server at {config.host}:{config.port}: {error}") from error
        self._open = True

    def __iter__(self) -> Iterator[Frame]:
        while self._open:
            message = self._receive()
            if message is None:
                return
            frame = self._take(message)
            if frame is not None:
                yield frame

    def reset(self) -> None:
        """The next frame may have any stamp."""
        self._acquirer.reset()

    def close(self) -> None:
        """End the connection."""
        self._open = False
        self._socket.close()

    def __enter__(self) -> OpenIGTLinkSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _receive(self) -> Any:
        """The next message of a kind that is read; None when the server has closed the connection."""
        from pyigtl.messages import MessageBase

        while True:
            head = self._read(HEADER_BYTES, at_start=True)
            if head is None:
                return None
            try:
                fields = MessageBase.parse_header(head)
            except BAD_CONTENT as error:
                raise SourceError(f"what comes from {self._config.host} is not OpenIGTLink: {error}") from error
            size, kind = int(fields["body_size"]), fields["message_type"]
            if size > self._config.max_message_bytes:
                raise SourceError(f"a message of {size} bytes; at most {self._config.max_message_bytes} are taken")
            body = self._read(size)
            message = MessageBase.create_message(kind) if kind in ("IMAGE", "TRANSFORM") else None
            if message is None:
                continue
            try:
                message.unpack(fields, body)
            except BAD_CONTENT as error:
                self._on_drop(f"{kind} of '{fields['device_name']}' cannot be read: {error}")
                continue
            return message

    def _read(self, size: int, at_start: bool = False) -> bytes | None:
        data = bytearray()
        while len(data) < size:
            try:
                part = self._socket.recv(min(size - len(data), 1024 * 1024))
            except TimeoutError as error:
                raise SourceError(f"the OpenIGTLink server was silent for {self._config.timeout_s:g} s") from error
            except OSError as error:
                if not self._open:
                    return None
                raise SourceError(f"the connection to the OpenIGTLink server broke: {error}") from error
            if not part:
                if at_start and not data:
                    return None
                raise SourceError("the OpenIGTLink server closed the connection within a message")
            data += part
        return bytes(data)

    def _take(self, message: Any) -> Frame | None:
        stamp_s = float(message.timestamp) if self._clock is None else self._clock()
        if message.message_type == "TRANSFORM":
            if self._on_transform is not None and math.isfinite(stamp_s):
                self._on_transform(stamp_s, str(message.device_name), torch.tensor(message.matrix, dtype=torch.float64))
            return None
        if self._config.device not in ("", message.device_name):
            return None
        try:
            picture = _picture(message)
        except FileFormatError as error:
            self._on_drop(str(error))
            return None
        arrival = self._acquirer.add(picture, stamp_s)
        if arrival.frame is None:
            self._on_drop(arrival.reason)
        return arrival.frame


def _picture(message: Any) -> Any:
    """(h, w) or (h, w, 3) in OpenCV's order of (1, h, w) or (1, h, w, 3) in R, G, B."""
    image = message.image
    if image.shape[0] != 1:
        raise FileFormatError(f"'{message.device_name}' sends volumes of {image.shape}; images of one slice are taken")
    return image[0] if image.ndim == 3 else image[0, ..., ::-1]
