# SPDX-License-Identifier: Apache-2.0
"""Colours of the structures of a body, near those of anatomical atlases."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ..body.types import STRUCTURES
from .pictures import DPI, GROUND, INK, Picture, drawn

# fmt: off
COLOURS: dict[str, tuple[int, int, int]] = {
    "outside": (11, 15, 19), "skin": (222, 178, 150), "subcutaneous_fat": (238, 214, 140), "muscle": (158, 74, 66),
    "visceral_fat": (206, 182, 112), "ribs": (240, 236, 220), "costal_cartilage": (176, 206, 214),
    "spine": (226, 220, 196), "lung_right": (96, 118, 138), "lung_left": (96, 118, 138), "liver": (150, 82, 52),
    "portal_vein": (70, 130, 230), "hepatic_vein": (110, 210, 235), "gallbladder": (92, 168, 74),
    "kidney_right_cortex": (196, 106, 76), "kidney_right_medulla": (138, 52, 46),
    "kidney_right_pelvis": (246, 224, 120), "kidney_left_cortex": (196, 106, 76),
    "kidney_left_medulla": (138, 52, 46), "kidney_left_pelvis": (246, 224, 120), "spleen": (124, 52, 96),
    "pancreas": (232, 172, 92), "stomach": (198, 134, 144), "bowel": (214, 154, 122), "bowel_gas": (34, 34, 44),
    "aorta": (212, 46, 44), "inferior_vena_cava": (44, 84, 178), "lesion_hypoechoic": (92, 46, 128),
    "lesion_hyperechoic": (250, 156, 206), "lesion_cyst": (130, 234, 226), "diaphragm": (196, 96, 86),
}
# fmt: on


def coloured(values: NDArray[np.int16]) -> Picture:
    """Label values (h, w) in colour."""
    table = np.array([COLOURS[name] for name in STRUCTURES.values()], np.uint8)
    return np.ascontiguousarray(table[values])


def legend(width: int) -> Picture:
    """Names and colours of the structures, left and right in one."""
    names = {n.replace("_right", "").replace("_left", "").replace("_", " "): n for n in COLOURS if n != "outside"}
    columns, line = max(1, width // 180), 20
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(width / DPI, (rows * line + 6) / DPI), dpi=DPI, facecolor=GROUND)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(rows * line + 6, 0))
    axes.set_axis_off()
    for i, (text, name) in enumerate(names.items()):
        x, y = 8 + 180 * (i % columns), 3 + line * (i // columns)
        axes.add_patch(Rectangle((x, y + 3), 16, 12, color=tuple(v / 255 for v in COLOURS[name])))
        axes.text(x + 22, y + line / 2, text, color=INK, fontsize=8, va="center")
    return drawn(figure)
