# SPDX-License-Identifier: Apache-2.0
"""Small sequences, made here, as PLUS writes them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from usreg.data.sequences import Sequence
from usreg.data.types import Trajectory
from usreg.geometry import se3

HEAD = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
DimSize = {dims}
Kinds = {kinds}
ElementType = {element}
UltrasoundImageOrientation = {orientation}
UltrasoundImageType = BRIGHTNESS
"""


@pytest.fixture
def make_mha(tmp_path: Path) -> Callable[..., Path]:
    """Write a MetaImage sequence by hand: header text, frame keys and raw pixels as they are given."""

    def make(
        pixels: bytes = bytes(24),
        dims: str = "3 2 4",
        keys: str | None = None,
        kinds: str = "domain domain list",
        element: str = "MET_UCHAR",
        orientation: str = "MF",
        extra: str = "",
        name: str = "made.igs.mha",
    ) -> Path:
        if keys is None:
            keys = "".join(f"Seq_Frame{i:04d}_Timestamp = {i / 10}\n" for i in range(4))
        text = HEAD.format(dims=dims, kinds=kinds, element=element, orientation=orientation)
        path = tmp_path / name
        path.write_bytes(f"{text}{extra}{keys}ElementDataFile = LOCAL\n".encode() + pixels)
        return path

    return make


@pytest.fixture
def sequence(generator: torch.Generator) -> Sequence:
    """Six frames of 5x4 pixels: a missing image, an INVALID and a missing pose, extra fields."""
    n = 6
    images = torch.randint(1, 256, (n, 4, 5), dtype=torch.uint8, generator=generator)
    image_valid = torch.tensor([True, True, False, True, True, True])
    poses = se3.exp(torch.randn(n, 6, dtype=torch.float64, generator=generator))
    poses[4] = torch.nan
    valid = torch.tensor([True, False, True, True, False, True])
    stamps = torch.arange(n, dtype=torch.float64) * 0.05 + 12.3
    reference = se3.exp(torch.randn(n, 6, dtype=torch.float64, generator=generator))
    return Sequence(
        images * image_valid[:, None, None],
        image_valid,
        stamps,
        {
            "ProbeToTracker": Trajectory(stamps, poses, valid, "Probe", "Tracker"),
            "ReferenceToTracker": Trajectory(
                stamps, reference, torch.ones(n, dtype=torch.bool), "Reference", "Tracker"
            ),
        },
        fields=tuple({"FrameNumber": str(40 + 2 * i), "Depth mm": "60"} for i in range(n)),
        header={"Operator": "J\u00fcrgen", "AnatomicalOrientation": "RAI"},
    )


def as_numbers(sequence: Sequence) -> dict[str, np.ndarray]:
    """All tensors of a sequence, NaN-safe for comparison."""
    found = {"stamps": sequence.stamps_s.numpy(), "image_valid": sequence.image_valid.numpy()}
    if sequence.images is not None:
        found["images"] = sequence.images.numpy()
    for name, trajectory in sequence.transforms.items():
        found[f"{name}.poses"] = trajectory.poses.numpy()
        found[f"{name}.valid"] = trajectory.valid.numpy()
    return found


@pytest.fixture
def assert_same() -> Callable[[Sequence, Sequence], None]:
    """Two sequences that say the same, to the bit."""

    def check(a: Sequence, b: Sequence) -> None:
        left, right = as_numbers(a), as_numbers(b)
        assert left.keys() == right.keys()
        for key, value in left.items():
            np.testing.assert_array_equal(value, right[key], err_msg=key)
        assert a.statuses == b.statuses
        assert a.image_status == b.image_status
        assert [dict(f) for f in a.fields] == [dict(f) for f in b.fields]

    return check
