# SPDX-License-Identifier: Apache-2.0
"""Node `pose_smoothing`: from single estimates to the pose of the volume at every frame, in TF and as a message."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped
from usreg_msgs.msg import Breathing, Hypotheses, Registration

from ..data.bag_poses import RegistrationRecord
from ..errors import LostError
from ..smoothing import FilterConfig, NoSmoothing, PoseFilter
from . import convert, parameters, qos, tf
from .base import Stage, leave, run_node


@dataclass(frozen=True)
class SmoothingNodeConfig:
    """How estimates become a pose.

    Args:
        smoother: filter, or none: each accepted estimate stands as it is, for a limited time.
    """

    smoother: Literal["filter", "none"] = "filter"


class PoseSmoothingNode(Stage):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__("pose_smoothing", "smoothing", **options)
        self.config = parameters.declare(self, SmoothingNodeConfig)
        filter_config = parameters.declare(self, FilterConfig, "filter")
        self.filter = (PoseFilter if self.config.smoother == "filter" else NoSmoothing)(filter_config)
        self.lag_s = filter_config.lag_s
        self.given: RegistrationRecord | None = None
        self._pending: RegistrationRecord | None = None
        self._estimates: deque[tuple[float, Time]] = deque(maxlen=256)
        self.smoothed_out = qos.publisher(self, PoseWithCovarianceStamped, "registration/smoothed", "result")
        self.lagged_out = qos.publisher(self, PoseWithCovarianceStamped, "registration/lagged", "result")
        self.breathing_out = qos.publisher(self, Breathing, "registration/breathing", "result")
        self.broadcaster = tf.TransformBroadcaster(self)
        qos.subscription(self, Hypotheses, "registration/hypotheses", self.guarded(self.on_hypotheses), "latched")
        qos.subscription(self, Registration, "registration/estimate", self.guarded(self.on_estimate), "result")
        qos.subscription(self, PoseWithCovarianceStamped, "us/pose", self.guarded(self.on_pose), "result")
        self.ready()

    def on_hypotheses(self, message: Hypotheses) -> None:
        """A start was given: begin with it at the next frame. What a global search only found likely is left alone."""
        best = min(message.hypotheses, key=lambda h: h.hypothesis_rank, default=None)
        if best is not None and best.status == Registration.STATUS_ACCEPTED:
            self.given = convert.decode_registration(best)
            self.reset()

    def on_estimate(self, message: Registration) -> None:
        """A frame was registered, perhaps some frames ago."""
        if message.status != Registration.STATUS_ACCEPTED:
            self.diagnostics.fact("refused", message.reason)
            return
        record = convert.decode_registration(message)
        self._begin(record.stamp_s)
        update = self.filter.update(record.stamp_s, record.estimate)
        self.diagnostics.fact("nis", f"{update.nis:.2f}")
        if not update.accepted:
            self.diagnostics.drop("refused by the filter")
            self.tell("refused", update.reason)
            return
        self._estimates.append((record.stamp_s, message.header.stamp))
        self._send_lagged(record.stamp_s)

    def on_pose(self, message: PoseWithCovarianceStamped) -> None:
        """A frame was tracked: the volume's pose at its stamp is due."""
        begin, stamp = time.perf_counter(), message.header.stamp
        stamp_s = convert.stamp_to_s(stamp)
        self._begin(stamp_s)
        try:
            found = self.filter.predict(stamp_s)
        except LostError as error:
            self.diagnostics.fact("status", self.filter.status)
            self.diagnostics.state("WARN", str(error))
            return
        world, child = self.frames.world_frame, self.frames.volume_frame
        pose = convert.stamped_pose_to_msg(found.world_T_ct, found.covariance, stamp, world, found.pivot)
        self.smoothed_out.publish(pose)
        self.broadcaster.sendTransform(convert.transform_to_msg(found.world_T_ct, stamp, world, child))
        self._send_breathing(stamp_s, stamp)
        self.diagnostics.state("OK")
        self.diagnostics.fact("status", "TRACKING")
        self.diagnostics.fact("pose_age_s", f"{found.age_s:.3f}")
        self.diagnostics.done(stamp_s, time.perf_counter() - begin)

    def _send_breathing(self, stamp_s: float, stamp: Time) -> None:
        """The breath, where somebody listens and the breathing model follows one."""
        found = self.filter.breathing(stamp_s) if self.breathing_out.get_subscription_count() else None
        if found is not None:
            self.breathing_out.publish(convert.breathing_to_msg(found, stamp, self.frames.world_frame))

    def _begin(self, stamp_s: float) -> None:
        if self._pending is not None:
            start, self._pending = self._pending, None
            estimate = start.estimate
            stamp_s = start.stamp_s or stamp_s
            self.filter.initialize(stamp_s, estimate.world_T_ct, estimate.covariance, estimate.pivot)

    def _send_lagged(self, newest_s: float) -> None:
        """What the filter now says of frames that lie `lag_s` back."""
        world = self.frames.world_frame
        while self._estimates and self._estimates[0][0] <= newest_s - self.lag_s:
            stamp_s, stamp = self._estimates.popleft()
            if not self.lagged_out.get_subscription_count():
                continue
            found = self.filter.lagged(stamp_s)
            self.lagged_out.publish(
                convert.stamped_pose_to_msg(found.world_T_ct, found.covariance, stamp, world, found.pivot)
            )

    def reset(self) -> None:
        """Time jumped back, or a new start: begin again with the start that was given last."""
        self.filter.reset()
        self._estimates.clear()
        self._pending = self.given


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    leave(run_node(PoseSmoothingNode, args))
