# SPDX-License-Identifier: Apache-2.0
"""From single estimates of `world_T_ct` to a pose with covariance at any stamp."""

from .agreement import Breathing, FilterUpdate, Prediction, Smoother
from .config import FilterConfig
from .hold import NoSmoothing
from .pose_filter import PoseFilter

__all__ = ["Breathing", "FilterConfig", "FilterUpdate", "NoSmoothing", "PoseFilter", "Prediction", "Smoother"]
