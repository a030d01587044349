# SPDX-License-Identifier: Apache-2.0
"""The check before the set-up: one line for each thing a machine lacks, which says what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "uname", "getconf", "sed", "cmake", "c++", "cc")
PASS_ON = '#!/bin/sh\n{special}\nexec "{real}" "$@"\n'


class Machine:
    """A folder that stands for PATH: links to the real tools, some of them removed or replaced by scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in TOOLS:
            real = shutil.which(name)
            if real is None:
                pytest.skip(f"this machine has no {name} to start from")
            (folder / name).symlink_to(real)
        self.script("python3", PASS_ON.format(special="", real=sys.executable))

    def script(self, name: str, text: str) -> None:
        self.remove(name)
        (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def check(self, **environment: str) -> tuple[int, list[str]]:
        """Exit code and lines of the check on this machine."""
        env = {"PATH": str(self.folder), "HOME": os.environ.get("HOME", "/"), **environment}
        run = subprocess.run([TOP / "tools" / "check_machine.sh"], env=env, cwd=TOP, capture_output=True, text=True)
        return run.returncode, (run.stdout + run.stderr).splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def prints(text: str) -> str:
    return f"#!/bin/sh\necho '{text}'\n"


def python_without(part: str) -> str:
    return PASS_ON.format(special=f'case "$*" in *{part}*) exit 1 ;; esac', real=sys.executable)


UNFIT: dict[str, tuple[Callable[[Machine], None], str, str]] = {
    "no cmake": (lambda machine: machine.remove("cmake"), "no cmake", "install"),
    "old cmake": (lambda machine: machine.script("cmake", prints("cmake version 3.16.3")), "cmake 3.16.3", "3.21"),
    "no c++": (lambda machine: machine.remove("c++"), "no C++ compiler", "apt install g++"),
    "no cc": (lambda machine: machine.remove("cc"), "no C compiler", "apt install gcc"),
    "no python": (lambda machine: machine.remove("python3"), "no python3", "3.10-3.13"),
    "old python": (lambda machine: machine.script("python3", prints("3.9")), "version 3.9", "PYTHON=python3.12"),
    "new python": (lambda machine: machine.script("python3", prints("3.14")), "version 3.14", "PYTHON=python3.12"),
    "no venv": (lambda machine: machine.script("python3", python_without("ensurepip")), "no venv module", "-venv"),
    "no header": (lambda machine: machine.script("python3", python_without("Python.h")), "Python.h", "-dev"),
    "old glibc": (lambda machine: machine.script("getconf", prints("glibc 2.27")), "glibc 2.27", "2.28 or newer"),
    "musl": (lambda machine: machine.script("getconf", "#!/bin/sh\nexit 1\n"), "not glibc", "2.28 or newer"),
    "arm": (
        lambda machine: machine.script("uname", '#!/bin/sh\ncase "$1" in -m) echo aarch64 ;; *) echo Linux ;; esac\n'),
        "aarch64",
        "ROS 2 distribution",
    ),
    "macOS": (lambda machine: machine.script("uname", prints("Darwin")), "Darwin", "use Linux"),
}


def test_fit_machine_passes_silently(machine: Machine) -> None:
    assert machine.check() == (0, [])


@pytest.mark.parametrize("case", UNFIT)
def test_one_line_says_what_is_missing_and_what_to_do(machine: Machine, case: str) -> None:
    spoil, what, advice = UNFIT[case]
    spoil(machine)
    code, lines = machine.check()
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("usreg: ")
    assert what in lines[0]
    assert advice in lines[0]


def test_several_problems_are_all_named(machine: Machine) -> None:
    machine.remove("cmake", "c++")
    code, lines = machine.check()
    assert code == 2
    assert len(lines) == 2


def test_distribution_does_not_need_what_only_the_wheels_need(machine: Machine) -> None:
    machine.script("uname", '#!/bin/sh\ncase "$1" in -m) echo aarch64 ;; *) echo Linux ;; esac\n')
    machine.script("getconf", prints("glibc 2.27"))
    machine.script("python3", PASS_ON.format(special='case "$*" in *colcon*) exit 0 ;; esac', real=sys.executable))
    assert machine.check(USREG_MODE="distribution", ROS_DISTRO="jazzy") == (0, [])


def test_distribution_without_colcon_is_told(machine: Machine) -> None:
    machine.script("python3", python_without("colcon"))
    code, lines = machine.check(USREG_MODE="distribution", ROS_DISTRO="jazzy")
    assert code == 2
    assert lines == [
        "usreg: ROS jazzy is sourced but colcon is missing; install it (apt install python3-colcon-common-extensions)."
    ]


def test_compiler_named_by_the_environment_is_enough(machine: Machine) -> None:
    machine.remove("c++", "cc")
    machine.script("my-compiler", prints("1"))
    assert machine.check(CXX="my-compiler -O2", CC="my-compiler") == (0, [])


def test_nothing_built_yet_is_told(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(TOP / "tools" / "in_env.sh", tmp_path / "tools")
    run = subprocess.run([tmp_path / "tools" / "in_env.sh", "true"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "make build" in run.stderr


def test_foreign_environment_is_not_removed(tmp_path: Path) -> None:
    """A .venv that this Makefile did not make is left alone."""
    for name in ("tools", "requirements"):
        shutil.copytree(TOP / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine").write_text("keep", encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if key != "ROS_DISTRO"}
    run = subprocess.run([tmp_path / "tools" / "setup.sh"], env=env, capture_output=True, text=True)
    assert run.returncode == 2
    assert ".venv was not made by this Makefile" in run.stderr
    assert (tmp_path / ".venv" / "mine").read_text(encoding="utf-8") == "keep"
