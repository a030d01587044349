# SPDX-License-Identifier: Apache-2.0
"""The nodes under measurement: a child that runs what `usreg run live` runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from .processes import Process, command_line, family
from .scene import Scene

# who listens and who speaks once every node is active: registration and fusion begin when they have compiled
LISTENERS = {
    "driver/image_raw": 1,
    "joint_states": 1,
    "us/image": 2,
    "us/geometry": 3,
    "us/pose": 4,  # registration, pose_smoothing, fusion, and the meter
    "registration/smoothed": 2,
    "registration/estimate": 2,
}
SPEAKERS = ("driver/image_raw", "joint_states", "fusion/image", "registration/pose", "registration/smoothed")
CODE = "import json, sys; from usreg.nodes.runner import run_session; sys.exit(run_session(**json.loads(sys.argv[1])))"
NODE = re.compile(r"usreg\.nodes\.(\w+) import main")


def start(made: Scene, processes: str, view_port: int = 0) -> Process:
    """Start the nodes as `usreg run live --processes ...` does, with an external driver's image topic.

    Args:
        view_port: of the view; 0: without it.
    """
    file = made.folder / "live.yaml"
    initial = {
        "initial.world_T_ct": made.initial.flatten().tolist(),
        "initial.covariance": made.covariance.flatten().tolist(),
    }
    file.write_text(yaml.safe_dump({"/**/registration": {"ros__parameters": initial}}), encoding="utf-8")
    options = {
        "kind": "live",
        "processes": processes,
        "source": "topic",
        "image_topic": "driver/image_raw",
        "probe": str(made.probe),
        "arm": made.arm,
        "calibration": str(made.calibration),
        "volume": str(made.volume),
        "modality": "US",
        "params_file": str(file),
        "view": bool(view_port),
        "view_port": view_port or 8090,
    }
    return Process("nodes", [sys.executable, "-c", CODE, json.dumps(options)], made.folder)


def ready(meter: Any) -> bool:
    """Whether every node listens and speaks."""
    heard = all(meter.count_publishers(topic) for topic in SPEAKERS)
    return heard and all(meter.count_subscribers(topic) >= count for topic, count in LISTENERS.items())


def names(process: Process) -> dict[int, str]:
    """Names of the nodes' processes by their id; the one that started them is `run`."""
    found = {pid: NODE.search(command_line(pid)) for pid in family(process.pid)}
    return {pid: Path(match[1]).stem if match else "run" for pid, match in found.items()}
