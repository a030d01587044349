# SPDX-License-Identifier: Apache-2.0
"""From measured poses or joints to the pose of every frame at its stamp, with covariance."""

from .history import History
from .joints import JointBuffer, JointBufferConfig
from .poses import PoseBuffer, PoseBufferConfig
from .samples import SampleBuffer, StreamConfig
from .tracker import Tracker, image_in_probe

__all__ = [
    "History",
    "JointBuffer",
    "JointBufferConfig",
    "PoseBuffer",
    "PoseBufferConfig",
    "SampleBuffer",
    "StreamConfig",
    "Tracker",
    "image_in_probe",
]
