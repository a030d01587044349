# SPDX-License-Identifier: Apache-2.0
"""Networks as stages of a registrar, and what they are fed with."""
