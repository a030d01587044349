# SPDX-License-Identifier: Apache-2.0
"""What a segmentation of organs leaves out: outline, skin, fat, muscle, bone, gas, vessels of the liver, medulla."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    binary_erosion,
    binary_fill_holes,
    binary_opening,
    distance_transform_edt,
    find_objects,
    gaussian_filter,
    label,
)

from ...config import check_range
from .relabel import Labels
from .sampling import Field
from .types import VALUE

Mask = NDArray[np.bool_]
SUPERFICIAL = (VALUE["skin"], VALUE["subcutaneous_fat"], VALUE["muscle"])
COARSE_MM = 3.0  # step at which subcutaneous and visceral fat are told apart


@dataclass(frozen=True)
class FillConfig:
    """How the rest of the body is filled.

    Args:
        body_hu: what lies above it, in one piece and with its holes, is the body. gas_hu, fat_hu, bone_hu: unlabelled
            voxels below, below and above them are gas, fat and bone; the others are muscle.
        skin_mm: thickness of the skin. wall_mm: fat that is reached from the skin through passages wider than this is
            subcutaneous.
        cortex_mm: kidney deeper than this is medulla (cortex 5-10 mm: Emamian et al., AJR 160 (1993) 83).
        vessel_sd: liver brighter than its median by this many standard deviations, and at least vessel_hu, in pieces
            of vessel_mm3 or more, is vessel.
        shell_mm: fat and skin around the labels where there is no CT to see them.
    """

    body_hu: float = -300.0
    gas_hu: float = -300.0
    fat_hu: float = -30.0
    bone_hu: float = 300.0
    skin_mm: float = 2.0
    wall_mm: float = 6.0
    cortex_mm: float = 7.0
    vessel_sd: float = 2.5
    vessel_hu: float = 20.0
    vessel_mm3: float = 200.0
    shell_mm: float = 20.0

    def __post_init__(self) -> None:
        for name in ("body_hu", "gas_hu", "fat_hu", "bone_hu"):
            check_range(name, getattr(self, name), -1000.0, 3000.0)
        for name in ("skin_mm", "wall_mm", "cortex_mm", "shell_mm"):
            check_range(name, getattr(self, name), 0.0, 100.0)
        check_range("vessel_sd", self.vessel_sd, 1.0, 10.0)
        check_range("vessel_hu", self.vessel_hu, 0.0, 500.0)
        check_range("vessel_mm3", self.vessel_mm3, 0.0, 1e6)


def fill(labels: Labels, hu: Field | None, spacing_mm: float, config: FillConfig) -> Labels:
    """Labels of a whole body from labels of organs; unlabelled voxels (0) inside the body get a structure.

    Args:
        labels: (D, H, W), values of STRUCTURES. hu: CT on the same voxels; None: outline and fat from the labels alone.
        spacing_mm: of the isotropic voxels.
    """
    result = labels.copy()
    if hu is None:
        body = hull_outline(labels > 0, config.shell_mm / spacing_mm)
        result[body & (labels == 0)] = VALUE["visceral_fat"]
        fat = result == VALUE["visceral_fat"]
        depth = _depth(body, spacing_mm)
        result[fat & (depth <= config.shell_mm)] = VALUE["subcutaneous_fat"]
    else:
        body = ct_outline(hu > config.body_hu, labels > 0, spacing_mm)
        depth = _depth(body, spacing_mm)
        _by_hu(result, labels, hu, body, config)
        outer = (result == VALUE["visceral_fat"]) & ~hull_outline((labels > 0) & ~np.isin(labels, SUPERFICIAL), 0.0)
        result[_subcutaneous(outer, depth, spacing_mm, config)] = VALUE["subcutaneous_fat"]
        _liver_vessels(result, hu, spacing_mm, config)
    soft = np.isin(result, [VALUE[s] for s in ("subcutaneous_fat", "visceral_fat", "muscle")])
    result[body & soft & (depth <= config.skin_mm)] = VALUE["skin"]
    _medulla(result, spacing_mm, config.cortex_mm)
    return result


def _depth(body: Mask, spacing_mm: float) -> Field:
    """How deep the voxels' centres lie below the surface of the body, mm; the border of the volume is no surface."""
    if body.all():
        return np.full(body.shape, np.inf, np.float32)
    return np.asarray((distance_transform_edt(body) - 0.5) * spacing_mm, np.float32)


def ct_outline(bright: Mask, labelled: Mask, spacing_mm: float) -> Mask:
    """The body: the largest bright piece without the couch, holes filled slice by slice, and all labels."""
    thin = max(1, round(3.0 / spacing_mm))
    pieces, count = label(binary_opening(bright, iterations=thin))
    if count == 0:
        return labelled.copy()
    body = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    # what the opening took off the surface comes back, the couch does not
    body = bright & (distance_transform_edt(~body) <= thin) if not body.all() else body
    body |= labelled
    for k in range(len(body)):
        body[k] = binary_fill_holes(body[k])
    return body


