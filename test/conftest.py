# SPDX-License-Identifier: Apache-2.0
"""What every test shares: a private ROS domain, fixed thread counts, seeds per test, the folder of real recordings."""

import fcntl
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# Environment before any import of numpy, torch or rclpy; every way of starting pytest gets the same.
TOP = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(TOP / "config" / "fastdds.xml"))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT")  # LOCALHOST would open sockets everywhere
DOMAIN = str(1 + os.getpid() % 101)  # above 101 the ports meet the ephemeral range
os.environ.setdefault("ROS_DOMAIN_ID", DOMAIN)
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker inherits the domain of who started it: it gets one of its own
    os.environ["ROS_DOMAIN_ID"] = DOMAIN

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

SHARED_MEMORY = Path("/dev/shm")
STARTED = time.time()
STARTS_NODES = (
    "nodes/",
    "web/test_browser",
    "architecture/test_leftovers",
    "test_cli",
    "replay/test_landmarks",
    "data/test_bags_with_ros",
)

settings.register_profile("usreg", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("usreg")


@pytest.fixture(scope="session")
def top() -> Path:
    """Top folder of the repository."""
    return TOP


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real recordings that lies beside the repository; tests that need it are skipped without it."""
    folder = TOP.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data with real recordings beside the repository")
    return folder


def _seed_of(request: pytest.FixtureRequest) -> int:
    return int.from_bytes(request.node.nodeid.encode()[-8:], "little") % (2**31)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Numpy generator whose seed follows from the test's name."""
    return np.random.default_rng(_seed_of(request))


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """Torch generator whose seed follows from the test's name."""
    return torch.Generator().manual_seed(_seed_of(request))


def _owner_is_dead(stem: str) -> bool:
    """True when nobody holds the locks of a Fast DDS segment or port."""
    for lock in (SHARED_MEMORY / f"{stem}_el", SHARED_MEMORY / f"{stem}_sl"):
        if lock.exists():
            with lock.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    return False
    return True


def clean_shared_memory(since: float) -> list[str]:
    """Remove what killed ROS nodes of this user left in shared memory since a time; returns the names of the segments.

    A segment whose owner lives is locked, and stays.
    """
    removed = []
    for path in sorted(SHARED_MEMORY.glob("fast*")):
        match = re.fullmatch(r"(fastdds|fastrtps)_(port)?[0-9a-f]+", path.name)
        if not match or not path.exists() or path.stat().st_uid != os.getuid() or path.stat().st_ctime < since:
            continue
        if _owner_is_dead(path.name):
            for name in (path.name, f"{path.name}_el", f"{path.name}_sl", f"sem.{path.name}_mutex"):
                (SHARED_MEMORY / name).unlink(missing_ok=True)
            removed.append(path.name)
    return removed


@pytest.fixture
def clean_leftovers() -> Callable[[float], list[str]]:
    """The function that removes what killed nodes left in shared memory since a time (time.time())."""
    return clean_shared_memory


@pytest.fixture
def usreg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call the command in this process; returns exit code, standard output, standard error."""

    from usreg import cli

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["usreg", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers (`make test`): what starts nodes runs on one of them, else they meet each other's sockets
    and shared memory; a file's tests stay together, else each worker makes its fixtures."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        name = item.path.relative_to(TOP / "test").as_posix() if item.path.is_relative_to(TOP / "test") else ""
        item.add_marker(pytest.mark.xdist_group("nodes" if name.startswith(STARTS_NODES) else name))


def pytest_sessionfinish() -> None:
    """Leave nothing behind in shared memory."""
    clean_shared_memory(STARTED)


@pytest.fixture(scope="session")
def depth_change_session(tmp_path_factory: pytest.TempPathFactory) -> "DepthChange":
    """The first 4 s of the phantom session; after 2 s and a gap of 0.3 s the image begins at another pixel.

    As after a change of depth: geometry and static transform differ, what the remaining pixels show does not.
    """
    return DepthChange(tmp_path_factory.mktemp("depth") / "change")


class DepthChange:
    """A session with a change of the image's origin.

    Args:
        folder: to be made.

    Attributes:
        change_s: stamp of the change. shift: (4, 4), before_T_after of the image frames, mm.
        geometry: of the frames before it. probe_T_image: (4, 4), before it.
    """

    CUT = (9, 14)  # columns and rows that are gone after the change
    LENGTH_S, CHANGE_S, GAP_S = 4.0, 2.0, 0.3

    def __init__(self, folder: Path) -> None:
        from usreg.data.bags import BagReader, BagWriter

        shutil.copytree(TOP / "bags" / "phantom", folder, ignore=shutil.ignore_patterns("bag"))
        with BagReader(TOP / "bags" / "phantom" / "bag") as whole, BagWriter(folder / "bag") as changed:
            self._begin(whole)
            for topic in whole.topics.values():
                changed.add_topic(topic.name, topic.type_name, topic.qos)
            waiting = [(round(self.change_s * 1e9), self.names.tf_static, self._changed_static())]
            for raw in whole.raw_messages():
                if raw.log_ns >= round((self.begin_s + self.LENGTH_S) * 1e9):
                    break
                while waiting and raw.log_ns >= waiting[0][0]:
                    ns, name, message = waiting.pop()
                    changed.write(name, ns, message)
                message = self._message(raw.topic, whole.decode(raw))
                if message is not None:
                    changed.write(raw.topic, raw.log_ns, message)
        self.folder = folder

    def _begin(self, bag: Any) -> None:
        """Times, geometry and calibration before the change."""
        from usreg.data.bag_messages import decode_geometry
        from usreg.data.bag_poses import decode_transforms
        from usreg.data.sessions import read_session

        self.config = read_session(TOP / "bags" / "phantom").config
        self.names, self.frames = self.config.topics, self.config.frames
        self.begin_s = bag.span_ns[0] * 1e-9
        self.change_s = self.begin_s + self.CHANGE_S
        _, _, first = next(bag.messages([self.names.geometry]))
        _, _, statics = next(bag.messages([self.names.tf_static]))
        self.geometry = decode_geometry(first)[1]
        found = {t.child: t.parent_T_child for t in decode_transforms(statics)}
        self.probe_T_image = found[self.frames.image]
        (a, b), (_, d) = self.geometry.pixel_to_mm
        self.offset_mm = (a * self.CUT[0] + b * self.CUT[1], d * self.CUT[1])
        self.shift = torch.eye(4, dtype=torch.float64)
        self.shift[:2, 3] = torch.tensor(self.offset_mm, dtype=torch.float64)

    def _changed_static(self) -> Any:
        from usreg.data.bag_poses import StampedTransform, encode_transforms

        pose = self.probe_T_image @ self.shift
        return encode_transforms([StampedTransform(self.change_s, self.frames.probe, self.frames.image, pose)])

    def _message(self, topic: str, message: Any) -> Any:
        """The message as it is after the change; None in the gap."""
        from usreg.data import bag_messages, bag_poses, ros_time

        names = self.names
        if topic not in (names.image, names.geometry, names.truth):
            return message
        if topic == names.truth:
            poses = bag_poses.decode_transforms(message)
            moved = [self._moved(p) if p.child == self.frames.image else p for p in poses]
            return bag_poses.encode_transforms(moved)
        stamp_s = ros_time.of_header(message.header.stamp)
        if stamp_s < self.change_s - 0.02:
            return message
        if stamp_s < self.change_s + self.GAP_S:
            return None
        if topic == names.geometry:
            return bag_messages.encode_geometry(stamp_s, self.after, self.frames.image, 1)
        columns, rows = self.CUT
        image = bag_messages.decode_image(message)[1][rows:, columns:]
        return bag_messages.encode_image(stamp_s, image, self.frames.image)

    def _moved(self, pose: Any) -> Any:
        return replace(pose, parent_T_child=pose.parent_T_child @ self.shift) if pose.stamp_s > self.change_s else pose

    @property
    def after(self) -> Any:
        """Geometry of the frames after the change."""
        plane, (dx, dy), (columns, rows) = self.geometry.plane, self.offset_mm, self.CUT
        x0, y0, x1, y1 = self.geometry.clip_mm
        apex = (self.geometry.apex_mm[0] - dx, self.geometry.apex_mm[1] - dy)
        cut = replace(plane, height=plane.height - rows, width=plane.width - columns)
        return replace(self.geometry, plane=cut, apex_mm=apex, clip_mm=(x0 - dx, y0 - dy, x1 - dx, y1 - dy))

    def probe_T_image_at(self, stamp_s: float) -> torch.Tensor:
        """What is right for a frame."""
        return self.probe_T_image if stamp_s < self.change_s else self.probe_T_image @ self.shift
