# SPDX-License-Identifier: Apache-2.0
"""ROS 2 nodes: a thin coat over the library. Each converts, calls one part, converts back and publishes."""
