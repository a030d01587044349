# SPDX-License-Identifier: Apache-2.0
"""A session that ships: an encoder arm scans a breathing abdomen. Research use only."""

from launch import LaunchDescription
from usreg.nodes.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Arguments: ros2 launch usreg volunteer.launch.py --show-args"""
    return describe("volunteer")
