# SPDX-License-Identifier: Apache-2.0
"""A recorded session through the Navigator, without ROS, and the report of it."""

from .build import ReplayConfig, build_navigator, find_session
from .run import Step, replay_session, run_session

__all__ = ["ReplayConfig", "Step", "build_navigator", "find_session", "replay_session", "run_session"]
