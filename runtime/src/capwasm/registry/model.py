"""What the registry knows, as values that nothing can change.

A *version* of a plugin is in one state; each change of it is a `Step` that says who, when and why.
A *plugin* has at most one version that serves.  What decides over the future outlives the plugin:
the highest version that was ever accepted, and the keys of the publisher that its id belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from capwasm.errors import Fault

if TYPE_CHECKING:  # to list ten thousand plugins takes less time than to import these
    from capwasm.capsule.identity import Kind
    from capwasm.capsule.trust import Role
    from capwasm.capsule.verify import Signer, VerifiedArtifact
    from capwasm.grants.manifest import Manifest
    from capwasm.review.record import RecordKind
    from capwasm.review.rules import Standing

__all__ = [
    "TRANSITIONS",
    "Candidate",
    "Current",
    "Decision",
    "Listed",
    "Mark",
    "Outcome",
    "Permit",
    "PermitKind",
    "PluginRecord",
    "Release",
    "ReviewRow",
    "Source",
    "State",
    "Step",
    "Verdict",
    "VersionRecord",
    "is_older",
    "order",
    "publishers",
    "utc_text",
]


class State(StrEnum):
    """How far a version has come.  A plugin's code runs in `ACTIVE` alone."""

    SUBMITTED = "submitted"
    """Its signatures, content and manifest were verified, and its bundle is in the store."""
    SCANNED = "scanned"
    """It was looked at: by scanners, or by the update rules, which want a person to see it."""
    REVIEWED = "reviewed"
    """All that had to be said of it was said.  So are the versions that another one replaced."""
    ACTIVE = "active"
    SUSPENDED = "suspended"
    """Somebody, or its own errors, took it out of service."""
    REVOKED = "revoked"
    """For good."""


TRANSITIONS: Final[Mapping[State | None, frozenset[State | None]]] = MappingProxyType(
    {
        None: frozenset({State.SUBMITTED}),
        State.SUBMITTED: frozenset({State.SCANNED, State.REVOKED, None}),
        State.SCANNED: frozenset({State.REVIEWED, State.REVOKED, None}),
        State.REVIEWED: frozenset({State.ACTIVE, State.SUSPENDED, State.REVOKED, None}),
        State.ACTIVE: frozenset({State.REVIEWED, State.SUSPENDED, State.REVOKED, None}),
        State.SUSPENDED: frozenset({State.ACTIVE, State.REVOKED, None}),
        State.REVOKED: frozenset(),
    }
)
"""From a state to those that may follow.  None: not there (removed, or never seen).

A revoked version is never removed, so that it can't come back as a new one.
"""


_TAKEN: Final = frozenset({State.REVIEWED, State.ACTIVE, State.SUSPENDED})


