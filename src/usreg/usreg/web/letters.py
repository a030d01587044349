# SPDX-License-Identifier: Apache-2.0
"""Patient directions at the sides of a picture, from a pose into a volume that is given in LPS."""

from __future__ import annotations

import math

from torch import Tensor

from ..data.types import Volume

# towards +x, +y, +z of LPS, and away
TOWARDS, AWAY = "LPS", "RAI"
OBLIQUE_DEG = 22.5  # off an axis: worth a second letter


def in_patient(volume: Volume) -> bool:
    """Whether a volume's frame is known to be the patient's.

    A 3D ultrasound that was put together of tracked frames lies in the tracker's frame, which has nothing to do with
    left and right of a patient; only labels (they come from a body) tell otherwise. No letters are better than wrong
    ones.
    """
    return volume.modality != "US" or volume.labels is not None


def side_letters(ct_T_image: Tensor) -> dict[str, str]:
    """Letters at the sides of a picture: where its right, left, bottom and top look to in the patient.

    Args:
        ct_T_image: (4, 4); `ct` in LPS, x of the image to the right, y down.

    Returns:
        One letter of R L A P S I a side; two, the stronger first, where the side lies 22.5 degrees or more off it.
    """
    right, down = (ct_T_image[:3, i].tolist() for i in range(2))
    return {
        "right": direction_letters(right),
        "left": direction_letters([-v for v in right]),
        "bottom": direction_letters(down),
        "top": direction_letters([-v for v in down]),
    }


def direction_letters(direction: list[float]) -> str:
    """Letters of a direction (x, y, z) in LPS that is not zero."""
    length = math.hypot(*direction)
    shares = sorted(((abs(v) / length, axis) for axis, v in enumerate(direction)), key=lambda s: (-s[0], s[1]))
    kept = [shares[0], *(s for s in shares[1:2] if s[0] >= math.sin(math.radians(OBLIQUE_DEG)))]
    return "".join((TOWARDS if direction[axis] > 0 else AWAY)[axis] for _, axis in kept)
