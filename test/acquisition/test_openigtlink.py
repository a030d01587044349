# SPDX-License-Identifier: Apache-2.0
"""OpenIGTLink over a loopback socket: frames, transforms, and servers that misbehave."""

import socket
import struct
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from pyigtl.messages import ImageMessage, StringMessage, TransformMessage

from usreg.acquisition.agreement import AcquisitionConfig
from usreg.acquisition.openigtlink import OpenIGTLinkConfig, OpenIGTLinkSource
from usreg.errors import ConfigError, SourceError
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle

GEOMETRY = full_rectangle(PlaneGrid(6, 8, ((0.5, 0.0), (0.0, 0.5))))


@contextmanager
def serving(*parts: bytes, hold: bool = False):
    """A server that sends the parts to its first client, then closes (or holds) the connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve():
        connection, _ = listener.accept()
        with connection:
            for part in parts:
                connection.sendall(part)
            if hold:
                done.wait(10)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield OpenIGTLinkConfig(port=listener.getsockname()[1], timeout_s=0.3)
    finally:
        done.set()
        thread.join()
        listener.close()


def image(value: int, stamp_s: float, shape=(1, 6, 8), dtype=np.uint8, device="Image") -> bytes:
    return ImageMessage(np.full(shape, value, dtype), timestamp=stamp_s, device_name=device).pack()


def test_frames_and_transforms():
    matrix = np.eye(4)
    matrix[:3, 3] = 1, 2, 3
    seen = []
    parts = [
        image(5, 10.0),
        TransformMessage(matrix, timestamp=10.0, device_name="ProbeToTracker").pack(),
        StringMessage("hello", timestamp=1.0, device_name="Text").pack(),
        image(7, 11.0, (1, 6, 8, 3)),
    ]
    split = b"".join(parts)
    with serving(split[:20], split[20:300], split[300:]) as config:
        with OpenIGTLinkSource(
            config, GEOMETRY, AcquisitionConfig(latency_s=0.5), on_transform=lambda *a: seen.append(a)
        ) as source:
            frames = list(source)
    assert [f.stamp_s for f in frames] == pytest.approx([9.5, 10.5])
    assert [int(f.image[0, 0]) for f in frames] == [5, 7]
    stamp_s, name, got = seen[0]
    assert (
        (stamp_s, name) == (10.0, "ProbeToTracker") and got[:3, 3].tolist() == [1, 2, 3] and got.dtype == torch.float64
    )


def test_colours_are_weighted_as_red_green_blue():
    red = np.zeros((1, 6, 8, 3), np.uint8)
    red[..., 0] = 255
    with serving(ImageMessage(red, timestamp=1.0, device_name="Image").pack()) as config:
        with OpenIGTLinkSource(config, GEOMETRY) as source:
            assert [int(f.image[0, 0]) for f in source] == [76]


def test_the_clock_that_it_is_given():
    times = iter([100.0, 101.0])
    with serving(image(1, 5.0), image(2, 5.0)) as config:
        with OpenIGTLinkSource(config, GEOMETRY, clock=lambda: next(times)) as source:
            assert [f.stamp_s for f in source] == [100.0, 101.0]


def test_what_is_dropped_says_why():
    reasons: list[str] = []
    cut = ImageMessage(np.zeros((1, 6, 8), np.uint8), timestamp=2.0, device_name="Image").pack()
    short = cut[:42] + struct.pack(">Q", 80) + cut[50:58] + cut[58:138]  # declares and carries 40 pixels less
    parts = [
        image(1, 1.0), image(2, 1.0), short, image(3, 3.0, (2, 6, 8)), image(4, 4.0, (1, 6, 9)),
        image(5, 5.0, dtype=np.float32), image(6, 6.0),
    ]  # fmt: skip
    with serving(*parts) as config, OpenIGTLinkSource(config, GEOMETRY, on_drop=reasons.append) as source:
        assert [int(f.image[0, 0]) for f in source] == [1, 6]
    expected = ["repeats", "cannot be read", "volumes", "9x6", "uint8"]
    assert len(reasons) == 5 and all(word in reason for word, reason in zip(expected, reasons, strict=True))


def test_one_device_of_several():
    with serving(image(1, 1.0, device="A"), image(2, 2.0, device="B")) as config:
        chosen = OpenIGTLinkConfig(port=config.port, device="B", timeout_s=0.3)
        with OpenIGTLinkSource(chosen, GEOMETRY) as source:
            assert [int(f.image[0, 0]) for f in source] == [2]


def header(size: int) -> bytes:
    return struct.pack("> H 12s 20s II Q Q", 1, b"IMAGE", b"Image", 1, 0, size, 0)


@pytest.mark.parametrize(
    ("data", "hold", "message"),
    [
        (header(2**60), False, "at most"),
        (header(1000) + b"x" * 10, False, "within a message"),
        (b"\xff" * 58, False, "not OpenIGTLink"),
        (header(1000), True, "silent for 0.3 s"),
        (b"", True, "silent for 0.3 s"),
    ],
    ids=["huge", "cut", "garbage", "stalled", "silent"],
)
def test_servers_that_misbehave(data, hold, message):
    with serving(data, hold=hold) as config, OpenIGTLinkSource(config, GEOMETRY) as source:
        with pytest.raises(SourceError, match=message):
            list(source)


def test_no_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceError, match="no OpenIGTLink server at 127.0.0.1"):
        OpenIGTLinkSource(OpenIGTLinkConfig(port=port, timeout_s=0.3), GEOMETRY)
    with pytest.raises(ConfigError):
        OpenIGTLinkConfig(port=0)
    with pytest.raises(ConfigError, match="host"):
        OpenIGTLinkConfig(host="")
