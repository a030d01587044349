# SPDX-License-Identifier: Apache-2.0
"""Parameters come from dataclasses: names, defaults, types, descriptions; what is unknown or wrong is refused."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not importable by this python: run through make test")
pytest.importorskip("usreg_msgs", reason="usreg_msgs is not built: run make build")
import rclpy  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402

from usreg.config import check_range  # noqa: E402
from usreg.errors import ConfigError  # noqa: E402
from usreg.fusion import OverlayConfig  # noqa: E402
from usreg.nodes import parameters  # noqa: E402
from usreg.smoothing import FilterConfig  # noqa: E402
from usreg.tracking import PoseBufferConfig  # noqa: E402


@dataclass(frozen=True)
class Inner:
    """Inside.

    Args:
        depth_mm: how deep; more than nothing.
    """

    depth_mm: float = 2.5

    def __post_init__(self) -> None:
        check_range("depth_mm", self.depth_mm, 0.1, 100.0)


@dataclass(frozen=True)
class Config:
    """Outside.

    Args:
        mode: what to do. size, count: how much of it;
            and further.
        names: of joints.
        gap_s: limit; None switches it off.
    """

    mode: Literal["fast", "slow"] = "fast"
    size: tuple[float, float] = (1.0, 2.0)
    count: int = 3
    names: tuple[str, ...] = ()
    gap_s: float | None = None
    flag: bool = True
    inner: Inner = field(default_factory=Inner)


@pytest.fixture
def make(ros: None) -> Any:
    nodes = []

    def node(**values: Any) -> Any:
        overrides = [Parameter(k.replace("__", "."), value=v) for k, v in values.items()]
        nodes.append(rclpy.create_node("configured", parameter_overrides=overrides))
        return nodes[-1]

    yield node
    for made in nodes:
        made.destroy_node()


def test_defaults_stand_in_the_dataclass_alone(make: Any) -> None:
    assert parameters.declare(make(), Config) == Config()
    node = make()
    parameters.declare(node, Config, "outer")
    assert node.get_parameter("outer.inner.depth_mm").value == 2.5


@pytest.mark.parametrize("cls", [FilterConfig, OverlayConfig, PoseBufferConfig, parameters.FrameConfig])
def test_the_configurations_of_the_parts_can_be_declared(make: Any, cls: type) -> None:
    node = make()
    assert parameters.declare(node, cls, "part") == cls()
    described = parameters.field_texts(cls)
    missing = [f.name for f in fields(cls) if f.name not in described]
    assert len(missing) < len(fields(cls)) / 2, f"hardly any description was found: {missing}"


def test_values_are_taken_from_the_user(make: Any) -> None:
    values = {"mode": "slow", "size": [3.0, 4.0], "names": ["a", "b"], "gap_s": 0.5, "inner__depth_mm": 7.0}
    found = parameters.declare(make(**values), Config)
    assert found == Config("slow", (3.0, 4.0), 3, ("a", "b"), 0.5, True, Inner(7.0))


def test_descriptions_come_from_the_docstring(make: Any) -> None:
    node = make()
    parameters.declare(node, Config)
    assert node.describe_parameter("size").description == "how much of it; and further."
    assert node.describe_parameter("count").description == "how much of it; and further."
    assert node.describe_parameter("mode").description == "what to do. One of ['fast', 'slow']."
    assert node.describe_parameter("inner.depth_mm").description == "how deep; more than nothing."


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "quick"}, "quick"),
        ({"inner__depth_mm": 0.0}, "depth_mm"),
        ({"count": "many"}, "count"),
        ({"size": [1.0, 2.0, 3.0]}, "2 values"),
        ({"gap_s": "soon"}, "gap_s"),
    ],
)
def test_wrong_values_are_refused_by_name(make: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parameters.declare(make(**values), Config)


def test_whole_numbers_are_decimals_too(make: Any) -> None:
    """YAML's `depth_mm: 7` is an integer; a user means 7.0."""
    assert parameters.declare(make(inner__depth_mm=7, size=[1, 2]), Config).inner.depth_mm == 7.0


def test_an_unknown_key_is_an_error(make: Any) -> None:
    node = make(moed="slow")
    parameters.declare(node, Config)
    with pytest.raises(ConfigError, match=r"moed.*mode"):
        parameters.check_known(node)
    fine = make(use_sim_time=False, **{"qos_overrides./us/image.subscription.depth": 3})
    parameters.declare(fine, Config)
    parameters.check_known(fine)


def test_what_is_not_live_is_read_only(make: Any) -> None:
    node = make()
    parameters.declare(node, Config)
    result = node.set_parameters([Parameter("count", value=9)])[0]
    assert not result.successful
    assert node.get_parameter("count").value == 3


def test_live_values_change_together_or_not_at_all(make: Any) -> None:
    node, taken = make(), []
    parameters.declare(node, OverlayConfig, "overlay", live=True)
    parameters.on_change(node, OverlayConfig, "overlay", taken.append)
    assert node.set_parameters([Parameter("overlay.opacity", value=0.9)])[0].successful
    assert taken == [OverlayConfig(opacity=0.9)]
    refused = node.set_parameters([Parameter("overlay.opacity", value=1.5)])[0]
    assert not refused.successful and "opacity" in refused.reason
    assert len(taken) == 1 and node.get_parameter("overlay.opacity").value == 0.9


def test_frames_must_differ(make: Any) -> None:
    with pytest.raises(ConfigError, match="four different names"):
        parameters.declare(make(volume_frame="world"), parameters.FrameConfig)
