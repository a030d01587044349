# SPDX-License-Identifier: Apache-2.0
"""Procedural bodies: every structure, in its place, of adult size, the same from the same seed on any grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import label

from usreg.errors import ConfigError
from usreg.simulation.body import STRUCTURES, VALUE, Body, BodyConfig, make_body
from usreg.simulation.body.config import DERIVED, RANGES, draw_measures

COARSE = BodyConfig(spacing_mm=3.0)
SEEDS = (0, 1, 2, 3)
Bodies = Callable[[int], Body]


def centroid(of: Body, *structures: str) -> NDArray[np.float64]:
    """(3,) mm."""
    index = np.argwhere(of.inside(*structures).numpy())[:, ::-1].mean(axis=0)
    affine = of.labels.grid.ct_T_index.numpy()
    return affine[:3, :3] @ index + affine[:3, 3]


def extent(of: Body, *structures: str) -> NDArray[np.float64]:
    """(2, 3) mm; for a grid that is not turned."""
    index = np.argwhere(of.inside(*structures).numpy())[:, ::-1]
    return np.stack([index.min(axis=0), index.max(axis=0)]) * 3.0 + np.array(of.labels.grid.origin_mm)


def label_at(of: Body, name: str) -> str:
    affine = of.labels.grid.index_T_ct.numpy()
    i, j, k = np.rint(affine[:3, :3] @ of.landmarks[name].numpy() + affine[:3, 3]).astype(int)
    return STRUCTURES[int(of.labels.data[0, k, j, i])]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_structure_is_there(seed: int, coarse_body: Bodies) -> None:
    there = {STRUCTURES[v] for v in torch.unique(coarse_body(seed).labels.data).tolist()}
    lesions = {name for name in STRUCTURES.values() if name.startswith("lesion")}
    assert set(STRUCTURES.values()) - lesions <= there
    assert there & lesions


@pytest.mark.parametrize("seed", SEEDS)
def test_sizes_keep_the_stated_ranges(seed: int, coarse_body: Bodies) -> None:
    measures = coarse_body(seed).measures
    for name, (low, high, _) in RANGES.items():
        assert low <= measures[name] <= high, name
    for name, (low, high, _) in DERIVED.items():
        value = measures.get(name, measures.get(name.replace("_volume", "_achieved_volume")))
        assert value is not None and low <= value <= high, (name, value)
    assert 1100 <= measures["liver_achieved_volume_ml"] <= 1900
    assert measures["liver_achieved_length_mm"] == pytest.approx(measures["liver_length_mm"], abs=9)
    for organ in ("kidney_right", "kidney_left", "spleen"):
        assert measures[f"{organ}_achieved_length_mm"] == pytest.approx(measures[f"{organ}_length_mm"], rel=0.05), organ
    assert 2 <= sum(name.startswith("lesion_") for name in measures) <= 5


def test_ranges_bind_over_many_draws() -> None:
    draws = [draw_measures(np.random.default_rng(seed)) for seed in range(300)]
    for name, (low, high, _) in RANGES.items():
        values = np.array([d[name] for d in draws])
        assert values.min() >= low and values.max() <= high
        assert values.std() > 0.1 * (high - low)  # they do vary


@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_where_they_should(seed: int, coarse_body: Bodies) -> None:
    """LPS: x to the patient's left, y to the back, z to the head."""
    b = coarse_body(seed)
    at = {name: centroid(b, name) for name in STRUCTURES.values() if b.inside(name).any()}
    liver, spine = at["liver"], at["spine"]
    assert liver[0] < -30 and at["gallbladder"][0] < -20 and at["spleen"][0] > 50 and at["stomach"][0] > 10
    assert at["kidney_right_cortex"][0] < -35 and at["kidney_left_cortex"][0] > 35
    assert at["kidney_right_cortex"][2] < at["kidney_left_cortex"][2]  # the right kidney lies lower
    assert at["inferior_vena_cava"][0] < 0 < at["aorta"][0]
    assert at["aorta"][1] < spine[1] and at["inferior_vena_cava"][1] < spine[1]  # both before the spine
    assert at["gallbladder"][1] < liver[1] and at["gallbladder"][2] < liver[2]  # below and in front
    assert at["lung_right"][2] > liver[2] and at["heart" if "heart" in at else "lung_left"][2] > at["spleen"][2]
    assert at["pancreas"][1] < at["aorta"][1] and at["kidney_left_cortex"][1] > at["pancreas"][1]
    assert at["subcutaneous_fat"][2] == pytest.approx(at["skin"][2], abs=15)
    right, left = extent(b, "lung_right"), extent(b, "lung_left")
    dome = extent(b, "liver")[1, 2]
    assert right[0, 2] < dome - 30 and left[0, 2] < dome - 20  # the costophrenic recess reaches below the dome


