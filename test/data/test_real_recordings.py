# SPDX-License-Identifier: Apache-2.0
"""The real recordings: read, tracked, and written again without loss."""

import json
import math

import numpy as np
import pytest
import torch

from usreg.data.calibration import read_calibration
from usreg.data.describe import describe
from usreg.data.sequences import read_sequence, write_sequence
from usreg.data.tracked import tracked_frames

# file: frames, size, {transform: valid poses}
SETS = {
    "liver_sweep/liver_sweep.igs.mha": (80, (369, 296), {"ProbeToTracker": 80}),
    "spine_phantom/SpinePhantomFreehand.igs.mha": (
        21, (820, 616), {"ProbeToTracker": 21, "ReferenceToTracker": 21, "StylusToTracker": 21}
    ),
    "nwire_phantom/NwirePhantomFreehand.igs.mha": (
        97, (820, 616), {"ProbeToTracker": 97, "ReferenceToTracker": 97, "StylusToTracker": 0}
    ),
    "poses/EightLandmarkPointsTrackedForPhantomRegistration.igs.mha": (
        1000, None, {"ReferenceToTracker": 1000, "StylusToTracker": 1000}
    ),
    "poses/TransformInterpolationTest.igs.mha": (500, (1, 1), {"ProbeToTracker": 499, "ReferenceToTracker": 500}),
    "curvilinear/BkCurvilinearScanConvertedData.igs.mha": (
        1, (600, 400), {"ReferenceToTracker": 1, "StylusToTracker": 1}
    ),
    "curvilinear/UltrasonixCurvilinearScanConvertedData.igs.mha": (5, (820, 616), {}),
    "bone/BoneUltrasound_L14.igs.mha": (
        21, (820, 616), {"ProbeToTracker": 21, "ReferenceToTracker": 21, "StylusToTracker": 21}
    ),
    "probe_calibration/fCal_Test_Calibration_3NWires_fCal2.0.igs.mha": (
        190, (820, 616), {"ProbeToTracker": 190, "ReferenceToTracker": 190, "StylusToTracker": 190}
    ),
    "temporal_calibration/WaterTankBottomTranslationCombined.igs.mha": (
        201, (820, 616), {"ProbeToTracker": 201, "ReferenceToTracker": 201, "StylusToTracker": 201}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_every_set_reads(data_dir, name):
    count, size, valid = SETS[name]
    read = read_sequence(data_dir / name)
    assert (read.count, read.size) == (count, size)
    assert {k: int(t.valid.sum()) for k, t in read.transforms.items()} == valid
    assert read.problems == () and bool(read.stamp_valid.all())


def test_metaimage_and_nrrd_of_one_recording_are_equal(data_dir, assert_same):
    folder = data_dir / "nwire_phantom"
    a, b = (read_sequence(folder / f"NwirePhantomFreehand.igs.{e}") for e in ("mha", "nrrd"))
    assert_same(a, b)


@pytest.mark.parametrize(
    "name", ["spine_phantom/SpinePhantomFreehand.igs.mha", "poses/TransformInterpolationTest.igs.mha"]
)
@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_written_again(data_dir, tmp_path, assert_same, name, ending):
    read = read_sequence(data_dir / name)
    write_sequence(read, tmp_path / f"x.igs.{ending}")
    assert_same(read, read_sequence(tmp_path / f"x.igs.{ending}"))


def test_liver_sector_and_chain(data_dir):
    folder = data_dir / "liver_sweep"
    read = read_sequence(folder / "liver_sweep.igs.mha")
    cal = read_calibration(folder / "liver_sweep_device_set.xml", image_size=read.size)
    stated = json.loads((folder / "liver_sweep.json").read_text())
    spacing = stated["image_px_to_image_mm"][0][0]
    sector = cal.geometry
    assert sector.kind == "convex" and cal.world_name == "Tracker"
    np.testing.assert_allclose(sector.plane.spacing_mm, spacing, rtol=1e-6)
    np.testing.assert_allclose(np.array(sector.apex_mm) / spacing, (184.5, -69.665), rtol=1e-6)
    np.testing.assert_allclose(np.array(sector.radius_mm) / spacing, (80.670, 362.176), rtol=1e-6)
    np.testing.assert_allclose(np.degrees(sector.angle_rad), (-30.28, 30.28), rtol=1e-6)
    frames = tracked_frames(read, cal)
    assert all(f is not None for f in frames)
    # the maker's own chain, which starts in mm of the image about its centre
    to_probe = torch.tensor(stated["calibration_image_mm_to_probe"], dtype=torch.float64)
    pixel_to_mm = torch.tensor(stated["image_px_to_image_mm"], dtype=torch.float64)
    pixel = torch.tensor([[0, 0, 0, 1], [368, 295, 0, 1], [100, 200, 0, 1.0]], dtype=torch.float64).T
    for i in (0, 40, 79):
        expected = read.transforms["ProbeToTracker"].poses[i] @ to_probe @ pixel_to_mm @ pixel
        got = frames[i].world_T_image @ sector.plane.image_T_pixel @ pixel
        torch.testing.assert_close(got[:3], expected[:3], atol=1e-3, rtol=0)


def test_liver_images_lie_inside_the_sector(data_dir):
    folder = data_dir / "liver_sweep"
    read = read_sequence(folder / "liver_sweep.igs.mha")
    mask = read_calibration(folder / "liver_sweep_device_set.xml", image_size=read.size).geometry.mask()
    mean = read.images.double().mean(0)
    assert mean[mask].mean() > 40 * mean[~mask].mean()
    assert 0.45 < mask.double().mean() < 0.75


def test_spine_shear_is_kept_and_used(data_dir, caplog):
    folder = data_dir / "spine_phantom"
    read = read_sequence(folder / "SpinePhantomFreehand.igs.mha")
    cal = read_calibration(folder / "PlusDeviceSet_VolumeReconstructionOnly_SpinePhantom_NN_MEAN.xml", read.size)
    assert "sheared by -2.74 degrees" in caplog.text
    (a, b), (_, d) = cal.pixel_to_mm
    assert math.degrees(math.atan2(b, d)) == pytest.approx(-2.745, abs=0.01)
    matrix = torch.tensor(
        [[-0.00157821, 0.0785919], [-0.0839128, 0.00372697], [0.0159024, 0.00714276]], dtype=torch.float64
    )
    scale = torch.tensor([[a, b], [0, d], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(cal.probe_T_image[:3, :3] @ scale, matrix, atol=1e-12, rtol=0)
    assert cal.world_name == "Reference" and cal.error_mm == 1.68149 and list(cal.statics) == ["PhantomToReference"]
    assert all(f is not None for f in tracked_frames(read, cal))


def test_bone_device_set_is_linear_and_isotropic(data_dir):
    cal = read_calibration(data_dir / "bone" / "BoneUltrasound_L14_config.xml", (820, 616))
    assert cal.geometry.kind == "linear"
    np.testing.assert_allclose(cal.geometry.plane.spacing_mm, 0.08544, atol=1e-5)


def test_describe_names_counts(data_dir):
    told = describe(data_dir / "nwire_phantom" / "NwirePhantomFreehand.igs.mha")
    assert told["transforms"]["StylusToTracker"] == {"poses": 97, "invalid": 97, "missing": 0}
    assert told["rate_hz"] == pytest.approx(12.65, abs=0.05) and told["gaps"] == 0
    assert describe(data_dir / "spine_phantom" / "SpinePhantomFreehandReconstructed.mha")["kind"] == "volume"
    assert describe(data_dir / "poses" / "PlusDeviceSet_fCal_Sim_RecordPhantomLandmarks.xml")["kind"] == "device set"
    cine = describe(data_dir / "cine" / "examples_ybr_color.dcm")
    assert (cine["kind"], cine["frames"], cine["size"]) == ("cine", 30, [320, 240])
    assert cine["rate_hz"] == pytest.approx(30, abs=0.01)
    assert cine["spacing_mm"] == pytest.approx([0.5105, 0.5105], abs=1e-4)
    for each in (told, cine):
        json.dumps(each, allow_nan=False)
