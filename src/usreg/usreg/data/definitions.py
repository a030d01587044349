# SPDX-License-Identifier: Apache-2.0
"""Message types without ROS.

rosbags' own for the standard packages, `.msg` files for usreg_msgs, a bag's schema for the rest.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ..errors import FileFormatError, MissingFileError
from .share import prefixes

OWN_PACKAGE = "usreg_msgs"
MAX_DEFINITION_BYTES = 512 * 1024
MAX_FIXED_ARRAY = 65536  # code is generated per element: a hostile schema must not ask for a billion
TYPE_NAME = re.compile(r"[a-z][a-z0-9_]*/(msg|srv|action)/[A-Za-z][A-Za-z0-9_]*")
IDL = ("ros2idl", "omgidl")
SEPARATOR = "=" * 80


def definition_folder(package: str = OWN_PACKAGE) -> Path:
    """Folder with the `.msg` files of a package: built packages first, then this source tree.

    Raises:
        MissingFileError: the package is neither built nor in the source tree.
    """
    source = Path(__file__).resolve().parents[3] / package / "msg"
    for folder in (*(p / "share" / package / "msg" for p in prefixes()), source):
        if any(folder.glob("*.msg")):
            return folder
    raise MissingFileError(
        f"the message package '{package}' is not there; run 'make build', or source the workspace's setup file"
    )


def message_definitions(package: str = OWN_PACKAGE) -> dict[str, str]:
    """Text of every message of a package by type name, `usreg_msgs/msg/Registration` and so on."""
    files = sorted(definition_folder(package).glob("*.msg"))
    return {f"{package}/msg/{f.stem}": f.read_text(encoding="utf-8") for f in files}


def new_store() -> Typestore:
    """A store of its own with the standard types and usreg_msgs: what a reader may add to."""
    store = get_typestore(Stores.ROS2_KILTED)
    types = {}
    for name, text in message_definitions().items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    return store


@functools.lru_cache(maxsize=1)
def standard_store() -> Typestore:
    """The shared store with the standard types and usreg_msgs. Never add to it: use `new_store`."""
    return new_store()


def add_package(store: Typestore, type_name: str) -> None:
    """Make a type of another built package known to a store, with what it depends on.

    Raises:
        MissingFileError: no `.msg` file of it was found. FileFormatError: it cannot be parsed.
    """
    if type_name in store.fielddefs:
        return
    package, _, name = check_type_name(type_name).split("/")
    path = definition_folder(package) / f"{name}.msg"
    if not path.is_file():
        raise MissingFileError(
            f"no definition of '{type_name}': give its text, or source the workspace that holds '{package}'"
        )
    register(store, type_name, path.read_text(encoding="utf-8"))
    for child in children(store, type_name):
        add_package(store, child)


def children(store: Typestore, type_name: str) -> list[str]:
    """Types that the fields of a type name."""
    found = []
    for _, description in store.fielddefs[type_name][1]:
        inner: Any = description[1][0] if description[0] in (Nodetype.ARRAY, Nodetype.SEQUENCE) else description
        if inner[0] == Nodetype.NAME:
            found.append(str(inner[1]))
    return found


def full_text(store: Typestore, type_name: str) -> str:
    """Definition with everything it depends on, as a bag keeps it: own types with their comments."""
    generated, _ = store.generate_msgdef(type_name, ros_version=2)
    if not type_name.startswith(f"{OWN_PACKAGE}/"):
        return generated
    head, *rest = generated.split(SEPARATOR + "\n")
    own = message_definitions().get(type_name, head)
    return f"\n{SEPARATOR}\n".join([own.rstrip("\n"), *(part.rstrip("\n") for part in rest)]) + "\n"


def check_type_name(type_name: str) -> str:
    """Return the name, `package/msg/Name`.

    Raises:
        FileFormatError: it is not of that form.
    """
    if len(type_name) > 255 or not TYPE_NAME.fullmatch(type_name):
        raise FileFormatError(f"'{type_name[:80]}' is not the name of a message type (package/msg/Name)")
    return type_name


def register(store: Typestore, type_name: str, text: str, encoding: str = "ros2msg") -> None:
    """Add a type from the text of a definition that is not trusted; types that are known with the same fields stay.

    Raises:
        FileFormatError: too long, not parsed, a huge fixed array, or it contradicts a type that is known.
    """
    check_type_name(type_name)
    if len(text) > MAX_DEFINITION_BYTES:
        raise FileFormatError(
            f"the definition of '{type_name}' has {len(text)} characters; at most {MAX_DEFINITION_BYTES} are read"
        )
    sizes = [int(n) for n in re.findall(r"\[(?:<=)?(\d{1,18})\d*\]", text)]
    if max(sizes, default=0) > MAX_FIXED_ARRAY:
        raise FileFormatError(
            f"the definition of '{type_name}' declares an array of {max(sizes)} elements; at most {MAX_FIXED_ARRAY}"
        )
    try:
        types = get_types_from_idl(text) if encoding in IDL else get_types_from_msg(text, type_name)
        for name in types:
            check_type_name(name)
        store.register(types)
    except (TypesysError, RecursionError, ValueError, SyntaxError, AssertionError) as error:
        raise FileFormatError(f"the definition of '{type_name}' cannot be used: {str(error)[:200]}") from error
