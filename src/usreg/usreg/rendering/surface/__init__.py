# SPDX-License-Identifier: Apache-2.0
"""Closed triangle meshes of voxels."""

from .closed import Surface, SurfaceConfig, closed_mesh, enclosed_volume, mask_area, vertex_normals

__all__ = ["Surface", "SurfaceConfig", "closed_mesh", "enclosed_volume", "mask_area", "vertex_normals"]
