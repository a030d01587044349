# SPDX-License-Identifier: Apache-2.0
"""What the ultrasound renderer refuses, and what lies outside."""

import dataclasses

import pytest
import torch

from usreg.data.types import Volume
from usreg.errors import ConfigError, GeometryError, NoOverlapError, ShapeError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGeometry, PlaneGrid
from usreg.rendering.ultrasound import PaperConfig, PaperRenderer, UltrasoundConfig, UltrasoundRenderer

SMALL = UltrasoundConfig(lines=16, samples=256, rays=1)


@pytest.fixture(scope="module")
def scene(make):
    geometry = make.probe("linear", 1.0)
    ball = make.body(lambda p: (p.norm(dim=-1) < 18).long(), (40, 40, 40), (1.0,) * 3)
    return ball, geometry, make.centred(geometry)


@pytest.mark.parametrize("kind", [UltrasoundRenderer, PaperRenderer])
def test_labels_without_a_tissue_or_without_names_are_refused_by_name(scene, kind) -> None:
    volume, geometry, pose = scene
    renderer = kind()
    for names, error, words in (
        ({1: "antler"}, ConfigError, "antler"),
        ({2: "liver"}, ConfigError, r"label values 1 \(\d+ voxels\)"),
        ({}, ShapeError, "no labels"),
    ):
        with pytest.raises(error, match=words):
            renderer(dataclasses.replace(volume, label_names=names), pose, geometry)
    with pytest.raises(ShapeError, match="no labels"):
        renderer(Volume(volume.data.float(), volume.grid, label_names={1: "liver"}), pose, geometry)
    signed = dataclasses.replace(volume, labels=-volume.data[0].to(torch.int16))
    with pytest.raises(ConfigError, match="label values -1"):
        renderer(signed, pose, geometry)


@pytest.mark.parametrize("gradient", [False, True])
def test_a_probe_outside_the_body_is_an_error(scene, gradient: bool) -> None:
    volume, geometry, pose = scene
    away = se3.translation(torch.tensor([0.0, 0.0, 300.0], dtype=torch.float64)) @ pose
    poses = torch.stack([pose, away]).requires_grad_(gradient)
    with pytest.raises(NoOverlapError, match=r"image \[1\].*outside the body"):
        UltrasoundRenderer(None, SMALL)(volume, poses, geometry)


def test_poses_and_geometries_are_checked(scene) -> None:
    volume, geometry, pose = scene
    renderer = UltrasoundRenderer(None, SMALL)
    for bad, error in (
        (pose * torch.nan, GeometryError),
        (pose[:3], ShapeError),
        (pose[None][:0], GeometryError),
        (pose.int(), ShapeError),
    ):
        with pytest.raises(error):
            renderer(volume, bad, geometry)
    with pytest.raises(ShapeError, match="SectorGeometry"):
        renderer(volume, pose, PlaneGeometry(PlaneGrid(8, 8, ((1.0, 0.0), (0.0, 1.0)))))
    with pytest.raises(GeometryError, match="at least"):
        UltrasoundRenderer(None, UltrasoundConfig(samples=40))(volume, pose, geometry)


@pytest.mark.parametrize(
    "values",
    [{"lines": 1}, {"frequency_mhz": 0.0}, {"elevation_planes": 2}, {"tile_voxels": 64}, {"liver_grey": float("nan")}],
)
def test_configurations_outside_their_range_are_refused(values) -> None:
    with pytest.raises(ConfigError):
        UltrasoundConfig(**values)
    with pytest.raises(ConfigError):
        PaperConfig(tgc=0.0)


def test_the_mask_is_sector_and_volume_and_the_image_is_zero_outside_the_sector(scene) -> None:
    volume, geometry, pose = scene
    shifted = pose @ se3.translation(torch.tensor([10.0, 0.0, 0.0], dtype=torch.float64))
    image, mask = UltrasoundRenderer(None, SMALL)(volume, shifted, geometry)
    places = se3.transform_points(shifted, geometry.plane.points_mm().reshape(-1, 3)).reshape(*image.shape[2:], 3)
    inside = (places.abs() <= 19.5).all(-1)
    assert torch.equal(mask[0, 0], inside & geometry.mask()) and bool(mask.any()) and not bool(mask.all())
    assert bool((image[0, 0][~geometry.mask()] == 0).all()) and float(image.min()) >= 0 and float(image.max()) <= 1


def test_a_flat_volume_and_many_kinds(make, scene) -> None:
    """One layer of voxels is continued; a volume with more than 256 kinds is refused."""
    _, geometry, pose = scene
    layer = make.body(lambda p: (p[..., 0] > 0).long() + 1, (40, 60, 1), (1.0, 1.0, 5.0))
    image, mask = UltrasoundRenderer(None, SMALL)(layer, pose, geometry)
    assert float(image.std()) > 0.03 and bool(mask.any())
    many = torch.arange(40 * 40, dtype=torch.int16).reshape(1, 40, 40).expand(40, 40, 40)
    names = {value: "liver" for value in range(1600)}
    volume = Volume(torch.zeros(1, 40, 40, 40), scene[0].grid, labels=many, label_names=names)
    with pytest.raises(ConfigError, match="256"):
        UltrasoundRenderer(None, SMALL)(volume, pose, geometry)


def test_the_paper_s_millimetres_are_the_ct_s_only_for_linear_probes(make) -> None:
    """A ball of vessel in liver changes the picture about its place in the CT, or in the bent rectangle elsewhere."""
    for kind, close in (("linear", True), ("convex", False)):
        geometry = make.probe(kind, 0.5)
        centre = geometry.plane.centre_mm[:2]
        wanted = torch.stack([centre[0] - 12.0, torch.tensor(30.0, dtype=torch.float64)])

        def fill(p: torch.Tensor, at=wanted, centre=centre, value=7) -> torch.Tensor:
            return torch.where((p[..., :2] + centre - at).norm(dim=-1) < 3.0, value, 1)

        bodies = [make.body(f, (160, 140, 6), (1.0, 1.0, 2.0)) for f in (fill, lambda p: 1)]
        images = [PaperRenderer()(volume, make.centred(geometry), geometry)[0][0, 0] for volume in bodies]
        change = (images[0] - images[1]).abs().double()
        change = change * (change > 0.3 * change.max())
        found = (change[..., None] * geometry.plane.points_mm()[..., :2]).sum((0, 1)) / change.sum()
        assert (float((found - wanted).norm()) < 1.0) == close
