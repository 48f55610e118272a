"""The reviewers' desk: what waits, what is known of it, and each way to have a say.

Commands, the admin page and scanners use this and nothing below it.  A say is a signed record in
the registry; what all of them are worth together is decided in `review.rules`, each time anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from os import PathLike
from typing import TYPE_CHECKING

from capwasm.grants.manifest import Manifest
from capwasm.review.finding import Report
from capwasm.review.permissions import Permission
from capwasm.review.rules import Standing, Vote

from .changes import Changes
from .model import Outcome, VersionRecord

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey

    from .registry import Registry

__all__ = ["Case", "Desk", "ExceptionState", "Waiver"]


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


class Desk:
    """Reviews on one registry.  For many threads and processes at once, as the registry is.

    `version` is the one that waits if None; where none waits, the one that serves.
    """

    def __init__(self, registry: Registry) -> None:
        """Use that registry; nothing is read or made yet."""
        self._registry = registry

    # -- questions --------------------------------------------------------------------------------

    def queue(self) -> tuple[Case, ...]:
        """What waits, by id, and what serves although it may not any more.

        Raises:
            RegistryError: it can't be read, or can't be believed.
        """
        raise NotImplementedError

    def case(self, plugin_id: str, version: str | None = None) -> Case:
        """All that is known of one version.

        Raises:
            RegistryError: `registry.unknown`; it can't be read, or can't be believed.
            PolicyError: the trust store of today can't be read.
        """
        raise NotImplementedError

    def exceptions(self) -> tuple[ExceptionState, ...]:
        """Every security exception that was ever signed, by plugin, version and what it is about.

        Raises:
            RegistryError: it can't be read, or can't be believed.
            PolicyError: as for `case`.
        """
        raise NotImplementedError

    # -- what people and scanners say ---------------------------------------------------------------

    def submit(
        self,
        source: str | PathLike[str] | bytes,
        *,
        who: str,
        why: str = "",
        source_name: str = "",
        published: datetime | None = None,
    ) -> Outcome:
        """Take in a capsule to be reviewed.  It is verified and kept, and does not serve by that.

        Args:
            source: the path of a capsule, or its bytes.
            who, why: for the history.
            source_name: where it came from, for people.
            published: when, by the word of its repository; with a time zone.

        Raises:
            As `Registry.install`; `review.rejected`: this version was rejected.
        """
        raise NotImplementedError

    def scanned(self, plugin_id: str, version: str, report: Report) -> Case:
        """Keep what scanners found, signed with the home's own key.

        Args:
            plugin_id, version: which was scanned: `Registry.again` gives its bytes.
            report: about that very archive.

        Raises:
            RegistryError: `registry.unknown`; `review.record`: the report is about something else,
                or malformed; as `Registry.install`.
            PolicyError: the home's own key can't be read or made.
            AuditError: it can't be recorded, and so did not happen.
        """
        raise NotImplementedError

    def approve(
        self, plugin_id: str, version: str | None, *, key: PrivateKey, why: str = ""
    ) -> Case:
        """Say as a reviewer that a version may serve.

        Args:
            plugin_id, version: which.
            key: of a person whom the trust store names as a reviewer.
            why: for the record.

        Raises:
            RegistryError: `review.key`: the key may not approve this; `review.twice`: that person
                has approved it; `review.rejected`; `registry.unknown`, `registry.text`; as
                `Registry.install`.
            VerificationError, ManifestError: it does not verify any more.
            AuditError: it can't be recorded, and so did not happen.
        """
        raise NotImplementedError

    def reject(
        self,
        plugin_id: str,
        version: str | None = None,
        *,
        who: str = "",
        why: str,
        key: PrivateKey | None = None,
    ) -> Outcome:
        """Forget a version that waits; with a key, say for good that it may not serve.

        A signed rejection beats every approval and every exception of that version.

        Args:
            plugin_id, version: which.
            who: for the history; the key's name if there is a key.
            why: for the record.
            key: of a reviewer, or of somebody who may sign exceptions.

        Raises:
            As `approve`, but for `review.rejected`.
        """
        raise NotImplementedError

    def except_(
        self,
        plugin_id: str,
        version: str | None,
        *,
        key: PrivateKey,
        what: str,
        expires: datetime,
        why: str,
    ) -> Case:
        """Sign one half of a security exception; it is in force with the other role's word.

        Args:
            plugin_id, version: which.
            key: of a person with the role `security` or `engineering`.
            what: a finding's rule or fingerprint, as the report has it, or `unreviewed`.
            expires: when it ends, with a time zone; of two words, the earlier time counts.
            why: for the record; not empty.

        Raises:
            As `approve`; `review.finding`: the report has no such finding; `review.expiry`: that
                time is past, or later than policy allows.
        """
        raise NotImplementedError
