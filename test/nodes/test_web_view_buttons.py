# SPDX-License-Identifier: Apache-2.0
"""web_view's buttons: services and topics of the graph, and what is told where they are missing, refuse or sleep."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
from geometry_msgs.msg import PointStamped  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from usreg_msgs.msg import Hypotheses  # noqa: E402
from usreg_msgs.srv import Initialize  # noqa: E402

from usreg.data.types import Estimate, Rigid  # noqa: E402
from usreg.geometry import se3  # noqa: E402
from usreg.nodes import convert, web_view_controls  # noqa: E402


def numbers(pose: torch.Tensor) -> Any:
    return pytest.approx(pose.flatten().tolist(), abs=1e-6)


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


def test_buttons_call_the_services_of_the_graph(make_view: Any, bench: Any) -> None:
    view = make_view()
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


def test_a_start_is_chosen_among_the_hypotheses(make_view: Any, bench: Any) -> None:
    view, taken = make_view(), list[Any]()
    serve(bench, Initialize, "registration/initialize", taken)
    page = view.open()
    centre = se3.transform_points(view.WORLD_T_CT, view.block().grid.centre_ct[None])[0]
    found = Estimate(Rigid(view.WORLD_T_CT), view.SPREAD, centre, 0.7, accepted=False, reason="second best")
    message = convert.estimate_to_msg(found, 3.0, "world", "ct", "REJECTED", rank=1)
    bench.say("registration/hypotheses", Hypotheses(hypotheses=[message]), "latched")
    bench.until(lambda: page.last("status")["hypotheses"])
    assert answered(bench, page.ask("initialize_hypothesis", rank=1))["ok"]
    stamp_s, world, pose, covariance = convert.decode_stamped_pose(taken[0].pose, centre)
    assert (stamp_s, world) == (0.0, "world") and torch.allclose(pose, view.WORLD_T_CT, atol=1e-6)
    assert torch.allclose(covariance, view.SPREAD, atol=1e-6)
    reply = answered(bench, page.ask("initialize_hypothesis", rank=7))
    assert not reply["ok"] and "rank 7" in reply["message"] and "[1]" in reply["message"]


def test_a_start_is_given_by_landmark_pairs(make_view: Any, bench: Any) -> None:
    view, taken = make_view(), list[Any]()
    serve(bench, Initialize, "registration/initialize", taken)
    page = view.open()
    bench.until(lambda: "initialize_pairs" in page.last("hello")["commands"])
    ct = torch.tensor([[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40]], dtype=torch.float64)
    world = se3.transform_points(view.WORLD_T_CT, ct)
    pairs = [{"world": w, "ct": c} for w, c in zip(world.tolist(), ct.tolist(), strict=True)]
    reply = answered(bench, page.ask("initialize_pairs", pairs=pairs))
    assert reply["ok"] and reply["data"]["residual_mm"] < 1e-6
    _, _, pose, _ = convert.decode_stamped_pose(taken[0].pose)
    assert torch.allclose(pose, view.WORLD_T_CT, atol=1e-5)
    line = [{"world": [10.0 * k, 0, 0], "ct": [10.0 * k, 0, 0]} for k in range(4)]
    reply = answered(bench, page.ask("initialize_pairs", pairs=line))
    assert not reply["ok"] and reply["message"] and len(taken) == 1


def test_a_target_goes_over_its_topic_and_comes_back(make_view: Any, bench: Any) -> None:
    view = make_view()
    heard = bench.hear(PointStamped, "target")
    page = view.open()
    bench.until(lambda: view.node.controls._target_out.get_subscription_count() == 2)
    assert answered(bench, page.ask("target", ct=[10, 20, 30]))["ok"]
    bench.until(lambda: heard and page.last("scene")["target_ct"] == pytest.approx([10, 20, 30]))
    assert heard[0].header.frame_id == "ct" and convert.point_from_msg(heard[0].point).tolist() == [10, 20, 30]
    view.frame(5.0)
    bench.until(lambda: page.of("frame"))
    expected = se3.transform_points(
        se3.inverse(view.CT_T_IMAGE), torch.tensor([[10.0, 20.0, 30.0]], dtype=torch.float64)
    )
    assert page.last("frame")["target"]["distance_mm"] == pytest.approx(float(expected[0, 2]))
    assert answered(bench, page.ask("target", ct=None))["ok"]
    bench.until(lambda: page.last("scene")["target_ct"] is None)


def test_a_service_that_is_not_there_or_refuses_or_is_silent_is_told(
    make_view: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_view_controls, "ANSWER_S", 0.3)
    view = make_view()
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


def test_a_read_only_view_takes_nothing(make_view: Any, bench: Any) -> None:
    view, taken = make_view(read_only=True), list[Any]()
    serve(bench, Trigger, "registration/reset", taken)
    page = view.open()
    bench.spin(0.7)
    assert page.last("hello")["commands"] == [] and page.last("hello")["read_only"]
    reply = answered(bench, page.ask("reset"))
    assert not reply["ok"] and "read only" in reply["message"] and not taken
