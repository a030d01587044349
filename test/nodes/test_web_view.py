# SPDX-License-Identifier: Apache-2.0
"""web_view: nothing while nobody watches, every frame with what is known of it, a taken port, a token."""

import asyncio
import json
import math
import socket
import time
from typing import Any

import aiohttp
import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from rosgraph_msgs.msg import Clock  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from usreg_msgs.msg import Hypotheses  # noqa: E402

from usreg.data.types import Estimate, Frame, Rigid, TrackedFrame  # noqa: E402
from usreg.data.volumes import read_volume  # noqa: E402
from usreg.fusion import overlay  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.nodes import convert, graph, qos  # noqa: E402
from usreg.nodes.web_view import WebViewConfig, WebViewNode  # noqa: E402
from usreg.smoothing import Breathing  # noqa: E402

HEARD = {"us/image", "us/geometry", "us/pose", "registration/smoothed", "registration/estimate", "/tf", "/diagnostics"}


def topics(node: Any) -> set[str]:
    """Topics of the node's subscriptions in the names of the code."""
    space = node.get_namespace() + "/"
    shared = ("tf", "tf_static", "diagnostics")
    names = {s.topic_name.removeprefix(space) for s in node.subscriptions}
    return {f"/{name}" if name in shared else name for name in names}


def numbers(pose: torch.Tensor) -> Any:
    return pytest.approx(pose.flatten().tolist(), abs=1e-6)


def test_it_listens_only_while_somebody_watches(make_view: Any, bench: Any) -> None:
    view = make_view()
    assert not topics(view.node) & HEARD and view.node.content.volume is None
    page = view.open()
    assert topics(view.node) >= HEARD
    page.close()
    bench.until(lambda: not topics(view.node) & HEARD)
    view.open()
    view.frame(5.0)
    bench.until(lambda: view.pages[-1].of("frame"))


def test_a_frame_carries_what_the_graph_knows_of_it(make_view: Any, bench: Any) -> None:
    view = make_view()
    page = view.open()
    statics = [convert.transform_to_msg(se3.translation(v), 0.0, a, b) for v, a, b in LINKS[:1]]
    bench.say("tf_static", TFMessage(transforms=statics), "tf_static")
    moving = [convert.transform_to_msg(se3.translation(v), 5.0, a, b) for v, a, b in LINKS[1:]]
    bench.say("tf", TFMessage(transforms=moving))
    bench.until(lambda: "us_probe" in view.node.moments._transforms._parents)
    view.estimate(4.9)
    bench.say("registration/breathing", convert.breathing_to_msg(Breathing(1.5, 12.0, 4.0), 5.0, "world"))
    bench.until(lambda: view.node.moments._breath is not None and view.node.content.volume is not None)
    view.frame(5.0)
    bench.until(lambda: page.of("frame"))
    frame, buffers = page.last("frame"), page.buffers("frame")
    tracked = TrackedFrame(Frame(view.PICTURE, view.GEOMETRY, 5.0), view.WORLD_T_IMAGE)
    expected = overlay(tracked, read_volume(view.volume, "US"), view.WORLD_T_CT)
    assert (buffers["image"] == view.PICTURE.numpy()).all()
    shown = buffers["slice"] > 0
    assert shown.any() and abs(buffers["slice"][shown].astype(int) - expected.slice.numpy()[shown]).max() <= 1
    assert frame["world_T_image"] == numbers(view.WORLD_T_IMAGE) and frame["world_T_ct"] == numbers(view.WORLD_T_CT)
    assert frame["world_T_ct_raw"] == numbers(view.WORLD_T_CT) and frame["fused"] and frame["accepted"]
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


def test_a_frame_without_its_pose_is_shown_alone_with_the_reason(make_view: Any, bench: Any) -> None:
    view = make_view()
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


def test_without_a_volume_the_picture_is_shown_and_the_volume_is_followed(make_view: Any, bench: Any) -> None:
    view = make_view(volume="")
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


def test_broken_messages_are_counted_and_the_next_frame_is_shown(make_view: Any, bench: Any) -> None:
    view = make_view()
    page = view.open()
    view.frame(5.0, leave_out=("registration/smoothed",))
    broken = convert.stamped_pose_to_msg(view.WORLD_T_CT, view.SPREAD, 5.0, "world")
    broken.pose.pose.position.x = math.nan
    bench.say("registration/smoothed", broken)
    bench.until(lambda: view.node.diagnostics.drops.get("GeometryError") == 1)
    view.frame(5.1)
    bench.until(lambda: page.of("frame"))
    assert len(page.of("frame")) == 1


