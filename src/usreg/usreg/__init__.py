# SPDX-License-Identifier: Apache-2.0
"""usreg: registers live ultrasound frames to a pre-procedural volume. Research use only."""

__version__ = "0.1.0"
