# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses from YAML: strict keys, checked types, no default in two places."""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .errors import ConfigError, FileFormatError, MissingFileError

T = TypeVar("T")
MAX_YAML_BYTES = 4 * 1024 * 1024
MAX_YAML_VALUES = 1_000_000


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping from a file that is not trusted.

    Raises:
        MissingFileError: there is no such file.
        FileFormatError: not UTF-8, larger than 4 MiB, not YAML, or not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    if path.stat().st_size > MAX_YAML_BYTES:
        size = path.stat().st_size
        raise FileFormatError(f"'{path.name}' has {size} bytes; a YAML file here has at most {MAX_YAML_BYTES}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FileFormatError(f"'{path.name}' is not readable YAML: {error}") from error
    _check_size(content, path.name)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise FileFormatError(f"'{path.name}' must hold a mapping of names to values, it holds a {kind}")
    return content


def _check_size(content: Any, name: str) -> None:
    """Aliases (`*name`) let a small file stand for billions of values, or for itself: count what readers would meet."""
    stack, count = [content], 0
    while stack:
        value = stack.pop()
        count += 1
        if count > MAX_YAML_VALUES:
            raise FileFormatError(f"'{name}' stands for more than {MAX_YAML_VALUES} values: do without aliases (*name)")
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            stack.extend(value)


def from_mapping(cls: type[T], mapping: typing.Mapping[str, Any], where: str = "") -> T:
    """Build a frozen dataclass from a mapping; nested dataclasses, tuples and optional values are followed.

    Args:
        cls: a dataclass; its field names are the allowed keys.
        mapping: values, as YAML or ROS parameters give them.
        where: path of keys so far, for the message.

    Raises:
        ConfigError: unknown or missing key, or a value of the wrong type.
    """
    if not isinstance(mapping, typing.Mapping):
        raise ConfigError(f"'{where or cls.__name__}' must be a mapping, it is {reprlib.repr(mapping)}")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    unknown = sorted(set(map(str, mapping)) - set(fields))
    if unknown:
        raise ConfigError(f"unknown key {unknown} in '{where or cls.__name__}'; known keys: {sorted(fields)}")
    hints = typing.get_type_hints(cls)
    values = {k: _convert(hints[k], v, f"{where}.{k}".lstrip(".")) for k, v in mapping.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"'{where or cls.__name__}': {error}") from error


def to_mapping(config: Any) -> dict[str, Any]:
    """Inverse of `from_mapping`: plain numbers, strings and lists that YAML can write."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_mapping(value)
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_mapping(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        return _convert_tuple(args, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"'{where}' must be a mapping, it is {reprlib.repr(value)}")
        return {k: _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin is typing.Literal:
        if value not in args:
            raise ConfigError(f"'{where}' is {reprlib.repr(value)}; choose one of {list(args)}")
        return value
    return _convert_scalar(hint, value, where)


def _convert_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in args:
        return None
    choices = [a for a in args if a is not type(None)]
    for choice in choices[:-1]:
        try:
            return _convert(choice, value, where)
        except ConfigError:
            continue  # the last choice reports the error
    return _convert(choices[-1], value, where)


def _convert_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"'{where}' must be a list, it is {reprlib.repr(value)}")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(args) != len(value):
        raise ConfigError(f"'{where}' must have {len(args)} values, it has {len(value)}")
    return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, hint):
        raise ConfigError(f"'{where}' must be {getattr(hint, '__name__', hint)}, it is {reprlib.repr(value)}")
    return value


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless low <= value <= high (NaN is refused)."""
    if not low <= value <= high:
        raise ConfigError(f"'{name}' is {value}; it must lie in [{low}, {high}]")
