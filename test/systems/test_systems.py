# SPDX-License-Identifier: Apache-2.0
"""Systems by name, their shipped configurations, and the study of drawn starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from usreg import study
from usreg.config import from_mapping, load_yaml, to_mapping
from usreg.data.types import Estimate, Frame, Problem, Rigid, TrackedFrame, Volume
from usreg.errors import ConfigError, MissingFileError, NoOverlapError
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.registration.itk import Itk
from usreg.registration.refine import Refine, RefineConfig
from usreg.registration.refine_options import complete, merged
from usreg.registration.registrar import Registrar
from usreg.systems import SYSTEMS, build, deep_s2v

TOP = Path(__file__).resolve().parents[2]


def test_systems_are_built_by_name() -> None:
    assert isinstance(build("intensity").stages[0], Refine) and isinstance(build("itk").stages[0], Itk)
    options = {"min_overlap": 0.5, "structure_level": 0, "levels": [{"sigma_mm": 3.0, "step_mm": 3.0}]}
    stage = build("intensity", options).stages[0]
    assert isinstance(stage, Refine) and stage.config.min_overlap == 0.5 and stage.config.levels[0].sigma_mm == 3.0


def test_unknown_names_and_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="no system 'magic'"):
        build("magic")
    with pytest.raises(ConfigError, match="unknown key"):
        build("intensity", {"min_overlapp": 0.5})
    with pytest.raises(ConfigError, match="sampling"):
        build("itk", {"sampling": 0.0})


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_shipped_configurations_build(top: Path, name: str) -> None:
    options = load_yaml(top / "config" / "systems" / f"{name}.yaml")
    if name == "deep_s2v" and not deep_s2v.shipped("usreg").is_file():
        with pytest.raises(MissingFileError, match="usreg train"):
            build(name, options)
        return
    assert build(name, options).config.system == name


@pytest.mark.parametrize(("modality", "similarity"), [("", "ncc"), ("US", "ncc"), ("CT", "lncc"), ("MR", "lc2")])
def test_the_similarity_follows_the_modality(modality: str, similarity: str) -> None:
    for options in ({}, {"similarity": "auto", "optimizer": "auto"}):
        config = build("intensity", options, modality).stages[0].config
        assert (config.similarity, config.optimizer) == (similarity, "lm")
    given = build("intensity", {"similarity": "lncc", "min_overlap": 0.3}, modality).stages[0].config
    assert (given.similarity, given.min_overlap) == ("lncc", 0.3)


@pytest.mark.parametrize("path", sorted((TOP / "config" / "systems").glob("intensity_*.yaml")), ids=lambda p: p.stem)
def test_what_was_tuned_for_a_similarity_builds(path: Path) -> None:
    content, name = load_yaml(path), path.stem.removeprefix("intensity_")
    if name == "ct":
        assert from_mapping(RefineConfig, complete({}, "CT")).echo is not None
        return
    if name == "s2v":  # of system deep_s2v: no similarity of its own
        assert from_mapping(RefineConfig, complete(content, "US")).similarity == "lncc"
        return
    assert content["similarity"] == name
    assert from_mapping(RefineConfig, complete({"similarity": name})).similarity == name


def test_options_replace_single_values_of_what_was_tuned() -> None:
    tuned = {"gate": {"min_score": 0.2, "min_overlap": 0.5}, "levels": [1, 2], "channel": 1}
    found = merged(tuned, {"gate": {"min_score": 0.3}, "levels": [3]})
    assert found == {"gate": {"min_score": 0.3, "min_overlap": 0.5}, "levels": [3], "channel": 1}
    assert tuned["gate"]["min_score"] == 0.2


def test_a_similarity_that_does_not_exist_is_refused() -> None:
    for name in ("magic", "../../etc/passwd"):
        with pytest.raises(ConfigError, match="similarity"):
            build("intensity", {"similarity": name})


def test_a_configuration_survives_the_way_through_plain_values() -> None:
    assert from_mapping(RefineConfig, to_mapping(RefineConfig())) == RefineConfig()


def frame_and_volume() -> tuple[TrackedFrame, Volume]:
    rng = np.random.default_rng(0)
    voxels = torch.from_numpy(rng.integers(0, 255, (1, 8, 8, 8), np.uint8))
    volume = Volume(voxels, VoxelGrid((8, 8, 8), (2.0, 2.0, 2.0)))
    geometry = full_rectangle(PlaneGrid(6, 6, ((1.0, 0.0), (0.0, 1.0))))
    image = torch.from_numpy(rng.integers(0, 255, (6, 6), np.uint8))
    pose = se3.translation(torch.tensor([4.0, 4.0, 7.0], dtype=torch.float64))
    return TrackedFrame(Frame(image, geometry, 1.5, 7), pose), volume


class Stay:
    """A stage that leaves every start where it is."""

    def prepare(self, volume: Volume) -> None:
        self.prepared = volume

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        return Estimate(Rigid(estimate.world_T_ct), torch.eye(6, dtype=torch.float64), estimate.pivot, 0.5, 1.0, True)


class Nowhere(Stay):
    """A stage that finds no overlap."""

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        raise NoOverlapError("no overlap at all")


def test_draws_fill_their_limits_and_repeat() -> None:
    twists = study.draw_twists((10, 10, 5, 5, 5, 10), 2000, seed=3)
    limits = torch.tensor([10, 10, 5, *np.deg2rad([5, 5, 10])], dtype=torch.float64)
    assert torch.equal(twists, study.draw_twists((10, 10, 5, 5, 5, 10), 2000, seed=3))
    assert bool((twists.abs() <= limits).all()) and bool((twists.abs().amax(0) > 0.99 * limits).all())
    assert bool((twists.mean(0).abs() < 0.1 * limits).all())


def test_a_start_is_off_by_the_draw_about_the_images_centre() -> None:
    tracked, volume = frame_and_volume()
    (row,) = study.run_study([tracked], volume, Registrar([Stay()]), (3, 0, 0, 0, 0, 0), seed=1)
    shift = abs(float(study.draw_twists((3, 0, 0, 0, 0, 0), 1, 1)[0, 0]))
    assert row.initial_tre_mm == pytest.approx(shift) and row.final_tre_mm == pytest.approx(shift)
    assert row.accepted and row.frame == 7 and row.stamp_s == 1.5 and row.rotation_deg == pytest.approx(0.0, abs=1e-6)


def test_the_truth_may_lie_anywhere() -> None:
    tracked, volume = frame_and_volume()
    truth = se3.exp(torch.tensor([50.0, 3.0, -7.0, 0.3, 0.2, -0.9], dtype=torch.float64))
    moved = TrackedFrame(tracked.frame, truth @ tracked.world_T_image)
    here, there = (
        study.run_study([f], volume, Registrar([Stay()]), (5, 5, 5, 5, 5, 5), seed=2, truth=t)[0]
        for f, t in ((tracked, None), (moved, truth))
    )
    assert here.initial_tre_mm == pytest.approx(there.initial_tre_mm)
    assert here.out_of_plane_mm == pytest.approx(there.out_of_plane_mm)


def test_frames_are_taken_in_turn_and_progress_is_told() -> None:
    tracked, volume = frame_and_volume()
    seen: list[tuple[int, int]] = []
    rows = study.run_study(
        [tracked, tracked], volume, Registrar([Stay()]), (0,) * 6, starts=5, progress=lambda *a: seen.append(a)
    )
    assert len(rows) == 5 and seen == [(k, 5) for k in range(1, 6)]
    assert all(r.final_tre_mm == pytest.approx(0.0, abs=1e-9) for r in rows)


def test_a_start_without_overlap_is_a_row_with_its_reason() -> None:
    tracked, volume = frame_and_volume()
    (row,) = study.run_study([tracked], volume, Registrar([Nowhere()]), (1,) * 6)
    assert not row.accepted and "no overlap" in row.reason and np.isnan(row.final_tre_mm)


def test_bad_studies_are_refused() -> None:
    tracked, volume = frame_and_volume()
    with pytest.raises(ConfigError, match="at least one frame"):
        study.run_study([], volume, Registrar([Stay()]), (0,) * 6)
    for limits in ((1.0,) * 5, (-1.0,) * 6, (float("nan"),) * 6):
        with pytest.raises(ConfigError, match="six limits"):
            study.run_study([tracked], volume, Registrar([Stay()]), limits)
