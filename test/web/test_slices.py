# SPDX-License-Identifier: Apache-2.0
"""The slices in a real browser with a volume that is not symmetric: what lies left, in front or above stays there.

Skipped where there is no Chromium or no playwright, unless USREG_BROWSER=required.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from usreg.data.types import Volume
from usreg.geometry import se3
from usreg.geometry.grid import VoxelGrid
from usreg.web.commands import NoControls
from usreg.web.files import VolumeFiles
from usreg.web.hub import Hub
from usreg.web.server import Server, ViewConfig

# Voxel (i, j, k) of a bright cube, and its grey value; the grid is turned, and its second and third axes are flipped.
CUBES = {"left": ((40, 12, 10), 200), "front": ((20, 24, 10), 150), "above": ((20, 12, 4), 100)}
GRID = VoxelGrid(
    (48, 30, 20), (2.0, 3.0, 4.0), (-30.0, 40.0, 60.0), (0.96, 0.28, 0.0, 0.28, -0.96, 0.0, 0.0, 0.0, -1.0)
)
OPEN = """async ([size, ct_T_index]) => {
  const { Slices } = await import(new URL("js/mpr.js", location.href).href);
  const pane = document.createElement("div");
  Object.assign(pane.style, { position: "fixed", inset: "0", zIndex: "9" });
  document.body.append(pane);
  window.slices = new Slices(pane);
  window.slices.onPick((ct) => (window.picked = ct));
  const volume = { size, ct_T_index, window: [0, 255], url: "/volume.nii.gz", labels_url: null, in_patient: true };
  await window.slices.open({ organs: [], volume });
}"""
SEEN = """async (ct) => {
  const { niivue } = window.slices;
  window.slices.setCentre(ct);
  const away = () => Math.hypot(...window.slices.centre.map((value, k) => value - ct[k]));
  while (away() > 0.01) await new Promise((told) => setTimeout(told, 20));
  const [x, y, z] = niivue.volumes[0].mm2vox([-ct[0], -ct[1], ct[2]]);
  const frac = niivue.scene.crosshairPos;
  const dpr = niivue.uiData.dpr ?? 1;
  const places = [0, 1, 2].map((kind) => niivue.frac2canvasPosWithTile(frac, kind).pos.map((value) => value / dpr));
  return { grey: niivue.volumes[0].getValue(x, y, z), places };
}"""  # places: axial, coronal, sagittal, CSS pixels of the canvas


@pytest.fixture(scope="module")
def tab(chromium: Any) -> Iterator[Any]:
    voxels = torch.zeros(1, 20, 30, 48, dtype=torch.uint8)
    for (i, j, k), grey in CUBES.values():
        voxels[0, k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = grey
    volume = Volume(voxels, GRID)
    server = Server(Hub(), NoControls(), ViewConfig(port=0), VolumeFiles(lambda: volume).routes())
    try:
        url = server.start()
        with chromium(900, 700) as opened:
            opened.page.goto(url)
            opened.page.evaluate(OPEN, [list(GRID.size), GRID.ct_T_index.flatten().tolist()])
            yield opened
            assert not opened.strangers
    finally:
        server.stop()


def place(index: tuple[int, int, int]) -> list[float]:
    """LPS mm of a voxel's centre."""
    return se3.transform_points(GRID.ct_T_index, torch.tensor([index], dtype=torch.float64))[0].tolist()


def test_centre_is_the_point_in_lps(tab: Any) -> None:
    for index, grey in CUBES.values():
        assert tab.page.evaluate(SEEN, place(index))["grey"] == grey


def test_patient_right_is_on_the_left_of_the_picture(tab: Any) -> None:
    """Radiological: +x (left) to the picture's right; front (-y) up, in the sagittal slice to the left; head up."""
    seen = {name: tab.page.evaluate(SEEN, place(index))["places"] for name, (index, _) in CUBES.items()}
    points = {name: place(index) for name, (index, _) in CUBES.items()}
    for first in points:
        for second in points:
            x, y, z = (a - b for a, b in zip(points[first], points[second], strict=True))
            moved = [
                [a - b for a, b in zip(*pair, strict=True)] for pair in zip(seen[first], seen[second], strict=True)
            ]
            (axial, coronal, sagittal), expected = moved, [(x, y), (x, -z), (y, -z)]
            for got, wanted in zip((axial, coronal, sagittal), expected, strict=True):
                for pixels, mm in zip(got, wanted, strict=True):
                    assert abs(mm) < 1.0 or pixels * mm > 0, (first, second, moved, expected)


def test_a_click_gives_the_point_in_lps(tab: Any) -> None:
    index, _ = CUBES["left"]
    column, row = tab.page.evaluate(SEEN, place(index))["places"][0]
    tab.page.evaluate(SEEN, place(CUBES["front"][0]))
    # The axial slice is now the one through the other cube: the click keeps its height.
    tab.page.mouse.click(column, row)
    tab.wait("Boolean(window.picked)", 10.0)
    wanted = [*place(index)[:2], place(CUBES["front"][0])[2]]
    assert tab.value("window.picked") == pytest.approx(wanted, abs=1.5)


def test_without_a_volume_it_says_so(tab: Any) -> None:
    said = tab.page.evaluate("window.slices.open({ volume: null }).catch((error) => error.message)")
    assert said == "No volume is loaded, so there are no slices."
