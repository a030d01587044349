# SPDX-License-Identifier: Apache-2.0
"""web_view: nothing while nobody watches, every frame with what is known of it, the page's buttons, a taken port."""

import asyncio
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402
from geometry_msgs.msg import PointStamped  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from usreg_msgs.msg import Hypotheses  # noqa: E402
from usreg_msgs.srv import Initialize  # noqa: E402

from usreg.data.types import Estimate, Frame, Rigid, TrackedFrame, Volume  # noqa: E402
from usreg.data.volumes import read_volume, write_volume  # noqa: E402
from usreg.fusion import overlay  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.geometry.grid import VoxelGrid  # noqa: E402
from usreg.geometry.plane import PlaneGrid  # noqa: E402
from usreg.geometry.sector import full_rectangle  # noqa: E402
from usreg.nodes import convert, graph, web_view_controls  # noqa: E402
from usreg.nodes.web_view import WebViewConfig, WebViewNode  # noqa: E402
from usreg.smoothing import Breathing  # noqa: E402
from usreg.web.wire import unpack  # noqa: E402

GEOMETRY = full_rectangle(PlaneGrid(60, 80, ((0.5, 0.0), (0.0, 0.5))))
WORLD_T_CT = se3.exp(torch.tensor([30.0, -20.0, 10.0, 0.1, 0.2, 0.3], dtype=torch.float64))
CT_T_IMAGE = se3.exp(torch.tensor([2.0, 3.0, 15.0, 0.1, 0.0, 0.0], dtype=torch.float64))
WORLD_T_IMAGE = WORLD_T_CT @ CT_T_IMAGE
SPREAD = torch.diag(torch.tensor([0.04, 0.09, 0.16, 1e-4, 4e-4, 9e-4], dtype=torch.float64))
PICTURE = torch.arange(4800).remainder(251).to(torch.uint8).reshape(60, 80)
HEARD = {"us/image", "us/geometry", "us/pose", "registration/smoothed", "registration/estimate", "/tf", "/diagnostics"}


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
    """A node with its graph played by the test."""

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
        if status == "ACCEPTED":
            pose = convert.stamped_pose_to_msg(WORLD_T_CT, SPREAD, stamp_s, "world")
            self.bench.say("registration/pose", pose)
        self.bench.until(lambda: self.node.moments.estimate is not None)

    def tell(self, node: str, **facts: str) -> None:
        """A node's word on /diagnostics."""
        pairs = [KeyValue(key=key, value=value) for key, value in facts.items()]
        status = DiagnosticStatus(name=f"/{self.bench.namespace}/{node}: part", message="OK", values=pairs)
        self.bench.say("diagnostics", DiagnosticArray(status=[status]))

    def close(self) -> None:
        for page in self.pages:
            page.close()


def block() -> Volume:
    data = torch.arange(27000).remainder(200).to(torch.uint8).reshape(1, 30, 30, 30)
    return Volume(data, VoxelGrid((30, 30, 30), (1.5, 1.5, 1.5)), "US")


@pytest.fixture
def make(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., View]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made: list[View] = []

    def build(**parameters: Any) -> View:
        made.append(View(bench, tmp_path, **parameters))
        return made[-1]

    yield build
    for view in made:
        view.close()


def topics(node: Any) -> set[str]:
    """Topics of the node's subscriptions in the names of the code."""
    space = node.get_namespace() + "/"
    shared = ("tf", "tf_static", "diagnostics")
    names = {s.topic_name.removeprefix(space) for s in node.subscriptions}
    return {f"/{name}" if name in shared else name for name in names}


def numbers(pose: torch.Tensor) -> Any:
    return pytest.approx(pose.flatten().tolist(), abs=1e-6)


def test_it_listens_only_while_somebody_watches(make: Callable[..., View], bench: Any) -> None:
    view = make()
    assert not topics(view.node) & HEARD and view.node.content.volume is None
    page = view.open()
    assert topics(view.node) >= HEARD
    page.close()
    bench.until(lambda: not topics(view.node) & HEARD)
    view.open()
    view.frame(5.0)
    bench.until(lambda: view.pages[-1].of("frame"))


