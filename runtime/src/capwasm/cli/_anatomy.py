"""What `capwasm inspect` tells of a component's code, and of what a manifest asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from capwasm.errors import CapwasmError

__all__ = ["add_permissions", "anatomy_lines", "is_component", "of_component", "permission_lines"]

Report = dict[str, Any]
# What componentize-py starts Python with while it builds; no plugin's author wrote it.
PYTHONS_OWN: Final = "exports"


def is_component(data: bytes | memoryview) -> bool:
    """Whether it begins like a bare component."""
    return bytes(data[:8]) == b"\0asm\x0d\0\x01\0"


def of_component(name: str, data: bytes, sha256: str) -> Report:
    """The report on a bare component, which nobody signed and which asks for nothing."""
    from capwasm.authoring.anatomy import anatomy

    return {
        "file": name,
        "size": len(data),
        "sha256": sha256,
        "verified": False,
        "code": anatomy(data),
    }


def add_permissions(report: Report, data: bytes) -> None:
    """Say what the manifest of a capsule asks, with its risk; nothing where it can't be read."""
    from capwasm.authoring.review import permissions
    from capwasm.capsule.container import read_archive, split
    from capwasm.capsule.members import MANIFEST
    from capwasm.grants.manifest import parse_manifest

    from ._plugin import capabilities

    known = capabilities()
    try:
        member = read_archive(split(data).archive)[MANIFEST]
        report["permissions"] = permissions(parse_manifest(bytes(member), known), known)
    except (CapwasmError, KeyError):
        return  # the verdict on the capsule stands beside it


def permission_lines(report: Report) -> Iterator[str]:
    """What it asks, the gravest first."""
    for row in report.get("permissions", ()):
        optional = "  optional" if row["optional"] else ""
        yield f"asks       {row['risk']:<7}{row['text']}{optional}"


def anatomy_lines(code: Report, *, verbose: bool) -> Iterator[str]:
    """Sizes, imports and exports, a line each; the caller escapes it."""
    yield f"code       {code['size']} bytes{_sizes(code.get('sections'))}"
    if "fault" in code:
        yield f"           not all of it can be read: {code['fault']}"
    for interface in code.get("exports", ()):
        if interface["interface"] == PYTHONS_OWN and not verbose:
            continue
        for definition in interface["types"]:
            yield f"export     {definition}"
        for function in interface["functions"]:
            head, _, rest = function["signature"].partition("(")
            name = function.get("short", head)
            yield f"export     {name}({rest}{'  (lane)' if function['lane'] else ''}"
    for interface in code.get("imports", ()):
        functions = interface["functions"]
        name = interface["interface"] or "the world itself"
        laned = sum(f["lane"] for f in functions)
        count = f"{len(functions)} function{'s' * (len(functions) != 1)}"
        yield f"import     {name}  {count}{f', {laned} of them on the lane' if laned else ''}"
        for row in functions if verbose else ():
            yield f"             {row['signature']}{'  (lane)' if row['lane'] else ''}"
        for definition in interface["types"] if verbose else ():
            yield f"             {definition}"


def _sizes(found: dict[str, int] | None) -> str:
    if not found:
        return ""
    parts = [f"{name} {found[name]}" for name in ("code", "data", "custom", "other")]
    return f": {', '.join(parts)}, in {found['modules']} core module{'s' * (found['modules'] != 1)}"