def utc_text(when: datetime) -> str:
    """A time as it is kept: `2027-01-31T00:00:00Z`.

    Raises:
        ValueError: it has no time zone.
    """
    if when.tzinfo is None:
        raise ValueError("a time needs a zone")
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Mark:
    """Who did something, when (`2027-01-31T00:00:00Z`), and why."""

    who: str
    when: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one version's state, or of the plugin's own words (then `before` == `after`).

    Attributes:
        number: from 1 on, without a gap, by plugin.
        version: the version; empty for a step of the plugin as a whole.
        action: the verb: `install`, `update`, `activate`, `rollback`, `suspend`, `pin`, …
    """

    plugin: str
    number: int
    version: str
    before: State | None
    after: State | None
    action: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One version of one plugin.

    Attributes:
        bundle: SHA-256 in hex of the whole capsule file: its name in the store.   size: its bytes.
        archive: SHA-256 of what was signed: the name of the content, whoever signed it.
        code: SHA-256 of `plugin.wasm`; None for a native plugin.   manifest: of `plugin.toml`.
        signers: the keys that counted when it was last verified for a change here.
        source: where it came from, for people.   published: by the word of its repository.
        pending: why it waits for a person; empty if it does not.
        installed: its first step.   changed: its last.
    """

    plugin: str
    version: str
    kind: Kind
    state: State
    bundle: str
    size: int
    archive: str
    code: str | None
    manifest: str
    signers: tuple[Signer, ...]
    source: str
    published: datetime | None
    pending: tuple[str, ...]
    installed: Mark
    changed: Mark

    @property
    def name(self) -> str:
        """`acme.weather@1.2.0`."""
        return f"{self.plugin}@{self.version}"

    @property
    def key_ids(self) -> frozenset[str]:
        """All key ids whose signature counted."""
        return frozenset(s.key_id for s in self.signers)


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """One review record, as the registry keeps it: for good, and in order.

    Attributes:
        number: from 1 on, without a gap, by plugin; 0 for one that is yet to be kept.
        kind, version, archive: of what, as the record itself says.
        digest: SHA-256 of the envelope, in hex.
        mark: who brought it, when and why.
        envelope: the signed record; None for a scan that a newer one of the same archive replaced.
    """

    plugin: str
    number: int
    kind: RecordKind
    version: str
    archive: str
    digest: str
    mark: Mark
    envelope: bytes | None = field(repr=False)


class PermitKind(StrEnum):
    """What an exception lets by."""

    DOWNGRADE = "downgrade"
    """`subject` is the version that may serve though a higher one was accepted."""
    SIGNER = "signer"
    """`subject` is the key id that the plugin's id may pass to."""
    MIN_AGE = "min-age"
    """`subject` is the version that need not come of age."""


@dataclass(frozen=True, slots=True)
class Permit:
    """An exception that a person made: it lets one thing by, for one plugin, and is on record.

    A downgrade's ends when a version as high as the highest serves again; the others end with
    their use.
    """

    plugin: str
    kind: PermitKind
    subject: str
    mark: Mark


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin, also one that was removed.

    Attributes:
        serving: the version that serves; it may be suspended or revoked, and then nothing does.
        state: of that version, or None.
        highest: the highest version ever accepted; kept for ever.  None if none was.
        owners: key ids of the publisher whom the id belongs to (trust on first use).
        pinned: the version that no update leaves, or None.
        waiting: the version that waits for a person, or None.
        removed: since when it is a tombstone (`2027-01-31T00:00:00Z`), or None.
        changed: its last step.
        versions: in the order of SemVer.
        permits: exceptions in force.
        reviews: all that was said of any of its versions, oldest first.
    """

    id: str
    serving: str | None
    state: State | None
    highest: str | None
    owners: frozenset[str]
    pinned: str | None
    waiting: str | None
    removed: str | None
    changed: Mark
    versions: tuple[VersionRecord, ...] = ()
    permits: tuple[Permit, ...] = ()
    reviews: tuple[ReviewRow, ...] = ()

    def version(self, version: str) -> VersionRecord | None:
        """The record of that version, or None."""
        return next((v for v in self.versions if v.version == version), None)

    def accepted(self, version: str) -> bool:
        """Whether that version served once, or does; one that waits did not, reviewed or not."""
        found = self.version(version)
        return found is not None and found.state in _TAKEN and version != self.waiting

    @property
    def active(self) -> VersionRecord | None:
        """The version whose code may run, or None."""
        found = None if self.serving is None else self.version(self.serving)
        return found if found is not None and found.state is State.ACTIVE else None

    def permits_for(self, kind: PermitKind, subject: str) -> bool:
        """Whether a person made that exception."""
        return any(p.kind is kind and p.subject == subject for p in self.permits)

    def is_by_owner(self, signers: Iterable[Signer]) -> bool:
        """Whether one of the publisher's keys signed again; how many must is the trust store's."""
        return bool(publishers(signers) & self.owners)


class Listed(NamedTuple):
    """A plugin in a listing of all: what its own row says, and cheap to make.

    Attributes:
        serving, state, highest, pinned, waiting, removed: as in `PluginRecord`.
        who, when, why: of its last step.
    """

    id: str
    serving: str | None
    state: str | None
    highest: str | None
    key_ids: str
    pinned: str | None
    waiting: str | None
    removed: str | None
    who: str
    when: str
    why: str

    @property
    def owners(self) -> frozenset[str]:
        """Key ids of the publisher whom the id belongs to."""
        return frozenset(self.key_ids.split())


def is_older(version: str, other: str) -> bool:
    """Whether a version comes before another; build metadata does not count."""
    from capwasm.grants.semver import SemVer

    return SemVer.parse(version) < SemVer.parse(other)


def order(record: VersionRecord) -> tuple[object, ...]:
    """What sorts versions: SemVer, and their text where that says nothing."""
    from capwasm.grants.semver import SemVer

    return (*SemVer.parse(record.version).precedence, record.version)


def publishers(signers: Iterable[Signer]) -> frozenset[str]:
    """The key ids that an id is bound to: the publishers', or of whoever vouches in their place."""
    found = tuple(signers)
    roles: tuple[Role, ...] = ("publisher", "marketplace", "official")
    for role in roles:
        if ids := frozenset(s.key_id for s in found if role in s.roles):
            return ids
    return frozenset()


