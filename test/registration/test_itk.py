# SPDX-License-Identifier: Apache-2.0
"""The ITK baseline: the same answer as the own refinement, in its conventions, with its refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from usreg.data.types import Problem
from usreg.errors import ConfigError, GeometryError, NoOverlapError, ShapeError
from usreg.geometry import se3
from usreg.geometry.plane import PlaneGeometry, PlaneGrid
from usreg.registration.itk import Itk, from_euler, to_euler
from usreg.registration.itk_method import CHOICES, ItkConfig, preset
from usreg.systems import build

QUICK = ItkConfig(iterations=40, shrink=(3,), smoothing_mm=(2.0,))


def straight(tracked):  # type: ignore[no-untyped-def]
    """The same frame without shear: ITK images cannot have it."""
    (a, _), (_, d) = tracked.frame.plane.pixel_to_mm
    plane = PlaneGrid(60, 75, ((a, 0.0), (0.0, d)))
    return replace(tracked, frame=replace(tracked.frame, geometry=replace(tracked.frame.geometry, plane=plane)))


def test_the_transform_goes_there_and_back() -> None:
    pose = se3.exp(torch.tensor([10.0, -3.0, 40.0, 0.4, -1.0, 0.7], dtype=torch.float64))
    centre = torch.tensor([33.0, 27.0, 0.0], dtype=torch.float64)
    transform = to_euler(pose, centre)
    assert torch.allclose(from_euler(transform), pose, atol=1e-9)
    point = (5.0, 7.0, 0.0)
    expected = se3.transform_points(pose, torch.tensor([point], dtype=torch.float64))[0]
    assert transform.TransformPoint(point) == pytest.approx(expected.tolist())


def test_finds_a_frame(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = straight(bench.frame(noise=5.0))
    start = bench.start(tracked, (1.5, -1.0, 1.0), (1.0, -1.0, 1.5))
    found = Itk(QUICK)(bench.problem((tracked,), start), start)
    # the shear that was dropped bends the image by up to half a millimetre
    assert bench.tre_mm(start, tracked) > 1.5 and bench.tre_mm(found, tracked) < 0.6
    assert found.score > 0.8 and found.covariance.trace() > 0.0


@pytest.mark.parametrize("metric", CHOICES["metric"])
@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_every_metric_with_every_optimizer(bench, metric, optimizer, capfd) -> None:  # type: ignore[no-untyped-def]
    tracked = straight(bench.frame(noise=5.0))
    start = bench.start(tracked, (1.5, -1.0, 1.0), (1.0, -1.0, 1.5))
    found = Itk(replace(QUICK, metric=metric, optimizer=optimizer, iterations=12))(
        bench.problem((tracked,), start), start
    )
    assert bench.tre_mm(found, tracked) < 0.7 * bench.tre_mm(start, tracked)
    assert capfd.readouterr() == ("", "")


def test_presets_are_named_and_changed_by_options() -> None:
    published = preset("deep_s2v")
    assert (published.metric, published.optimizer, published.sampling) == ("correlation", "regular_step", 1.0)
    assert len(published.shrink) == 1
    with pytest.raises(ConfigError, match="preset 'x'"):
        preset("x")
    for wrong in ({"metric": "ssd"}, {"optimizer": "adam"}, {"bins": 1}):
        with pytest.raises(ConfigError):
            ItkConfig(**wrong)

    def made(options: dict[str, object], modality: str = "") -> ItkConfig:
        return build("itk", options, modality).stages[0].config  # type: ignore[attr-defined]

    assert made({}) == ItkConfig() and made({}, "CT").metric == "mattes"
    assert made({"preset": "deep_s2v", "iterations": 7}, "CT") == replace(published, iterations=7)


def test_random_sampling_repeats(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = straight(bench.frame(noise=5.0))
    start = bench.start(tracked, (1.0, -1.0, 1.0), (1.0, -1.0, 1.0))
    config = replace(QUICK, sampling=0.2, iterations=10)
    poses = [Itk(config)(bench.problem((tracked,), start), start).world_T_ct for _ in range(2)]
    assert torch.allclose(poses[0], poses[1], atol=1e-6)


def test_refusals(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = straight(bench.frame())
    start = bench.start(tracked, (0.0,) * 3, (0.0,) * 3)
    far = bench.start(tracked, (0.0, 0.0, 900.0), (0.0,) * 3)
    with pytest.raises(NoOverlapError, match="inside the volume"):
        Itk(QUICK)(bench.problem((tracked,), far), far)
    with pytest.raises(ShapeError, match="exactly one"):
        Itk(QUICK)(bench.problem((tracked, tracked), start), start)
    with pytest.raises(ShapeError, match="exactly one"):
        Itk(QUICK)(Problem(bench.volume, bench.volume, start), start)
    with pytest.raises(GeometryError, match="sheared"):
        Itk(QUICK)(bench.problem((bench.frame(),), start), start)
    with pytest.raises(ConfigError, match="same number"):
        ItkConfig(shrink=(2, 1), smoothing_mm=(1.0,))


def test_a_plain_plane_is_taken(bench) -> None:  # type: ignore[no-untyped-def]
    tracked = straight(bench.frame())
    plain = replace(tracked, frame=replace(tracked.frame, geometry=PlaneGeometry(tracked.frame.plane)))
    start = bench.start(tracked, (0.5, 0.5, 0.5), (0.0,) * 3)
    assert Itk(replace(QUICK, iterations=5))(bench.problem((plain,), start), start).overlap > 0.8
