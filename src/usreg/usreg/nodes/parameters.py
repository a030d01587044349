# SPDX-License-Identifier: Apache-2.0
"""ROS parameters declared from frozen dataclasses: names, types, defaults and descriptions stand there alone.

A field of a nested dataclass becomes `outer.inner`. Fields that may be None, and empty lists, are declared without a
fixed type; unset means None (or the empty list).
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from ..config import from_mapping, to_mapping
from ..errors import ConfigError, UsregError

T = TypeVar("T")
FOREIGN = ("use_sim_time", "start_type_description_service")  # declared by rclpy itself
QOS_PREFIX = "qos_overrides."


@dataclasses.dataclass(frozen=True)
class FrameConfig:
    """TF frames that every node agrees on.

    Args:
        world_frame: fixed in the room. volume_frame: of the volume, `ct` also for MR and 3D ultrasound.
        probe_frame: what the arm carries. image_frame: first pixel of the image.
    """

    world_frame: str = "world"
    volume_frame: str = "ct"
    probe_frame: str = "us_probe"
    image_frame: str = "us_image"

    def __post_init__(self) -> None:
        names = (self.world_frame, self.volume_frame, self.probe_frame, self.image_frame)
        if len(set(names)) != 4 or not all(names):
            raise ConfigError(f"frames must be four different names, got {names}")


def declare(node: Node, cls: type[T], prefix: str = "", live: bool = False) -> T:
    """Declare a dataclass's fields as parameters, and build it from what the user has set.

    Args:
        prefix: put before every name, with a dot.
        live: whether the values may be changed while the node runs; see `on_change`.

    Raises:
        ConfigError: a value of the wrong type or outside its range.
    """
    for name, default, hint, text in fields_of(cls, prefix):
        _allow_whole_numbers(node, name, default)
        descriptor = ParameterDescriptor(description=text, read_only=not live, dynamic_typing=_loose(hint, default))
        try:
            node.declare_parameter(name, _to_ros(default), descriptor)
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ConfigError(
                f"parameter '{name}' of node {node.get_name()}: {error} (a decimal is written 1.0)"
            ) from error
    return read(node, cls, prefix)


def read(node: Node, cls: type[T], prefix: str = "", changed: dict[str, Any] | None = None) -> T:
    """Build the dataclass from the parameters as they stand; `changed` replaces some."""
    values = {name: node.get_parameter(name).value for name, *_ in fields_of(cls, prefix)}
    values.update({k: v for k, v in (changed or {}).items() if k in values})
    return from_mapping(cls, _nested(cls, values, prefix), f"{node.get_name()}.{prefix}".rstrip("."))


def on_change(node: Node, cls: type[T], prefix: str, apply: Callable[[T], None]) -> None:
    """Call `apply` with a new dataclass when its parameters change; values that it refuses are refused."""
    names = {name for name, *_ in fields_of(cls, prefix)}

    def changed(parameters: list[Parameter]) -> SetParametersResult:
        values = {p.name: p.value for p in parameters if p.name in names}
        try:
            if values:
                apply(read(node, cls, prefix, values))
        except UsregError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    node.add_on_set_parameters_callback(changed)


def check_known(node: Node) -> None:
    """Refuse what a YAML file or the command line sets and the node does not know: a typing error must not pass.

    Raises:
        ConfigError: names the unknown keys and those that are known.
    """
    known = {*node._parameters, *FOREIGN}  # rclpy has no public list of overrides
    unknown = sorted(k for k in node._parameter_overrides if k not in known and not k.startswith(QOS_PREFIX))
    if unknown:
        names = sorted(k for k in known if not k.startswith(QOS_PREFIX))
        raise ConfigError(f"node {node.get_name()} has no parameter {unknown}; it has {names}")


def fields_of(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """(name, default, type, description) of every parameter of a dataclass; `required` fields have no place here."""
    hints, texts = typing.get_type_hints(cls), field_texts(cls)
    for field in dataclasses.fields(cls):
        name, hint = f"{prefix}.{field.name}".lstrip("."), hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from fields_of(typing.cast(type, hint), name)
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default is dataclasses.MISSING:
            raise ConfigError(f"{cls.__name__}.{field.name} has no default and cannot be a parameter")
        choices = f" One of {list(typing.get_args(hint))}." if typing.get_origin(hint) is typing.Literal else ""
        yield name, default, hint, texts.get(field.name, "") + choices


def field_texts(cls: type) -> dict[str, str]:
    """What the `Args:` of a dataclass's docstring, or of a base's, say of each field; "a, b: text" tells of both."""
    found: dict[str, str] = {}
    for kind in reversed(cls.__mro__):
        if dataclasses.is_dataclass(kind):
            found.update(_texts_in(kind.__doc__ or "", {f.name for f in dataclasses.fields(kind)}))
    return found


def _texts_in(doc: str, names: set[str]) -> dict[str, str]:
    text = " ".join(inspect.cleandoc(doc).partition("Args:\n")[2].split())
    one = "|".join(sorted(names, key=len, reverse=True))
    parts = re.split(rf"(?:^|(?<=[.;\s]))((?:{one})(?:, (?:{one}))*): ", text)
    found: dict[str, str] = {}
    for keys, value in zip(parts[1::2], parts[2::2], strict=False):
        found.update(dict.fromkeys(keys.split(", "), value.strip()))
    return found


def _allow_whole_numbers(node: Node, name: str, default: Any) -> None:
    """YAML's `7` is an integer to ROS; where a decimal is declared the user means 7.0."""
    given = node._parameter_overrides.get(name)
    if given is None:
        return
    if isinstance(default, float) and given.type_ == Parameter.Type.INTEGER:
        node._parameter_overrides[name] = Parameter(name, value=float(given.value))
    elif isinstance(default, tuple) and default and isinstance(default[0], float):
        if given.type_ == Parameter.Type.INTEGER_ARRAY:
            node._parameter_overrides[name] = Parameter(name, value=[float(v) for v in given.value])


def _loose(hint: Any, default: Any) -> bool:
    optional = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return optional or (isinstance(default, tuple) and not default)


def _to_ros(default: Any) -> Any:
    if isinstance(default, Path):
        return str(default)
    if isinstance(default, tuple):
        if any(isinstance(v, tuple) for v in default):
            raise ConfigError("a parameter is a flat list; nested ones belong into a file that is named")
        return list(default) or None
    return default


def _nested(cls: type, values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Values by dotted name as the nested mapping that `from_mapping` takes; unset lists are empty."""
    result: dict[str, Any] = {}
    for name, default, _, _ in fields_of(cls, prefix):
        *outer, last = name[len(prefix) :].lstrip(".").split(".")
        place = result
        for key in outer:
            place = place.setdefault(key, {})
        value = values[name]
        if value is None and isinstance(default, tuple):
            value = []
        place[last] = list(value) if hasattr(value, "typecode") else value
    return result


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Parameters of a dataclass by dotted name, as a parameter file or a launch file gives them; None is left out."""
    found: dict[str, Any] = {}
    for key, value in to_mapping(config).items():
        name = f"{prefix}.{key}".lstrip(".")
        if isinstance(value, dict):
            found.update({f"{name}.{k}": v for k, v in value.items()})
        elif value is not None and value != []:
            found[name] = value
    return found
