# SPDX-License-Identifier: Apache-2.0
"""A real browser for tests and benchmarks of the view: Debian's Chromium, driven by playwright, without any network.

Both are installed beside the package (`requirements/browser.txt`, package `chromium`); nothing of usreg needs them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlparse

SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_GL = ("--disable-3d-apis",)
QUIET = (
    "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--metrics-recording-only", "--disable-breakpad",
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)  # fmt: skip
LOOPBACK = ("127.0.0.1", "localhost", "::1")
Opener = Callable[..., AbstractContextManager["Tab"]]


def missing() -> str:
    """Why no browser can be started here; empty where one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install -r requirements/browser.txt"
    return "" if _chromium() else "chromium is not installed: apt install chromium"


def _chromium() -> str:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


class Tab:
    """A page, and what it asked for that does not lie on this machine."""

    def __init__(self, page: Any) -> None:
        self.page, self.strangers, self.errors = page, list[str](), list[str]()
        page.route("**/*", self._route)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda text: self.errors.append(text.text) if text.type == "error" else None)

    def _route(self, route: Any) -> None:
        parts = urlparse(route.request.url)
        if parts.scheme in ("data", "blob") or parts.hostname in LOOPBACK:
            route.continue_()
            return
        self.strangers.append(route.request.url)
        route.abort()

    def value(self, expression: str) -> Any:
        """Value of an expression in the page."""
        return self.page.evaluate(expression)

    def wait(self, condition: str, seconds: float = 30.0) -> None:
        """Until an expression is true; fails after a time (the page forbids playwright's own way)."""
        end = time.monotonic() + seconds
        while not self.value(condition):
            if time.monotonic() > end:
                seen = self.value("JSON.stringify(window.usreg ?? null)")
                raise AssertionError(
                    f"within {seconds:.0f} s it never was that {condition}; {self.errors}; {seen[:2000]}"
                )
            self.page.wait_for_timeout(50)


@contextmanager
def browsers() -> Iterator[Opener]:
    """What opens tabs: `with browsers() as opened, opened(1280, 720) as tab`. One in a thread, as playwright wants."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        yield lambda *size, **how: _tab(play, *size, **how)


@contextmanager
def browser(width: int = 1400, height: int = 850, webgl: bool = True) -> Iterator[Tab]:
    """A tab of a fresh browser; nothing that it writes stays behind."""
    with browsers() as opened, opened(width, height, webgl=webgl) as tab:
        yield tab


@contextmanager
def _tab(play: Any, width: int, height: int, webgl: bool = True) -> Iterator[Tab]:
    with tempfile.TemporaryDirectory(prefix="usreg-browser-", ignore_cleanup_errors=True) as home:
        # Chromium writes crash reports below the user's configuration even with a profile of its own
        environment = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
        found = play.chromium.launch(
            executable_path=_chromium(), args=[*QUIET, *(SOFTWARE_GL if webgl else NO_GL)], env=environment,
            chromium_sandbox=False, headless=True, downloads_path=home,
        )  # fmt: skip
        try:
            context = found.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
            yield Tab(context.new_page())
        finally:
            found.close()
