# SPDX-License-Identifier: Apache-2.0
"""PLUS device-set XML from outside: bounded, no entities, matrices and number lists."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

import torch
from torch import Tensor

from ..errors import FileFormatError, MissingFileError
from .sequence_fields import numbers

MAX_XML_BYTES, MAX_DEPTH, MAX_ELEMENTS = 16 * 1024 * 1024, 64, 200_000


def read_xml(path: str | Path) -> Element:
    """Root element of an XML file that is not trusted.

    Raises:
        MissingFileError: no such file.
        FileFormatError: too large or too deep, a DOCTYPE or an entity, not well formed, or not a PlusConfiguration.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file '{path.name}' in '{path.parent}': check the name")
    if path.stat().st_size > MAX_XML_BYTES:
        raise FileFormatError(
            f"'{path.name}' has {path.stat().st_size} bytes; a device set here has at most {MAX_XML_BYTES}"
        )
    try:
        root = _parse(path.read_bytes(), path.name)
    except (expat.ExpatError, ParseError, UnicodeDecodeError, LookupError) as error:
        raise FileFormatError(f"'{path.name}' is not well-formed XML: {error}") from error
    if root.tag != "PlusConfiguration":
        raise FileFormatError(f"'{path.name}' is a '{root.tag}'; a PLUS device set is a 'PlusConfiguration'")
    return root


def _parse(data: bytes, name: str) -> Element:
    """Build the tree ourselves so that a DOCTYPE, the door to entities, is refused before it is expanded."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = elements = 0

    def refuse(*_: object) -> None:
        raise FileFormatError(f"'{name}' has a DOCTYPE or an entity; a device set needs none: remove it")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            raise FileFormatError(
                f"'{name}' is nested deeper than {MAX_DEPTH} or has more than {MAX_ELEMENTS} elements"
            )
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(data, True)
    return builder.close()


def attribute_numbers(element: Element, key: str, count: int, name: str) -> list[float] | None:
    """Numbers of an attribute, or None where it is absent.

    Raises:
        FileFormatError: another count, or not finite.
    """
    text = element.get(key)
    if text is None:
        return None
    values = numbers(text)
    if values is None or len(values) != count or not all(map(math.isfinite, values)):
        raise FileFormatError(f"'{name}': {element.tag} has {key}=\"{text.strip()[:80]}\"; expected {count} numbers")
    return values


def static_transforms(root: Element, name: str) -> dict[str, Tensor]:
    """Matrices (4, 4) of `CoordinateDefinitions` by name, "ImageToProbe" and so on.

    Raises:
        FileFormatError: a transform without From, To or 16 finite numbers.
    """
    found = {}
    for element in root.iterfind("./CoordinateDefinitions/Transform"):
        source, target = element.get("From"), element.get("To")
        values = attribute_numbers(element, "Matrix", 16, name)
        if not source or not target or values is None:
            raise FileFormatError(
                f"'{name}' has a Transform without From, To or Matrix: every transform needs the three"
            )
        found[f"{source}To{target}"] = torch.tensor(values, dtype=torch.float64).reshape(4, 4)
    return found
