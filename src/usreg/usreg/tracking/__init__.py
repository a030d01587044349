# SPDX-License-Identifier: Apache-2.0
"""From measured poses or joints to the pose of every frame at its stamp, with covariance."""

from .joints import JointBuffer, JointBufferConfig
from .poses import PoseBuffer, PoseBufferConfig
from .samples import SampleBuffer, StreamConfig
from .tracker import Tracker

__all__ = [
    "JointBuffer",
    "JointBufferConfig",
    "PoseBuffer",
    "PoseBufferConfig",
    "SampleBuffer",
    "StreamConfig",
    "Tracker",
]
