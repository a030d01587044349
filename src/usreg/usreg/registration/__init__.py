# SPDX-License-Identifier: Apache-2.0
"""Registration: stages that place a volume under tracked frames, and the registrar that runs them."""
