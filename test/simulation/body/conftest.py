# SPDX-License-Identifier: Apache-2.0
"""Coarse bodies that the tests of this folder share: each is made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from usreg.simulation.body import Body, BodyConfig, make_body


@pytest.fixture(scope="session")
def coarse_body() -> Callable[[int], Body]:
    """The body of a seed at 3 mm."""
    return cache(lambda seed: make_body(seed, BodyConfig(spacing_mm=3.0)))
