# SPDX-License-Identifier: Apache-2.0
"""A recorded session: bag:=FOLDER. Research use only."""

from launch import LaunchDescription
from usreg.nodes.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Arguments: ros2 launch usreg replay.launch.py --show-args"""
    return describe("replay")
