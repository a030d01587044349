# SPDX-License-Identifier: Apache-2.0
"""A recorded session through the Navigator, without ROS, and the report of it."""

from .build import ReplayConfig, build_navigator, find_session
from .run import fixed_threads, replay_session, run_session
from .step import Step

__all__ = [
    "ReplayConfig",
    "Step",
    "build_navigator",
    "find_session",
    "fixed_threads",
    "replay_session",
    "run_session",
]
