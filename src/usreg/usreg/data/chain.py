# SPDX-License-Identifier: Apache-2.0
"""Names of PLUS transforms and the shortest path between two frames."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

from ..errors import FileFormatError, MissingTransformError

# a capital after "To" ends the first name, so that ToolToTracker is Tool -> Tracker
CAPITAL, ANY = re.compile(r"(.+?)To([^a-z\s].*)"), re.compile(r"(.+?)To(.+)")


def split_name(name: str) -> tuple[str, str]:
    """Source and target of a name such as `ProbeToTracker` (with or without the ending `Transform`).

    Raises:
        FileFormatError: not of the form <A>To<B>.
    """
    short = name.removesuffix("Transform")
    match = CAPITAL.fullmatch(short) or ANY.fullmatch(short)
    if match is None:
        raise FileFormatError(f"'{name}' is no name of a transform; expected <A>To<B>, for example ProbeToTracker")
    return match.group(1), match.group(2)


def find_path(names: Iterable[str], source: str, target: str) -> list[tuple[str, bool]]:
    """Transforms that lead from source to target, first applied first, with True where one is used inverted.

    Raises:
        MissingTransformError: there is no path; the message lists the frames that are there.
    """
    edges: dict[str, list[tuple[str, str, bool]]] = {}
    for name in names:
        a, b = split_name(name)
        edges.setdefault(a, []).append((b, name, False))
        edges.setdefault(b, []).append((a, name, True))
    came: dict[str, tuple[str, str, bool] | None] = {source: None}
    queue = deque([source])
    while queue and target not in came:
        frame = queue.popleft()
        for other, name, inverted in edges.get(frame, ()):
            if other not in came:
                came[other] = (frame, name, inverted)
                queue.append(other)
    if target not in came:
        raise MissingTransformError(
            f"no chain of transforms leads from '{source}' to '{target}'; frames that are there: {sorted(edges)}"
        )
    return _walk_back(came, target)


def _walk_back(came: dict[str, tuple[str, str, bool] | None], target: str) -> list[tuple[str, bool]]:
    path = []
    while (step := came[target]) is not None:
        target, name, inverted = step
        path.append((name, inverted))
    return path[::-1]
