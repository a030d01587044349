# SPDX-License-Identifier: Apache-2.0
"""Killed ROS nodes leave segments in shared memory; the tests clean their own, and never those of a living node."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED_MEMORY = Path("/dev/shm")
NODE = "import os, sys, rclpy; rclpy.init(); node = rclpy.create_node('leftover'); print('up', flush=True); "


def segments() -> set[str]:
    return {path.name for path in SHARED_MEMORY.glob("fast*") if not path.name.endswith(("_el", "_sl"))}


def start(end: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", NODE + end], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    return process


def test_leftovers_of_the_dead_go_and_the_living_stay(clean_leftovers: Callable[[float], list[str]]) -> None:
    pytest.importorskip("rclpy")
    since, before = time.time() - 1.0, segments()
    living = start("sys.stdin.read()")
    of_living = segments() - before
    start("os._exit(0)").communicate(timeout=30)
    left = segments() - before - of_living
    removed = set(clean_leftovers(since))
    still_there = segments()
    living.communicate(timeout=30)
    assert living.returncode == 0
    assert left, "a killed node left nothing: this test no longer sees where segments live"
    assert left <= removed
    assert of_living <= still_there
