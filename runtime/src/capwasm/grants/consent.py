"""What a person consented to, for exactly which bytes, and what a new version would add to it.

A consent counts for one pair of digests, of the code and of the manifest.  For any other bytes it
is history: something to compare a new request with, never a permission (MAN-10).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self, final

from pydantic import AfterValidator, Field

from capwasm._model import Model, validate
from capwasm._stage import Proof
from capwasm.capability import Risk
from capwasm.capsule.identity import PluginId, Version
from capwasm.errors import ConsentError, Fault
from capwasm.lattice import Clause, ClauseSet
from capwasm.limits import DEFAULTS, Limits

from ._document import AnyCapability, parse_limits, plain_faults, text_fault
from .manifest import Manifest

__all__ = [
    "Addition",
    "Consent",
    "ConsentEntry",
    "ConsentRecord",
    "Subject",
    "Widening",
    "Withdrawal",
    "carries_over",
    "compare",
    "consent_for",
    "withdrawal",
]

_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def _text(text: str) -> str:
    if (fault := text_fault(text)) is not None:
        raise ValueError(fault)
    return text


def _time(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise ValueError("not a time such as 2027-01-31T00:00:00Z")
    datetime.fromisoformat(text)
    return text


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Who = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_text)]
Reason = Annotated[str, Field(max_length=500), AfterValidator(_text)]
When = Annotated[str, AfterValidator(_time)]


class Withdrawal(Model):
    """Who took a consent back, when and why."""

    who: Who
    when: When
    reason: Reason = ""


def withdrawal(*, who: str, when: datetime, reason: str = "") -> Withdrawal:
    """A withdrawal, now.

    Raises:
        ConsentError: `who` or `reason` is empty, too long or holds hidden characters.
        ValueError: `when` has no time zone.
    """
    return validate(Withdrawal, {"who": who, "when": stamp(when), "reason": reason}, ConsentError)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a consent speaks of.

    Attributes:
        plugin, version: for people and for the comparison with older consents.
        code_digest, manifest_digest: SHA-256 in hex: what decides.
    """

    plugin: str
    version: str
    code_digest: str
    manifest_digest: str

    @classmethod
    def of(cls, manifest: Manifest, code_digest: str) -> Self:
        """The subject of a plugin: its manifest, and the digest of its verified code.

        For a native plugin, which has a code for each target, that is the whole capsule's digest.
        """
        return cls(manifest.id, manifest.version, code_digest, manifest.digest)


class ConsentRecord(Model):
    """One consent, as kept."""

    schema_number: Annotated[int, Field(alias="schema", ge=1, le=1)] = 1
    plugin: PluginId
    version: Version
    code_digest: Digest
    manifest_digest: Digest
    permissions: dict[str, tuple[dict[str, Any], ...]]
    limits: dict[str, int]
    who: Who
    when: When
    reason: Reason = ""
    withdrawn: Withdrawal | None = None

    @classmethod
    def of(
        cls,
        subject: Subject,
        permissions: Mapping[str, ClauseSet[Any]],
        limits: Limits,
        *,
        who: str,
        when: datetime,
        reason: str = "",
    ) -> ConsentRecord:
        """A record of what was consented to.

        Raises:
            ConsentError: `who` or `reason` is empty, too long or holds hidden characters.
            ValueError: `when` has no time zone.
        """
        return cls.parse(
            {
                "schema": 1,
                "plugin": subject.plugin,
                "version": subject.version,
                "code-digest": subject.code_digest,
                "manifest-digest": subject.manifest_digest,
                "permissions": {
                    name: [clause.to_toml() for clause in clauses]
                    for name, clauses in permissions.items()
                },
                "limits": limits.to_table(),
                "who": who,
                "when": stamp(when),
                "reason": reason,
            }
        )

    @classmethod
    def parse(cls, doc: Any, context: str = "") -> ConsentRecord:
        """The record that plain data holds.

        Raises:
            ConsentError: `consent.invalid`, with all faults.
        """
        if isinstance(doc, dict) and (faults := plain_faults(doc)):
            raise ConsentError("not plain data", context=context, faults=faults)
        return validate(cls, doc, ConsentError, context=context)

    @property
    def subject(self) -> Subject:
        """What it speaks of."""
        return Subject(self.plugin, self.version, self.code_digest, self.manifest_digest)

    def clauses(self, capabilities: Sequence[AnyCapability]) -> dict[str, ClauseSet[Any]]:
        """The permissions, parsed.

        Raises:
            ConsentError: one of them is malformed, or of a capability that there is not.
        """
        faults: list[Fault] = []
        found: dict[str, ClauseSet[Any]] = {}
        known = {c.name: c for c in capabilities}
        for name, tables in self.permissions.items():
            capability = known.get(name)
            if capability is None:
                faults.append(Fault(f"permissions.{name[:64]}", "no such capability here"))
                continue
            parsed = capability.parse(tables, "consent")
            faults += [Fault(f"permissions.{name}{f.path}", f.message) for f in parsed.faults]
            found[name] = ClauseSet.of(parsed.clauses)
        if faults:
            raise ConsentError("malformed permissions", context=self.plugin, faults=faults)
        return found

    def bounds(self) -> Limits:
        """The limits that were consented to; the default of each that it does not name.

        Raises:
            ConsentError: one of them is unknown or out of range.
        """
        faults: list[Fault] = []
        limits = parse_limits(self.limits, "limits", DEFAULTS, faults)
        if faults:
            raise ConsentError("malformed limits", context=self.plugin, faults=faults)
        return limits


