# SPDX-License-Identifier: Apache-2.0
"""Makes the lock files in requirements/ again: `python tools/lock.py PYTHON3.10 PYTHON3.11 ...` (their paths).

Each interpreter's own pip resolves the lists without installing anything; the results are merged into one list with a
marker wherever the Python versions differ. Names come from pip's report, never from `pip freeze`: the ROS wheels carry
foreign egg-info folders whose names on the index may belong to somebody else.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
TORCH = "torch==2.13.0"
# Chosen by the Makefile (TORCH) or bound to one torch build: never locked.
UNLOCKED = ("torch", "triton", "nvidia-", "cuda-", "pip")
# Distributions with numpy 1: Humble (3.10), Debian 12 (3.11), Jazzy and Kilted (3.12). Python 3.13 has no numpy 1.
NUMPY1_PYTHONS = ("3.10", "3.11", "3.12")
SOURCE_ONLY = "crcmod,empy"  # published without wheels (or old wheels only); everything else comes as a wheel


def resolve(python: str, lists: list[str], extra: list[str], pins: Sequence[str] = ()) -> dict[str, str]:
    """What pip of one interpreter would install, as name -> version; pins bound it without adding to it."""
    with tempfile.TemporaryDirectory() as folder:
        report, constraints = Path(folder) / "report.json", Path(folder) / "pins.txt"
        constraints.write_text("\n".join(pins), encoding="utf-8")
        command = [python, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed", "--report", str(report)]
        command += ["--only-binary=:all:", f"--no-binary={SOURCE_ONLY}", "--constraint", str(constraints)]
        command += [TORCH, *extra, *(word for name in lists for word in ("-r", str(REQUIREMENTS / name)))]
        subprocess.run(command, check=True)
        rows = json.loads(report.read_text(encoding="utf-8"))["install"]
    found = {row["metadata"]["name"].lower().replace("_", "-"): row["metadata"]["version"] for row in rows}
    return {name: version for name, version in found.items() if not name.startswith(UNLOCKED)}


def version_of(python: str) -> str:
    """The interpreter's version as a marker writes it, for example 3.11."""
    code = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout


def merge(found: dict[str, dict[str, str]]) -> list[str]:
    """Requirement lines; a marker only where the Python versions need different things."""
    lines = []
    for name in sorted({name for names in found.values() for name in names}):
        pythons: dict[str, list[str]] = {}
        for python, names in found.items():
            if name in names:
                pythons.setdefault(names[name], []).append(python)
        for version, users in pythons.items():
            marker = "" if len(users) == len(found) else "; " + condition(users)
            lines.append(f"{name}=={version}{marker}")
    return lines


def condition(pythons: list[str]) -> str:
    """Environment marker that holds for these Python versions."""
    return " or ".join(f'python_version == "{python}"' for python in pythons)


def write(name: str, found: dict[str, dict[str, str]]) -> None:
    """Write one lock file."""
    head = f"# Made by tools/lock.py for Python {', '.join(found)}. Do not edit.\n"
    (REQUIREMENTS / name).write_text(head + "\n".join(merge(found)) + "\n", encoding="utf-8")


def main(pythons: list[str]) -> None:
    """Write the library's lock (newest numpy), what the ROS wheels add to it, and the library's lock with numpy 1."""
    versions = {version_of(python): python for python in pythons}
    library, ros, numpy1 = {}, {}, {}
    for version in sorted(versions, key=lambda text: int(text.split(".")[1])):
        everything = resolve(versions[version], ["run.in", "dev.in", "ros.in"], [])
        pins = [f"{name}=={number}" for name, number in everything.items() if not name.startswith("ros-")]
        library[version] = resolve(versions[version], ["run.in", "dev.in"], ["setuptools<80"], pins)
        ros[version] = {name: number for name, number in everything.items() if name not in library[version]}
        if version in NUMPY1_PYTHONS:
            numpy1[version] = resolve(versions[version], ["run.in", "dev.in"], ["setuptools<80", "numpy<2"])
    write("lock-numpy2.txt", library)
    write("lock-ros.txt", ros)
    write("lock-numpy1.txt", numpy1)


if __name__ == "__main__":
    main(sys.argv[1:])
