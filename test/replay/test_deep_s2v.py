# SPDX-License-Identifier: Apache-2.0
"""The volunteer that ships, registered by networks: the first seconds, with the weights that ship."""

from __future__ import annotations

from itertools import islice

import pytest

from usreg.replay import ReplayConfig, build_navigator, find_session, fixed_threads, run_session
from usreg.systems.deep_s2v import shipped

FRAMES = 12


@pytest.mark.skipif(not shipped("usreg").is_file(), reason="no weights of mode usreg lie in config/weights")
def test_the_volunteer_is_followed_by_networks() -> None:
    session = find_session("volunteer")
    with fixed_threads():
        navigator, feed = build_navigator(session, ReplayConfig(system="deep_s2v"))
        steps = list(islice(run_session(session, navigator, feed), FRAMES))
    results = [step.result for step in steps]
    # the first is looked for from a start up to 10 mm off, and may be refused: nothing is given out that is not sure
    assert [r.status for r in results[1:]] == ["TRACKING"] * (FRAMES - 1), [r.reason for r in results]
    assert all(r.estimate is not None and r.estimate.system == "deep_s2v" for r in results)
    errors = [step.error_mm(step.registered) for step in steps[1:]]
    first = results[0].estimate  # right, even where it is not given out
    assert first is not None and steps[0].error_mm(first.world_T_ct) < 2.0
    assert steps[0].row().initial_tre_mm > 5.0 and max(errors) < 2.0
