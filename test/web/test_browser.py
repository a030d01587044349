# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: what it draws, what it says when the source stops, and that nothing leaves the machine.

Skipped where there is no Chromium or no playwright, unless USREG_BROWSER=required.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

URL = re.compile(r"http://127\.0\.0\.1:\d+/\S*")
STALE_MARGIN_MS = 500

Open = Callable[..., AbstractContextManager[Any]]


class Served:
    """A command that serves the page, and its address.

    Args:
        folder: for its log.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self.log = folder / "log.txt"
        with self.log.open("w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "usreg.cli", *words]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        self.url = self._wait_for_url()

    def _wait_for_url(self) -> str:
        end = time.monotonic() + 90
        while time.monotonic() < end:
            found = URL.findall(self.text)
            if found:
                return found[0].rstrip(".,;")
            assert self.process.poll() is None, self.text
            time.sleep(0.1)
        raise AssertionError(f"no address was told: {self.text}")

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def children(self, word: str) -> list[int]:
        """Ids of processes of this session whose command line holds a word."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                line, group = (path / "cmdline").read_bytes(), os.getsid(int(path.name))
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if word.encode() in line and (group == self.process.pid or int(parent) == self.process.pid):
                found.append(int(path.name))
        return found

    def stop(self) -> int:
        """As Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it did not end: {self.text}") from None


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`usreg view phantom` on a free port."""
    served = Served(tmp_path_factory.mktemp("view"), "view", "phantom", "--port", "0", "--loop")
    yield served
    assert served.stop() == 0


@pytest.fixture(scope="module")
def tab(chromium: Open, replay: Served) -> Iterator[Any]:
    """The page with software GL, until frames are drawn in 2D and 3D."""
    with chromium(1280, 720) as opened:
        opened.page.goto(replay.url)
        opened.wait("window.usreg && usreg.frames2d > 20 && usreg.frames3d > 5 && usreg.latest.fused", 120)
        yield opened


