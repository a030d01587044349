# SPDX-License-Identifier: Apache-2.0
"""What is written about the packages in several places agrees: versions, keys, entry points, pins, messages."""

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "src" / "usreg"
PACKAGES = (TOP / "src" / "usreg", TOP / "src" / "usreg_msgs", TOP / "underlay" / "tf2_msgs")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Imported name -> (name in requirements/run.in, rosdep key; "" where rosdep has none).
PYTHON_PACKAGES = {
    "SimpleITK": ("SimpleITK", ""),
    "aiohttp": ("aiohttp", "python3-aiohttp"),
    "apsw": ("apsw", ""),
    "cma": ("cma", ""),
    "cv2": ("opencv-python-headless", "python3-opencv"),
    "lz4": ("lz4", ""),
    "matplotlib": ("matplotlib", "python3-matplotlib"),
    "mcap": ("mcap", ""),
    "monai": ("monai", ""),
    "numba": ("numba", "python3-numba"),
    "numpy": ("numpy", "python3-numpy"),
    "pydicom": ("pydicom", ""),
    "pyigtl": ("pyigtl", ""),
    "pytransform3d": ("pytransform3d", "python3-pytransform3d-pip"),
    "rich": ("rich", "python3-rich"),
    "rosbags": ("rosbags", "python3-rosbags-pip"),
    "ruamel": ("ruamel.yaml", "python3-ruamel.yaml"),
    "safetensors": ("safetensors", ""),
    "scipy": ("scipy", "python3-scipy"),
    "torch": ("", "python3-torch"),
    "typer": ("typer", "python3-typer"),
    "yaml": ("pyyaml", "python3-yaml"),
    "zstandard": ("zstandard", ""),
}
ROS_KEYS = {"tf2_ros": "tf2_ros_py"}  # where the rosdep key is not the name of the import


def manifest(folder: Path) -> ElementTree.Element:
    return ElementTree.parse(folder / "package.xml").getroot()


def keys(folder: Path) -> set[str]:
    return {element.text or "" for element in manifest(folder) if element.tag.endswith("depend")}


