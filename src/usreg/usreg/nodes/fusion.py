# SPDX-License-Identifier: Apache-2.0
"""Node `fusion`: the volume laid over each frame; slice, textured plane and outlines for stock viewers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PointStamped, PoseWithCovarianceStamped
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import Image
from torch import Tensor
from usreg_msgs.msg import UltrasoundGeometry, VolumeInfo
from visualization_msgs.msg import MarkerArray

from ..config import check_range
from ..data.types import Frame, TrackedFrame, Volume
from ..errors import GeometryError, UsregError
from ..fusion import (
    Dot,
    Fuser,
    Line,
    Overlay,
    OverlayConfig,
    SweepTrail,
    organ_lines,
    sector_line,
    target_dot,
    textured_plane,
)
from . import convert, parameters, qos
from .base import LifecycleStage, leave, run_node
from .pairs import StampPairs
from .surfaces import Surfaces, no_marker
from .volume import VolumeConfig, load_volume
from .worker import NewestWorker

PARTS = ("image", "geometry", "pose", "smoothed")


@dataclass(frozen=True)
class FusionNodeConfig:
    """What is shown besides the overlay (`overlay.*`, which may be changed while the node runs).

    Args:
        wait_s: a frame whose pose of the volume has not come by then is shown alone, with the reason.
        organ_step_mm: distance of the outlines of organs along the volume.
        line_mm: width of lines in 3D.
        outline_period_s: how often outlines of organs, their surfaces and the target are sent again.
        surfaces: send the organs as surfaces too; a viewer reads them as files of this machine.
    """

    wait_s: float = 0.1
    organ_step_mm: float = 6.0
    line_mm: float = 1.0
    outline_period_s: float = 1.0
    surfaces: bool = True

    def __post_init__(self) -> None:
        check_range("wait_s", self.wait_s, 0.01, 10.0)
        check_range("organ_step_mm", self.organ_step_mm, 0.5, 1000.0)
        check_range("line_mm", self.line_mm, 0.01, 100.0)
        check_range("outline_period_s", self.outline_period_s, 0.1, 60.0)


class FusionNode(LifecycleStage):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__("fusion", "fusion", **options)
        self.config = parameters.declare(self, FusionNodeConfig)
        self.volume_config = parameters.declare(self, VolumeConfig)
        self.fuser = Fuser(parameters.declare(self, OverlayConfig, "overlay", live=True))
        parameters.on_change(self, OverlayConfig, "overlay", self._set_overlay)
        self.pairs = StampPairs(PARTS, limit=32, on_drop=lambda *_: self.diagnostics.drop("unpaired"))
        self.image_out = qos.publisher(self, Image, "fusion/image", "result")
        self.slice_out = qos.publisher(self, Image, "fusion/slice", "result")
        self.plane_out = qos.publisher(self, OccupancyGrid, "fusion/plane", "result")
        self.markers_out = qos.publisher(self, MarkerArray, "fusion/markers", "result")
        self.volume: Volume | None = None
        self.trail, self.organs = SweepTrail(), list[Line]()
        self.surfaces = Surfaces(self.frames.volume_frame, self.refuse)
        self.target: Dot | None = None
        self._accepted_s = float("nan")
        self._inputs: list[Any] = []
        self._beats: list[Any] = []  # `_timers` is rclpy's
        self._loader: NewestWorker | None = None
        self.ready()

    def _set_overlay(self, config: OverlayConfig) -> None:
        self.fuser = Fuser(config)

    # --- lifecycle ------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the volume, where one is named already."""
        if self.volume_config.volume:
            self._use(load_volume(self.volume_config))

    def activate(self) -> None:
        """Listen to frames and poses."""
        self._loader = NewestWorker(self._follow, name="volume")
        self._inputs = [
            self._listen(Image, "us/image", "image", "fusion_in"),
            self._listen(UltrasoundGeometry, "us/geometry", "geometry", "fusion_in"),
            self._listen(PoseWithCovarianceStamped, "us/pose", "pose", "fusion_in"),
            self._listen(PoseWithCovarianceStamped, "registration/smoothed", "smoothed", "fusion_in"),
            qos.subscription(self, VolumeInfo, "volume", self.guarded(self.on_volume), "latched"),
            qos.subscription(self, PoseWithCovarianceStamped, "registration/pose", self.on_accepted, "result"),
            qos.subscription(self, PointStamped, "target", self.guarded(self.on_target), "result"),
        ]
        outline = self.steady_timer(self.config.outline_period_s, self.send_outlines)
        self._beats = [self.steady_timer(0.02, self.show_overdue), outline]

    def _listen(self, kind: Any, topic: str, part: str, profile: str) -> Any:
        def on_message(message: Any) -> None:
            found = self.pairs.add(part, convert.stamp_to_s(message.header.stamp), message)
            if found is not None:
                self.on_frame(found)

        return qos.subscription(self, kind, topic, self.guarded(on_message), profile)

    def deactivate(self) -> None:
        """Stop listening."""
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for timer in self._beats:
            self.destroy_timer(timer)
        self._inputs, self._beats = [], []
        self.surfaces.stop()
        if self._loader is not None:
            self._loader.stop()
            self._loader = None

    def cleanup(self) -> None:
        """Give back the volume."""
        self.volume, self.organs = None, []

    def stop(self) -> None:
        """End the thread."""
        self.deactivate()

    # --- volume and target ----------------------------------------------------------------------------------------

    def on_volume(self, message: VolumeInfo) -> None:
        """Registration tells which volume it uses: follow it."""
        if self.volume is None or message.sha256 != self.volume.sha256:
            assert self._loader is not None
            self._loader.put(message)

    def _follow(self, message: VolumeInfo) -> None:
        modality: Any = message.modality if message.modality in ("CT", "MR", "US") else ""
        try:
            volume = load_volume(VolumeConfig(message.uri, modality))
            if message.sha256 and volume.sha256 != message.sha256:
                raise GeometryError(f"the volume '{message.uri}' differs here from the one that registration uses")
            self._use(volume)
        except UsregError as error:
            self.refuse(error)
            self.diagnostics.state("ERROR", str(error))

    def _use(self, volume: Volume) -> None:
        self.fuser.prepare(volume)
        organs = organ_lines(volume, self.config.organ_step_mm)
        self.volume, self.organs = volume, organs

    def on_accepted(self, message: PoseWithCovarianceStamped) -> None:
        """The newest frame that was registered: its age is shown."""
        self._accepted_s = convert.stamp_to_s(message.header.stamp)

    def on_target(self, message: PointStamped) -> None:
        """A target in the volume; one of NaNs takes it away."""
        point = convert.target_from_msg(message, self.frames.volume_frame)
        self.target = None if point is None else target_dot(point)
        if point is None and self._wanted(self.markers_out):
            self.markers_out.publish(MarkerArray(markers=[no_marker("target", self.frames.volume_frame)]))

    # --- frames ---------------------------------------------------------------------------------------------------

    def on_frame(self, found: dict[str, Any]) -> None:
        """Image, geometry, pose and the volume's pose of one stamp."""
        begin, stamp = time.perf_counter(), found["image"].header.stamp
        frame = _frame(found)
        _, _, pose, covariance = convert.decode_stamped_pose(found["pose"])
        tracked = TrackedFrame(frame, pose, covariance)
        if self.volume is None:
            self._show_alone(frame, stamp, "NO VOLUME", "the volume is not loaded")
            return
        self.trail.add(tracked)
        if self._wanted(self.image_out) or self._wanted(self.slice_out):
            self._send(self._overlay(tracked, convert.decode_pose(found["smoothed"].pose.pose)), stamp)
        self._send_3d(tracked, stamp)
        self.diagnostics.state("OK")
        self.diagnostics.done(frame.stamp_s, time.perf_counter() - begin)

    def _overlay(self, tracked: TrackedFrame, world_T_ct: Tensor) -> Overlay:
        assert self.volume is not None
        age_s = tracked.frame.stamp_s - self._accepted_s
        note = f"pose {age_s * 1000:.0f} ms old" if 0 < age_s < 10 else ""
        return self.fuser.fuse(tracked, self.volume, world_T_ct, note)

    def show_overdue(self) -> None:
        """Frames that have waited too long are shown alone: the user sees the image and why it is not fused."""
        for _, found in self.pairs.overdue(self.config.wait_s):
            missing = set(PARTS) - found.keys()
            if missing & {"image", "geometry"}:
                self.diagnostics.drop("unpaired")
                continue
            status, reason = ("NOT TRACKED", "no pose") if "pose" in missing else ("LOST", "not registered")
            self.diagnostics.drop(status)
            self.guarded(self._show_alone)(_frame(found), found["image"].header.stamp, status, reason)

    def _show_alone(self, frame: Frame, stamp: Time, status: str, reason: str) -> None:
        self.diagnostics.state("WARN", f"{status}: {reason}")
        if self._wanted(self.image_out):
            self.image_out.publish(
                convert.image_to_msg(self.fuser.alone(frame, status, reason).image, stamp, self._image())
            )

    def _send(self, fused: Overlay, stamp: Time) -> None:
        self.image_out.publish(convert.image_to_msg(fused.image, stamp, self._image()))
        if self._wanted(self.slice_out):
            self.slice_out.publish(convert.image_to_msg(fused.slice, stamp, self._image()))

    def _send_3d(self, tracked: TrackedFrame, stamp: Time) -> None:
        if self._wanted(self.plane_out):
            texture = textured_plane(tracked, self.fuser.config.plane_columns)
            self.plane_out.publish(convert.plane_to_msg(texture, stamp, self.frames.world_frame))
        if self._wanted(self.markers_out):
            self._send_markers([sector_line(tracked), self.trail.line()], stamp)

    def send_outlines(self) -> None:
        """What rests in the volume's frame."""
        if not self._wanted(self.markers_out):
            return
        if self.organs:
            self._send_markers(list(self.organs), Time())
        if self.target is not None:
            self._send_markers([self.target], Time())
        if self.config.surfaces and self.volume is not None and (surfaces := self.surfaces.of(self.volume)):
            self.markers_out.publish(MarkerArray(markers=list(surfaces)))

    def _send_markers(self, shapes: list[Any], stamp: Time) -> None:
        frames = self.frames
        shown = [s for s in shapes if isinstance(s, Dot) or len(s.points) > 1]
        markers = convert.markers_to_msg(shown, stamp, frames.world_frame, frames.volume_frame, self.config.line_mm)
        self.markers_out.publish(MarkerArray(markers=markers))

    def _wanted(self, publisher: Any) -> bool:
        return publisher.get_subscription_count() > 0

    def _image(self) -> str:
        return self.frames.image_frame

    def reset(self) -> None:
        """Time jumped back."""
        self.pairs.reset()
        self.trail.reset()
        self._accepted_s = float("nan")


def _frame(found: dict[str, Any]) -> Frame:
    stamp_s, geometry = convert.decode_geometry(found["geometry"])
    return Frame(convert.image_from_msg(found["image"]), geometry, stamp_s)


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    leave(run_node(FusionNode, args))