def drawn(tab: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Header of a frame and the fused picture (h, w, 3) that the page made of it."""
    script = """async () => {
        const p = await usreg.pixels();
        let text = '';
        for (let i = 0; i < p.data.length; i += 32768)
            text += String.fromCharCode(...p.data.subarray(i, i + 32768));
        return {width: p.width, height: p.height, data: btoa(text), header: p.header};
    }"""
    import base64

    found = tab.value(script)
    data = np.frombuffer(base64.b64decode(found["data"]), np.uint8)
    return found["header"], data.reshape(found["height"], found["width"], 4)[..., :3]


def picture_of(tab: Any, name: str = "") -> np.ndarray:
    """A screenshot (h, w, 3), or that of one element."""
    data = tab.page.locator(name).screenshot() if name else tab.page.screenshot()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_nothing_leaves_the_machine_and_nothing_fails(tab: Any) -> None:
    assert tab.strangers == []
    assert tab.errors == []
    assert tab.value("usreg.state") in ("LIVE", "PAUSED")


def test_the_overlay_is_that_of_the_library(tab: Any) -> None:
    """Recomputed from the session's own frame and volume, at the poses that the page was told."""
    from usreg.data.session_events import FrameEvent, session_frames
    from usreg.data.types import TrackedFrame
    from usreg.fusion import OverlayConfig, overlay
    from usreg.replay.build import find_session, session_geometry, session_volume

    header, shown = drawn(tab)
    for _ in range(200):  # frames behind those that are registered so far are shown alone
        if header["fused"]:
            break
        tab.page.wait_for_timeout(100)
        header, shown = drawn(tab)
    session = find_session("phantom")
    frames = (e.frame for e in session_frames(session, session_geometry(session)) if isinstance(e, FrameEvent))
    frame = next(f for f in frames if abs(f.stamp_s - header["stamp_s"]) < 1e-6)
    pose, world_T_ct = (
        torch.tensor(header[name], dtype=torch.float64).reshape(4, 4) for name in ("world_T_image", "world_T_ct")
    )
    plain = OverlayConfig(contours=False, sector=False, ruler=False, text=False)
    expected = overlay(TrackedFrame(frame, pose), session_volume(session), world_T_ct, plain).image.numpy()
    away = np.abs(expected.astype(int) - shown.astype(int)).max(-1)
    assert shown.shape == expected.shape
    # the library draws its marker dot and its notice into the picture, the page does so afterwards
    assert (away > 1).mean() < 0.02
    assert (shown.max(-1) != shown.min(-1)).mean() > 0.1  # colour: a slice lies over the frame


def test_the_scene_is_not_blank(tab: Any) -> None:
    colours = picture_of(tab, "#view3d").reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 200


def test_a_picture_that_is_paused_says_so(tab: Any) -> None:
    tab.page.keyboard.press("Space")
    tab.wait("usreg.state === 'PAUSED'", 10)
    seq = tab.value("usreg.seq")
    assert "PAUSED" in tab.page.inner_text("body").upper()
    tab.page.keyboard.press("Space")
    tab.wait(f"usreg.state === 'LIVE' && usreg.seq > {seq}", 10)


def test_a_snapshot_opens(tab: Any, tmp_path: Path) -> None:
    found: dict[str, Path] = {}

    def keep(download: Any) -> None:
        path = tmp_path / download.suggested_filename
        download.save_as(path)
        found[path.suffix] = path

    tab.page.on("download", keep)
    tab.page.keyboard.press("s")
    end = time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < end:
        tab.page.wait_for_timeout(100)
    picture = cv2.imread(str(found[".png"]))
    assert picture is not None and picture.std() > 5
    told = json.loads(found[".json"].read_text(encoding="utf-8"))
    assert "phantom" in json.dumps(told)
    assert {"stamp_s", "world_T_ct", "status"} <= told["frame"].keys()


@pytest.mark.parametrize("key", ["2", "3", "4", "1"])
def test_every_layout_goes_on_drawing(tab: Any, key: str) -> None:
    tab.page.keyboard.press(key)
    before = tab.value("usreg.frames2d")
    tab.wait(f"usreg.frames2d > {before + 10}", 30)
    assert tab.errors == [] and tab.strangers == []


def test_without_webgl_everything_else_lives(chromium: Open, replay: Served) -> None:
    with chromium(1280, 720, webgl=False) as tab:
        tab.page.goto(replay.url)
        tab.wait("window.usreg && usreg.frames2d > 20", 60)
        assert tab.value("usreg.frames3d") == 0
        assert "WebGL" in tab.page.inner_text("#view3d")
        assert tab.strangers == []


def test_stale_is_said_when_the_source_stops(chromium: Open, tmp_path: Path) -> None:
    """The live graph; its player is stopped as by a fault, so that nobody tells of a pause."""
    served = Served(tmp_path, "run", "phantom", "--processes", "many", "view_port:=0", "loop:=true")
    try:
        with chromium(1280, 720) as tab:
            tab.page.goto(served.url)
            tab.wait("window.usreg && usreg.frames2d > 30 && usreg.state === 'LIVE'", 90)
            period_ms = 1000 * (tab.value("usreg.latest.period_s") or 0.1)
            (player,) = served.children("usreg.nodes.player")
            script = """() => { usreg.watched = new Promise(told => {
                let last = usreg.seq, at = performance.now() - usreg.ageMs;
                const look = () => {
                    if (usreg.seq !== last) { last = usreg.seq; at = performance.now() - usreg.ageMs; }
                    if (usreg.state === 'STALE') told(performance.now() - at); else setTimeout(look, 10);
                };
                look();
            }); }"""
            tab.value(script)
            os.kill(player, signal.SIGSTOP)
            try:
                age_ms = tab.value("usreg.watched")
                assert age_ms < max(300.0, 3 * period_ms) + STALE_MARGIN_MS
                assert "STALE" in tab.page.inner_text("body").upper()
            finally:
                os.kill(player, signal.SIGCONT)
            tab.wait("usreg.state === 'LIVE'", 20)
            assert tab.strangers == [] and tab.errors == []
    finally:
        served.stop()
