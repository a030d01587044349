# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses from YAML, and the family of errors."""

import dataclasses
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usreg import errors
from usreg.config import check_range, from_mapping, load_yaml, to_mapping
from usreg.errors import ConfigError, FileFormatError, MissingFileError, MissingTransformError, UsregError


@dataclass(frozen=True)
class Inner:
    size: int = 3
    scale: float = 0.5

    def __post_init__(self) -> None:
        check_range("scale", self.scale, 0.0, 1.0)


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    maybe: float | None = None
    table: dict[str, float] = field(default_factory=dict)
    flag: bool = False
    path: Path = Path("x")
    either: int | str = 0
    anything: Any = None


FULL = {
    "name": "n", "kind": "b", "inner": {"size": 4, "scale": 1}, "pair": [1, 2.5], "many": [1, 2, 3], "maybe": 2,
    "table": {"k": 1}, "flag": True, "path": "a/b", "either": "text", "anything": [1, {"x": 2}],
}  # fmt: skip


def test_everything_is_converted():
    got = from_mapping(Outer, FULL)
    assert got == Outer(
        "n", "b", Inner(4, 1.0), (1.0, 2.5), (1, 2, 3), 2.0, {"k": 1.0}, True, Path("a/b"), "text", [1, {"x": 2}]
    )
    assert isinstance(got.inner.scale, float) and isinstance(got.maybe, float)


def test_round_trip():
    got = from_mapping(Outer, FULL)
    again = to_mapping(got) | {"path": str(got.path)}
    assert from_mapping(Outer, again) == got
    assert from_mapping(Outer, {"name": "n", "inner": Inner(9)}).inner.size == 9


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"nmae": "n"}, r"unknown key \['nmae'\].*known keys"),
        ({"inner": {"sise": 3}}, "unknown key.*'inner'"),
        ({"inner": {"scale": 3.0}}, "'scale' is 3.0"),
        ({"inner": {"size": 2.5}}, "'inner.size' must be int"),
        ({"inner": 3}, "must be a mapping"),
        ({"kind": "c"}, "choose one of"),
        ({"pair": [1]}, "must have 2 values"),
        ({"pair": 1}, "must be a list"),
        ({"many": [1, "x"]}, r"'many\[1\]'"),
        ({"maybe": "x"}, "'maybe' must be float"),
        ({"table": [1]}, "'table' must be a mapping"),
        ({"table": {"k": "x"}}, "'table.k'"),
        ({"flag": 1}, "'flag' must be bool"),
        ({"either": 2.5}, "'either'"),
        ({"name": True}, "'name' must be str"),
        ({"name": 3}, "'name' must be str"),
    ],
)
def test_what_is_refused(change, match):
    with pytest.raises(ConfigError, match=match):
        from_mapping(Outer, {"name": "n"} | change)


def test_missing_key_and_no_mapping():
    with pytest.raises(ConfigError, match="name"):
        from_mapping(Outer, {})
    with pytest.raises(ConfigError, match="must be a mapping"):
        from_mapping(Outer, [1])  # type: ignore[arg-type]


def test_bool_is_no_number():
    with pytest.raises(ConfigError):
        from_mapping(Inner, {"size": True})
    with pytest.raises(ConfigError):
        from_mapping(Inner, {"scale": True})


@given(value=st.floats() | st.integers())
def test_check_range(value):
    inside = 0.0 <= value <= 1.0
    if inside:
        check_range("x", value, 0.0, 1.0)
    else:
        with pytest.raises(ConfigError, match="'x'"):
            check_range("x", value, 0.0, 1.0)


def test_load_yaml(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: 1\nb: {c: [1, 2]}\n")
    assert load_yaml(path) == {"a": 1, "b": {"c": [1, 2]}}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"- 1\n- 2\n", "mapping"),
        (b"", "mapping"),
        (b"a: [1\n", "not readable YAML"),
        (b"a: !!python/object/apply:os.system ['true']\n", "not readable YAML"),
        (b"\xff\xfea", "not readable YAML"),
        (b"a: 1\n" * 1_000_000, "at most"),
        (b"[" * 100_000, "not readable YAML"),
    ],
)
def test_yaml_from_outside(tmp_path, content, match):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=match):
        load_yaml(path)


@pytest.mark.parametrize("closing", ["\nb: &l9 [*l8, *l8, *l8, *l8, *l8, *l8, *l8, *l8]\n", "\nc: &self [*self]\n"])
def test_yaml_aliases_that_stand_for_billions(tmp_path, closing):
    levels = [f"a{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 8)}]" for i in range(1, 9)]
    (tmp_path / "c.yaml").write_text("\n".join(["a0: &l0 [1, 1]", *levels]) + closing)
    with pytest.raises(FileFormatError, match="aliases"):
        load_yaml(tmp_path / "c.yaml")


def test_messages_stay_short():
    with pytest.raises(ConfigError) as caught:
        from_mapping(Outer, {"name": list(range(10**6))})
    assert len(str(caught.value)) < 200


def test_absent_yaml(tmp_path):
    with pytest.raises(MissingFileError, match="check the name"):
        load_yaml(tmp_path / "absent.yaml")


def test_every_error_is_of_the_family_and_of_a_built_in():
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c is not UsregError]
    assert len(found) >= 14
    for each in found:
        assert issubclass(each, UsregError) and each.__doc__
        others = [b for b in each.__mro__[1:] if b not in (UsregError, Exception, BaseException, object)]
        assert others, f"{each.__name__} inherits no built-in that callers would expect"


def test_messages_are_plain_text():
    assert (
        str(MissingTransformError("no path from 'a' to 'b'")) == "no path from 'a' to 'b'"
    )  # a KeyError would quote it
    assert str(MissingTransformError()) == ""


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inner().size = 4  # type: ignore[misc]
