"""A change of one plugin, made on a copy: each move of a version is one of the allowed transitions.

Pure.  What it comes to is written by the ledger, as one transaction, or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Final

from capwasm.errors import RegistryError

from .model import (
    TRANSITIONS,
    Candidate,
    Mark,
    Permit,
    PermitKind,
    PluginRecord,
    ReviewRow,
    State,
    Step,
    VersionRecord,
    is_older,
    order,
    publishers,
)

if TYPE_CHECKING:
    from capwasm.review.record import Record

__all__ = ["Draft"]

KEEP: Final = 3
"""Versions that served before and are kept to go back to."""


class Draft:
    """A plugin's record while it changes, and the steps of the change."""

    def __init__(self, plugin: PluginRecord, action: str, mark: Mark) -> None:
        """Begin with the record as it is.

        Args:
            plugin: the record; `Draft.blank` for a plugin that nobody has seen.
            action: the verb, for the steps.
            mark: who, when and why.
        """
        self._old = plugin
        self._action, self._mark = action, mark
        self._versions = {v.version: v for v in plugin.versions}
        self._permits = {(p.kind, p.subject): p for p in plugin.permits}
        self.steps: list[Step] = []
        self.serving, self.waiting = plugin.serving, plugin.waiting
        self.highest, self.owners = plugin.highest, plugin.owners
        self.pinned, self.removed = plugin.pinned, plugin.removed
        self.reviews = plugin.reviews

    @staticmethod
    def blank(plugin_id: str, mark: Mark) -> PluginRecord:
        """The record of a plugin before its first step."""
        return PluginRecord(plugin_id, None, None, None, frozenset(), None, None, None, mark)

    # -- versions ---------------------------------------------------------------------------------

    def submit(
        self, candidate: Candidate, pending: tuple[str, ...] = (), *, looked_at: bool = True
    ) -> None:
        """Enter a verified candidate: submitted, and then scanned, unless others are to do that."""
        record = dataclasses.replace(
            candidate.record, pending=pending, installed=self._mark, changed=self._mark
        )
        self._allow(record.version, None, State.SUBMITTED)
        self._versions[record.version] = record
        if looked_at:
            self.move(record.version, State.SCANNED)

    def park(self, version: str) -> None:
        """Have a version wait for a person; one that waited before is forgotten."""
        if self.waiting not in (None, version):
            self.move(self.waiting, None)
        self.waiting = version

    def serve(self, version: str) -> None:
        """Make a version the one that serves, and the one before a reviewed one.

        Raises:
            RegistryError: `registry.state`.
        """
        record = self._get(version)
        # One that waited did not serve before, also when its review is done.
        first = record.state in (State.SUBMITTED, State.SCANNED) or version == self.waiting
        if self.serving not in (None, version):
            before = self._versions.get(self.serving)
            if before is not None and before.state is State.ACTIVE:
                self.move(before.version, State.REVIEWED)
        self.review(version)
        self.move(version, State.ACTIVE, pending=())
        self.serving, self.removed = version, None
        if self.waiting is not None and not is_older(version, self.waiting):
            if self.waiting != version:
                self.move(self.waiting, None)
            self.waiting = None
        self._accept(record, first=first)
        self._forget_old()

    def scan(self, version: str) -> None:
        """Bring a version that was submitted to where it was looked at; any other stays."""
        if self._get(version).state is State.SUBMITTED:
            self.move(version, State.SCANNED)

    def review(self, version: str) -> None:
        """Bring a version that was never decided on to where it may serve; any other stays."""
        self.scan(version)
        if self._get(version).state is State.SCANNED:
            self.move(version, State.REVIEWED)

    def leave(self) -> None:
        """Take the version that serves out of service, if it is still in it."""
        record = self._versions.get(self.serving or "")
        if record is not None and record.state is State.ACTIVE:
            self.move(record.version, State.SUSPENDED)

    def renew(self, record: VersionRecord) -> None:
        """The same content with other signatures; the owners stay those that they were."""
        old = self._get(record.version)
        self._versions[record.version] = dataclasses.replace(
            old,
            bundle=record.bundle,
            size=record.size,
            signers=record.signers,
            source=record.source,
            changed=self._mark,
        )
        self.note(record.version)

    def move(
        self, version: str | None, after: State | None, *, pending: tuple[str, ...] | None = None
    ) -> None:
        """Bring a version to a state.  None: its row goes; what it was stays in the history.

        Raises:
            RegistryError: `registry.state`: no such transition.
        """
        old = self._get(version)
        self._allow(old.version, old.state, after)
        if after is None:
            del self._versions[old.version]
            return
        self._versions[old.version] = dataclasses.replace(
            old,
            state=after,
            changed=self._mark,
            pending=old.pending if pending is None else pending,
        )

    def note(self, version: str = "") -> None:
        """A step that changes no state."""
        found = self._versions.get(version)
        state = found.state if found is not None else None
        self.steps.append(self._step(version, state, state))

    def say(self, record: Record) -> None:
        """Enter a review record; whoever does notes a step, too: its seal covers the record."""
        envelope = record.envelope.encode()
        row = ReviewRow(
            self._old.id,
            0,
            record.kind,
            record.bond.version,
            record.bond.archive,
            hashlib.sha256(envelope).hexdigest(),
            self._mark,
            envelope,
        )
        self.reviews = (*self.reviews, row)

    # -- the plugin -------------------------------------------------------------------------------

    def permit(self, kind: PermitKind, subject: str) -> Permit:
        """Enter an exception."""
        made = Permit(self._old.id, kind, subject, self._mark)
        self._permits[kind, subject] = made
        return made

    def has_permit(self, kind: PermitKind, subject: str) -> bool:
        """Whether that exception is in force."""
        return (kind, subject) in self._permits

    def hand_over(self, keys: frozenset[str]) -> None:
        """Have the id belong to these keys, and to no others."""
        self.owners = keys

    def use(self, *permits: Permit) -> None:
        """End exceptions with their use; a downgrade's lasts while that version serves."""
        for permit in permits:
            if permit.kind is not PermitKind.DOWNGRADE:
                self._permits.pop((permit.kind, permit.subject), None)

    def bury(self) -> None:
        """Remove every version but those that were revoked, and leave a tombstone."""
        for record in list(self._versions.values()):
            if record.state is not State.REVOKED:
                self.move(record.version, None)
        self._permits.clear()
        self.serving = self.waiting = self.pinned = None
        self.removed = self._mark.when

    def done(self) -> PluginRecord:
        """The record after the change."""
        serving = None if self.serving is None else self._versions.get(self.serving)
        return dataclasses.replace(
            self._old,
            serving=self.serving,
            state=None if serving is None else serving.state,
            highest=self.highest,
            owners=self.owners,
            pinned=self.pinned,
            waiting=self.waiting,
            removed=self.removed,
            changed=self._mark,
            versions=tuple(sorted(self._versions.values(), key=order)),
            permits=tuple(self._permits[key] for key in sorted(self._permits)),
            reviews=self.reviews,
        )

    # -- inside -----------------------------------------------------------------------------------

    def _accept(self, record: VersionRecord, *, first: bool) -> None:
        if self.highest is None or not is_older(record.version, self.highest):
            self.highest = record.version
            self._permits = {
                k: p for k, p in self._permits.items() if p.kind is not PermitKind.DOWNGRADE
            }
        keys = publishers(record.signers)
        # Who has signed an accepted version later, beside its owner, owns nothing by that.
        self.owners = keys if first else (keys & self.owners) or keys

    def _forget_old(self) -> None:
        """Drop the rows of versions that nobody will go back to."""
        now = self.done()
        old = [v for v in now.versions if v.state is State.REVIEWED and now.accepted(v.version)]
        for record in old[:-KEEP]:
            self.move(record.version, None)

    def _get(self, version: str | None) -> VersionRecord:
        found = self._versions.get(version or "")
        if found is None:
            raise RegistryError(
                f"there is no version {version}", code="registry.unknown", context=self._old.id
            )
        return found

    def _allow(self, version: str, before: State | None, after: State | None) -> None:
        if after not in TRANSITIONS[before]:
            raise RegistryError(
                f"it is {before or 'not there'}, and can't become {after or 'removed'}",
                code="registry.state",
                context=f"{self._old.id}@{version}",
            )
        self.steps.append(self._step(version, before, after))

    def _step(self, version: str, before: State | None, after: State | None) -> Step:
        return Step(self._old.id, 0, version, before, after, self._action, self._mark)
