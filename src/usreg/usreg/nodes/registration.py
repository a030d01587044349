# SPDX-License-Identifier: Apache-2.0
"""Node `registration`: where the volume lies in the room, from single frames, the newest wins, or from a sweep.

It searches from the prediction of a filter of its own, fed with the same estimates as `pose_smoothing`, so that a start
is there also when the pose is lost; the pose that is shown comes from `pose_smoothing` alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseWithCovarianceStamped
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger
from usreg_msgs.msg import Hypotheses, Registration, UltrasoundGeometry, VolumeInfo
from usreg_msgs.srv import Initialize, LoadVolume

from .. import systems
from ..config import check_range
from ..data.types import Estimate, Frame, Problem, Rigid, TrackedFrame, Volume
from ..errors import ConfigError, GeometryError, LostError, NoOverlapError, UsregError
from ..registration.registrar import Registrar
from ..smoothing import FilterConfig, NoSmoothing, PoseFilter, Prediction
from . import convert, parameters, qos, start
from .base import LifecycleStage, leave, run_node
from .pairs import StampPairs
from .start import Start, StartConfig
from .sweep_registration import SweepRegistration
from .volume import VolumeConfig, load_volume
from .worker import NewestWorker

PARTS = ("image", "geometry", "pose")


@dataclass(frozen=True)
class RegistrationNodeConfig:
    """What is registered and how.

    Args:
        system: name of a registration system. options: YAML mapping of its configuration, for example
            "{min_overlap: 0.5}".
        similarity, optimizer: put into the options; empty: as these say, else by the volume's modality.
        mode, weights: put into the options of the system deep_s2v; empty: usreg, and those that ship.
        smoother: filter or none, as in pose_smoothing.
        niceness: of the thread that registers, so that display and tracking go first.
    """

    system: str = "intensity"
    options: str = "{}"
    similarity: str = ""
    optimizer: str = ""
    mode: str = ""
    weights: str = ""
    smoother: Literal["filter", "none"] = "filter"
    niceness: int = 5

    def __post_init__(self) -> None:
        check_range("niceness", self.niceness, 0, 19)

    def mapping(self) -> dict[str, Any]:
        """The options, with those that have parameters of their own.

        Raises:
            ConfigError: not a YAML mapping.
        """
        try:
            found = yaml.safe_load(self.options)
        except yaml.YAMLError as error:
            raise ConfigError(f"'options' is no YAML: {error}") from error
        if not isinstance(found, dict):
            raise ConfigError(f"'options' must be a YAML mapping, for example '{{}}', it is {self.options!r}")
        short = {key: getattr(self, key) for key in ("similarity", "optimizer", "mode", "weights")}
        return found | {key: value for key, value in short.items() if value}


@dataclass(frozen=True, eq=False)
class Work:
    """A tracked frame to be registered."""

    tracked: TrackedFrame
    stamp: Time
    generation: int = field(default=0)


class RegistrationNode(LifecycleStage):
    """See the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__("registration", "registration", **options)
        self.config = parameters.declare(self, RegistrationNodeConfig)
        self.volume_config = parameters.declare(self, VolumeConfig)
        self.start_pose = parameters.declare(self, StartConfig, "initial").start()
        filter_config = parameters.declare(self, FilterConfig, "filter")
        self.filter = (PoseFilter if self.config.smoother == "filter" else NoSmoothing)(filter_config)
        self.pairs = StampPairs(PARTS, on_drop=lambda *_: self.diagnostics.drop("unpaired"))
        self.estimate_out = qos.publisher(self, Registration, "registration/estimate", "result")
        self.pose_out = qos.publisher(self, PoseWithCovarianceStamped, "registration/pose", "result")
        self.hypotheses_out = qos.publisher(self, Hypotheses, "registration/hypotheses", "latched")
        self.volume_out = qos.publisher(self, VolumeInfo, "volume", "latched")
        self.registrar: Registrar | None = None
        self.volume: Volume | None = None
        self.worker: NewestWorker | None = None
        self._lock, self._generation, self._accept = threading.RLock(), 0, True
        self._pending = self.start_pose
        self._inputs: list[Any] = []
        self.sweeps = SweepRegistration(self)
        self._serve()
        self._build(self.volume_config.modality)  # a wrong name or option is told at once, and ends the node
        self.ready()

    def _serve(self) -> None:
        self.create_service(Initialize, "registration/initialize", self.on_initialize)
        self.create_service(Trigger, "registration/reset", self.on_reset)
        self.create_service(SetBool, "registration/accept", self.on_accept)
        self.create_service(LoadVolume, "load_volume", self.on_load_volume)

    # --- lifecycle ------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Load the volume, build the system, compile."""
        self.registrar = self._build(self.volume_config.modality)
        if self.volume_config.volume:
            self._use(load_volume(self.volume_config))

    def activate(self) -> None:
        """Listen to frames and tell of the volume."""
        self.worker = NewestWorker(self._work, self._skipped, self.config.niceness, "registration")
        self._inputs = [
            qos.subscription(self, Image, "us/image", self.guarded(self.on_image), "newest"),
            qos.subscription(self, UltrasoundGeometry, "us/geometry", self.guarded(self.on_geometry), "newest"),
            qos.subscription(self, PoseWithCovarianceStamped, "us/pose", self.guarded(self.on_pose), "result"),
        ]
        self._tell_volume()
        self._tell_start()

    def deactivate(self) -> None:
        """Stop listening."""
        self.sweeps.action.stop("the node was deactivated")
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def cleanup(self) -> None:
        """Give back volume and pyramids."""
        self.registrar = self.volume = None

    def stop(self) -> None:
        """End the thread."""
        self.sweeps.action.destroy()
        self.deactivate()

    def _build(self, modality: str) -> Registrar:
        return systems.build(self.config.system, self.config.mapping(), modality)

    def _use(self, volume: Volume) -> None:
        registrar = self._build(volume.modality)
        registrar.prepare(volume)
        with self._lock:
            self.volume, self.registrar = volume, registrar

    # --- frames ---------------------------------------------------------------------------------------------------

    def on_image(self, message: Image) -> None:
        """An image; converted only if it is registered."""
        self._collect("image", convert.stamp_to_s(message.header.stamp), message)

    def on_geometry(self, message: UltrasoundGeometry) -> None:
        """Its geometry."""
        self._collect("geometry", *convert.decode_geometry(message))

    def on_pose(self, message: PoseWithCovarianceStamped) -> None:
        """Its pose."""
        self._collect("pose", convert.stamp_to_s(message.header.stamp), message)

    def _collect(self, part: str, stamp_s: float, value: Any) -> None:
        found = self.pairs.add(part, stamp_s, value)
        if found is None or self.worker is None:
            return
        frame = Frame(convert.image_from_msg(found["image"]), found["geometry"], stamp_s)
        _, _, pose, covariance = convert.decode_stamped_pose(found["pose"])
        tracked, stamp = TrackedFrame(frame, pose, covariance), found["pose"].header.stamp
        self.sweeps.action.offer(tracked, stamp)
        if not self.sweeps.action.computing:
            self.worker.put(Work(tracked, stamp, self._generation))

    def _work(self, work: Work | Callable[[], None]) -> None:
        """Body of the worker: a frame, or what a sweep has to do."""
        self._register(work) if isinstance(work, Work) else work()

    def _skipped(self, work: Any) -> None:
        self.diagnostics.fact("skipped", int(self.diagnostics.facts.get("skipped", "0")) + 1)

    def _register(self, work: Work) -> None:
        """One frame."""
        begin, status = time.perf_counter(), "ERROR"
        try:
            estimate = self._estimate(work)
        except UsregError as error:
            status = _status_of(error)
            self.refuse(error)
            self.diagnostics.state("WARN", f"{status}: {error}")
            message = convert.refusal_to_msg(
                work.stamp, self.frames.world_frame, self.frames.volume_frame, status, str(error), self.config.system
            )
        else:
            message = self._message(work, estimate)
        if work.generation == self._generation:
            self.estimate_out.publish(message)
            self.diagnostics.done(work.tracked.frame.stamp_s, time.perf_counter() - begin)

    def _estimate(self, work: Work) -> Estimate:
        stamp_s = work.tracked.frame.stamp_s
        with self._lock:
            volume, registrar = self.loaded()
            beginning = self.search_start(stamp_s, volume)
        estimate = self.allowed(registrar(Problem((work.tracked,), volume, beginning)))
        with self._lock:
            if work.generation == self._generation:
                self.filter.update(stamp_s, estimate)
        return estimate

    def loaded(self) -> tuple[Volume, Registrar]:
        """The volume in use and what registers it.

        Raises:
            LostError: there is none yet.
        """
        with self._lock:
            if self.volume is None or self.registrar is None:
                raise LostError("no volume is loaded: call the service load_volume")
            return self.volume, self.registrar

    def search_start(self, stamp_s: float, volume: Volume) -> Estimate:
        """Where a search at a stamp begins; a given start goes into the filter at the first frame that comes after it.

        Raises:
            LostError: no start was ever given.
        """
        with self._lock:
            if self._pending is not None:
                begin, self._pending = self._pending, None
                self.filter.reset()
                self.filter.initialize(begin.stamp_s or stamp_s, *begin.about(volume))
            return _as_start(self.filter.search_start(stamp_s))

    def allowed(self, estimate: Estimate) -> Estimate:
        """The estimate, refused where acceptance is switched off."""
        if self._accept:
            return estimate
        return estimate.refused("acceptance is switched off (service registration/accept)")

    def adopt(self, estimate: Estimate, stamp_s: float) -> None:
        """Begin again from an estimate that holds at a stamp."""
        self.start_pose = Start(estimate.world_T_ct, estimate.covariance, stamp_s=stamp_s)
        self._begin_again()

    def _message(self, work: Work, estimate: Estimate) -> Registration:
        world, child = self.frames.world_frame, self.frames.volume_frame
        age_s = self.now_s() - work.tracked.frame.stamp_s
        status = "ACCEPTED" if estimate.accepted else "REJECTED"
        if estimate.accepted and work.generation == self._generation:
            pose, covariance = estimate.world_T_ct, estimate.covariance
            self.pose_out.publish(convert.stamped_pose_to_msg(pose, covariance, work.stamp, world, estimate.pivot))
        self.diagnostics.state("OK" if estimate.accepted else "WARN", estimate.reason)
        self.diagnostics.fact("score", f"{estimate.score:.4f}")
        self.diagnostics.fact("overlap", f"{estimate.overlap:.3f}")
        return convert.estimate_to_msg(estimate, work.stamp, world, child, status, work.tracked.world_T_image, age_s)

    # --- services -------------------------------------------------------------------------------------------------

    def on_initialize(self, request: Initialize.Request, response: Initialize.Response) -> Initialize.Response:
        """Start from a given pose."""
        try:
            self.start_pose = start.from_msg(request.pose, self.frames.world_frame)
            self.reset()
        except UsregError as error:
            response.success, response.message = False, str(error)
            return response
        self._tell_start()
        response.success, response.message = True, "the next frame is searched from this pose"
        return response

    def on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Begin again from the start that was given last."""
        self.reset()
        self._tell_start()
        response.success = self.start_pose is not None
        response.message = "began again from the given start" if response.success else "no start is known: initialise"
        return response

    def on_accept(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Switch on or off that estimates may be accepted."""
        self._accept = bool(request.data)
        self.diagnostics.fact("accepting", self._accept)
        self.diagnostics.publish_now()
        response.success, response.message = True, f"acceptance is {'on' if self._accept else 'off'}"
        return response

    async def on_load_volume(self, request: LoadVolume.Request, response: LoadVolume.Response) -> LoadVolume.Response:
        """Load another volume in a thread; the present one is used until then."""
        config = VolumeConfig(request.uri, request.modality if request.modality in ("CT", "MR", "US") else "")
        error = await start.in_thread(self.executor, lambda: self._load(config))
        response.success, response.message = error is None, "" if error is None else str(error)
        if error is None and self.volume is not None:
            response.info = self._volume_info(self.volume)
            self.reset()
            self._tell_volume()
            self._tell_start()
        return response

    def _load(self, config: VolumeConfig) -> None:
        if self.registrar is None:
            raise ConfigError("the node is not configured yet")
        self._use(load_volume(config))

    def _volume_info(self, volume: Volume) -> VolumeInfo:
        now = self.get_clock().now().to_msg()
        return convert.volume_to_msg(volume, now, self.frames.volume_frame, self.frames.world_frame)

    def _tell_volume(self) -> None:
        if self.volume is not None:
            self.volume_out.publish(self._volume_info(self.volume))

    def _tell_start(self) -> None:
        """The start as the first hypothesis: pose_smoothing begins with it too."""
        if self.volume is None or self.start_pose is None:
            return
        begin = self.start_pose
        pose, covariance, pivot = begin.about(self.volume)
        estimate = Estimate(Rigid(pose), covariance, pivot, accepted=True, reason="start", system="given")
        stamp = convert.s_to_stamp(begin.stamp_s)
        world, child = self.frames.world_frame, self.frames.volume_frame
        message = convert.estimate_to_msg(estimate, stamp, world, child, "ACCEPTED")
        self.hypotheses_out.publish(Hypotheses(header=message.header, hypotheses=[message]))

    def reset(self) -> None:
        """Begin again from the given start (time jumped back, another volume, a service)."""
        self.sweeps.action.stop("registration began again")
        self._begin_again()

    def _begin_again(self) -> None:
        with self._lock:
            self._generation += 1
            self.filter.reset()
            if self.registrar is not None:
                self.registrar.reset()
            self._pending = self.start_pose
        self.pairs.reset()
        if self.worker is not None:
            self.worker.clear()


def _as_start(prediction: Prediction) -> Estimate:
    return Estimate(Rigid(prediction.world_T_ct), prediction.covariance, prediction.pivot, reason="prediction")


def _status_of(error: UsregError) -> str:
    if isinstance(error, NoOverlapError):
        return "NO_OVERLAP"
    return "LOST" if isinstance(error, LostError | GeometryError) and "initialised" in str(error) else "ERROR"


def main(args: list[str] | None = None) -> None:
    """Entry point."""
    leave(run_node(RegistrationNode, args))
