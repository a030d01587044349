# SPDX-License-Identifier: Apache-2.0
"""The meter: a viewer that notes when results arrive, and the figures that follow from it."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from usreg_msgs.msg import Registration

NS = 10**9
TOLERANCE_NS = 1000
Arrivals = list[tuple[int, int]]  # (stamp, arrival), ns


class Meter(Node):
    """Subscribes to the fused image as a viewer does (whole messages), to accepted poses, estimates and diagnostics."""

    def __init__(self) -> None:
        super().__init__("live_meter")
        self.arrivals: dict[str, Arrivals] = {kind: [] for kind in ("tracked", "smoothed", "fused", "pose", "estimate")}
        self.reasons: dict[str, int] = {}
        self.compute_s: list[float] = []
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.last_pose: PoseWithCovarianceStamped | None = None
        self._listen(Image, "fusion/image", "fused", depth=10)
        self._listen(PoseWithCovarianceStamped, "us/pose", "tracked")
        self._listen(PoseWithCovarianceStamped, "registration/smoothed", "smoothed")
        self._listen(PoseWithCovarianceStamped, "registration/pose", "pose")
        self.create_subscription(Registration, "registration/estimate", self._on_estimate, QoSProfile(depth=50))
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=50))

    def _listen(self, message: Any, topic: str, kind: str, depth: int = 50) -> None:
        self.create_subscription(message, topic, lambda found: self._arrived(kind, found), QoSProfile(depth=depth))

    def _arrived(self, kind: str, message: Any) -> None:
        now_ns, stamp = time.time_ns(), message.header.stamp
        self.arrivals[kind].append((stamp.sec * NS + stamp.nanosec, now_ns))
        if kind == "pose":
            self.last_pose = message

    def _on_estimate(self, message: Registration) -> None:
        self._arrived("estimate", message)
        self.compute_s.append(message.compute_time)
        if message.status != Registration.STATUS_ACCEPTED:
            reason = message.reason.split(":")[0]
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = {pair.key: pair.value for pair in status.values}


def spin(node: Node, ending: threading.Event) -> threading.Thread:
    """Spin in a thread of its own; the events executor where rclpy has it."""
    from usreg.nodes.base import make_executor

    executor = make_executor()
    executor.add_node(node)

    def run() -> None:
        while not ending.is_set():
            executor.spin_once(timeout_sec=0.1)
        executor.remove_node(node)

    thread = threading.Thread(target=run, name="meter", daemon=True)
    thread.start()
    return thread


def inside(arrivals: Arrivals, begin_ns: int, end_ns: int) -> np.ndarray:
    """Rows (stamp, arrival) whose stamps lie in the window, ns."""
    rows = np.array(arrivals, dtype=np.int64).reshape(-1, 2)
    return rows[(rows[:, 0] >= begin_ns - TOLERANCE_NS) & (rows[:, 0] < end_ns - TOLERANCE_NS)]


def figures(sent_ns: np.ndarray, arrivals: dict[str, Arrivals], begin_ns: int, end_ns: int) -> dict[str, float]:
    """What the window shows.

    Args:
        sent_ns: stamps that the source has sent.
        arrivals: (stamp, arrival) of fused images, accepted poses and estimates.
    """
    rows = {kind: inside(found, begin_ns, end_ns) for kind, found in arrivals.items()}
    sent, seconds = sent_ns[(sent_ns >= begin_ns) & (sent_ns < end_ns)], (end_ns - begin_ns) / NS
    ms = {kind: (found[:, 1] - found[:, 0]) * 1e-6 for kind, found in rows.items()}
    latency, age = ms["fused"], ms["pose"]
    return {
        "sent": len(sent),
        "dropped": len(sent) - len(np.unique(_which(sent, rows["fused"][:, 0]))),
        "repeated": len(rows["fused"]) - len(np.unique(rows["fused"][:, 0])),
        "latency_median_ms": _quantile(latency, 50),
        "latency_p99_ms": _quantile(latency, 99),
        "latency_max_ms": _quantile(latency, 100),
        "tracked_median_ms": _quantile(ms["tracked"], 50),
        "tracked_p99_ms": _quantile(ms["tracked"], 99),
        "smoothed_median_ms": _quantile(ms["smoothed"], 50),
        "smoothed_p99_ms": _quantile(ms["smoothed"], 99),
        "registered_hz": len(rows["estimate"]) / seconds,
        "accepted_hz": len(rows["pose"]) / seconds,
        "pose_age_median_ms": _quantile(age, 50),
        "pose_age_p99_ms": _quantile(age, 99),
        "shown_age_median_ms": _quantile(_shown_age_ms(rows["fused"], rows["pose"]), 50),
    }


def _which(sent_ns: np.ndarray, stamps_ns: np.ndarray) -> np.ndarray:
    """Index of the frame that each stamp belongs to.

    The library counts seconds in float64, which moves a stamp by up to 0.25 us.

    Raises:
        SystemExit: a stamp that was never sent.
    """
    index = np.searchsorted(sent_ns, stamps_ns - TOLERANCE_NS)
    near = index < len(sent_ns)
    near[near] = np.abs(sent_ns[index[near]] - stamps_ns[near]) <= TOLERANCE_NS
    if not near.all():
        raise SystemExit(f"{(~near).sum()} images came with stamps that were never sent: {stamps_ns[~near][:3]}")
    return index


def _shown_age_ms(fused: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """When a fused image arrives: how old is the newest accepted pose that had arrived by then."""
    if not len(poses):
        return np.empty(0)
    newest = np.searchsorted(poses[:, 1], fused[:, 1], side="right") - 1
    return (fused[newest >= 0, 1] - poses[newest[newest >= 0], 0]) * 1e-6


def _quantile(values: np.ndarray, percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")
