# SPDX-License-Identifier: Apache-2.0
"""Arms that carry the probe: chains from DH, YAML or URDF, their Jacobian, limits and inverse."""

from .arm import Arm, ArmConfig, load_arm
from .chain import Chain
from .inverse import InverseConfig, inverse
from .limits import JointLimits

__all__ = ["Arm", "ArmConfig", "Chain", "InverseConfig", "JointLimits", "inverse", "load_arm"]
