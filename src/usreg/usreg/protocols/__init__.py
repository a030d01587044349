# SPDX-License-Identifier: Apache-2.0
"""Protocols: methods compared on the same pairs, and the report of it."""

from .s2v import S2vConfig, evaluate_s2v

__all__ = ["S2vConfig", "evaluate_s2v"]
