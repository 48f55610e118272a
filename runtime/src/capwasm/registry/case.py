"""What the desk shows: a case, and a security exception, as values."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from capwasm.grants.manifest import Manifest
from capwasm.review.finding import Report
from capwasm.review.permissions import Permission
from capwasm.review.record import RecordKind
from capwasm.review.rules import Matter, Standing, Vote

from .changes import Changes
from .model import VersionRecord

__all__ = ["Case", "ExceptionState", "Waiver", "prints", "seen_of", "waivers"]


@dataclass(frozen=True, slots=True)
class Case:
    """One version, and all that a reviewer wants to know of it.

    Attributes:
        record: as the registry keeps it; `record.state` is how far it has come.
        serving: the version of this plugin that serves, or None.
        manifest: parsed from the verified bytes; None if it does not verify any more.
        permissions: all that it asks for, the gravest first.
        changes: against what serves; against nothing, if nothing does.  None like the manifest.
        report: the newest scan that counts, or None.
        votes: every approval, rejection and exception of this version, oldest first, each with what
            it is worth today.
        standing: what all that comes to.
        trouble: why it does not verify any more, in one line; empty if it does.
        seen: names what is shown here, to the last finding; who gives it back with his word says it
            of this and of nothing that came since.
    """

    record: VersionRecord
    serving: str | None
    manifest: Manifest | None
    permissions: tuple[Permission, ...]
    changes: Changes | None
    report: Report | None
    votes: tuple[Vote, ...]
    standing: Standing
    trouble: str = ""
    seen: str = ""


class Waiver(StrEnum):
    """How a security exception stands."""

    PENDING = "pending"
    """It lacks the other role's word."""
    IN_FORCE = "in force"
    LAPSED = "lapsed"
    """Its time is over, or a key that it rests on counts no more."""


@dataclass(frozen=True, slots=True)
class ExceptionState:
    """One security exception.

    Attributes:
        plugin, version: of what.
        what: the rule or fingerprint of a finding, or `unreviewed`.
        state: how it stands today.
        until: when it lapses, or lapsed; None while it is pending.
        votes: who signed it, why, and what that is worth.
    """

    plugin: str
    version: str
    what: str
    state: Waiver
    until: datetime | None
    votes: tuple[Vote, ...]


def seen_of(matter: Matter, report: Report | None) -> str:
    """What names a version together with what was found in it."""
    text = ascii((dataclasses.astuple(matter.bond), sorted(prints(report))))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prints(report: Report | None) -> frozenset[str]:
    """The fingerprints of all that was found."""
    return frozenset(f.fingerprint for f in report.findings) if report is not None else frozenset()


def waivers(case: Case) -> list[ExceptionState]:
    """The security exceptions of one version."""
    waived = dict(case.standing.waived)
    by_what: dict[str, list[Vote]] = {}
    for vote in case.votes:
        if vote.record.kind is RecordKind.EXCEPTION:
            by_what.setdefault(vote.record.what, []).append(vote)
    found = []
    for what, votes in sorted(by_what.items()):
        if what in waived:
            state, until = Waiver.IN_FORCE, waived[what]
        elif any(v.counts for v in votes):
            state, until = Waiver.PENDING, None
        else:
            state = Waiver.LAPSED
            until = max((v.record.expires for v in votes if v.record.expires), default=None)
        record = case.record
        found.append(
            ExceptionState(record.plugin, record.version, what, state, until, tuple(votes))
        )
    return found
