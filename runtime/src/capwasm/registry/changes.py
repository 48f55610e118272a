"""What differs between two versions of a plugin: pure, of what was verified before.

Permissions are compared by the lattice, clause by clause: what is asked now and does not lie within
what was asked before is new, however it is written.  A clause that only several old ones cover
together counts as wider: it errs to the side where a person looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from capwasm.capability import Capability, Risk
from capwasm.grants.manifest import Manifest
from capwasm.lattice import Clause, ClauseSet
from capwasm.review.permissions import GRAVITY, Permission, gravest_first, permission_of

from .model import VersionRecord

__all__ = ["Changes", "Moved", "Permission", "Surface", "compare"]


@dataclass(frozen=True, slots=True)
class Surface:
    """The interfaces that a component really imports and exports, by the engine's word."""

    imports: frozenset[str]
    exports: frozenset[str]


@dataclass(frozen=True, slots=True)
class Moved:
    """Names that came, and names that went, in order."""

    added: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.gone)

    @classmethod
    def of(cls, before: Iterable[str], after: Iterable[str]) -> Moved:
        """From these names to those."""
        old, new = frozenset(before), frozenset(after)
        return cls(tuple(sorted(new - old)), tuple(sorted(old - new)))


@dataclass(frozen=True, slots=True)
class Changes:
    """All that differs.

    Attributes:
        comparable: whether there was something to compare with.
        new: permissions of capabilities that were not asked for before.
        widened: permissions of others, beyond what was asked for before.
        narrowed, gone: what is not asked for any more, in the same two ways.
        raised, lowered: limits, each with the value before and after.
        signers: key ids.   imports, exports: interfaces; None if nobody asked the engine.
        facts: words of the manifest, each with its text before and after.
        size: of the capsule file, before (0 if nothing) and after.
        risk: the gravest before (None if nothing), and after.
        risks: the reasons of the gravest after, in order.
    """

    comparable: bool
    new: tuple[Permission, ...]
    widened: tuple[Permission, ...]
    narrowed: tuple[Permission, ...]
    gone: tuple[Permission, ...]
    raised: tuple[tuple[str, int, int], ...]
    lowered: tuple[tuple[str, int, int], ...]
    signers: Moved
    imports: Moved | None
    exports: Moved | None
    facts: tuple[tuple[str, str, str], ...]
    size: tuple[int, int]
    risk: tuple[Risk | None, Risk | None]
    risks: tuple[str, ...]

    @property
    def beyond(self) -> tuple[Permission, ...]:
        """What is asked for now and was not before."""
        return (*self.new, *self.widened)

    @property
    def kind(self) -> tuple[str, str] | None:
        """The kinds, if it changed."""
        return next((f[1:] for f in self.facts if f[0] == "kind"), None)


def compare(
    before: tuple[Manifest, VersionRecord] | None,
    after: tuple[Manifest, VersionRecord],
    capabilities: Sequence[Capability[Any, Any]],
    surfaces: tuple[Surface, Surface] | None = None,
) -> Changes:
    """What differs; where there is nothing before, all is new.

    Args:
        before: what was verified of the one, or None.
        after: what was verified of the other.
        capabilities: those that both manifests were parsed with.
        surfaces: what each component imports and exports, if the engine was asked.
    """
    known = {c.name: c for c in capabilities}
    manifest, record = after
    old = None if before is None else before[0]
    new: list[Permission] = []
    widened: list[Permission] = []
    narrowed: list[Permission] = []
    gone: list[Permission] = []
    for name in sorted({*manifest.requests, *(old.requests if old else ())}):
        was, now = _asked(old, name), _asked(manifest, name)
        beyond = [permission_of(known.get(name), name, c) for c in _outside(now, was)]
        less = [permission_of(known.get(name), name, c) for c in _outside(was, now)]
        (widened if was else new).extend(beyond)
        (narrowed if now else gone).extend(less)
    then = {} if old is None else old.limits.to_table()
    limits = manifest.limits.to_table()
    moved = [(w, then[w], limits[w]) for w in sorted(limits) if w in then and then[w] != limits[w]]
    gravest, risks = _gravest(manifest, known)
    return Changes(
        comparable=before is not None,
        new=gravest_first(new),
        widened=gravest_first(widened),
        narrowed=gravest_first(narrowed),
        gone=gravest_first(gone),
        raised=tuple(m for m in moved if m[2] > m[1]),
        lowered=tuple(m for m in moved if m[2] < m[1]),
        signers=Moved.of(() if before is None else before[1].key_ids, record.key_ids),
        imports=surfaces and Moved.of(surfaces[0].imports, surfaces[1].imports),
        exports=surfaces and Moved.of(surfaces[0].exports, surfaces[1].exports),
        facts=tuple(_facts(old, manifest)),
        size=(0 if before is None else before[1].size, record.size),
        risk=(None if old is None else _gravest(old, known)[0], gravest),
        risks=risks,
    )


def _asked(manifest: Manifest | None, name: str) -> ClauseSet[Any]:
    request = None if manifest is None else manifest.requests.get(name)
    return ClauseSet.of() if request is None else request.clauses


def _outside(inner: ClauseSet[Any], outer: ClauseSet[Any]) -> list[Clause]:
    """The clauses that do not lie within the other set."""
    return [c for c in inner if not ClauseSet.of([c]).within(outer)]


def _gravest(
    manifest: Manifest, known: dict[str, Capability[Any, Any]]
) -> tuple[Risk | None, tuple[str, ...]]:
    """The gravest risk of all that is asked for, and why."""
    found = [
        permission_of(known.get(name), name, clause)
        for name, request in manifest.requests.items()
        for clause in request.clauses
    ]
    most = max((p.risk for p in found), key=GRAVITY.__getitem__, default=None)
    return most, tuple(sorted({f"{p.capability}: {p.why}" for p in found if p.risk is most}))


def _facts(before: Manifest | None, after: Manifest) -> Iterable[tuple[str, str, str]]:
    words = ("name", "author", "license", "needs_license", "requires_core", "kind", "world",
             "instance")  # fmt: skip
    for word in words if before is not None else ():
        was, now = (str(getattr(m.plugin, word) or "") for m in (before, after) if m is not None)
        if was != now:
            yield word.replace("_", "-"), was, now
