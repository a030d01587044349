# SPDX-License-Identifier: Apache-2.0
"""A recording on the live page, without ROS: opened by an index of its frames, played, registered beside it."""
