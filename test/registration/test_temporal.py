# SPDX-License-Identifier: Apache-2.0
"""The temporal workflow on analytic motions: what a correction means to the next frame, and when it is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from usreg.config import from_mapping
from usreg.data.types import Estimate, Frame, Problem, Rigid, TrackedFrame, Volume, start_estimate
from usreg.errors import ConfigError, NoOverlapError
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.plane import PlaneGrid
from usreg.geometry.sector import full_rectangle
from usreg.registration.registrar import Registrar
from usreg.registration.temporal import Temporal, TemporalConfig, corrected, correction
from usreg.registration.window import Window

VOLUME = Volume(torch.zeros(1, 8, 8, 8, dtype=torch.uint8), VoxelGrid((8, 8, 8), (5.0, 5.0, 5.0), (3.0, -2.0, 9.0)))
FRAME = Frame(torch.zeros(6, 5, dtype=torch.uint8), full_rectangle(PlaneGrid(6, 5, ((1.0, 0.0), (0.0, 1.0)))), 0.0)


def pose(*twist: float) -> Tensor:
    return se3.exp(torch.tensor(twist, dtype=torch.float64))


RECORDED = pose(300.0, -150.0, 420.0, 0.9, -0.4, 1.1)  # world_T_ct where the volume was recorded
MOVED = pose(6.0, -9.0, 3.0, 0.0, 0.0, 0.0) @ RECORDED  # the organ has moved, and did not turn
TURNED = pose(6.0, -9.0, 3.0, 0.1, 0.05, -0.08) @ RECORDED  # it turned, too
HERE = pose(10.0, 20.0, 30.0, 0.2, 0.3, -0.1)  # world_T_image
ASIDE = pose(25.0, -14.0, 8.0, 0.0, 0.0, 0.0) @ HERE
ROLLED = HERE @ pose(0.0, 0.0, 0.0, 0.0, 0.0, 1.5)


class Perfect:
    """A stage that always finds the truth, notes where it began, and may be told to fail."""

    def __init__(self, truth: Tensor) -> None:
        self.truth, self.starts, self.fail, self.accepted = truth, list[Estimate](), False, True

    def prepare(self, volume: Volume) -> None:
        self.prepared = volume

    def __call__(self, problem: Problem, estimate: Estimate) -> Estimate:
        assert problem.start is estimate
        self.starts.append(estimate)
        if self.fail:
            raise NoOverlapError("outside")
        return replace(estimate, transform=Rigid(self.truth), accepted=self.accepted, reason="")


def tracked(stamp_s: float, world_T_image: Tensor) -> TrackedFrame:
    return TrackedFrame(replace(FRAME, stamp_s=stamp_s), world_T_image)


def run(workflow: Temporal, stamp_s: float, world_T_image: Tensor, volume: Volume = VOLUME) -> Estimate:
    covariance = torch.diag(torch.arange(1.0, 7.0, dtype=torch.float64))
    return workflow(Problem((tracked(stamp_s, world_T_image),), volume, start_estimate(RECORDED, volume, covariance)))


def starts(carry: str, truth: Tensor, images: list[Tensor]) -> list[Tensor]:
    """Where the search of each frame begins, 0.1 s apart."""
    stage = Perfect(truth)
    workflow = Temporal(Registrar([stage]), TemporalConfig(carry))  # type: ignore[arg-type]
    for number, image in enumerate(images):
        run(workflow, 0.1 * number, image)
    return [s.world_T_ct for s in stage.starts]


@pytest.mark.parametrize("truth", [MOVED, TURNED], ids=["moved", "turned"])
def test_what_rests_in_the_world_is_found_again_however_the_probe_moves(truth: Tensor) -> None:
    first, *later = starts("world", truth, [HERE, ASIDE, ROLLED, HERE])
    assert torch.equal(first, RECORDED)
    for start in later:
        assert torch.allclose(start, truth, atol=1e-9)


def test_as_published_a_correction_turns_with_the_probe() -> None:
    _, still, aside, rolled = starts("image", MOVED, [HERE, HERE, ASIDE, ROLLED])
    assert torch.allclose(still, MOVED, atol=1e-9)
    assert torch.allclose(aside, MOVED, atol=1e-9)  # a shift alone takes a shift along as it is
    shift, found = ((w @ se3.inverse(RECORDED))[:3, 3] for w in (MOVED, rolled))
    assert torch.allclose(found.norm(), shift.norm()) and (found - shift).norm() > 5.0
    turn = (ROLLED @ se3.inverse(HERE))[:3, :3]
    assert torch.allclose(found, turn @ shift, atol=1e-9)  # it has turned just as the probe has


def test_as_published_a_turned_organ_is_off_even_if_the_probe_only_shifts() -> None:
    _, aside = starts("image", TURNED, [HERE, ASIDE])
    assert (aside - TURNED)[:3, 3].norm() > 1.0


def test_every_frame_begins_at_its_own_start_where_nothing_is_carried() -> None:
    assert all(torch.equal(s, RECORDED) for s in starts("start", MOVED, [HERE, ASIDE, ROLLED]))


def test_a_correction_goes_there_and_back() -> None:
    delta = correction(RECORDED, tracked(0.0, HERE), TURNED)
    assert torch.allclose(corrected(RECORDED, tracked(0.0, HERE), delta), TURNED, atol=1e-9)
    on_arm, found = (se3.inverse(w) @ HERE for w in (RECORDED, TURNED))
    assert torch.allclose(on_arm @ delta, found, atol=1e-9)  # T(tracking) T(delta), equation 2


def test_the_start_keeps_its_covariance_about_the_volumes_centre() -> None:
    stage = Perfect(MOVED)
    workflow = Temporal(Registrar([stage]), TemporalConfig("world"))
    run(workflow, 0.0, HERE)
    run(workflow, 0.1, ASIDE)
    begin = stage.starts[1]
    assert torch.equal(begin.covariance.diagonal(), torch.arange(1.0, 7.0, dtype=torch.float64))
    assert torch.allclose(begin.pivot, se3.transform_points(MOVED, VOLUME.grid.centre_ct[None])[0])
    assert not begin.accepted


@pytest.mark.parametrize("carry", ["world", "image"])
def test_a_lost_frame_leaves_the_correction_until_it_is_too_old(carry: str) -> None:
    stage = Perfect(MOVED)
    workflow = Temporal(Registrar([stage]), TemporalConfig(carry, max_age_s=1.0))  # type: ignore[arg-type]
    run(workflow, 0.0, HERE)
    stage.fail = True
    for stamp_s in (0.5, 1.0, 1.5):
        with pytest.raises(NoOverlapError):
            run(workflow, stamp_s, HERE)
    found = [s.world_T_ct for s in stage.starts]
    assert torch.allclose(found[1], MOVED, atol=1e-9) and torch.allclose(found[2], MOVED, atol=1e-9)
    assert torch.equal(found[3], RECORDED)  # from the arm alone


@pytest.mark.parametrize("refused", [False, True])
def test_what_the_gate_refused_is_carried_only_if_asked_for(refused: bool) -> None:
    stage = Perfect(MOVED)
    stage.accepted = False
    workflow = Temporal(Registrar([stage]), TemporalConfig("world", refused))
    for stamp_s in (0.0, 0.1):
        run(workflow, stamp_s, HERE)
    assert torch.equal(stage.starts[1].world_T_ct, MOVED if refused else RECORDED)


def forget_by_reset(workflow: Temporal) -> Estimate:
    workflow.reset()
    return run(workflow, 0.1, HERE)


FORGET: dict[str, Callable[[Temporal], Estimate]] = {
    "reset": forget_by_reset,
    "backward": lambda w: run(w, -1.0, HERE),
    "the same frame again": lambda w: run(w, 0.0, HERE),
    "another volume": lambda w: run(w, 0.1, HERE, replace(VOLUME)),
}


@pytest.mark.parametrize("carry", ["world", "image"])
@pytest.mark.parametrize("how", FORGET)
def test_it_forgets(how: str, carry: str) -> None:
    stage = Perfect(MOVED)
    workflow = Temporal(Registrar([stage]), TemporalConfig(carry))  # type: ignore[arg-type]
    run(workflow, 0.0, HERE)
    FORGET[how](workflow)
    assert torch.equal(stage.starts[1].world_T_ct, RECORDED)


def test_a_result_that_comes_after_a_reset_is_not_carried() -> None:
    stage = Perfect(MOVED)

    class Slow(Registrar):
        def __call__(self, problem: Problem, start: Estimate | None = None) -> Estimate:
            found = super().__call__(problem, start)
            if len(stage.starts) == 1:
                workflow.reset()
            return found

    workflow = Temporal(Slow([stage]), TemporalConfig("world"))
    run(workflow, 0.0, HERE)
    run(workflow, 0.1, HERE)
    assert torch.equal(stage.starts[1].world_T_ct, RECORDED)


def test_a_sweep_neither_takes_nor_leaves_a_correction() -> None:
    stage = Perfect(MOVED)
    workflow = Temporal(Registrar([stage]), TemporalConfig("world"))
    run(workflow, 0.0, HERE)
    sweep = (tracked(0.1, HERE), tracked(0.2, ASIDE))
    workflow(Problem(sweep, VOLUME, start_estimate(RECORDED, VOLUME)))
    run(workflow, 0.05, ASIDE)
    assert torch.equal(stage.starts[1].world_T_ct, RECORDED) and torch.equal(stage.starts[2].world_T_ct, MOVED)


def test_it_wraps_a_registrar_that_has_state_of_its_own() -> None:
    stage = Perfect(MOVED)
    window = Window(Registrar([stage]))
    workflow = Temporal(window, TemporalConfig("world"))
    workflow.prepare(VOLUME)
    assert stage.prepared is VOLUME
    run(workflow, 0.0, HERE)
    assert window._kept
    workflow.reset()
    assert not window._kept


def test_a_wrong_word_is_refused() -> None:
    for wrong in ({"carry": "moon"}, {"max_age_s": 0.0}, {"delta": 1}):
        with pytest.raises(ConfigError):
            from_mapping(TemporalConfig, wrong)