def test_a_frame_carries_what_the_graph_knows_of_it(make: Callable[..., View], bench: Any) -> None:
    view = make()
    page = view.open()
    statics = [convert.transform_to_msg(se3.translation(v), 0.0, a, b) for v, a, b in LINKS[:1]]
    bench.say("tf_static", TFMessage(transforms=statics), "tf_static")
    moving = [convert.transform_to_msg(se3.translation(v), 5.0, a, b) for v, a, b in LINKS[1:]]
    bench.say("tf", TFMessage(transforms=moving))
    bench.until(lambda: "us_probe" in view.node.moments._transforms._parents)
    view.estimate(4.9)
    bench.say("registration/breathing", convert.breathing_to_msg(Breathing(1.5, 12.0, 4.0), 5.0, "world"))
    bench.until(lambda: view.node.moments._breath is not None)
    view.frame(5.0)
    bench.until(lambda: page.of("frame"))
    frame, buffers = page.last("frame"), page.buffers("frame")
    tracked = TrackedFrame(Frame(PICTURE, GEOMETRY, 5.0), WORLD_T_IMAGE)
    expected = overlay(tracked, read_volume(view.volume, "US"), WORLD_T_CT)
    assert (buffers["image"] == PICTURE.numpy()).all()
    shown = buffers["slice"] > 0
    assert shown.any() and abs(buffers["slice"][shown].astype(int) - expected.slice.numpy()[shown]).max() <= 1
    assert frame["world_T_image"] == numbers(WORLD_T_IMAGE) and frame["world_T_ct"] == numbers(WORLD_T_CT)
    assert frame["world_T_ct_raw"] == numbers(WORLD_T_CT) and frame["fused"] and frame["accepted"]
    assert frame["sigma_mm"] == pytest.approx([0.2, 0.3, 0.4], abs=1e-6), "about the volume's centre"
    assert frame["sigma_deg"] == pytest.approx([math.degrees(v) for v in (0.01, 0.02, 0.03)], abs=1e-6)
    assert (frame["status"], frame["score"], frame["system"]) == ("ACCEPTED", 0.8, "intensity")
    assert frame["pose_age_s"] == pytest.approx(0.1) and frame["compute_s"] == pytest.approx(0.04)
    assert frame["breathing"] == pytest.approx({"phase": 1.5, "depth_mm": 12.0, "period_s": 4.0})
    assert [link["name"] for link in frame["links"]] == ["base", "us_probe"]
    assert frame["links"][1]["world_T_link"][3::4] == pytest.approx([100.0, 0.0, 50.0, 1.0])
    assert frame["age_s"] == pytest.approx(time.time() - 5.0, abs=60.0) and frame["tre_mm"] is None
    assert not frame["paused"]


LINKS = (
    (torch.tensor([100.0, 0.0, 0.0], dtype=torch.float64), "world", "base"),
    (torch.tensor([0.0, 0.0, 50.0], dtype=torch.float64), "base", "us_probe"),
)


def test_a_frame_without_its_pose_is_shown_alone_with_the_reason(make: Callable[..., View], bench: Any) -> None:
    view = make()
    page = view.open()
    view.frame(5.0, leave_out=("registration/smoothed",))
    bench.until(lambda: len(page.of("frame")) == 1)
    assert page.last("frame")["status"] == "WAITING" and not page.last("frame")["fused"]
    view.estimate(5.0, "REJECTED", "score 0.1 below 0.3")
    view.frame(5.1, leave_out=("registration/smoothed",))
    bench.until(lambda: len(page.of("frame")) == 2)
    assert (page.last("frame")["status"], page.last("frame")["reason"]) == ("REJECTED", "score 0.1 below 0.3")
    view.frame(5.2, leave_out=("registration/smoothed", "us/pose"))
    bench.until(lambda: len(page.of("frame")) == 3)
    frame = page.last("frame")
    assert frame["status"] == "NOT_TRACKED" and frame["world_T_image"] is None and "arm_tracking" in frame["reason"]
    view.node.moments.estimate = None
    view.estimate(5.3)
    view.frame(5.3, leave_out=("registration/smoothed",))
    bench.until(lambda: len(page.of("frame")) == 4)
    assert page.last("frame")["status"] == "LOST" and "pose_smoothing" in page.last("frame")["reason"]


def test_without_a_volume_the_picture_is_shown_and_the_volume_is_followed(
    make: Callable[..., View], bench: Any
) -> None:
    view = make(volume="")
    page = view.open()
    view.frame(5.0)
    bench.until(lambda: page.of("frame"))
    assert page.last("frame")["status"] == "NO_VOLUME" and not page.last("frame")["fused"]
    loaded = read_volume(view.volume, "US")
    bench.say("volume", convert.volume_to_msg(loaded, 1.0, "ct", "world"), "latched")
    bench.until(lambda: page.last("scene")["volume"] is not None)
    assert page.last("scene")["volume"]["sha256"] == loaded.sha256
    wrong = convert.volume_to_msg(loaded, 1.0, "ct", "world")
    wrong.sha256 = "0" * 64
    bench.say("volume", wrong, "latched")
    bench.until(lambda: "differs" in view.node.diagnostics.condition[1])
    view.frame(5.1)
    bench.until(lambda: page.last("frame")["stamp_s"] > 5.05)
    assert page.last("frame")["fused"]


