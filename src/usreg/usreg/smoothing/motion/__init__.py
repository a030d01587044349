# SPDX-License-Identifier: Apache-2.0
"""How the volume may move between estimates: one file for each model, and a bank of them."""
