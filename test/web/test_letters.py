# SPDX-License-Identifier: Apache-2.0
"""Patient directions at the sides of a picture."""

import math

import pytest
import torch

from usreg.data.types import Volume
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.web.letters import direction_letters, in_patient, side_letters

SHIFT = torch.tensor([40.0, -20.0, 7.0], dtype=torch.float64)


def pose(right, down):
    """ct_T_image with these directions of x and y."""
    x, y = (torch.tensor(v, dtype=torch.float64) for v in (right, down))
    return se3.from_parts(torch.stack([x, y, torch.linalg.cross(x, y)], 1), SHIFT)


@pytest.mark.parametrize(
    ("direction", "letter"),
    [([1, 0, 0], "L"), ([-1, 0, 0], "R"), ([0, 1, 0], "P"), ([0, -1, 0], "A"), ([0, 0, 1], "S"), ([0, 0, -2], "I")],
)
def test_axes_of_lps(direction, letter):
    assert direction_letters([float(v) for v in direction]) == letter


def test_an_axial_picture_as_a_radiologist_sees_it():
    """Seen from the feet, the patient's right is at the left side, the front above."""
    assert side_letters(pose([1.0, 0, 0], [0, 1.0, 0])) == {"right": "L", "left": "R", "bottom": "P", "top": "A"}


def test_a_coronal_and_a_sagittal_picture():
    assert side_letters(pose([1.0, 0, 0], [0, 0, -1.0])) == {"right": "L", "left": "R", "bottom": "I", "top": "S"}
    assert side_letters(pose([0, 1.0, 0], [0, 0, -1.0])) == {"right": "P", "left": "A", "bottom": "I", "top": "S"}


@pytest.mark.parametrize(("degrees", "letters"), [(0, "L"), (22, "L"), (23, "LP"), (44, "LP"), (46, "PL"), (68, "P")])
def test_oblique_sides_have_two_letters_the_stronger_first(degrees, letters):
    a = math.radians(degrees)
    assert direction_letters([math.cos(a), math.sin(a), 0.0]) == letters


@pytest.mark.parametrize(
    ("modality", "labelled", "known"),
    [("CT", False, True), ("MR", False, True), ("US", True, True), ("US", False, False)],
)
def test_a_volume_in_a_trackers_frame_has_no_left_and_right(modality, labelled, known):
    labels = torch.zeros(2, 2, 2, dtype=torch.int16) if labelled else None
    volume = Volume(torch.zeros(1, 2, 2, 2), VoxelGrid((2, 2, 2), (1.0, 1.0, 1.0)), modality, labels=labels)
    assert in_patient(volume) is known


def test_opposite_sides_have_opposite_letters(generator):
    opposite = str.maketrans("LRPASI", "RLAPIS")
    for _ in range(50):
        turn = rotation.exp(torch.randn(3, dtype=torch.float64, generator=generator))
        found = side_letters(se3.from_parts(turn, SHIFT))
        assert found["right"].translate(opposite) == found["left"]
        assert found["bottom"].translate(opposite) == found["top"]
