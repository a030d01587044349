# SPDX-License-Identifier: Apache-2.0
"""A session that ships: an iiwa scans a speckled phantom. Research use only."""

from launch import LaunchDescription
from usreg.nodes.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Arguments: ros2 launch usreg phantom.launch.py --show-args"""
    return describe("phantom")
