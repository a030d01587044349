# SPDX-License-Identifier: Apache-2.0
"""Named points of a body: vessel bifurcations in the liver, poles of organs, bony points for the scan paths."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .frame import Frame
from .kidneys import Kidney
from .liver import Liver
from .liver_vessels import LiverVessels
from .shapes import Field, Points
from .skeleton import costal_margin, xiphoid_tip
from .tree import Tree

LEAST_RADIUS_MM = 1.0
LEAST_COUNT = 12


def landmarks(
    frame: Frame, liver: Liver, vessels: LiverVessels, kidneys: dict[str, Kidney], spleen: Field
) -> dict[str, Tensor]:
    """All landmarks, mm: name -> (3,) float64."""
    found: dict[str, Points] = {}
    for name, tree in (("portal", vessels.portal), ("hepatic", vessels.hepatic)):
        for i, point in enumerate(bifurcations(tree, vessels, liver.field), start=1):
            found[f"{name}_bifurcation_{i:02d}"] = point
    for side, kidney in kidneys.items():
        found[f"kidney_{side}_upper_pole"], found[f"kidney_{side}_lower_pole"] = kidney.poles
    found |= {f"liver_{end}": point for end, point in zip(("lower_pole", "dome"), ends(liver.field), strict=True)}
    found |= {f"spleen_{end}_pole": point for end, point in zip(("lower", "upper"), ends(spleen), strict=True)}
    found["gallbladder_neck"], found["gallbladder_fundus"] = liver.gallbladder_axis[[0, -1], :3]
    found["xiphoid"] = xiphoid_tip(frame)
    for name, side in (("right", -1.0), ("left", 1.0)):
        for i, point in enumerate(costal_margin(frame, side), start=1):
            found[f"costal_margin_{name}_{i}"] = point
    return {name: torch.tensor(np.asarray(p, dtype=np.float64)) for name, p in found.items()}


def bifurcations(tree: Tree, vessels: LiverVessels, liver: Field) -> Points:
    """Forks (N, 3) inside the liver, thickest first.

    Forks whose thinner branch has a radius of 1 mm or more; where those are fewer than twelve, the thickest twelve.
    """
    pairs = [(i, tree.children(i)) for i in range(len(tree.flow))]
    forks = [(float(tree.radius[c].min()), tree.stop[i]) for i, c in pairs if len(c) == 2]
    forks = sorted(forks, key=lambda fork: -fork[0])
    thick = [point for radius, point in forks if radius >= LEAST_RADIUS_MM]
    points = vessels.bent(np.array(thick if len(thick) >= LEAST_COUNT else [p for _, p in forks[:LEAST_COUNT]]))
    return points[liver.at(points) < -2.0]


def ends(field: Field) -> Points:
    """(2, 3) lowest and highest point of a field's inside: the mean of its extreme layer."""
    inside = np.argwhere(field.values < 0)
    origin, step = np.array(field.lattice.origin_mm), field.lattice.step_mm
    layers = [inside[inside[:, 0] == k].mean(axis=0) for k in (inside[:, 0].min(), inside[:, 0].max())]
    return origin + step * np.array(layers)[:, ::-1]
