# SPDX-License-Identifier: Apache-2.0
"""The digital patient: a speckled phantom, an arm that scans it, and the session that this gives. Truth is known."""

from .phantom import Phantom, PhantomConfig, make_phantom
from .session import SimulationConfig, simulate_phantom

__all__ = ["Phantom", "PhantomConfig", "SimulationConfig", "make_phantom", "simulate_phantom"]
