# SPDX-License-Identifier: Apache-2.0
"""Options of the refinement, completed: what follows from the volume's modality, and what was tuned for a similarity.

Two options may be left out, or be "auto": `similarity` is then chosen by the volume's modality, `optimizer` by the
similarity. What was tuned for a similarity stands in `config/systems/intensity_<similarity>.yaml`, for a CT without a
word about the similarity in `intensity_ct.yaml`; an option that is given replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import load_yaml
from ..data.share import share_dir
from ..errors import ConfigError
from ..similarity import SIMILARITIES
from .matchers import LEAST_SQUARES

AUTO = "auto"
ACROSS = ("CT", "MR")  # modalities whose brightness says nothing of that of ultrasound
SAME_SIMILARITY, ACROSS_SIMILARITY = "ncc", "lc2"
WITHOUT_LEAST_SQUARES = "lbfgs"  # its climbs reached the best scores in the least time


def complete(options: Mapping[str, Any], modality: str = "") -> dict[str, Any]:
    """The options with similarity, optimizer and what was tuned for the similarity.

    Raises:
        ConfigError: there is no such similarity; the message lists those that there are.
    """
    found = {key: value for key, value in options.items() if value != AUTO}
    if modality == "CT" and "similarity" not in found:
        found = merged(preset("ct"), found)
    similarity = found.setdefault("similarity", ACROSS_SIMILARITY if modality in ACROSS else SAME_SIMILARITY)
    if similarity not in SIMILARITIES:
        raise ConfigError(f"there is no similarity '{similarity}'; choose one of {[AUTO, *SIMILARITIES]}")
    found = merged(preset(similarity), found)
    found.setdefault("optimizer", "lm" if similarity in LEAST_SQUARES else WITHOUT_LEAST_SQUARES)
    return found


def preset(similarity: str) -> dict[str, Any]:
    """What was tuned for a similarity, or for a CT ("ct"); nothing where no file ships for it."""
    path = share_dir() / "config" / "systems" / f"intensity_{similarity}.yaml"
    return load_yaml(path) if path.is_file() else {}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with changes; mappings within are merged too, everything else is replaced."""
    found = dict(base)
    for key, value in changes.items():
        inner = found.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        found[key] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return found
