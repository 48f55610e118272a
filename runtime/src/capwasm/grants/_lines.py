"""Where the tables of a TOML file stand: `plugins."acme.*".net[0]` is on line 12.

For messages alone.  tomllib keeps no positions, so headers are read a second time, each by tomllib;
a file in which a header can't be told from a string has no lines.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from typing import Any

from ._document import join

__all__ = ["header_lines"]


def header_lines(text: str) -> dict[str, int]:
    """The line of each header, counted from 1, by the table's path."""
    if '"""' in text or "'''" in text:
        return {}
    lines: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.lstrip().startswith("["):
            continue
        try:
            node: Any = tomllib.loads(line)
        except (tomllib.TOMLDecodeError, ValueError):
            continue  # an array that runs over several lines
        path, repeated = "", line.lstrip().startswith("[[")
        while isinstance(node, dict) and node:
            word, node = next(iter(node.items()))
            path = join(path, word)
            node = node[0] if isinstance(node, list) else node
        if repeated:
            seen[path] += 1
            path = f"{path}[{seen[path] - 1}]"
        lines.setdefault(path, number)
    return lines
