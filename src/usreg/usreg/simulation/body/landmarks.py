# SPDX-License-Identifier: Apache-2.0
"""Named points of a body: vessel bifurcations in the liver, poles of organs, bony points for the scan paths."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .frame import Frame
from .kidneys import Kidney
from .liver import Lesion, Liver
from .liver_vessels import LiverVessels
from .shapes import Field, Points, tip
from .skeleton import costal_margin, xiphoid_tip
from .tree import Tree

LEAST_RADIUS_MM = 1.0
LEAST_COUNT = 12


def landmarks(
    frame: Frame,
    liver: Liver,
    vessels: LiverVessels,
    kidneys: dict[str, Kidney],
    spleen: Field,
    lesions: tuple[Lesion, ...],
) -> dict[str, Tensor]:
    """All landmarks, mm: name -> (3,) float64."""
    found: dict[str, Points] = {}
    for name, tree in (("portal", vessels.portal), ("hepatic", vessels.hepatic)):
        for i, point in enumerate(bifurcations(tree, vessels, liver.field, lesions), start=1):
            found[f"{name}_bifurcation_{i:02d}"] = point
    for side, kidney in kidneys.items():
        found[f"kidney_{side}_upper_pole"], found[f"kidney_{side}_lower_pole"] = kidney.poles
    found |= {f"liver_{end}": point for end, point in zip(("lower_pole", "dome"), ends(liver.field), strict=True)}
    found |= {f"spleen_{end}_pole": point for end, point in zip(("lower", "upper"), ends(spleen), strict=True)}
    neck, fundus = liver.gallbladder_axis[[0, -1], :3]
    found["gallbladder_neck"], found["gallbladder_fundus"] = neck, tip(liver.gallbladder, fundus - neck)
    found["xiphoid"] = xiphoid_tip(frame)
    for side, sign in (("right", -1.0), ("left", 1.0)):
        for i, point in enumerate(costal_margin(frame, sign), start=1):
            found[f"costal_margin_{side}_{i}"] = point
    return {name: torch.tensor(np.asarray(p, dtype=np.float64)) for name, p in found.items()}


def bifurcations(tree: Tree, vessels: LiverVessels, liver: Field, lesions: tuple[Lesion, ...]) -> Points:
    """Forks (N, 3) inside the liver and outside its lesions, thickest first.

    Forks whose thinner branch has a radius of 1 mm or more; where those are fewer than twelve, the thickest twelve.
    """
    pairs = [(i, tree.children(i)) for i in range(len(tree.flow))]
    forks = [(float(tree.radius[c].min()), tree.stop[i]) for i, c in pairs if len(c) == 2]
    forks = sorted(forks, key=lambda fork: -fork[0])
    thick = [point for radius, point in forks if radius >= LEAST_RADIUS_MM]
    points = vessels.bent(np.array(thick if len(thick) >= LEAST_COUNT else [p for _, p in forks[:LEAST_COUNT]]))
    keep = liver.at(points) < -2.0
    for lesion in lesions:
        keep &= np.linalg.norm(points - lesion.centre, axis=1) > 1.5 * lesion.radius_mm
    return points[keep]


def ends(field: Field) -> Points:
    """(2, 3) lowest and highest end of a field's inside."""
    return np.array([tip(field, np.array([0.0, 0.0, way])) for way in (-1.0, 1.0)])
