# SPDX-License-Identifier: Apache-2.0
"""Parts of the breathing model: cycles, path, phase search, and the transition of its state."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from usreg.geometry import se3
from usreg.smoothing.motion.config import BreathingModelConfig
from usreg.smoothing.motion.cycles import crossings, find_cycles
from usreg.smoothing.motion.learn import learn_path
from usreg.smoothing.motion.lock import find_phase
from usreg.smoothing.motion.memory import Memory, coordinates
from usreg.smoothing.motion.path import BreathPath
from usreg.smoothing.motion.phase import PhaseMotion
from usreg.smoothing.state import Measurement, State, difference

CONFIG = BreathingModelConfig()
PERIOD_S = 4.0
WAY = np.array([1.0, -3.0, -12.0, 0.03, 0.0, -0.01])
SIDE = np.array([0.0, 2.0, 0.0, 0.0, 0.01, 0.0])


def place(phase):
    """A loop: along WAY, with SIDE ahead of it; at rest for a while at phase 0.5."""
    level = np.cos(np.pi * phase) ** 4
    return level[..., None] * WAY + (np.sin(2 * np.pi * phase) * level)[..., None] * SIDE


def memory_of(stamps, places) -> Memory:
    eye, zero = torch.eye(4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    return Memory(eye, zero, stamps, places)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def breathed(rng):
    stamps = np.arange(0, 20, 0.1)
    noise = rng.standard_normal((len(stamps), 6)) * np.array([0.4, 0.4, 0.4, 0.004, 0.004, 0.004])
    return memory_of(stamps, place(stamps / PERIOD_S) + noise)


def test_cycles_are_found_with_their_length_and_depth(breathed):
    cycles = find_cycles(breathed.stamps, breathed.places, CONFIG)
    assert len(cycles) == 4
    for cycle in cycles:
        assert cycle.period_s == pytest.approx(PERIOD_S, abs=0.1)
        assert cycle.depth_mm == pytest.approx(np.linalg.norm(WAY[:3]), rel=0.15)
        assert cycle.fall == pytest.approx(0.36, abs=0.05)  # share of cos^4 above one half


def test_cycles_with_a_gap_a_pause_or_too_small_are_none(breathed):
    stamps, places = breathed.stamps, breathed.places
    keep = (stamps < 5.5) | (stamps > 6.5)
    assert len(find_cycles(stamps[keep], places[keep], CONFIG)) == 3
    paused = np.where(stamps > 10.2, stamps + 3.5, stamps)
    assert len(find_cycles(paused, places, CONFIG)) == 3
    assert find_cycles(stamps, 0.1 * places, CONFIG) == []
    assert find_cycles(stamps[:5], places[:5], CONFIG) == []


def test_noise_about_the_middle_does_not_make_crossings():
    stamps = np.arange(0, 8, 0.5)
    level = np.array([0, 0.2, 0.45, 0.55, 0.45, 0.55, 1, 1, 0.6, 0.4, 0.6, 0.4, 0, 0, 1, 1])
    rises, falls = crossings(stamps, level, 0.5, 0.2)
    assert rises == pytest.approx([2.25, 6.75]) and falls == pytest.approx([5.25])


def test_the_path_is_learnt_with_its_loop_and_is_zero_at_rest(breathed):
    path = learn_path(breathed, find_cycles(breathed.stamps, breathed.places, CONFIG), CONFIG)
    assert path.cycles == 4 and path.rate_hz == pytest.approx(1 / PERIOD_S, rel=0.03)
    rise_s = find_cycles(breathed.stamps, breathed.places, CONFIG)[-1].rise_s
    phases = np.linspace(0, 1, 50, endpoint=False)
    truth = place(rise_s / PERIOD_S + phases)
    found = path.at(phases) + path.base
    assert np.abs(found - truth)[:, :3].max() < 0.8 and np.abs(found - truth)[:, 3:].max() < 0.008
    assert np.linalg.norm(path.at(phases), axis=1).min() < 0.3
    assert np.abs(path.at(0.31) - path.at(1.31)).max() < 1e-9


def test_slope_is_the_derivative_of_the_path(breathed):
    path = learn_path(breathed, find_cycles(breathed.stamps, breathed.places, CONFIG), CONFIG)
    for phase in (0.0, 0.2, 0.55, 0.9):
        numeric = (path.at(phase + 1e-5) - path.at(phase - 1e-5)) / 2e-5
        np.testing.assert_allclose(path.slope(phase), numeric, atol=1e-6)


@pytest.mark.parametrize(("now_s", "rate"), [(13.0, 1.0), (15.4, 1.0), (16.2, 1.2), (15.0, 0.85)])
def test_the_phase_is_found_anywhere_in_a_moving_breath(breathed, rng, now_s, rate):
    path = learn_path(breathed, find_cycles(breathed.stamps, breathed.places, CONFIG), CONFIG)
    rise_s = find_cycles(breathed.stamps, breathed.places, CONFIG)[0].rise_s
    stamps = np.arange(-1.5, 0.01, 0.1)
    places = 0.9 * place((now_s + rate * stamps) / PERIOD_S) + 0.3 * rng.standard_normal(6) * (np.arange(6) < 3)
    lock = find_phase(memory_of(stamps, places), path, 1.4, 0.5)
    truth = (now_s - rise_s) / PERIOD_S
    assert abs((lock.phase - truth + 0.5) % 1.0 - 0.5) < 0.07
    assert lock.depth == pytest.approx(0.9, abs=0.2)


def test_no_phase_is_claimed_at_rest_off_the_path_or_from_too_little(breathed):
    path = learn_path(breathed, find_cycles(breathed.stamps, breathed.places, CONFIG), CONFIG)
    stamps = np.arange(-1.5, 0.01, 0.1)
    still = np.tile(path.base, (len(stamps), 1))
    assert find_phase(memory_of(stamps, still), path, 1.4, 0.5) is None
    aside = path.base + np.linspace(0, 15, len(stamps))[:, None] * np.array([1.0, 0, 0, 0, 0, 0])
    assert find_phase(memory_of(stamps, aside), path, 1.4, 0.5) is None
    assert find_phase(memory_of(stamps[-4:], still[-4:]), path, 1.4, 0.5) is None
    assert find_phase(memory_of(stamps[:0], still[:0]), path, 1.4, 0.5) is None


def test_the_transition_is_the_derivative_of_the_motion(breathed):
    path: BreathPath = learn_path(breathed, find_cycles(breathed.stamps, breathed.places, CONFIG), CONFIG)
    motion = PhaseMotion(CONFIG, path)
    rest = torch.tensor([0.85, 0.27, 1.1], dtype=torch.float64)
    pose = se3.exp(torch.tensor([10.0, 20.0, 30.0, 0.1, 0.2, 0.3], dtype=torch.float64))
    pivot = torch.tensor([100.0, -50.0, 20.0], dtype=torch.float64)
    state = State(0.0, 0.0, pose, pivot, rest, torch.eye(9, dtype=torch.float64))
    f, ahead = motion.transition(state, 0.3), motion.advance(state, 0.3)
    for column in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[column] = 1e-6
        other = motion.advance(replace(state, rest=rest + step), 0.3)
        moved = difference(ahead.world_T_ct, other.world_T_ct, ahead.pivot)
        numeric = torch.cat([moved, other.rest - ahead.rest]) / 1e-6
        torch.testing.assert_close(f[:, 6 + column], numeric, rtol=2e-3, atol=2e-3)
    assert torch.linalg.eigvalsh(ahead.covariance)[0] > 0


def test_coordinates_are_shift_of_the_centre_and_turn(room):
    pose = room.world_T_ct
    twist = torch.tensor([1.0, 2.0, 3.0, 0.01, -0.02, 0.03], dtype=torch.float64)
    there = room.moved(twist)
    found = coordinates(there, room.pivot(there), pose, room.pivot(pose))
    np.testing.assert_allclose(found[3:], twist[3:].numpy(), atol=1e-9)
    np.testing.assert_allclose(found[:3], (room.pivot(there) - room.pivot(pose)).numpy())


def test_the_memory_forgets_what_is_old(room):
    pose, pivot = room.world_T_ct, room.pivot(room.world_T_ct)
    memory = Memory.begin(Measurement(0.0, pose, room.covariance(1, 0.01), pivot))
    assert len(memory.stamps) == 0
    for k in range(30):
        memory = memory.add(Measurement(float(k), pose, room.covariance(1, 0.01), pivot), 10.0)
    assert memory.stamps[0] == 19.0 and memory.places.shape == (11, 6)
    assert memory.since(25.0)[0][0] == 25.0
