"""Which files a capsule may hold, and how they may be named: one rule for `pack` and for `verify`.

Names are plain ASCII, relative, without hidden, dotted or device parts, so that no file system,
archive tool or terminal can read one name in two ways (FS-27).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from capwasm.errors import Fault

from .identity import DEVICES, Kind

__all__ = ["MANIFEST", "MAX_MEMBERS", "check_members", "library_name", "name_fault", "triple_of"]

MANIFEST: Final = "plugin.toml"
COMPONENT: Final = "plugin.wasm"
SBOM: Final = "sbom.cdx.json"
MAX_MEMBERS: Final = 256
MAX_NAME: Final = 128
MAX_PARTS: Final = 8

_PART: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.@+-]*[A-Za-z0-9_@+-])?")
_TRIPLE: Final = r"[a-z0-9_]+(?:-[a-z0-9_]+){2,3}"
_LIBRARY: Final = re.compile(rf"lib/({_TRIPLE})/plugin\.so")
_OPTIONAL: Final = re.compile(r"sbom\.cdx\.json|README\.md|LICENSE|assets/.+|wit/.+")

_CODE: Final[dict[Kind, tuple[re.Pattern[str], str]]] = {
    "component": (re.compile(re.escape(COMPONENT)), COMPONENT),
    "native": (_LIBRARY, "lib/<triple>/plugin.so"),
}

# A fault, with the stable code it has when it is met in a signed capsule.
Coded = tuple[str, Fault]


def library_name(triple: str) -> str:
    """The member that holds a native plugin's code for a target triple."""
    return f"lib/{triple}/plugin.so"


def triple_of(name: str) -> str | None:
    """The target triple of a member that is a native plugin's code; None if it is none."""
    found = _LIBRARY.fullmatch(name)
    return found[1] if found else None


def name_fault(name: str) -> str | None:
    """What is wrong with a member's name, or None."""
    if not name or len(name) > MAX_NAME:
        return f"a name has 1 to {MAX_NAME} characters"
    if name.startswith("/") or "\\" in name or ":" in name:
        return "a name is relative, with / between its parts"
    parts = name.split("/")
    if len(parts) > MAX_PARTS:
        return f"a name has at most {MAX_PARTS} parts"
    for part in parts:
        if not _PART.fullmatch(part):
            return (
                "each part of a name is of A-Z a-z 0-9 _ - . @ +, not empty, not hidden (no dot or"
                " sign first) and has no dot last"
            )
        if part.split(".")[0].lower() in DEVICES:
            return f"{part!r} names a device on some systems"
    return None


def check_members(names: Sequence[str], kind: Kind) -> list[Coded]:
    """All that is wrong with a capsule's set of names, each with its code; empty if nothing is."""
    faults: list[Coded] = []
    code_pattern, code_words = _CODE[kind]
    for name in names:
        if wrong := name_fault(name):
            faults.append(("verify.member-name", Fault(ascii(name), wrong)))
        elif not (name == MANIFEST or code_pattern.fullmatch(name) or _OPTIONAL.fullmatch(name)):
            allowed = f"{MANIFEST}, {code_words}, sbom.cdx.json, README.md, LICENSE, assets/, wit/"
            faults.append(
                (
                    "verify.member-extra",
                    Fault(name, f"a {kind} capsule holds no such file; valid: {allowed}"),
                )
            )
    if len(names) > MAX_MEMBERS:
        faults.append(("verify.bomb", Fault("", f"more than {MAX_MEMBERS} files")))
    if MANIFEST not in names:
        faults.append(("verify.member-missing", Fault(MANIFEST, "the manifest is missing")))
    if not any(code_pattern.fullmatch(name) for name in names):
        faults.append(("verify.member-missing", Fault(code_words, "the code is missing")))
    faults.extend(_collisions(names))
    return faults


def _collisions(names: Iterable[str]) -> Iterable[Coded]:
    """Names that some file system would put in one place."""
    seen: dict[str, str] = {}
    for name in names:
        folded = name.lower()
        if folded in seen:
            yield (
                "verify.member-duplicate",
                Fault(ascii(name), f"stands twice, or differs only by case from {seen[folded]!a}"),
            )
        seen[folded] = name
    for folded, name in seen.items():
        parent = folded
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in seen:
                yield (
                    "verify.member-name",
                    Fault(ascii(name), f"lies below {seen[parent]!a}, which is a file"),
                )
