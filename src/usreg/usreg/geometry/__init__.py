# SPDX-License-Identifier: Apache-2.0
"""Poses on SE(3), image planes, voxel grids and ultrasound sectors. Millimetres and radians."""
