# SPDX-License-Identifier: Apache-2.0
"""Labels on an image plane: the compiled reslice against plain indexing, and the boxes in which outlines are sought."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from usreg.data.types import Volume
from usreg.fusion.labels import MIN_PIXELS, _boxes, label_contours, label_slice
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid

PLANE = PlaneGrid(30, 40, ((0.9, 0.05), (0.0, 1.1)))


def volume_of(seed: int) -> Volume:
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (12, 14, 16)).astype(np.int16))
    turn = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    grid = VoxelGrid((16, 14, 12), (2.0, 1.5, 2.5), (20.0, -3.0, -10.0), turn)
    return Volume(torch.zeros(1, 12, 14, 16, dtype=torch.uint8), grid, labels=labels)


def reference(volume: Volume, ct_T_image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Nearest voxel by rounding, one array operation after the other; and which pixels lie on no edge of two voxels."""
    points = PLANE.points_mm() @ ct_T_image[:3, :3].T + ct_T_image[:3, 3]
    index_T_ct = volume.grid.index_T_ct
    exact = points @ index_T_ct[:3, :3].T + index_T_ct[:3, 3] + 0.5
    clear = ((exact - exact.round()).abs() > 1e-9).all(-1)
    index = torch.floor(exact).long()
    size = torch.tensor(volume.grid.size)
    inside = ((index >= 0) & (index < size)).all(-1)
    i, j, k = torch.where(inside[..., None], index, torch.zeros_like(index)).unbind(-1)
    labels = torch.where(inside, volume.labels[k, j, i], torch.zeros((), dtype=torch.int16))
    return labels.numpy(), clear.numpy()


@given(st.integers(0, 1000), st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_compiled_reslice_equals_plain_indexing(seed, numbers):
    volume = volume_of(seed)
    ct_T_image = se3.exp(torch.tensor(numbers, dtype=torch.float64) * torch.tensor([9, 9, 9, 0.6, 0.6, 0.6]))
    expected, clear = reference(volume, ct_T_image)
    assert clear.mean() > 0.5
    assert np.array_equal(label_slice(volume, ct_T_image, PLANE)[clear], expected[clear])


@given(st.integers(0, 1000))
def test_boxes_hold_every_pixel_of_a_label(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 5, (9, 11)).astype(np.int16) * (rng.random((9, 11)) < 0.2)
    shown = rng.random((9, 11)) < 0.7
    boxes = np.empty((6, 5), np.int64)
    _boxes(values.astype(np.int16), shown, boxes)
    for value in range(1, 6):
        rows, columns = np.nonzero(values == value)
        assert boxes[value, 0] == ((values == value) & shown).sum()
        if len(rows):
            expected = [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1]
            assert boxes[value, 1:].tolist() == expected


def test_labels_outside_the_sector_are_not_named(scene):
    plane = PlaneGrid(41, 61, ((1.0, 0.0), (0.0, 1.0)))
    shown = np.zeros((41, 61), np.bool_)
    shown[30:, :] = True
    found = label_contours(scene.volume(), scene.at_z(20.0), plane, 2, shown)
    assert [c.name for c in found] == ["ball", "slab"]
    shown[30:35, :] = False
    assert [c.name for c in label_contours(scene.volume(), scene.at_z(20.0), plane, 2, shown)] == ["slab"]
    shown[:] = False
    shown[20, 30 : 30 + MIN_PIXELS - 1] = True
    assert label_contours(scene.volume(), scene.at_z(20.0), plane, 2, shown) == []
    assert label_contours(scene.volume(labels=False), scene.at_z(20.0), plane, 2, shown) == []
