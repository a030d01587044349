# SPDX-License-Identifier: Apache-2.0
"""What rests in the page's scene: the volume, its organs, landmarks, the target; loaded once somebody watches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..data.sessions import read_session
from ..data.types import Volume
from ..errors import GeometryError, UsregError
from ..web.files import VolumeFiles
from ..web.hub import Hub
from ..web.pages import Made
from ..web.painter import Painter
from .volume import VolumeConfig, load_volume
from .web_view_truth import Truth
from .worker import NewestWorker

NICENESS = 10  # organs are made on the way, registration goes first


class Content:
    """Keeps the scene's messages at the hub. All methods return at once; a thread loads.

    Args:
        config: the volume that is named from the beginning. session: folder of the recording that is played, or empty.
        refused: told why something cannot be shown.
    """

    def __init__(
        self, hub: Hub, painter: Painter, config: VolumeConfig, session: str, refused: Callable[[UsregError], None]
    ) -> None:
        self._hub, self._painter, self._config, self._session = hub, painter, config, session
        self._refused = refused
        self.truth: Truth | None = None
        self.target_ct: Tensor | None = None
        self._begun = self._stopped = False
        self._lock = threading.Lock()
        self._worker = NewestWorker(self._load, niceness=NICENESS, name="content")
        self._tell()

    @property
    def volume(self) -> Volume | None:
        """The volume that is shown."""
        return self._painter.volume

    def want(self) -> None:
        """Somebody watches: load what the parameters name."""
        if not self._begun:
            self._begun = True
            self._worker.put(self._config)

    def follow(self, uri: str, sha256: str, modality: str) -> None:
        """Registration tells which volume it uses."""
        if self.volume is None or sha256 != self.volume.sha256:
            known: Any = modality if modality in ("CT", "MR", "US") else ""
            self._worker.put((VolumeConfig(uri, known), sha256))

    def aim(self, target_ct: Tensor | None) -> None:
        """The target, (3,) mm in the volume's frame, or none."""
        self.target_ct = target_ct
        threading.Thread(target=self._tell, name="target", daemon=True).start()

    def files(self) -> Mapping[str, Made]:
        """What the page may ask for beside its own files: the volume, for the three slices."""
        return VolumeFiles(lambda: self.volume).routes()

    def stop(self) -> None:
        """End the thread; the organ in hand is not waited for."""
        self._stopped = True
        self._worker.stop(0.0)

    def _load(self, wanted: Any) -> None:
        """Body of the thread: the volume first, then what takes longer."""
        config, sha256 = wanted if isinstance(wanted, tuple) else (wanted, "")
        shown = self.volume is not None and self.volume.sha256 == sha256
        try:
            if config.volume and not shown:
                self._use(config, sha256)
            if self._session and self.truth is None:
                self.truth = Truth(read_session(self._session))
                self._tell()
            if config.volume and not shown:
                self._make_organs()
        except UsregError as error:
            self._refused(error)

    def _use(self, config: VolumeConfig, sha256: str) -> None:
        volume = load_volume(config)
        if sha256 and volume.sha256 != sha256:
            raise GeometryError(f"the volume '{config.volume}' differs here from the one that registration uses")
        self._hub.forget("organ/")
        self._tell(volume)

    def _make_organs(self) -> None:
        if self.volume is None:
            return
        for key, message in self._painter.organs(self.volume):
            if self._stopped or self._worker.waiting():
                return  # another volume is to be shown
            self._hub.keep(key, message)

    def _tell(self, volume: Volume | None = None) -> None:
        with self._lock:
            landmarks = self.truth.landmarks if self.truth is not None else {}
            for key, message in self._painter.use(volume or self.volume, landmarks, self.target_ct):
                self._hub.keep(key, message)