def test_broken_messages_are_counted_and_the_next_frame_is_shown(make: Callable[..., View], bench: Any) -> None:
    view = make()
    page = view.open()
    view.frame(5.0, leave_out=("registration/smoothed",))
    broken = convert.stamped_pose_to_msg(WORLD_T_CT, SPREAD, 5.0, "world")
    broken.pose.pose.position.x = math.nan
    bench.say("registration/smoothed", broken)
    bench.until(lambda: view.node.diagnostics.drops.get("GeometryError") == 1)
    view.frame(5.1)
    bench.until(lambda: page.of("frame"))
    assert len(page.of("frame")) == 1


def test_a_pause_is_shown_at_once_with_the_frame_that_stands(make: Callable[..., View], bench: Any) -> None:
    view = make()
    page = view.open()
    view.frame(5.0)
    bench.until(lambda: page.of("frame"))
    assert page.last("status")["state"] in ("running", "waiting")
    view.tell("player", paused="True", ended="False")
    bench.until(lambda: page.last("frame")["paused"] and page.last("status")["state"] == "paused")
    assert [f["stamp_s"] for f in page.of("frame")] == [5.0, 5.0]
    assert page.of("frame")[1]["seq"] > page.of("frame")[0]["seq"]
    view.tell("player", paused="False", ended="True")
    bench.until(lambda: not page.last("frame")["paused"] and page.last("status")["state"] == "ended")


def test_the_status_holds_stages_recorder_acceptance_and_hypotheses(make: Callable[..., View], bench: Any) -> None:
    view = make()
    page = view.open()
    view.tell(
        "registration", rate_hz="9.5", latency_median_s="0.08", latency_p99_s="0.12", drops="3", accepting="False"
    )
    view.tell("recorder", recording="True", path="/data/take")
    start = Estimate(Rigid(WORLD_T_CT), SPREAD, WORLD_T_CT[:3, 3], 0.7, accepted=True, reason="start")
    message = convert.estimate_to_msg(start, 0.0, "world", "ct", "ACCEPTED", rank=2)
    bench.say("registration/hypotheses", Hypotheses(hypotheses=[message]), "latched")
    bench.until(lambda: page.last("status")["hypotheses"] and page.last("status")["recorder"])
    status = page.last("status")
    stage = next(s for s in status["stages"] if s["name"] == "registration")
    assert (stage["rate_hz"], stage["latency_ms"], stage["latency_p99_ms"], stage["drops"]) == (9.5, 80.0, 120.0, 3)
    assert status["recorder"] == {"recording": True, "path": "/data/take"} and status["accept"] is False
    (hypothesis,) = status["hypotheses"]
    assert (hypothesis["rank"], hypothesis["score"], hypothesis["reason"]) == (2, 0.7, "start")
    assert hypothesis["world_T_ct"] == numbers(WORLD_T_CT) and status["clients"] == 1


def test_a_page_that_does_not_acknowledge_holds_up_nobody(make: Callable[..., View], bench: Any) -> None:
    view = make()
    slow, quick = view.open(acknowledge=False), view.open()
    for k in range(6):
        view.frame(5.0 + 0.1 * k)
        bench.until(lambda k=k: len(quick.of("frame")) == k + 1)
    assert [f["stamp_s"] for f in quick.of("frame")] == pytest.approx([5.0 + 0.1 * k for k in range(6)])
    assert len(slow.of("frame")) == 1


def test_nothing_is_painted_while_no_page_can_take_it(make: Callable[..., View], bench: Any) -> None:
    view = make()
    page = view.open(acknowledge=False)
    view.frame(5.0)
    bench.until(lambda: len(page.of("frame")) == 1)
    painted: list[float] = []
    before = view.node.painter.frame
    view.node.painter.frame = lambda moment, seq: (painted.append(moment.frame.stamp_s), before(moment, seq))[1]
    for k in range(1, 6):
        view.frame(5.0 + 0.1 * k)
    bench.spin(0.3)
    assert painted == []
    asyncio.run_coroutine_threadsafe(
        page._socket.send_str(json.dumps({"type": "ack", "seq": page.last("frame")["seq"]})), page._loop
    ).result(5)
    bench.until(lambda: len(page.of("frame")) == 2)
    assert painted == [5.5], "the newest alone, though nothing came after it"


