"""The signatures of every interface that we serve, so that no component can import another shape.

A component declares the types of its imports itself, and the engine would convert values to
whatever it declares: a guest that imports `open: func(path: list<u8>)` must not reach a function
written for a string.  So each imported function is held against the table `abi.txt`, which
`wit/build_abi.py` makes from the WIT files.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from . import types as t

__all__ = ["canonical", "known_interfaces", "signature", "split_version", "table"]

# `int` alone would take signs, underscores, other alphabets' digits and numbers without end.
_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})")
_DRAFT = re.compile(_VERSION.pattern + r"-[0-9A-Za-z.-]{1,64}")


def split_version(interface: str) -> tuple[str, tuple[int, int, int]]:
    """`wasi:io/streams@0.2.6` as its name and its version; no version is 0.0.0.

    A pre-release stands for nothing but itself, so it is part of the name.

    Raises:
        ValueError: the version is not three numbers, or such with a pre-release.
    """
    name, _, version = interface.partition("@")
    if _DRAFT.fullmatch(version):
        return interface, (0, 0, 0)
    numbers = _VERSION.fullmatch(version or "0.0.0")
    if numbers is None:
        raise ValueError(f"not a version: {version[:100]!r}")
    major, minor, patch = map(int, numbers.groups())
    return name, (major, minor, patch)


def canonical(type_: t.ValType | t.FuncType | None) -> str:
    """The whole structure in one line, without the names of types and versions of packages."""
    match type_:
        case None:
            return "_"
        case t.FuncType(params, result):
            inside = ", ".join(f"{n}: {canonical(p)}" for n, p in params)
            return f"func({inside}) -> {canonical(result)}"
        case t.Prim(word):
            return word
        case t.List(element):
            return f"list<{canonical(element)}>"
        case t.Option(payload):
            return f"option<{canonical(payload)}>"
        case t.Tuple(items):
            return f"tuple<{', '.join(map(canonical, items))}>"
        case t.Result(ok, err):
            return f"result<{canonical(ok)}, {canonical(err)}>"
        case t.Record(_, fields):
            return "record{" + ", ".join(f"{n}: {canonical(f)}" for n, f in fields) + "}"
        case t.Variant(_, cases):
            return "variant{" + ", ".join(f"{n}({canonical(c)})" for n, c in cases) + "}"
        case t.Enum(_, words):
            return "enum{" + ", ".join(words) + "}"
        case t.Flags(_, words):
            return "flags{" + ", ".join(words) + "}"
        case t.Own(resource):
            return f"own<{_resource(resource)}>"
        case t.Borrow(resource):
            return f"borrow<{_resource(resource)}>"
    raise TypeError(type_)


def _resource(resource: t.ResourceId) -> str:
    return f"{resource.interface.partition('@')[0]}.{resource.name}"


@cache
def table() -> dict[str, dict[str, str]]:
    """Interface, without version, to function name to canonical signature."""
    out: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    text = (Path(__file__).parent / "abi.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("interface "):
            current = out.setdefault(line.removeprefix("interface ").partition("@")[0], {})
        elif line.startswith("  "):
            name, _, signature_ = line.strip().partition(" = ")
            current[name] = signature_
    return out


def known_interfaces() -> list[str]:
    """The interfaces of the table, without versions."""
    return sorted(table())


def signature(interface: str, function: str) -> str | None:
    """The canonical signature of a function of ours, or None if the table has none."""
    return table().get(interface.partition("@")[0], {}).get(function)