def imported_names() -> set[str]:
    """Top-level names that the package imports from outside the standard library and itself."""
    names: set[str] = set()
    for path in (PACKAGE / "usreg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add((node.module or "").split(".")[0])
    return names - set(sys.stdlib_module_names) - {"usreg"}


def requirements(name: str) -> list[Requirement]:
    lines = (TOP / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pins(name: str, python: str) -> dict[str, list[str]]:
    """Versions that a lock file gives to each name under one Python."""
    found: dict[str, list[str]] = {}
    for row in requirements(name):
        if row.marker is None or row.marker.evaluate({"python_version": python}):
            found.setdefault(row.name.lower(), []).append(str(row.specifier))
    return found


def test_versions_are_equal_everywhere() -> None:
    module = re.search(r'__version__ = "(.+?)"', (PACKAGE / "usreg" / "__init__.py").read_text(encoding="utf-8"))
    citation = re.search(r"^version: (.+)$", (TOP / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert module and citation
    found = {module.group(1), citation.group(1), *(manifest(folder).findtext("version") for folder in PACKAGES)}
    assert len(found) == 1


@pytest.mark.parametrize("folder", PACKAGES[:2], ids=lambda folder: folder.name)
def test_changelog_begins_with_the_version(folder: Path) -> None:
    headings = re.findall(r"^(\d+\.\d+\.\d+) \(.+\)\n-+$", (folder / "CHANGELOG.rst").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == manifest(folder).findtext("version")


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_manifest_is_format_3_with_the_folder_s_name(folder: Path) -> None:
    root = manifest(folder)
    assert root.get("format") == "3"
    assert root.findtext("name") == folder.name
    assert root.findtext("license") == "Apache-2.0"


def test_every_import_is_named_by_its_rosdep_key() -> None:
    """Python packages with a key, ROS packages by theirs, and every Python package in the list that pip installs."""
    listed = keys(PACKAGE)
    installed = {row.name for row in requirements("run.in")}
    missing = []
    for name in sorted(imported_names()):
        pip_name, key = PYTHON_PACKAGES.get(name, ("", ROS_KEYS.get(name, name)))
        if key and key not in listed:
            missing.append(f"{name}: {key} is not in package.xml")
        if pip_name and pip_name not in installed:
            missing.append(f"{name}: {pip_name} is not in requirements/run.in")
    assert missing == []


def test_interfaces_name_what_they_use() -> None:
    for folder in PACKAGES[1:]:
        text = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.*") if path.suffix[1:] in KINDS)
        used = set(re.findall(r"^(\w+)/\w+(?:\[\d*\])? ", text, re.MULTILINE)) - {folder.name}
        assert used <= keys(folder)
        assert used <= set(re.findall(r"find_package\((\w+)", (folder / "CMakeLists.txt").read_text(encoding="utf-8")))


KINDS = ("msg", "srv", "action")


@pytest.mark.parametrize("folder", PACKAGES[1:], ids=lambda folder: folder.name)
def test_every_interface_file_is_built(folder: Path) -> None:
    files = {f"{path.parent.name}/{path.name}" for kind in KINDS for path in folder.glob(f"{kind}/*.{kind}")}
    listed = set(re.findall(r'^  "(\w+/\w+\.\w+)"', (folder / "CMakeLists.txt").read_text("utf-8"), re.MULTILINE))
    assert files == listed


def console_scripts() -> dict[str, str]:
    """The entry points as setup.py writes them: the command line and the table of nodes."""
    tree = ast.parse((PACKAGE / "setup.py").read_text(encoding="utf-8"))
    tables = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "NODES"]
    return {"usreg": "cli", **{name: f"nodes.{module}" for name, module in ast.literal_eval(tables[0]).items()}}


@pytest.mark.parametrize("script", console_scripts())
def test_every_console_script_has_its_function(script: str) -> None:
    path = PACKAGE / "usreg" / console_scripts()[script].replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert "main" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    "locks", [("lock-numpy2.txt", "lock-ros.txt"), ("lock-numpy1.txt",)], ids=lambda names: names[0]
)
def test_locks_pin_each_name_once_and_all_that_is_asked_for(locks: tuple[str, ...], python: str) -> None:
    if locks == ("lock-numpy1.txt",) and python == "3.13":
        pytest.skip("numpy 1 does not exist for Python 3.13")
    found: dict[str, list[str]] = {}
    for lock in locks:
        for name, versions in pins(lock, python).items():
            found.setdefault(name, []).extend(versions)
    assert {name: versions for name, versions in found.items() if len(versions) != 1} == {}
    assert all(versions[0].startswith("==") for versions in found.values())
    lists = ("run.in", "dev.in", "ros.in") if "lock-ros.txt" in locks else ("run.in", "dev.in")
    wanted = [row for name in lists for row in requirements(name)]
    unmet = [str(row) for row in wanted if not row.specifier.contains(found[row.name.lower()][0].removeprefix("=="))]
    assert unmet == []
    assert not [name for name in found if name.startswith(("torch", "nvidia-", "triton"))]


@pytest.mark.parametrize("name", ["TFMessage", "TF2Error"])
def test_own_tf2_msgs_is_wire_identical(name: str) -> None:
    """Same type hash (REP-2016) as in the ROS distribution, computed from the message text."""
    full = f"tf2_msgs/msg/{name}"
    reference, own = get_typestore(Stores.ROS2_KILTED), get_typestore(Stores.ROS2_KILTED)
    text = (TOP / "underlay" / "tf2_msgs" / "msg" / f"{name}.msg").read_text(encoding="utf-8")
    del own.fielddefs[full]
    own.register(get_types_from_msg(text, full))
    assert own.hash_rihs01(full) == reference.hash_rihs01(full)


def test_own_tf2_msgs_is_complete() -> None:
    """An incomplete tf2_msgs would shadow the real one and break tf2_ros."""
    folder = TOP / "underlay" / "tf2_msgs"
    goal, result, feedback = (folder / "action" / "LookupTransform.action").read_text(encoding="utf-8").split("---")
    fields = r"^(\S+) (\w+)$"
    assert re.findall(fields, goal, re.MULTILINE) == [
        ("string", "target_frame"),
        ("string", "source_frame"),
        ("builtin_interfaces/Time", "source_time"),
        ("builtin_interfaces/Duration", "timeout"),
        ("builtin_interfaces/Time", "target_time"),
        ("string", "fixed_frame"),
        ("bool", "advanced"),
    ]
    expected = [("geometry_msgs/TransformStamped", "transform"), ("tf2_msgs/TF2Error", "error")]
    assert re.findall(fields, result, re.MULTILINE) == expected
    assert feedback.strip() == ""
    request, response = (folder / "srv" / "FrameGraph.srv").read_text(encoding="utf-8").split("---")
    assert re.findall(fields, request, re.MULTILINE) == []
    assert re.findall(fields, response, re.MULTILINE) == [("string", "frame_yaml")]
    assert (TOP / "underlay" / "COLCON_IGNORE").exists()


def test_every_file_of_the_page_is_in_the_package() -> None:
    """Scripts, styles, licences of what is shipped, and their checksums."""
    tree = ast.parse((PACKAGE / "setup.py").read_text(encoding="utf-8"))
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "setup")
    data = next(ast.unparse(word.value) for word in call.keywords if word.arg == "package_data")
    patterns = re.findall(r"'([^']+)'", data)
    folder = PACKAGE / "usreg"
    listed = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    page = {path for path in (folder / "web" / "static").rglob("*") if path.is_file()}
    assert {"index.html", "SHA256SUMS"} <= {path.name for path in page} and {".js", ".css"} <= {p.suffix for p in page}
    assert any("LICENSE" in path.name for path in page) and page <= listed


def test_shared_folders_are_installed() -> None:
    """Where usreg is installed (make build), its share folder holds every file of the shared folders."""
    share = Path(sys.prefix) / "share" / "usreg"
    if not share.is_dir():
        pytest.skip("usreg is not installed in this environment")
    folders = [TOP / name for name in ("launch", "config", "bags", "benchmarks")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    missing = [str(path) for path in files if not (share / path.relative_to(TOP)).is_file()]
    assert missing == [], "run make build: these files are newer than the installation"
