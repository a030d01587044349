# SPDX-License-Identifier: Apache-2.0
"""Votes of pixels: a pose is found from likelihoods with outliers, twins and noise; kernels agree with plain sums."""

import math
from dataclasses import replace

import pytest
import torch

from usreg.errors import ConfigError, GeometryError, ShapeError
from usreg.geometry import rotation, se3
from usreg.registration import rigid_fit
from usreg.registration.learned.vote import Ballot, VoteConfig, expected, look, scores, triples, whole_expectation

STEP_MM = 6.0


def made_ballot(truth: torch.Tensor, outliers: float = 0.0, seed: int = 0, twin: torch.Tensor | None = None) -> Ballot:
    """Pixels of a 90 mm square that vote for their true places with 4 mm of spread; some vote for places at random."""
    generator = torch.Generator().manual_seed(seed)
    shape = (18, 20, 22)
    ct_T_index = torch.eye(4, dtype=torch.float64)
    ct_T_index[:3, :3] *= STEP_MM
    ct_T_index[:3, 3] = torch.tensor([-60.0, -55.0, -50.0])
    rows = torch.arange(math.prod(shape), dtype=torch.int32).reshape(shape)
    rows[:, 0] = -1
    known = rows >= 0
    rows[known] = torch.arange(int(known.sum()), dtype=torch.int32)
    places = se3.transform_points(ct_T_index, known.nonzero().flip(-1).double())
    x, y = torch.meshgrid(torch.arange(0.0, 90.0, 9.0), torch.arange(0.0, 90.0, 9.0), indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3).double()
    at = se3.transform_points(truth, points)
    lost = torch.rand(len(points), generator=generator) < outliers
    at[lost] = places[torch.randint(len(places), (int(lost.sum()),), generator=generator)]
    likelihood = torch.exp(-0.5 * (torch.cdist(at, places) / 4.0) ** 2)
    if twin is not None:
        likelihood += 1.5 * torch.exp(-0.5 * (torch.cdist(se3.transform_points(twin, points), places) / 4.0) ** 2)
    ratio = likelihood + 1e-4
    ratio = (ratio / ratio.mean(1, keepdim=True)).float()
    return Ballot(ratio, rows, points, torch.ones(len(points), dtype=torch.float64), ct_T_index, places)


def pose(mm: tuple[float, float, float], deg: tuple[float, float, float]) -> torch.Tensor:
    turn = rotation.exp(torch.tensor([math.radians(a) for a in deg], dtype=torch.float64))
    centre = torch.tensor([-45.0, -45.0, 0.0], dtype=torch.float64)
    return se3.from_parts(turn, torch.tensor(mm, dtype=torch.float64)) @ se3.translation(centre)


def off(found: torch.Tensor, truth: torch.Tensor, ballot: Ballot) -> float:
    a, b = (se3.transform_points(p, ballot.points) for p in (found, truth))
    return float((a - b).norm(dim=-1).max())


def test_a_far_pose_is_found_among_outliers() -> None:
    truth = pose((3.0, 2.0, -4.0), (20.0, -15.0, 25.0))
    ballot = made_ballot(truth, outliers=0.6)
    start = pose((-20.0, 20.0, 15.0), (0.0, 0.0, 0.0))
    assert off(start, truth, ballot) > 30.0
    best = look(ballot, start, VoteConfig(triples=1500, climb=24, fits=6))[0]
    assert off(best.ct_T_image, truth, ballot) < 2.5
    assert 0.3 < best.share < 0.6


def test_of_two_likely_poses_both_are_given_back_the_likelier_first() -> None:
    truth, twin = pose((0.0, 2.0, -4.0), (0.0, 0.0, 0.0)), pose((20.0, 2.0, 24.0), (0.0, 10.0, 0.0))
    found = look(made_ballot(truth, twin=twin), truth, VoteConfig(triples=1500, climb=24, fits=6))
    ballot = made_ballot(truth)
    assert off(found[0].ct_T_image, twin, ballot) < 2.5
    assert off(found[1].ct_T_image, truth, ballot) < 5.0  # the likelier one's tail draws at it
    assert found[0].score > found[1].score


def test_what_lies_out_of_reach_is_not_taken() -> None:
    truth = pose((0.0, 2.0, -4.0), (0.0, 0.0, 40.0))
    start = pose((0.0, 2.0, -4.0), (0.0, 0.0, 0.0))
    best = look(made_ballot(truth), start, replace(VoteConfig(), reach_deg=15.0))[0]
    assert float(rotation.geodesic_angle(best.ct_T_image[:3, :3], start[:3, :3])) <= math.radians(15.0)


