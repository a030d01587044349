# SPDX-License-Identifier: Apache-2.0
"""The spine phantom against the volumes that PLUS made of it, each in its own mode."""

from dataclasses import replace

import numpy as np
import pytest

from usreg.data.calibration import read_calibration
from usreg.data.sequences import read_sequence
from usreg.data.tracked import tracked_frames
from usreg.data.volumes import read_volume
from usreg.reconstruction import ReconstructionConfig, reconstruct

REFERENCES = {
    "linear": "SpinePhantomFreehandReconstructed.mha",
    "nearest": "vtkVolumeReconstructorTestNNMEANvolumeRef.mha",
}


@pytest.fixture(scope="module")
def frames(data_dir):
    folder = data_dir / "spine_phantom"
    recording = read_sequence(folder / "SpinePhantomFreehand.igs.mha")
    calibration = read_calibration(
        folder / "PlusDeviceSet_SpinePhantomFreehandReconstructionOnly.xml",
        image_size=(recording.images.shape[2], recording.images.shape[1]),
    )
    return tracked_frames(recording, replace(calibration, world_name="Reference"))


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_reference_volume(frames, data_dir, interpolation):
    """r of 0.98 over voxels filled in both, filled share within 2 %; `mean_8bit` is the references' arithmetic."""
    ours = reconstruct(frames, ReconstructionConfig(0.5, interpolation=interpolation, compounding="mean_8bit"))
    reference = read_volume(data_dir / "spine_phantom" / REFERENCES[interpolation])
    np.testing.assert_allclose(ours.grid.origin_mm, reference.grid.origin_mm, atol=1e-3)
    size = tuple(slice(min(a, b)) for a, b in zip(ours.data.shape[1:], reference.data.shape[1:], strict=True))
    a, b = (v.data[0][size].numpy().astype(float) for v in (ours, reference))
    both = (a > 0) & (b > 0)
    assert np.corrcoef(a[both], b[both])[0, 1] >= 0.98
    assert abs((a > 0).mean() / (b > 0).mean() - 1) <= 0.02
    exact = (
        reconstruct(frames, ReconstructionConfig(0.5, interpolation=interpolation)).data[0][size].numpy().astype(float)
    )
    both = (exact > 0) & (b > 0)
    assert np.corrcoef(exact[both], b[both])[0, 1] >= 0.98
