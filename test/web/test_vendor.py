# SPDX-License-Identifier: Apache-2.0
"""The JavaScript that ships is what its makers published, with licences; our own asks nothing of another machine."""

import hashlib
import re
from pathlib import Path

import pytest

import usreg

STATIC = Path(usreg.__file__).parent / "web" / "static"
VENDOR = STATIC / "vendor"
LICENCES = {
    "three/LICENSE": "MIT License",
    "uplot/LICENSE": "MIT License",
    "niivue/LICENSE": "BSD 2-Clause License",
    "niivue/LICENSES-BUNDLED.txt": "fflate",
}


def shipped() -> set[str]:
    return {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()} - {"SHA256SUMS"}


def own_files() -> list[Path]:
    found = [path for end in ("js", "html", "css") for path in STATIC.rglob(f"*.{end}") if VENDOR not in path.parents]
    return sorted(found)


def test_every_file_has_the_stated_checksum() -> None:
    stated = {}
    for line in (VENDOR / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ", 1)
        stated[name] = digest
    assert set(stated) == shipped()
    for name, digest in stated.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_versions_are_pinned_with_the_hash_of_the_package() -> None:
    rows = [line.split() for line in (VENDOR / "VERSIONS").read_text(encoding="utf-8").splitlines()]
    assert [row[0] for row in rows] == ["three", "uplot", "@niivue/niivue"]
    for _, version, integrity in rows:
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", integrity)


@pytest.mark.parametrize("name, words", LICENCES.items())
def test_licences_ship(name: str, words: str) -> None:
    text = (VENDOR / name).read_text(encoding="utf-8")
    assert words in text or "Permission is hereby granted" in text
    assert "Copyright" in text


def test_each_part_of_the_niivue_bundle_has_its_licence() -> None:
    bundle = (VENDOR / "niivue/index.js").read_text(encoding="utf-8")
    licences = (VENDOR / "niivue/LICENSES-BUNDLED.txt").read_text(encoding="utf-8")
    parts = set(re.findall(r"^// (?:\.\./)*node_modules/((?:@[^/]+/)?[^/]+)/", bundle, re.MULTILINE))
    assert len(parts) > 5
    for part in parts:
        assert re.search(rf"(^|\W){re.escape(part)} \d", licences), part


def test_size_is_bounded() -> None:
    assert sum((VENDOR / name).stat().st_size for name in shipped()) < 6_000_000


def test_imports_lead_to_files_that_ship() -> None:
    """No import map, no bare name, no CDN: each import is a path to a file beside it."""
    pattern = re.compile(
        r"""(?:^|[\n;}])\s*(?:import|export)\s[^'"`;()]*?from\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]"""
    )
    vendored = [VENDOR / name for name in shipped() if name.endswith(".js")]
    seen = 0
    for path in [*own_files(), *vendored]:
        if path.suffix != ".js":
            continue
        for found in pattern.findall(path.read_text(encoding="utf-8")):
            target = found[0] or found[1]
            assert target.startswith(("./", "../")), f"{path.name} imports {target}"
            assert (path.parent / target).resolve().is_file(), f"{path.name} imports {target}"
            seen += 1
    assert seen > 2


def test_own_pages_name_no_other_machine() -> None:
    for path in own_files():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")  # a name, not a place
        assert not re.search(r"(?:https?|wss?)://(?!\$\{)|['\"]//[a-z]", text), path.name
        assert "SPDX-License-Identifier: Apache-2.0" in text.splitlines()[0] + text.splitlines()[1], path.name