def test_the_kernel_scores_as_plain_interpolation_does() -> None:
    truth = pose((3.0, 2.0, -4.0), (5.0, -8.0, 3.0))
    ballot = made_ballot(truth, outliers=0.3)
    poses = torch.stack([truth, pose((30.0, -9.0, 20.0), (30.0, 0.0, 10.0))])
    index_T_ct = torch.linalg.inv(ballot.ct_T_index)
    expected_scores = []
    for p in poses:
        at = se3.transform_points(index_T_ct @ p, ballot.points)
        low, total = torch.floor(at).long(), torch.zeros(len(at), dtype=torch.float64)
        for corner in torch.cartesian_prod(*[torch.tensor([0, 1])] * 3):
            x, y, z = (low + corner).unbind(-1)
            d, h, w = ballot.rows.shape
            inside = (x >= 0) & (y >= 0) & (z >= 0) & (x < w) & (y < h) & (z < d)
            row = ballot.rows[z.clamp(0, d - 1), y.clamp(0, h - 1), x.clamp(0, w - 1)]
            share = (1 - (at - (low + corner)).abs()).prod(-1)
            value = ballot.ratio[torch.arange(len(at)), row.clamp_min(0).long()].double()
            total += torch.where(inside & (row >= 0), share * value, torch.zeros(()))
        expected_scores.append(torch.log(0.05 + 0.95 * total).mean())
    torch.testing.assert_close(scores(ballot, poses, 0.05), torch.stack(expected_scores), atol=1e-6, rtol=1e-6)


def test_expectation_within_a_wide_window_is_the_plain_mean() -> None:
    truth = pose((3.0, 2.0, -4.0), (5.0, -8.0, 3.0))
    ballot = made_ballot(truth)
    (places,), (mass,) = expected(ballot, truth[None], 1e4)
    weights = ballot.ratio.double() / ballot.ratio.double().sum(1, keepdim=True)
    torch.testing.assert_close(places, weights @ ballot.places, atol=1e-3, rtol=0)
    torch.testing.assert_close(mass, torch.ones_like(mass), atol=1e-4, rtol=0)
    assert off(whole_expectation(ballot), truth, ballot) < 3.0


def test_triples_keep_their_sides() -> None:
    ballot = made_ballot(pose((3.0, 2.0, -4.0), (5.0, -8.0, 3.0)))
    found = triples(ballot, VoteConfig(triples=50))
    assert len(found) == 50
    torch.testing.assert_close(torch.linalg.det(found[:, :3, :3]), torch.ones(50, dtype=torch.float64))


def test_a_rigid_fit_of_points_in_a_plane() -> None:
    truth = pose((3.0, 2.0, -4.0), (70.0, -80.0, 120.0))
    points = made_ballot(truth).points
    weight = torch.rand(len(points), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = rigid_fit.rigid_fit(points, se3.transform_points(truth, points), weight)
    torch.testing.assert_close(found, truth, atol=1e-9, rtol=0)


def test_covariance_of_a_fit_is_that_of_repeated_noise() -> None:
    truth, generator = pose((3.0, 2.0, -4.0), (20.0, -8.0, 12.0)), torch.Generator().manual_seed(2)
    points = made_ballot(truth).points - torch.tensor([45.0, 45.0, 0.0], dtype=torch.float64)
    exact, weight = se3.transform_points(truth, points), torch.ones(len(points), dtype=torch.float64)
    twists, stated = [], []
    for _ in range(200):
        noisy = exact + 2.0 * torch.randn(exact.shape, generator=generator, dtype=torch.float64)
        found = rigid_fit.rigid_fit(points, noisy, weight)
        twists.append(se3.log(se3.inverse(found) @ truth))
        stated.append(rigid_fit.fit_covariance(points, noisy, weight, found))
    ratio = torch.stack(twists).var(0) / torch.stack(stated).mean(0).diagonal()
    assert bool(((ratio > 0.7) & (ratio < 1.4)).all()), ratio


@pytest.mark.parametrize("change", [{"triples": -1}, {"keep": 9}, {"windows_mm": (3.0, 5.0)}, {"floor": 0.0}])
def test_settings_that_make_no_sense(change: dict) -> None:
    with pytest.raises(ConfigError):
        VoteConfig(**change)


def test_a_fit_of_bad_points() -> None:
    points = torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(GeometryError, match="three finite points"):
        rigid_fit.rigid_fit(points, points * math.nan, torch.ones(4, dtype=torch.float64))
    with pytest.raises(GeometryError, match="weights"):
        rigid_fit.rigid_fit(points, points, torch.zeros(4, dtype=torch.float64))
    with pytest.raises(ShapeError):
        rigid_fit.rigid_fit(points, points[:3], torch.ones(4, dtype=torch.float64))