def hull_outline(labelled: Mask, shell: float) -> Mask:
    """The convex hull of the labels in each slice, widened by a shell (voxels) in the slice."""
    body = np.zeros(labelled.shape, bool)
    for k in range(len(labelled)):
        points = np.argwhere(labelled[k])[:, ::-1].astype(np.int32)
        if len(points):
            image = np.zeros(labelled.shape[1:], np.uint8)
            cv2.fillConvexPoly(image, cv2.convexHull(points), 1)
            body[k] = distance_transform_edt(image == 0) <= shell if shell > 0 else image > 0
    return body


def _by_hu(result: Labels, labels: Labels, hu: Field, body: Mask, config: FillConfig) -> None:
    """Unlabelled voxels of the body by their Hounsfield units; gas also inside stomach and bowel."""
    free = body & (labels == 0)
    result[free] = VALUE["muscle"]
    result[free & (hu < config.fat_hu)] = VALUE["visceral_fat"]
    result[free & (hu > config.bone_hu)] = VALUE["ribs"]
    hollow = free | (labels == VALUE["stomach"]) | (labels == VALUE["bowel"])
    result[hollow & (hu < config.gas_hu)] = VALUE["bowel_gas"]


def _subcutaneous(fat: Mask, depth: NDArray[np.floating], spacing_mm: float, config: FillConfig) -> Mask:
    """Fat that is reached from the skin through passages wider than wall_mm; the rest lies behind the wall.

    Args:
        fat: outside the hull of ribs, spine and organs: what lies inside is visceral, whatever gaps the wall has.
    """
    step = max(1, round(COARSE_MM / spacing_mm))
    coarse = fat[::step, ::step, ::step]
    mm = step * spacing_mm
    core = binary_erosion(coarse, iterations=max(1, round(config.wall_mm / 2 / mm)), border_value=1)
    pieces, count = label(core)
    near = pieces[(depth[::step, ::step, ::step] < config.skin_mm + config.wall_mm / 2 + 2 * mm) & core]
    reached = np.isin(pieces, np.unique(near[near > 0])) if count else core
    shallow = fat & (depth < config.skin_mm + config.wall_mm)
    if not reached.any():
        return shallow
    close = distance_transform_edt(~reached) * mm <= config.wall_mm
    for axis in range(3):
        close = np.repeat(close, step, axis)
    d, h, w = fat.shape
    return shallow | (fat & close[:d, :h, :w])


def _liver_vessels(result: Labels, hu: Field, spacing_mm: float, config: FillConfig) -> None:
    """Bright pieces of the liver: portal where the portal vein is nearer than the vena cava, else hepatic vein."""
    box = find_objects((result == VALUE["liver"]).astype(np.uint8))
    if not box:
        return
    liver = result[box[0]] == VALUE["liver"]
    smooth = gaussian_filter(hu[box[0]], 1.0 / spacing_mm)
    median = float(np.median(smooth[liver]))
    spread = 1.4826 * float(np.median(np.abs(smooth[liver] - median)))
    bright = liver & (smooth > median + max(config.vessel_sd * spread, config.vessel_hu))
    pieces, count = label(bright)
    keep = np.bincount(pieces.ravel(), minlength=count + 1) * spacing_mm**3 >= config.vessel_mm3
    keep[0] = False
    for piece in np.flatnonzero(keep):
        at = np.argwhere(pieces == piece) + [s.start for s in box[0]]
        portal, hepatic = (_nearest(result == VALUE[v], at) for v in ("portal_vein", "inferior_vena_cava"))
        name = "portal_vein" if portal <= hepatic else "hepatic_vein"
        result[tuple(at.T)] = VALUE[name]


def _nearest(mask: Mask, points: NDArray[np.int64]) -> float:
    """Least distance in voxels from points to a mask; infinite where the mask is empty."""
    found = np.argwhere(mask)[::7]
    if not len(found):
        return np.inf
    few = points[:: max(1, len(points) // 200)]
    return float(np.sqrt(((few[:, None] - found[None]) ** 2).sum(axis=2).min()))


def _medulla(result: Labels, spacing_mm: float, cortex_mm: float) -> None:
    """Kidney deeper than its cortex; a segmentation gives the kidney as a whole, without its sinus."""
    for side in ("right", "left"):
        cortex = VALUE[f"kidney_{side}_cortex"]
        for box in find_objects((result == cortex).astype(np.uint8)):
            wide = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
            part = result[wide]
            depth = distance_transform_edt(part == cortex) * spacing_mm
            part[depth > cortex_mm] = VALUE[f"kidney_{side}_medulla"]
