# SPDX-License-Identifier: Apache-2.0
"""A live session: any driver's images and an arm's joints or TF. Research use only."""

from launch import LaunchDescription
from usreg.nodes.launching import describe


def generate_launch_description() -> LaunchDescription:
    """Arguments: ros2 launch usreg live.launch.py --show-args"""
    return describe("live")
