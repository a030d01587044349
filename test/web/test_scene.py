# SPDX-License-Identifier: Apache-2.0
"""The messages that rest: volume, organs, landmarks, target."""

import numpy as np
import pytest
import torch

from usreg.data.types import Volume
from usreg.fusion import OverlayConfig, label_colour
from usreg.fusion.organ_cache import OrganCache
from usreg.fusion.organs import organ_meshes
from usreg.geometry import rotation
from usreg.geometry.grid import VoxelGrid
from usreg.web.painter import Painter
from usreg.web.wire import unpack

TURN = rotation.exp(torch.tensor([0.3, -0.5, 0.2], dtype=torch.float64))
GRID = VoxelGrid((24, 20, 16), (1.0, 1.5, 2.0), (-30.0, 12.0, 200.0), tuple(TURN.flatten().tolist()))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def labelled(**changes) -> Volume:
    labels = torch.zeros(16, 20, 24, dtype=torch.int16)
    labels[3:12, 4:16, 4:20] = 2
    labels[6:9, 6:9, 6:9] = 9
    names = {2: "liver", 9: "lesion"}
    data = torch.arange(16 * 20 * 24).reshape(1, 16, 20, 24).to(torch.int16)
    return Volume(
        data, GRID, "CT", labels=labels, label_names=names, uri="/data/Doe_Jane.nii.gz", sha256="ab", **changes
    )


def test_the_scene_tells_where_the_volume_lies_and_what_will_come():
    landmarks = {"bifurcation": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)}
    [(key, message)] = Painter().use(labelled(), landmarks, torch.tensor([4.0, 5.0, 6.0]))
    header, buffers = unpack(message)
    volume = header["volume"]
    assert key == "scene" and header["type"] == "scene" and not buffers
    assert (
        volume["in_patient"]
        and volume["size"] == [24, 20, 16]
        and volume["window"] == [-160.0, 240.0]
        and volume["sha256"] == "ab"
    )
    assert np.allclose(np.reshape(volume["ct_T_index"], (4, 4)), GRID.ct_T_index)
    assert np.allclose(volume["corners_ct"], GRID.corners_ct)
    assert (volume["url"], volume["labels_url"]) == ("/volume.nii.gz", "/labels.nii.gz")
    assert [organ["name"] for organ in header["organs"]] == ["liver", "lesion"]
    assert header["organs"][0] == {"value": 2, "name": "liver", "colour": list(label_colour(2)), "opacity": 0.25}
    assert header["landmarks"] == [{"name": "bifurcation", "ct": [1.0, 2.0, 3.0]}]
    assert header["target_ct"] == [4.0, 5.0, 6.0]
    assert b"Doe" not in message  # names of files may be names of patients


def test_a_scene_without_a_volume_or_without_labels():
    [(_, message)] = Painter().use(None)
    assert unpack(message)[0] == {"type": "scene", "volume": None, "organs": [], "landmarks": [], "target_ct": None}
    bare = Volume(torch.zeros(1, 16, 20, 24, dtype=torch.uint8), GRID)
    [(_, message)] = Painter(OverlayConfig()).use(bare)
    header = unpack(message)[0]
    assert header["volume"]["labels_url"] is None and header["organs"] == []
    assert header["volume"]["name"] == "volume" and list(Painter().organs(bare)) == []


def test_organs_come_one_by_one_as_their_meshes_are():
    volume = labelled()
    messages = list(Painter().organs(volume))
    assert [key for key, _ in messages] == ["organ/2", "organ/9"]
    for (_, message), organ in zip(messages, organ_meshes(volume, OrganCache()), strict=True):
        header, buffers = unpack(message)
        assert header["type"] == "organ" and header["sha256"] == "ab" and header["value"] == organ.look.value
        assert header["colour"] == list(organ.look.colour) and header["opacity"] == organ.look.opacity
        assert buffers["triangles"].dtype == np.uint32 and np.array_equal(buffers["triangles"], organ.triangles)
        assert buffers["vertices"].dtype == np.float32 and np.array_equal(buffers["vertices"], organ.vertices_mm)
        assert np.array_equal(buffers["normals"], organ.normals)
