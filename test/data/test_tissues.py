# SPDX-License-Identifier: Apache-2.0
"""The tissue table: what ships is complete and physical; what does not fit is refused by name."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from usreg.data.share import share_dir
from usreg.data.tissues import RANGES, load_tissues, with_values
from usreg.errors import ConfigError, MissingFileError
from usreg.simulation.body.types import STRUCTURES


def test_every_structure_of_the_body_has_a_tissue_and_every_tissue_a_source() -> None:
    table = load_tissues()
    rows = table.rows(STRUCTURES)
    assert rows.shape == (31,) and rows.dtype == torch.int64 and int(rows.min()) >= 0
    assert table.names[int(rows[10])] == "liver" and table.names[int(rows[5])] == "bone"
    assert all(len(t.source) > 3 for t in table.tissues)


def test_tissues_stand_to_one_another_as_physics_and_the_clinic_say() -> None:
    t = {tissue.name: tissue for tissue in load_tissues().tissues}
    assert t["liver"].scatterer_mean == 1.0
    for soft in ("liver", "blood", "muscle", "spleen", "kidney_cortex", "fat", "bile", "skin"):
        density = t[soft].impedance_mrayl * 1e6 / t[soft].sound_speed_m_s
        assert 900 < density < 1150, soft
        assert abs(t["bone"].impedance_mrayl - t[soft].impedance_mrayl) > 4.0
    order = ("bile", "blood", "kidney_medulla", "kidney_cortex", "spleen", "liver", "pancreas", "kidney_sinus")
    means = [t[name].scatterer_mean for name in order]
    assert means == sorted(means)
    assert t["bone"].attenuation_db_cm_mhz > 5 and 0.4 <= t["liver"].attenuation_db_cm_mhz <= 0.7


def test_unnamed_values_have_no_row_and_the_background_need_not_be_named() -> None:
    table = load_tissues()
    rows = table.rows({2: "liver", 5: "vessels"})
    assert rows.tolist()[1] == rows.tolist()[3] == -1
    assert table.names[int(rows[0])] == "coupling" and table.names[int(rows[5])] == "blood"


def test_unknown_structures_are_all_named_in_the_error() -> None:
    with pytest.raises(ConfigError, match=r"antler.*tentacle"):
        load_tissues().rows({1: "liver", 2: "tentacle", 3: "antler"})
    for names in ({}, {-1: "liver"}):
        with pytest.raises(ConfigError, match="name the labels"):
            load_tissues().rows(names)


def test_columns_and_tables_with_other_numbers() -> None:
    table = load_tissues()
    louder = with_values(table, {"scatterer_mean": 2 * table.column("scatterer_mean")})
    assert torch.equal(louder.column("scatterer_mean"), 2 * table.column("scatterer_mean"))
    assert torch.equal(louder.column("impedance_mrayl"), table.column("impedance_mrayl"))
    with pytest.raises(ConfigError, match="no property"):
        table.column("name")
    with pytest.raises(ConfigError, match="does not fit"):
        with_values(table, {"scatterer_mean": torch.ones(3)})
    with pytest.raises(ConfigError, match="impedance"):
        with_values(table, {"impedance_mrayl": -table.column("impedance_mrayl")})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["tissues"]["liver"].update(impedance_mrayl=float("nan")), "impedance"),
        (lambda c: c["tissues"]["liver"].update(attenuation_db_cm_mhz=-1.0), "attenuation"),
        (lambda c: c["tissues"]["liver"].pop("scatterer_mean"), "scatterer_mean"),
        (lambda c: c["tissues"]["liver"].update(colour="red"), "colour"),
        (lambda c: c["tissues"]["liver"].update(source=" "), "source"),
        (lambda c: c["tissues"].update(liver=3), "mapping"),
        (lambda c: c["structures"].update(horn="keratin"), "keratin"),
        (lambda c: c["structures"].update(horn=3), "names"),
        (lambda c: c.pop("structures"), "structures"),
        (lambda c: c["tissues"].clear(), "needs tissues"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, change, message: str) -> None:
    content = yaml.safe_load((share_dir() / "config" / "tissues.yaml").read_text())
    change(content)
    path = tmp_path / "tissues.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        load_tissues(path)


def test_a_missing_file_and_a_repeated_tissue() -> None:
    with pytest.raises(MissingFileError):
        load_tissues("nowhere/tissues.yaml")
    table = load_tissues()
    with pytest.raises(ConfigError, match="once"):
        dataclasses.replace(table, tissues=table.tissues * 2)
    assert set(RANGES) < {f.name for f in dataclasses.fields(table.tissues[0])}