def test_after_a_jump_back_everything_begins_again(make: Callable[..., View], bench: Any) -> None:
    view = make()
    page = view.open()
    view.estimate(99.9)
    view.frame(100.0)
    bench.until(lambda: page.of("frame"))
    view.node.reset()
    view.frame(5.0)
    bench.until(lambda: len(page.of("frame")) == 2)
    assert page.last("frame")["stamp_s"] == 5.0 and page.last("frame")["status"] == "WAITING"
    assert page.last("frame")["world_T_ct_raw"] is None


# --- the server ---


def test_a_taken_port_is_told_and_tried_again_and_the_node_lives(bench: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        node = bench.add(WebViewNode, port=port, retry_s=0.2)
        level, text = node.diagnostics.condition
        assert level == "ERROR" and str(port) in text and "choose another port" in text and "goes on" in text
        bench.spin(0.5)
        assert node.url == ""
    bench.until(lambda: node.url != "")
    assert node.diagnostics.condition[0] == "OK" and node.diagnostics.facts["url"] == f"http://127.0.0.1:{port}/"
    page = Page(node.url)
    bench.until(lambda: page.last("hello"))
    page.close()


def test_the_token_is_needed_and_is_not_in_the_diagnostics(
    bench: Any, monkeypatch: pytest.MonkeyPatch, make: Callable[..., View]
) -> None:
    monkeypatch.setenv(graph.TOKEN, "a-token-of-this-session-alone")
    view = make()
    assert view.node.url.endswith("?token=a-token-of-this-session-alone")
    assert "token" not in view.node.diagnostics.facts["url"]
    with pytest.raises(aiohttp.WSServerHandshakeError):
        asyncio.run(_connect(view.node.url.partition("?")[0]))
    view.open()


async def _connect(base: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{base}ws"):
        pass


@pytest.mark.parametrize("values", [{"wait_s": 0.0}, {"leave_s": -1.0}, {"retry_s": 0.0}])
def test_values_outside_their_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        WebViewConfig(**values)


# --- the buttons ---


def serve(bench: Any, kind: Any, name: str, taken: list[Any], success: bool = True, text: str = "done") -> None:
    """A service of the graph that notes what it was asked."""

    def answer(request: Any, response: Any) -> Any:
        taken.append(request)
        response.success, response.message = success, text
        return response

    bench.probe.create_service(kind, name, answer)


def answered(bench: Any, reply: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    bench.until(lambda: bool(reply()))
    return reply()


def test_buttons_call_the_services_of_the_graph(make: Callable[..., View], bench: Any) -> None:
    view = make()
    taken: dict[str, list[Any]] = {}
    for name, kind in web_view_controls.SERVICES.items():
        serve(bench, kind, name, taken.setdefault(name, []))
    page = view.open()
    names = set(web_view_controls.NEEDS) | {"target"}
    bench.until(lambda: set(page.last("hello")["commands"]) == names)
    asked = [
        ("reset", {}, "registration/reset", None),
        ("accept", {"on": False}, "registration/accept", False),
        ("record", {"on": True}, "recorder/start", None),
        ("record", {"on": False}, "recorder/stop", None),
        ("pause", {"on": True}, "player/pause", True),
        ("step", {}, "player/step", None),
        ("seek", {"index": 0}, "player/restart", None),
    ]
    for name, args, service, data in asked:
        reply = answered(bench, page.ask(name, **args))
        assert reply["ok"] and reply["data"]["text"] == "done", reply
        assert len(taken[service]) == 1
        assert data is None or taken[service][0].data is data
    reply = answered(bench, page.ask("seek", index=4))
    assert not reply["ok"] and "usreg view" in reply["message"] and len(taken["player/restart"]) == 1


def test_a_start_is_chosen_among_the_hypotheses(make: Callable[..., View], bench: Any) -> None:
    view, taken = make(), list[Any]()
    serve(bench, Initialize, "registration/initialize", taken)
    page = view.open()
    centre = se3.transform_points(WORLD_T_CT, block().grid.centre_ct[None])[0]
    found = Estimate(Rigid(WORLD_T_CT), SPREAD, centre, 0.7, accepted=False, reason="second best")
    message = convert.estimate_to_msg(found, 3.0, "world", "ct", "REJECTED", rank=1)
    bench.say("registration/hypotheses", Hypotheses(hypotheses=[message]), "latched")
    bench.until(lambda: page.last("status")["hypotheses"])
    assert answered(bench, page.ask("initialize_hypothesis", rank=1))["ok"]
    stamp_s, world, pose, covariance = convert.decode_stamped_pose(taken[0].pose, centre)
    assert (stamp_s, world) == (0.0, "world") and torch.allclose(pose, WORLD_T_CT, atol=1e-6)
    assert torch.allclose(covariance, SPREAD, atol=1e-6)
    reply = answered(bench, page.ask("initialize_hypothesis", rank=7))
    assert not reply["ok"] and "rank 7" in reply["message"] and "[1]" in reply["message"]


def test_a_start_is_given_by_landmark_pairs(make: Callable[..., View], bench: Any) -> None:
    view, taken = make(), list[Any]()
    serve(bench, Initialize, "registration/initialize", taken)
    page = view.open()
    bench.until(lambda: "initialize_pairs" in page.last("hello")["commands"])
    ct = torch.tensor([[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40]], dtype=torch.float64)
    world = se3.transform_points(WORLD_T_CT, ct)
    pairs = [{"world": w, "ct": c} for w, c in zip(world.tolist(), ct.tolist(), strict=True)]
    reply = answered(bench, page.ask("initialize_pairs", pairs=pairs))
    assert reply["ok"] and reply["data"]["residual_mm"] < 1e-6
    _, _, pose, _ = convert.decode_stamped_pose(taken[0].pose)
    assert torch.allclose(pose, WORLD_T_CT, atol=1e-5)
    line = [{"world": [10.0 * k, 0, 0], "ct": [10.0 * k, 0, 0]} for k in range(4)]
    reply = answered(bench, page.ask("initialize_pairs", pairs=line))
    assert not reply["ok"] and reply["message"] and len(taken) == 1


def test_a_target_goes_over_its_topic_and_comes_back(make: Callable[..., View], bench: Any) -> None:
    view = make()
    heard = bench.hear(PointStamped, "target")
    page = view.open()
    bench.until(lambda: view.node.controls._target_out.get_subscription_count() == 2)
    assert answered(bench, page.ask("target", ct=[10, 20, 30]))["ok"]
    bench.until(lambda: page.last("scene")["target_ct"] == pytest.approx([10, 20, 30]))
    assert heard[0].header.frame_id == "ct" and convert.point_from_msg(heard[0].point).tolist() == [10, 20, 30]
    view.frame(5.0)
    bench.until(lambda: page.of("frame"))
    expected = se3.transform_points(se3.inverse(CT_T_IMAGE), torch.tensor([[10.0, 20.0, 30.0]], dtype=torch.float64))
    assert page.last("frame")["target"]["distance_mm"] == pytest.approx(float(expected[0, 2]))
    assert answered(bench, page.ask("target", ct=None))["ok"]
    bench.until(lambda: page.last("scene")["target_ct"] is None)


def test_a_service_that_is_not_there_or_refuses_or_is_silent_is_told(
    make: Callable[..., View], bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_view_controls, "ANSWER_S", 0.3)
    view = make()
    page = view.open()
    reply = answered(bench, page.ask("reset"))
    assert not reply["ok"] and "does not take it now" in reply["message"], "it is not offered"
    view.node.controls.names = (*view.node.controls.names, "reset")  # as if it had gone after it was offered
    reply = answered(bench, page.ask("reset"))
    assert not reply["ok"] and "registration does not run" in reply["message"]
    serve(bench, SetBool, "registration/accept", [], False, "no start is known")
    bench.until(lambda: "accept" in page.last("hello")["commands"])
    reply = answered(bench, page.ask("accept", on=True))
    assert (reply["ok"], reply["message"]) == (False, "no start is known")
    silent = bench.probe.create_client(Trigger, "player/step")
    assert silent is not None
    monkeypatch.setattr(view.node.controls._clients["player/step"], "wait_for_service", lambda timeout_sec: True)
    view.node.controls.names = (*view.node.controls.names, "step")
    reply = answered(bench, page.ask("step"))
    assert not reply["ok"] and "has not answered within 0.3 s" in reply["message"]


def test_a_read_only_view_takes_nothing(make: Callable[..., View], bench: Any) -> None:
    view, taken = make(read_only=True), list[Any]()
    serve(bench, Trigger, "registration/reset", taken)
    page = view.open()
    bench.spin(0.7)
    assert page.last("hello")["commands"] == [] and page.last("hello")["read_only"]
    reply = answered(bench, page.ask("reset"))
    assert not reply["ok"] and "read only" in reply["message"] and not taken
