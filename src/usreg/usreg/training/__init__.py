# SPDX-License-Identifier: Apache-2.0
"""Training of networks: pairs drawn on the fly, one loop for every system, and the runs of the systems."""