def stamp(when: datetime) -> str:
    """A moment as records write it: `2027-01-31T00:00:00Z`.

    Raises:
        ValueError: it has no time zone, so nobody could tell which moment it is.
    """
    if when.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class ConsentEntry:
    """A record with its number in the store: a later one has a larger number, whatever the clock."""

    number: int
    record: ConsentRecord


@final
@dataclass(frozen=True, slots=True, eq=False)
class Consent(Proof):
    """What consent there is for one subject.  Made by `consent_for` alone.

    Attributes:
        subject: what was asked about.
        entry: the consent in force, or None.
        withdrawn: the one that would be in force, had it not been withdrawn.
        others: consents for other bytes of the same plugin, oldest first.
    """

    subject: Subject
    entry: ConsentEntry | None
    withdrawn: ConsentEntry | None
    others: tuple[ConsentEntry, ...]


def consent_for(subject: Subject, entries: Iterable[ConsentEntry] = ()) -> Consent:
    """Choose among consents: the newest for exactly these bytes decides.

    If that one was withdrawn there is none: an older one must not come back to life.
    """
    ours = sorted((e for e in entries if e.record.plugin == subject.plugin), key=lambda e: e.number)
    exact = [e for e in ours if e.record.subject == subject]
    newest = exact[-1] if exact else None
    in_force = newest is not None and newest.record.withdrawn is None
    return Consent.made(
        subject=subject,
        entry=newest if in_force else None,
        withdrawn=None if in_force else newest,
        others=tuple(e for e in ours if e.record.subject != subject),
    )


@dataclass(frozen=True, slots=True)
class Addition:
    """A permission that an older consent does not cover."""

    capability: str
    path: str
    clause: Clause
    risk: Risk
    why: str


@dataclass(frozen=True, slots=True)
class Widening:
    """What a manifest asks beyond an older consent; false if nothing.

    Attributes:
        added: permissions, each with its risk.
        raised: by limit, what was consented to and what is asked now.
    """

    added: tuple[Addition, ...]
    raised: Mapping[str, tuple[int, int]]

    def __bool__(self) -> bool:
        return bool(self.added or self.raised)


def compare(
    old: ConsentRecord, manifest: Manifest, capabilities: Sequence[AnyCapability]
) -> Widening:
    """What `manifest` asks beyond an older consent, quantities included.

    Raises:
        ConsentError: the old record is malformed.
    """
    covered = old.clauses(capabilities)
    added = []
    for capability in capabilities:
        request = manifest.requests.get(capability.name)
        before = covered.get(capability.name, ClauseSet.of())
        for asked in request.asked if request else ():
            for clause in asked.clauses:
                if not ClauseSet.of([clause]).within(before):
                    risk, why = capability.risk(clause)
                    added.append(Addition(capability.name, asked.path, clause, risk, why))
    then, now = old.bounds().to_table(), manifest.limits.to_table()
    return Widening(tuple(added), {w: (then[w], now[w]) for w in now if now[w] > then[w]})


def carries_over(
    old: ConsentRecord, manifest: Manifest, capabilities: Sequence[AnyCapability]
) -> bool:
    """Whether a consent in force for an older version of the plugin covers all that is asked now.

    It answers a question; it makes nothing consented to.  A load counts exact digests alone.

    Raises:
        ConsentError: the old record is malformed.
    """
    return (
        old.plugin == manifest.id
        and old.withdrawn is None
        and not compare(old, manifest, capabilities)
    )
