# SPDX-License-Identifier: Apache-2.0
"""Kernels load where nothing can be written: a read-only package, and a home that is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import usreg

KERNEL = "from .compiled import njit\n\n\n@njit()\ndef double(x):\n    return 2 * x\n"
CODE = "import logging; logging.basicConfig(level='INFO'); from usreg.kernel import double; print(double(21))"


@pytest.mark.parametrize("home", ["writable", "none"])
def test_a_package_that_cannot_be_written(tmp_path, home):
    """A file in the place of `__pycache__` keeps numba from caching beside the package, also for root."""
    package = tmp_path / "usreg"
    package.mkdir()
    for name in ("compiled.py", "errors.py"):
        shutil.copy(Path(usreg.__file__).parent / name, package)
    for name, text in (("__init__.py", ""), ("kernel.py", KERNEL), ("__pycache__", "")):
        (package / name).write_text(text)
    place = tmp_path if home == "writable" else Path("/dev/null")
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(place), "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "42", done.stderr
    assert bool(list(tmp_path.rglob("*.nbi"))) is (home == "writable")
    assert ("double is compiled at every start" in done.stderr) is (home == "none")
