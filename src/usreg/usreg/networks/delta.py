# SPDX-License-Identifier: Apache-2.0
"""What regression networks give: a correction of a start pose about the image's centre, in the start image's axes.

ct_T_image = ct_T_start @ C @ delta @ inverse(C),   C = translation to the image's centre
"""

from __future__ import annotations

from torch import Tensor

from ..geometry import se3

Delta = tuple[Tensor, Tensor]  # translation mm (B, 3), rotation (B, 3, 3)


def corrected(ct_T_start: Tensor, delta: Delta, centre_mm: Tensor) -> Tensor:
    """Poses (B, 4, 4) of starts (B, 4, 4) and corrections; centre (3,) mm in the image frame. Type as the starts."""
    translation, rotation = (part.to(ct_T_start) for part in delta)
    centre = centre_mm.to(ct_T_start)
    return ct_T_start @ se3.translation(centre) @ se3.from_parts(rotation, translation) @ se3.translation(-centre)


def correction(ct_T_start: Tensor, ct_T_image: Tensor, centre_mm: Tensor) -> Delta:
    """The correction that leads from starts to poses, both (B, 4, 4): inverse of `corrected`."""
    centre = centre_mm.to(ct_T_start)
    delta = se3.translation(-centre) @ se3.inverse(ct_T_start) @ ct_T_image.to(ct_T_start) @ se3.translation(centre)
    return delta[..., :3, 3], delta[..., :3, :3]
