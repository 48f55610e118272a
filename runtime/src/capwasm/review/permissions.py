"""What a plugin asks for, as a person reads it, and the one digest over exactly that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from capwasm.capability import Capability, Risk
from capwasm.grants.manifest import Manifest
from capwasm.lattice import Clause

__all__ = [
    "GRAVITY",
    "Permission",
    "gravest_first",
    "permission_digest",
    "permission_of",
    "permissions",
]

GRAVITY: Final = {Risk.LOW: 0, Risk.MEDIUM: 1, Risk.HIGH: 2}


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing that a version asks for, as a person reads it.

    Attributes:
        capability: its table's name.   text: what it allows.
        risk, why: how grave it is, and why.
    """

    capability: str
    text: str
    risk: Risk
    why: str

    def __str__(self) -> str:
        """`net: GET https://api.acme.com/ (high risk: …)`."""
        return f"{self.capability}: {self.text} ({self.risk.value} risk: {self.why})"


def permission_of(capability: Capability[Any, Any] | None, name: str, clause: Clause) -> Permission:
    """What a clause comes to; a capability that nobody here knows is a high risk."""
    if capability is None:
        return Permission(name, clause.describe(), Risk.HIGH, "nobody here knows this capability")
    risk, why = capability.risk(clause)
    return Permission(name, clause.describe(), risk, why)


def gravest_first(found: Iterable[Permission]) -> tuple[Permission, ...]:
    """In order: by risk, then capability and text."""
    return tuple(sorted(found, key=lambda p: (-GRAVITY[p.risk], p.capability, p.text)))


def permissions(
    manifest: Manifest, capabilities: Sequence[Capability[Any, Any]]
) -> tuple[Permission, ...]:
    """All that a manifest asks for, the gravest first.

    Native code is one of them: whatever it is granted, a sandbox alone stands around it.

    Args:
        manifest: parsed with the same capabilities.
        capabilities: those that there are.
    """
    known = {c.name: c for c in capabilities}
    found = [
        permission_of(known.get(name), name, clause)
        for name, request in manifest.requests.items()
        for clause in request.clauses
    ]
    if manifest.plugin.kind == "native":
        found.append(Permission("native", "run machine code", Risk.HIGH, "no engine confines it"))
    return gravest_first(found)


def permission_digest(manifest: Manifest) -> str:
    """SHA-256 in hex over the exact permission set: each clause, each limit, and where it runs.

    The same for two manifests that ask for the same in other words or another order; another one
    as soon as one asks for anything else, more or less, or in another measure.
    """
    doc = {
        "kind": manifest.plugin.kind,
        "isolation": manifest.plugin.isolation,
        "instance": manifest.plugin.instance,
        "limits": dict(manifest.limits.to_table()),
        "asks": {
            name: sorted(
                json.dumps([asked.optional, clause.to_toml()], sort_keys=True)
                for asked in request.asked
                for clause in asked.clauses
            )
            for name, request in manifest.requests.items()
        },
    }
    text = json.dumps(doc, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
