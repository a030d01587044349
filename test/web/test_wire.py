# SPDX-License-Identifier: Apache-2.0
"""Messages of the live page: layout, round trip, what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from usreg.errors import FileFormatError, ShapeError
from usreg.web.wire import DTYPES, pack, unpack

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner), max_leaves=12)
HEADERS = st.dictionaries(st.text("abcdefghé").filter(lambda key: key != "buffers"), JSON, max_size=5)
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7))
)


def test_layout_is_that_of_the_contract():
    data = pack({"type": "x"}, {"a": np.array([1, 2, 3], np.uint8), "b": np.array([[1.5]], ">f4")})
    length = int.from_bytes(data[4:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert data[:4] == b"USR1" and (8 + length) % 8 == 0
    assert header["buffers"] == [
        {"name": "a", "dtype": "u1", "shape": [3], "offset": 0},
        {"name": "b", "dtype": "f4", "shape": [1, 1], "offset": 8},
    ]
    assert data[8 + length :] == b"\1\2\3\0\0\0\0\0" + b"\0\0\xc0\x3f" + b"\0\0\0\0"


@given(HEADERS, st.dictionaries(st.text("xyz"), ARRAYS, max_size=4))
def test_round_trip(header, buffers):
    data = pack(header, buffers)
    got, arrays = unpack(data)
    assert got == header
    assert list(arrays) == list(buffers) and len(data) % 8 == 0
    for name, array in buffers.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)
        assert not arrays[name].flags.writeable


@given(st.binary(max_size=80), st.integers(0, 200))
def test_anything_else_is_refused_or_read(noise, cut):
    good = pack({"type": "x"}, {"a": np.arange(9, dtype=np.uint16)})
    for data in (noise, good[: cut % len(good)], good + noise[:7] + b"\0", good[:8] + noise + good[8:] * bool(noise)):
        if data == good:
            continue
        with pytest.raises(FileFormatError):
            unpack(data)


def test_strides_and_byte_order_are_levelled():
    image = np.arange(24, dtype=">u2").reshape(4, 6)[::2, ::-3]
    _, arrays = unpack(pack({}, {"image": image}))
    np.testing.assert_array_equal(arrays["image"], image)
    assert arrays["image"].dtype == np.dtype("<u2")


def test_numbers_that_are_not_finite_become_null():
    header = {"a": math.nan, "b": [math.inf, 1.0], "c": {"d": np.float32("nan")}, "e": np.array([1.0, np.nan])}
    assert unpack(pack(header))[0] == {"a": None, "b": [None, 1.0], "c": {"d": None}, "e": [1.0, None]}


def test_numbers_of_numpy_and_torch():
    header = {"n": np.int64(3), "flag": np.bool_(True), "m": torch.eye(2), "s": torch.tensor(2.5)}
    assert unpack(pack(header))[0] == {"n": 3, "flag": True, "m": [[1.0, 0.0], [0.0, 1.0]], "s": 2.5}


def test_half_characters_do_not_stop_a_message():
    assert unpack(pack({"name": "a\udc80é"}))[0] == {"name": "a?é"}


@pytest.mark.parametrize(
    "header, buffers",
    [
        ({}, {"a": np.zeros(3, bool)}),
        ({}, {"a": np.zeros(3, np.int64)}),
        ({}, {"a": np.array(["x"])}),
        ({"buffers": []}, {}),
        ({"x": object()}, {}),
        ({"x": {1, 2}}, {}),
    ],
)
def test_what_cannot_be_packed(header, buffers):
    with pytest.raises(ShapeError):
        pack(header, buffers)


def described(**changes) -> bytes:
    entry = {"name": "a", "dtype": "u1", "shape": [8], "offset": 0} | changes
    text = json.dumps({"buffers": [{k: v for k, v in entry.items() if v is not None}]}).encode()
    text += b" " * (-(8 + len(text)) % 8)
    return b"USR1" + len(text).to_bytes(4, "little") + text + bytes(8)


def test_a_description_that_fits_is_read():
    assert unpack(described())[1]["a"].shape == (8,)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 3},
        {"name": None},
        {"extra": 1},
        {"dtype": "O"},
        {"dtype": ["u1"]},
        {"shape": [9]},
        {"shape": [-8]},
        {"shape": [2.0]},
        {"shape": [True]},
        {"shape": 8},
        {"shape": [2**39, 2**39]},
        {"shape": [0] * 9},
        {"shape": [0]},
        {"offset": 8},
        {"offset": -8},
        {"offset": 4},
    ],
)
def test_descriptions_that_lie(changes):
    with pytest.raises(FileFormatError):
        unpack(described(**changes))


@pytest.mark.parametrize(
    "text", [b"[]      ", b"{}      ", b'{"a":NaN}       ', b"\xff\xfe\xfd\xfc    ", b"[" * 80_000]
)
def test_headers_that_are_not_headers(text):
    with pytest.raises(FileFormatError):
        unpack(b"USR1" + len(text).to_bytes(4, "little") + text)