@pytest.mark.parametrize("seed", SEEDS)
def test_layers_lie_in_order_along_a_ray_from_the_front(seed: int, coarse_body: Bodies) -> None:
    """Outside, skin, fat, muscle, then the inside of the belly."""
    b = coarse_body(seed)
    data = b.labels.data[0].numpy()
    origin = np.array(b.labels.grid.origin_mm)
    i, k = int(round((-60.0 - origin[0]) / 3)), int(round((-60.0 - origin[2]) / 3))
    ray = data[k, :, i]
    first = [int(np.argmax(ray == VALUE[n])) for n in ("skin", "subcutaneous_fat", "muscle", "visceral_fat")]
    assert first == sorted(first) and len(set(first)) == 4
    thickness = 3.0 * (first[2] - first[1])
    assert thickness == pytest.approx(b.measures["fat_mm"], rel=0.35, abs=4.5)
    assert not np.isin(ray[first[0] : first[2]], list(set(range(31)) - {1, 2})).any()


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_organs_are_of_one_piece(seed: int, coarse_body: Bodies) -> None:
    b = coarse_body(seed)
    groups = {
        "liver": ("liver", "portal_vein", "hepatic_vein", "gallbladder", *(n for n in VALUE if n.startswith("lesion"))),
        "spleen": ("spleen",), "stomach": ("stomach", "bowel_gas", "bowel"), "lung": ("lung_right",),
        "kidney": tuple(n for n in VALUE if n.startswith("kidney_left")), "skin": ("skin", "subcutaneous_fat"),
        "spine": ("spine",), "aorta": ("aorta",),
    }  # fmt: skip
    for name, parts in groups.items():
        pieces = np.bincount(label(b.inside(*parts).numpy(), np.ones((3, 3, 3)))[0].ravel())[1:]
        assert pieces.max() >= 0.97 * pieces.sum(), name


def test_no_organ_leaves_the_body_and_air_is_outside_only(coarse_body: Bodies) -> None:
    b = coarse_body(0)
    outside = label(b.inside("outside").numpy())[0]
    assert outside.max() <= 2  # the air around, parted by the trunk where it fills the grid
    edge = b.labels.data[0, :, 0].unique().tolist() + b.labels.data[0, :, :, 0].unique().tolist()
    assert set(edge) == {0}


def test_the_same_seed_gives_the_same_body_and_another_seed_another(coarse_body: Bodies) -> None:
    again = make_body(1, COARSE)
    assert torch.equal(again.labels.data, coarse_body(1).labels.data)
    assert again.measures == coarse_body(1).measures and again.tubes[0].start_mm == coarse_body(1).tubes[0].start_mm
    assert all(torch.equal(p, coarse_body(1).landmarks[n]) for n, p in again.landmarks.items())
    assert coarse_body(2).measures["liver_length_mm"] != coarse_body(1).measures["liver_length_mm"]


def test_the_anatomy_does_not_depend_on_the_grid(coarse_body: Bodies) -> None:
    """A tilted grid shows the same body: voxels agree with the straight grid's nearest but for the surfaces."""
    tilted, straight = make_body(1, BodyConfig(spacing_mm=4.0, tilt_deg=(12.0, -9.0, 20.0))), coarse_body(1)
    assert all(torch.equal(p, straight.landmarks[n]) for n, p in tilted.landmarks.items())
    grid, data = straight.labels.grid, tilted.labels.data[0].numpy()
    index = np.argwhere(data > 0)
    to_ct, back = tilted.labels.grid.ct_T_index.numpy(), grid.index_T_ct.numpy()
    points = index[:, ::-1] @ to_ct[:3, :3].T + to_ct[:3, 3]
    other = np.rint(points @ back[:3, :3].T + back[:3, 3]).astype(int)
    keep = ((other >= 0) & (other < np.array(grid.size))).all(axis=1)
    i, j, k = other[keep].T
    same = data[tuple(index[keep].T)] == straight.labels.data[0].numpy()[k, j, i]
    assert same.mean() > 0.85
    for name in ("liver", "spleen", "kidney_left_cortex", "lung_right"):
        mine = data[tuple(index[keep].T)] == VALUE[name]
        assert same[mine].mean() > 0.7, name


@pytest.mark.parametrize("seed", SEEDS)
def test_landmarks_lie_on_what_they_name(seed: int, coarse_body: Bodies) -> None:
    b = coarse_body(seed)
    for side in ("right", "left"):
        for end in ("upper", "lower"):
            assert label_at(b, f"kidney_{side}_{end}_pole").startswith(f"kidney_{side}")
        margin = np.array([b.landmarks[f"costal_margin_{side}_{i}"].numpy() for i in range(1, 8)])
        assert (np.diff(margin[:, 2]) < 0).all() and (np.diff(np.abs(margin[:, 0])) > 0).all()
    assert (b.landmarks["kidney_left_upper_pole"] - b.landmarks["kidney_left_lower_pole"])[2] > 80
    assert label_at(b, "liver_dome") in ("liver", "diaphragm") and label_at(b, "liver_lower_pole") != "muscle"
    assert abs(float(b.landmarks["xiphoid"][0])) < 1 and float(b.landmarks["xiphoid"][2]) > 70
    neck, fundus = b.landmarks["gallbladder_neck"], b.landmarks["gallbladder_fundus"]
    assert neck[2] > fundus[2] and neck[1] > fundus[1]


def test_progress_counts_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    make_body(3, BodyConfig(spacing_mm=6.0), lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[0][1] + 1)) and len({total for _, total in seen}) == 1


@pytest.mark.parametrize(
    ("values", "word"),
    [({"spacing_mm": 0.1}, "spacing_mm"), ({"spacing_mm": float("nan")}, "spacing_mm"),
     ({"length_mm": 900.0}, "length_mm"),
     ({"tilt_deg": (0.0, 80.0, 0.0)}, "tilt_deg"), ({"terminals": 2}, "terminals"), ({"margin_mm": -1.0}, "margin")],
)  # fmt: skip
def test_a_configuration_out_of_range_is_refused(values: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        BodyConfig(**values)


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed"):
        make_body(-1)
