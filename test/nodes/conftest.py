# SPDX-License-Identifier: Apache-2.0
"""Nodes under test in this process: an executor, a namespace for each test, messages in and out."""

import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_NUMBERS = itertools.count()


class Bench:
    """Spins the node under test and a node of the test's own, `probe`, in a namespace that no other test uses."""

    def __init__(self) -> None:
        import rclpy

        from usreg.nodes.base import make_executor

        self.namespace = f"test{next(_NUMBERS)}"
        self.executor = make_executor()
        self.nodes: list[Any] = []
        self.probe = rclpy.create_node("probe", namespace=self.namespace)
        self.executor.add_node(self.probe)
        self._outputs: dict[str, Any] = {}
        self._heard: dict[str, int] = {}

    def add(self, make: Callable[..., Any], remap: tuple[str, ...] = (), **parameters: Any) -> Any:
        """Make a node of usreg in the test's namespace and start it."""
        from rclpy.parameter import Parameter

        words = [word for entry in remap for word in ("-r", entry)]
        node = make(
            namespace=self.namespace,
            parameter_overrides=[Parameter(k.replace("__", "."), value=v) for k, v in parameters.items()],
            cli_args=["--ros-args", *words] if words else None,
        )
        self.nodes.append(node)
        self.executor.add_node(node)
        node.start()
        self.until(lambda: all(self._matched(p) for p in node.publishers))
        return node

    def _matched(self, publisher: Any) -> bool:
        """What is published before both sides have met is lost."""
        return publisher.get_subscription_count() >= self._heard.get(publisher.topic_name, 0)

    def hear(self, kind: Any, topic: str, profile: str = "recorder") -> list[Any]:
        """A list to which every message of a topic is added."""
        from usreg.nodes import qos

        found: list[Any] = []
        name = self.probe.create_subscription(kind, topic, found.append, qos.profile(profile)).topic_name
        self._heard[name] = self._heard.get(name, 0) + 1
        return found

    def say(self, topic: str, message: Any, profile: str = "recorder") -> None:
        """Publish, once somebody listens."""
        from usreg.nodes import qos

        if topic not in self._outputs:
            self._outputs[topic] = self.probe.create_publisher(type(message), topic, qos.profile(profile))
        output = self._outputs[topic]
        listeners = self.probe.count_subscribers(output.topic_name)
        self.until(lambda: output.get_subscription_count() >= max(1, listeners))
        output.publish(message)

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """Answer of a service."""
        client = self.probe.create_client(kind, service)
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def until(self, reached: Callable[[], bool], seconds: float = 20.0) -> None:
        """Spin until something is so; fails the test after some time."""
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, "it did not come to pass in time"
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        """Spin for a while, to see that nothing happens."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        for node in self.nodes:
            node.stop()
        for node in (*self.nodes, self.probe):
            self.executor.remove_node(node)
            node.destroy_node()


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    """ROS's context for the tests of this process."""
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
    pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


@pytest.fixture
def bench(ros: None) -> Iterator[Bench]:
    """See `Bench`."""
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def make_view(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes the node web_view with its graph played by the test, see view_bench.py."""
    spec = importlib.util.spec_from_file_location("view_bench", Path(__file__).with_name("view_bench.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made: list[Any] = []

    def build(**parameters: Any) -> Any:
        made.append(module.View(bench, tmp_path, **parameters))
        return made[-1]

    build.page = module.Page  # type: ignore[attr-defined]
    yield build
    for view in made:
        view.close()
