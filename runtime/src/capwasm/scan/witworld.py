"""What a world of WIT exports, by the WIT that a capsule carries or that comes with capwasm.

Only the outside of a world is read: its `export` and `include` statements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from capwasm._shipped import wit_packages
from capwasm.engine.witdoc import wit_files

__all__ = ["world_exports"]

_DEEPEST: Final = 8
_COMMENT: Final = re.compile(r"//[^\n]*|/\*(?:.*?\*/|.*)", re.DOTALL)
_PACKAGE: Final = re.compile(r"\bpackage\s+([a-z0-9-]+:[a-z0-9-]+)(?:@[0-9A-Za-z.+-]+)?\s*;")
_WORLD: Final = re.compile(r"\bworld\s+%?([a-z][a-z0-9-]*)\s*\{")
_NAME: Final = r"%?([a-z][A-Za-z0-9:/-]*)(?:@[0-9A-Za-z.+-]+)?"
_STATEMENT: Final = re.compile(rf"\b(export|include)\s+{_NAME}\s*(:|;|with\b)")


def world_exports(
    world: str | None, members: Mapping[str, bytes | memoryview]
) -> frozenset[str] | None:
    """The interfaces, without versions, and functions that a world exports.

    Args:
        world: `acme:weather/weather@0.1.0`.
        members: of the capsule; those below `wit/` count.

    Returns:
        None where no WIT says so, or not all of it is there.
    """
    if world is None:
        return None
    ours = (text for package in wit_packages().values() for text in package.values())
    # No capsule says what a world of ours is.
    bodies = dict(_worlds(wit_files(members))) | dict(_worlds(ours))
    found: set[str] = set()
    todo, seen = [world.partition("@")[0]], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in bodies or len(seen) > _DEEPEST:
            return None
        package = name.partition("/")[0]
        for kind, what, after in bodies[name]:
            whole = what if ":" in what or after == ":" else f"{package}/{what}"
            if kind == "include":
                todo.append(whole)
            else:
                found.add(whole)
    return frozenset(found)


def _worlds(texts: Iterable[str]) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each world by its whole name, with its statements; a file without a package has the first's."""
    plain = [_COMMENT.sub(" ", text) for text in texts]
    own = [_PACKAGE.search(text) for text in plain]
    last = next((m[1] for m in reversed(own) if m), "")
    for text, package in zip(plain, own, strict=True):
        for head in _WORLD.finditer(text):
            body = _body(text, head.end())
            name = f"{package[1] if package else last}/{head[1]}"
            yield name, [(m[1], m[2], m[3]) for m in _STATEMENT.finditer(body)]


def _body(text: str, start: int) -> str:
    """What stands between a brace and the one that closes it, without what nests deeper."""
    out, depth, at = [], 1, start
    for brace in re.finditer(r"[{}]", text[start:]):
        if depth == 1:
            out.append(text[at : start + brace.start()])
        depth += 1 if brace[0] == "{" else -1
        at = start + brace.end()
        if depth == 0:
            break
    return "".join(out)