def test_a_pause_is_shown_at_once_with_the_frame_that_stands(make_view: Any, bench: Any) -> None:
    view = make_view()
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


def test_the_status_holds_stages_recorder_acceptance_and_hypotheses(make_view: Any, bench: Any) -> None:
    view = make_view()
    page = view.open()
    view.tell(
        "registration", rate_hz="9.5", latency_median_s="0.08", latency_p99_s="0.12", drops="3", accepting="False"
    )
    view.tell("recorder", recording="True", path="/data/take")
    start = Estimate(Rigid(view.WORLD_T_CT), view.SPREAD, view.WORLD_T_CT[:3, 3], 0.7, accepted=True, reason="start")
    message = convert.estimate_to_msg(start, 0.0, "world", "ct", "ACCEPTED", rank=2)
    bench.say("registration/hypotheses", Hypotheses(hypotheses=[message]), "latched")
    bench.until(lambda: page.last("status")["hypotheses"] and page.last("status")["recorder"])
    status = page.last("status")
    stage = next(s for s in status["stages"] if s["name"] == "registration")
    assert (stage["rate_hz"], stage["latency_ms"], stage["latency_p99_ms"], stage["drops"]) == (9.5, 80.0, 120.0, 3)
    assert status["recorder"] == {"recording": True, "path": "/data/take"} and status["accept"] is False
    (hypothesis,) = status["hypotheses"]
    assert (hypothesis["rank"], hypothesis["score"], hypothesis["reason"]) == (2, 0.7, "start")
    assert hypothesis["world_T_ct"] == numbers(view.WORLD_T_CT) and status["clients"] == 1


def test_a_page_that_does_not_acknowledge_holds_up_nobody(make_view: Any, bench: Any) -> None:
    view = make_view()
    slow, quick = view.open(acknowledge=False), view.open()
    for k in range(6):
        view.frame(5.0 + 0.1 * k)
        bench.until(lambda k=k: len(quick.of("frame")) == k + 1)
    assert [f["stamp_s"] for f in quick.of("frame")] == pytest.approx([5.0 + 0.1 * k for k in range(6)])
    assert len(slow.of("frame")) == 1


def test_nothing_is_painted_while_no_page_can_take_it(make_view: Any, bench: Any) -> None:
    view = make_view()
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


def test_after_a_jump_back_everything_begins_again(make_view: Any, bench: Any) -> None:
    view = make_view()
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


def test_a_taken_port_is_told_and_tried_again_and_the_node_lives(bench: Any, make_view: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        node = bench.add(WebViewNode, port=port, retry_s=0.2)
        level, text = node.diagnostics.condition
        assert level == "ERROR" and str(port) in text and "choose another port" in text and "goes on" in text
        bench.spin(0.5)
        assert node.url == ""
    bench.until(lambda: node.url != "")
    assert node.diagnostics.condition[0] == "OK" and node.diagnostics.facts["url"] == f"http://127.0.0.1:{port}/"
    page = make_view.page(node.url)
    bench.until(lambda: page.last("hello"))
    page.close()


def test_a_view_that_attaches_follows_the_clock_of_the_graph(bench: Any) -> None:
    said: list[str] = []
    node = bench.add(lambda **options: WebViewNode(said.append, attach=True, **options), port=0)
    assert said == [f"view: {node.url}"]
    bench.spin(0.3)
    assert node.now_s() > 1e9, "no clock is published: the system's"
    clock = bench.probe.create_publisher(Clock, "/clock", qos.profile("clock"))
    bench.until(lambda: node.get_parameter("use_sim_time").value and clock.get_subscription_count() == 1)
    clock.publish(Clock(clock=convert.s_to_stamp(100.0)))
    bench.until(lambda: node.now_s() == 100.0)
    bench.probe.destroy_publisher(clock)


def test_the_token_is_needed_and_is_not_in_the_diagnostics(
    bench: Any, monkeypatch: pytest.MonkeyPatch, make_view: Any
) -> None:
    monkeypatch.setenv(graph.TOKEN, "a-token-of-this-session-alone")
    view = make_view()
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
