# SPDX-License-Identifier: Apache-2.0
"""What every test shares: a private ROS domain, fixed thread counts, seeds per test, the folder of real recordings."""

import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

# Environment before any import of numpy, torch or rclpy; every way of starting pytest gets the same.
TOP = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(TOP / "config" / "fastdds.xml"))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))  # above 101 the ports meet the ephemeral range

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

SHARED_MEMORY = Path("/dev/shm")
STARTED = time.time()

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


def pytest_sessionfinish() -> None:
    """Leave nothing behind in shared memory."""
    clean_shared_memory(STARTED)
