# SPDX-License-Identifier: Apache-2.0
"""Node `us_acquisition`: frames of any driver, device or file as `us/image` and `us/geometry` with equal stamps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from sensor_msgs.msg import Image
from usreg_msgs.msg import UltrasoundGeometry

from ..acquisition.agreement import AcquisitionConfig, ProbeConfig, acquire, load_probe
from ..acquisition.recorded import DicomCineSource
from ..acquisition.stamp_guard import StampGuard
from ..acquisition.video import VideoSource
from ..data.types import Frame, ImageGeometry
from ..errors import ConfigError, TimeError, UsregError
from . import convert, parameters, qos
from .base import Stage, leave, run_node
from .pairs import StampPairs


@dataclass(frozen=True)
class AcquisitionNodeConfig:
    """Where frames come from.

    Args:
        source: topic (`image_raw` of any driver, remapped), video (device or file), dicom (a cine).
        probe: name in config/probes or a YAML file: geometry, crop, orientation, latency; empty: the driver publishes
            `geometry_raw` with the stamps of its images.
        latency_s: arrival minus acquisition, in place of the probe file's; a recording is stamped already.
        device: index of a video device. file: a video file or DICOM cine, in place of the device.
        fps: of a video file that does not say it.
    """

    source: Literal["topic", "video", "dicom"] = "topic"
    probe: str = ""
    latency_s: float | None = None
    device: int = 0
    file: str = ""
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.source == "video" and not self.probe:
            raise ConfigError("a video source needs 'probe': a name in config/probes, or a YAML file")
        if self.source == "dicom" and not self.file:
            raise ConfigError("a DICOM source needs 'file'")


class AcquisitionNode(Stage):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__("us_acquisition", "acquisition", **options)
        self.config = parameters.declare(self, AcquisitionNodeConfig)
        probe = load_probe(self.config.probe) if self.config.probe else None
        self.geometry: ImageGeometry | None = probe.geometry if probe else None
        self.acquisition = self._acquisition(probe)
        self.guard = StampGuard(self.acquisition.reset_after_s)
        self.pairs = StampPairs(("image", "geometry"), on_drop=lambda stamp_s, _: self.diagnostics.drop("unpaired"))
        self.image_out = qos.publisher(self, Image, "us/image", "image_out")
        self.geometry_out = qos.publisher(self, UltrasoundGeometry, "us/geometry", "image_out")
        self._sequence = 0
        self._last_geometry: ImageGeometry | None = self.geometry
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        if self.config.source == "topic":
            qos.subscription(self, Image, "image_raw", self.guarded(self.on_image), "fusion_in")
            if self.geometry is None:
                qos.subscription(self, UltrasoundGeometry, "geometry_raw", self.guarded(self.on_geometry), "fusion_in")
        self.ready()

    def _acquisition(self, probe: ProbeConfig | None) -> AcquisitionConfig:
        config = probe.acquisition if probe else AcquisitionConfig()
        return config if self.config.latency_s is None else replace(config, latency_s=self.config.latency_s)

    def start(self) -> None:
        """Open the device or file."""
        if self.config.source != "topic":
            self._thread = threading.Thread(target=self._read, name="acquisition", daemon=True)
            self._thread.start()

    def on_image(self, message: Image) -> None:
        """A driver's image."""
        stamp_s = convert.stamp_to_s(message.header.stamp)
        if self.geometry is not None:
            self._take(message, stamp_s, self.geometry)
        else:
            self._pair("image", stamp_s, message)

    def on_geometry(self, message: UltrasoundGeometry) -> None:
        """A driver's geometry."""
        self._pair("geometry", *convert.decode_geometry(message))

    def _pair(self, part: str, stamp_s: float, value: Any) -> None:
        found = self.pairs.add(part, stamp_s, value)
        if found is not None:
            self._take(found["image"], stamp_s, found["geometry"])

    def _take(self, message: Image, stamp_s: float, geometry: ImageGeometry) -> None:
        arrival_s = stamp_s if stamp_s > 0 else self.now_s()
        self.publish(acquire(convert.image_from_msg(message), arrival_s, geometry, self.acquisition))

    def publish(self, frame: Frame) -> None:
        """Both messages of a frame, unless its stamp repeats or runs back.

        Raises:
            TimeError: why it was dropped.
        """
        begin = time.perf_counter()
        admission = self.guard.check(frame.stamp_s)
        if not admission.accepted:
            raise TimeError(admission.reason)
        stamp = convert.s_to_stamp(frame.stamp_s)
        self._sequence += frame.geometry != self._last_geometry and self._last_geometry is not None
        self._last_geometry = frame.geometry
        name = self.frames.image_frame
        self.geometry_out.publish(convert.geometry_to_msg(frame.geometry, stamp, name, self._sequence))
        self.image_out.publish(convert.image_to_msg(frame.image, stamp, name))
        self.diagnostics.done(frame.stamp_s, time.perf_counter() - begin)

    def _read(self) -> None:
        """Body of the thread of devices and files."""
        try:
            for frame in self._frames():
                if self._ending.is_set():
                    return
                self.guarded(self.publish)(frame)
            self.diagnostics.state("OK", "the source has ended")
        except UsregError as error:
            self.diagnostics.state("ERROR", str(error))
            self.get_logger().error(str(error))

    def _frames(self) -> Iterator[Frame]:
        if self.config.source == "dicom":
            yield from self._paced(DicomCineSource(self.config.file, self.geometry, self.acquisition))
            return
        if self.geometry is None:
            raise ConfigError("a video source needs 'probe'")
        source = self.config.file or self.config.device
        with VideoSource(source, self.geometry, self.acquisition, clock=self.now_s, fps=self.config.fps) as video:
            yield from video if video.live else self._paced(video)

    def _paced(self, frames: Any) -> Iterator[Frame]:
        """Frames of a file at the times of their stamps, stamped as if they were taken now."""
        begin, first = self.now_s(), None
        for frame in frames:
            first = frame.stamp_s if first is None else first
            due = begin + frame.stamp_s - first
            if self._ending.wait(max(0.0, due - self.now_s())):
                return
            yield replace(frame, stamp_s=due)

    def reset(self) -> None:
        """Time jumped back."""
        self.guard.reset()
        self.pairs.reset()

    def stop(self) -> None:
        """End the reading thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(2.0)


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    leave(run_node(AcquisitionNode, args))