# -- deciding over a candidate --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A verified capsule that wants to be installed.

    Attributes:
        record: as it would be kept, in state `SUBMITTED`.
        manifest: parsed from the verified bytes.
        artifact: the proof, for whoever must look at the code.
        denied: why a load of it would be denied by policy or for want of a consent.
    """

    record: VersionRecord
    manifest: Manifest
    artifact: VerifiedArtifact
    denied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Current:
    """What is known of the plugin before the candidate.

    Attributes:
        plugin: its record; it may be a tombstone.
        manifest: of the version that serves, verified again; None when none does.
        denied: why a load of that version would be denied.
    """

    plugin: PluginRecord
    manifest: Manifest | None
    denied: tuple[str, ...] = ()


class Verdict(StrEnum):
    """What becomes of a candidate."""

    ACCEPT = "accept"
    PENDING = "pending"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of the update rules.

    Attributes:
        code: for a refusal, a code of `errors.CODES`.
        reasons: for people: why it waits, why it is refused, or by what rule it was accepted.
        faults: of a refusal, each with the line that would let it by.
        used: exceptions that it rests on.
        until: when it will be old enough; before that, no person's word lets it serve.
        lacks: what its review lacks; before that is there, nobody's word lets it serve.
    """

    verdict: Verdict
    code: str = ""
    reasons: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    used: tuple[Permit, ...] = ()
    until: datetime | None = None
    lacks: Standing | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb did.

    Attributes:
        action: `installed`, `updated`, `renewed` (same content, other signatures), `unchanged`,
            `pending`, `activated`, `rolled-back`, `removed`, `suspended`, `resumed`, `revoked`, …
        version: the version it was about.   before: the one that served before, or None.
        plugin: the record after it.
        reasons: of what is pending.
    """

    action: str
    version: str
    before: str | None
    plugin: PluginRecord
    reasons: tuple[str, ...] = ()


# -- where capsules come from ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Release:
    """One version that a source offers; its word, and nothing that is believed.

    Attributes:
        digest: SHA-256 in hex of the capsule file.   size: its bytes.
        published: with a time zone, or None.   source: for people and for the audit.
    """

    id: str
    version: str
    digest: str
    size: int
    published: datetime | None = None
    source: str = field(default="")


class Source(Protocol):
    """A place that capsules come from."""

    def releases(self, plugin_id: str) -> Sequence[Release]:
        """What it offers of a plugin, newest last.

        Raises:
            RepositoryError: it can't be asked, or what it says does not verify.
        """

    def fetch(self, release: Release) -> bytes:
        """The capsule: of that size and digest, or an error.

        Raises:
            RepositoryError: it can't be had, or is not what was promised.
        """
