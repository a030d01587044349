# SPDX-License-Identifier: Apache-2.0
"""Installs the library, its nodes, and the launch, config, bags and benchmarks folders of the top level."""

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "usreg"
HERE = Path(__file__).resolve().parent  # colcon's symlink build runs a link to this file from its own folder
SHARED_FOLDERS = ("launch", "config", "bags", "benchmarks")
NODES = {
    "us_acquisition": "acquisition",
    "arm_tracking": "arm_tracking",
    "registration": "registration",
    "pose_smoothing": "pose_smoothing",
    "fusion": "fusion",
    "player": "player",
    "recorder": "recorder",
    "simulator": "simulator",
    "web_view": "web_view",
}


def version() -> str:
    """Version of the package, read without importing it."""
    text = (HERE / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def data_files() -> list[tuple[str, list[str]]]:
    """Every file of the shared folders, folder by folder, to be installed under share/usreg.

    The folders are links to the top level: a path with `..` would lead a symlink build out of its own folder.
    """
    rows: dict[str, list[str]] = {}
    for folder in SHARED_FOLDERS:
        for found in sorted(glob(f"{HERE}/{folder}/**", recursive=True)):
            path = Path(found)
            if path.is_file() and "__pycache__" not in path.parts:
                relative = path.relative_to(HERE)
                rows.setdefault(f"share/{PACKAGE}/{relative.parent}", []).append(str(relative))
    return list(rows.items())


setup(
    name=PACKAGE,
    version=version(),
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed", "**/*.html", "**/*.css", "**/*.yaml", "**/*.safetensors", "web/static/**/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *data_files(),
    ],
    extras_require={"test": ["pytest"]},  # by this `colcon test` knows that the tests are pytest's
    python_requires=">=3.10",
    zip_safe=False,
    maintainer="usreg maintainers",
    maintainer_email="maintainers@usreg.invalid",
    description="Registers live 2D ultrasound to a pre-procedural volume. Research use only.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"{PACKAGE} = {PACKAGE}.cli:main",
            *(f"{name} = {PACKAGE}.nodes.{module}:main" for name, module in NODES.items()),
        ]
    },
)
