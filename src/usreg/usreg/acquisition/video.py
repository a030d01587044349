# SPDX-License-Identifier: Apache-2.0
"""Frames of a video device or a video file, through OpenCV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ..config import check_range
from ..data.types import Frame, ImageGeometry
from ..errors import MissingFileError, SourceError
from .agreement import AcquisitionConfig, acquire

MAX_FPS = 10_000.0


class VideoSource:
    """Frames of a capture device (stamp: time of arrival less latency) or of a file (stamp: index / fps less latency).

    Use it as a context manager, or call `close`.

    Args:
        source: index of a device, or a file.
        clock: time of arrival in seconds, for devices: the system's clock or a node's. Files do not use it.
        start_s: time of arrival of a file's first frame; None: the latency, so that stamps begin at zero.
        fps: of a file that does not say it; also overrides what it says.

    Raises:
        MissingFileError: no such file. SourceError: it cannot be opened, or the file has no frame rate.
    """

    def __init__(
        self,
        source: int | str | Path,
        geometry: ImageGeometry,
        config: AcquisitionConfig | None = None,
        clock: Callable[[], float] | None = None,
        start_s: float | None = None,
        fps: float | None = None,
    ) -> None:
        self._source = source if isinstance(source, int) else Path(source)
        self._geometry, self._config, self._clock = geometry, config or AcquisitionConfig(), clock
        self._start_s = max(0.0, self._config.latency_s) if start_s is None else start_s
        if isinstance(self._source, Path) and not self._source.is_file():
            raise MissingFileError(
                f"no video '{self._source.name}' in '{self._source.parent}': check the name, or give a device's index"
            )
        if isinstance(self._source, int) and clock is None:
            raise SourceError("a video device needs a clock that gives the time of arrival")
        self._capture = self._open()
        self._fps = self._rate(fps)

    @property
    def live(self) -> bool:
        """Whether it is a device."""
        return isinstance(self._source, int)

    def __iter__(self) -> Iterator[Frame]:
        index, misses = 0, 0
        while self._capture is not None and self._capture.isOpened():
            taken, picture = self._capture.read()
            arrival = self._clock() if self.live and self._clock else self._start_s + index / self._fps
            if taken:
                yield acquire(picture, arrival, self._geometry, self._config, index)
                index, misses = index + 1, 0
            elif not self.live:
                return
            else:
                misses += 1
                if misses > 30:
                    raise SourceError(f"video device {self._source} gives no more pictures: is it still plugged in?")

    def reset(self) -> None:
        """A file begins again with its first frame; a device goes on."""
        if not self.live:
            self.close()
            self._capture = self._open()

    def close(self) -> None:
        """Release the device or the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Any:
        import cv2

        capture = cv2.VideoCapture(self._source if isinstance(self._source, int) else str(self._source))
        if not capture.isOpened():
            name = f"device {self._source}" if isinstance(self._source, int) else f"'{self._source.name}'"
            raise SourceError(f"video {name} cannot be opened: is it free, and in a format that OpenCV reads?")
        return capture

    def _rate(self, fps: float | None) -> float:
        if self.live:
            return math.nan
        if fps is None:
            import cv2

            fps = float(self._capture.get(cv2.CAP_PROP_FPS))
            if not (math.isfinite(fps) and 0 < fps <= MAX_FPS):
                raise SourceError(f"the video says {fps} frames per second; give 'fps'")
        check_range("fps", fps, 1e-3, MAX_FPS)
        return fps
