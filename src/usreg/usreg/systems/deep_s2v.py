# SPDX-License-Identifier: Apache-2.0
"""Live 2D ultrasound to 3D ultrasound by networks, after the paper on DeepRS2V.

Three modes. `usreg`: a network says where each part of the frame may lie in the volume, a rigid fit takes the most
likely pose, and the engine refines it. `paper`: DeepRS2V as published, one network that regresses the correction;
with `correction`, LNCC climbed afterwards. `fvr`: its baseline FVR-Net, the same way. Around all of them the temporal
workflow of the paper's Fig. 1 (`registration.temporal`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..config import from_mapping, to_mapping
from ..data.share import share_dir
from ..errors import ConfigError
from ..registration.agreement import Stage
from ..registration.correction import Correction, CorrectionConfig
from ..registration.learned.correspond import Correspond, CorrespondConfig
from ..registration.learned.hypothesised import Hypothesised, HypothesisedConfig
from ..registration.learned.load import load_correspondence, load_regressor
from ..registration.learned.regress import Regress, RegressConfig
from ..registration.refine import Refine, RefineConfig
from ..registration.refine_options import complete, merged, preset
from ..registration.registrar import Registrar, RegistrarConfig
from ..registration.temporal import Temporal, TemporalConfig

NAME = "deep_s2v"
PRESET = "s2v"  # of the refinement: config/systems/intensity_s2v.yaml
SHORT = ("similarity", "optimizer")  # options of the refinement that may stand beside the others
PUBLISHED = TemporalConfig("image", refused=True)  # there: delta in the image frame, and no gate


@dataclass(frozen=True)
class DeepS2vConfig:
    """Options of the system.

    Args:
        mode: see the module. weights: a file that `usreg train deep_s2v` wrote; "": the one that ships for the mode.
        correction: LNCC is climbed after a regression network.
        workflow: keys of `TemporalConfig`; what is not given is as published in the modes `paper` and `fvr`. In mode
            `usreg` a frame begins where its problem says: live that is the filter's `world_T_ct`.
        refine: keys of `RefineConfig`: the refinement of mode `usreg`, and the gate of all modes. None: the network
            alone.
        descent: keys of `CorrectionConfig`. look: keys of `CorrespondConfig`, hypotheses: keys of `HypothesisedConfig`,
            both for mode `usreg`.
    """

    mode: Literal["usreg", "paper", "fvr"] = "usreg"
    weights: str = ""
    correction: bool = False
    workflow: dict[str, Any] = field(default_factory=dict)
    refine: dict[str, Any] | None = field(default_factory=dict)
    descent: dict[str, Any] = field(default_factory=dict)
    look: dict[str, Any] = field(default_factory=dict)
    hypotheses: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.correction and self.mode == "usreg":
            raise ConfigError(
                "'correction' follows a regression network; mode usreg refines by the engine: leave it out"
            )

    @property
    def path(self) -> Path:
        """Of the weights."""
        return Path(self.weights) if self.weights else shipped(self.mode)


def shipped(mode: str) -> Path:
    """Where the weights of a mode lie."""
    return share_dir() / "config" / "weights" / f"{NAME}_{mode}.safetensors"


def build(options: Mapping[str, Any], modality: str = "") -> Registrar:
    """A registrar in the temporal workflow.

    Args:
        options: keys of `DeepS2vConfig`; `similarity` and `optimizer` go into `refine`.
        modality: of the volume; it must be ultrasound, or unknown.

    Raises:
        ConfigError: an unknown key or value, a CT or MR, weights of another mode or configuration.
        MissingFileError, FileFormatError: no weights, or not usable ones.
    """
    if modality not in ("", "US"):
        raise ConfigError(f"system {NAME} registers 3D ultrasound, the volume is {modality}: choose system 'intensity'")
    short = {key: value for key, value in options.items() if key in SHORT}
    config = from_mapping(DeepS2vConfig, {k: v for k, v in options.items() if k not in SHORT}, NAME)
    tuned = preset(PRESET) if config.mode == "usreg" else {}
    given = complete(merged(tuned, {**(config.refine or {}), **short}), modality)
    refine = from_mapping(RefineConfig, given, f"{NAME}.refine")
    base = TemporalConfig() if config.mode == "usreg" else PUBLISHED
    workflow = from_mapping(TemporalConfig, {**to_mapping(base), **config.workflow}, f"{NAME}.workflow")
    return Temporal(Registrar(_stages(config, refine), RegistrarConfig(NAME)), workflow)


def _stages(config: DeepS2vConfig, refine: RefineConfig) -> list[Stage]:
    if config.mode == "usreg":
        return _usreg(config, refine)
    network, crop = load_regressor(config.path, config.mode)
    stages: list[Stage] = [Regress(network, RegressConfig(crop, judge=refine))]
    if config.correction:
        descent = from_mapping(CorrectionConfig, config.descent, f"{NAME}.descent")
        stages.append(Correction(replace(descent, judge=refine)))
    return stages


def _usreg(config: DeepS2vConfig, refine: RefineConfig) -> list[Stage]:
    """The network alone, or its hypotheses refined."""
    network, view = load_correspondence(config.path, config.mode)
    look = from_mapping(CorrespondConfig, {"channel": refine.channel, **config.look}, f"{NAME}.look")
    correspond = Correspond(network, replace(look, view=view))
    if config.refine is None:
        return [correspond]
    hypotheses = from_mapping(HypothesisedConfig, config.hypotheses, f"{NAME}.hypotheses")
    return [Hypothesised(correspond, Refine(refine), hypotheses)]
