# SPDX-License-Identifier: Apache-2.0
"""The 3D view in a real browser on software GL: a pixel stands where its pose puts it, and nothing where none is known.

Skipped where there is no Chromium or no playwright, unless USREG_BROWSER=required.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from usreg.web.commands import NoControls
from usreg.web.hub import Hub
from usreg.web.server import Server, ViewConfig

BRIGHT = (70, 20)  # column, row of the middle of a bright spot of 3 x 3 pixels
OPEN = """async () => {
  const { View3D } = await import(new URL("js/view3d.js", location.href).href);
  const pane = document.createElement("div");
  Object.assign(pane.style, { position: "fixed", inset: "0", zIndex: "9" });
  document.body.append(pane);
  const view = (window.view = new View3D(pane));
  const identity = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
  const ct_T_index = [4, 0, 0, -100, 0, 4, 0, -80, 0, 0, 4, -60, 0, 0, 0, 1];
  const volume = { sha256: "a", size: [50, 40, 30], ct_T_index, in_patient: true };
  view.setScene({ volume, organs: [], landmarks: [] });
  const [width, height] = [91, 61]; // rows that are no multiple of four bytes
  const image = new Uint8Array(width * height).fill(20);
  const [c, r] = BRIGHT;
  for (const dr of [-1, 0, 1]) for (const dc of [-1, 0, 1]) image[(r + dr) * width + c + dc] = 255;
  // turned about z and x, and moved; sheared pixels that are not square
  const world_T_image = [0.8, -0.36, 0.48, 20, 0.6, 0.48, -0.64, -30, 0, 0.8, 0.6, 15, 0, 0, 0, 1];
  window.header = {
    width, height, pixel_to_mm: [[1.5, 0.4], [0, 2]], world_T_image, world_T_ct: identity, world_T_ct_raw: null,
    links: [], target: null, skin_px: null, marker_px: null, status: "ACCEPTED", reason: "",
  };
  window.show = async (changes) => {
    const before = view.frames;
    view.setFrame({ ...header, ...changes }, { image, trail: new Float32Array(0) });
    while (view.frames < before + 1) await new Promise((told) => setTimeout(told, 20));
    const copy = await view.snapshot();
    window.pixels = copy.getContext("2d").getImageData(0, 0, copy.width, copy.height);
    return [copy.width, copy.height];
  };
}"""
SPOT = """() => { // centre of everything nearly white and not a word
  const { data, width } = window.pixels;
  let [n, x, y] = [0, 0, 0];
  for (let k = 0; k < data.length; k += 4) {
    if (data[k] < 250 || data[k + 1] < 250 || data[k + 2] < 250) continue;
    n += 1;
    x += (k / 4) % width;
    y += Math.floor(k / 4 / width);
  }
  return [n, x / n + 0.5, y / n + 0.5];
}"""
EXPECTED = """async () => {
  const { apply, pixelToImage } = await import(new URL("js/geometry.js", location.href).href);
  const point = apply(header.world_T_image, pixelToImage(header.pixel_to_mm, BRIGHT));
  const { camera } = view._view;
  const at = camera.position.clone().set(...point).project(camera);
  return [((at.x + 1) / 2) * pixels.width, ((1 - at.y) / 2) * pixels.height];
}"""
CLOSE = """async () => { // so near that a pixel of the frame covers many of the screen
  const { apply, pixelToImage } = await import(new URL("js/geometry.js", location.href).href);
  const { camera } = view._view;
  const point = camera.position.clone().set(...apply(header.world_T_image, pixelToImage(header.pixel_to_mm, BRIGHT)));
  point.y += 5; // not in the middle
  view._view.turnAbout(point);
  camera.position.sub(point).multiplyScalar(0.2).add(point);
  view._view._controls.update();
}"""
COLOURED = """() => { // how many pixels are clearly not grey
  const { data } = window.pixels;
  let n = 0;
  for (let k = 0; k < data.length; k += 4) {
    n += Math.max(data[k], data[k + 1], data[k + 2]) - Math.min(data[k], data[k + 1], data[k + 2]) > 40;
  }
  return n;
}"""


@pytest.fixture(scope="module")
def tab(chromium: Any) -> Iterator[Any]:
    server = Server(Hub(), NoControls(), ViewConfig(port=0))
    try:
        url = server.start()
        with chromium(400, 290) as opened:  # too small for the legend: its words are white too
            opened.page.goto(url)
            opened.page.evaluate(OPEN.replace("BRIGHT", str(list(BRIGHT))))
            yield opened
            assert not opened.strangers
            assert not [error for error in opened.errors if "WebSocket" not in error]
    finally:
        server.stop()


def test_a_pixel_stands_where_its_pose_puts_it(tab: Any) -> None:
    """Sheared pixels, rows of 91 bytes, pixel centres: to a seventh of a pixel of the frame."""
    tab.page.evaluate("show({ world_T_ct: null })")  # without letters and box, which are white as well
    tab.page.evaluate(CLOSE.replace("BRIGHT", str(list(BRIGHT))))
    tab.page.evaluate("show({ world_T_ct: null })")
    count, column, row = tab.page.evaluate(SPOT)
    assert count > 100
    assert [column, row] == pytest.approx(tab.page.evaluate(EXPECTED.replace("BRIGHT", str(list(BRIGHT)))), abs=0.7)


def test_without_a_pose_there_is_no_volume(tab: Any) -> None:
    tab.page.evaluate("show({})")
    assert tab.value("view._volume.smoothed.visible") and not tab.value("view._volume.raw.visible")
    tab.page.evaluate("show({ world_T_ct: null, status: 'LOST', reason: 'nothing accepted for 0.3 s' })")
    assert not tab.value("view._volume.smoothed.visible")
    assert "Volume hidden, its pose is not known: nothing accepted for 0.3 s." in tab.value("document.body.innerText")
    tab.page.evaluate("show({ world_T_image: null, world_T_ct: null, status: 'NOT_TRACKED' })")
    assert not tab.value("view._frame.group.visible")
    assert "The probe is not tracked" in tab.value("document.body.innerText")


def test_an_old_picture_is_grey_and_says_so(tab: Any) -> None:
    tab.page.evaluate("show({})")
    assert tab.page.evaluate(COLOURED) > 20  # axes and the sector's outline
    tab.page.evaluate("view.setStale(true)")
    tab.page.evaluate("show({})")
    orange = tab.page.evaluate(COLOURED)
    assert "STALE" in tab.value("document.body.innerText")
    tab.page.evaluate("view._words.stale(false)")  # the word itself has a colour
    tab.page.evaluate("show({})")
    assert tab.page.evaluate(COLOURED) == 0 < orange
    tab.page.evaluate("view.setStale(false)")


def test_it_draws_only_when_something_changes(tab: Any) -> None:
    tab.page.evaluate("show({})")
    tab.page.wait_for_timeout(1500)  # until it was drawn once more, sharp
    before = tab.value("view.frames")
    tab.page.wait_for_timeout(500)
    assert tab.value("view.frames") == before
    tab.page.evaluate("view.focus('volume')")
    tab.wait(f"view.frames > {before}", 10.0)


def test_a_lost_context_is_told_and_comes_back(tab: Any) -> None:
    tab.page.evaluate("show({})")
    tab.page.evaluate("(window.lost = view._gl.getExtension('WEBGL_lose_context')).loseContext()")
    tab.wait("document.body.innerText.includes('The graphics driver dropped the 3D picture')", 10.0)
    tab.page.evaluate("lost.restoreContext()")
    tab.wait("!document.body.innerText.includes('The graphics driver dropped')", 10.0)
    tab.page.evaluate("show({})")
    assert tab.page.evaluate(COLOURED) > 20
