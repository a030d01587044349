# SPDX-License-Identifier: Apache-2.0
"""The digital patient: bodies, a scanner, breathing, arms, and the sessions that they give. Truth is known."""

from .body import Body, BodyConfig, make_body
from .scanner import Scanner, ScannerConfig
from .scenario import SimulationConfig, default_config
from .session import prepare, simulate, simulate_phantom, simulate_volunteer

__all__ = [
    "Body",
    "BodyConfig",
    "Scanner",
    "ScannerConfig",
    "SimulationConfig",
    "default_config",
    "make_body",
    "prepare",
    "simulate",
    "simulate_phantom",
    "simulate_volunteer",
]
