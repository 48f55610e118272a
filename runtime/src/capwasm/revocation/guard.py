"""The one place that decides whether a plugin may run, by what was revoked.

It holds the newest accepted feed, ready to be asked, and replaces it whole: who asks gets one feed
or the next, never a mix.  What can't be read or believed refuses every load; the feed that was read
before serves on for what runs.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from capwasm.capability import Capability
from capwasm.capsule.legacy import Proven
from capwasm.capsule.trust import TrustStore, utc_now
from capwasm.errors import Fault, RevocationError, VerificationError
from capwasm.events import ALLOWED, DENIED, FAILED, Event, Recorder
from capwasm.grants.resolve import Grants
from capwasm.grants.tables import RevocationRule

from .feed import SKEW, Feed, check_signatures, verify_feed
from .index import Entry, Index, Subject
from .keep import Keeper, Kept

__all__ = ["Guard", "InForce", "Status", "subject_of"]

SILENT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class InForce:
    """A feed in force, without its bytes.

    Attributes:
        index: answers for it.
        sequence, digest, issued, expires, entries: the feed's.
        accepted: when it was accepted here.
        doubt: why its signatures would not count today, or None.
    """

    index: Index
    sequence: int
    digest: str
    issued: datetime
    expires: datetime
    accepted: datetime
    entries: int
    doubt: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand.

    Attributes:
        feed: the feed in force, or None.   age: since it was issued, or None.
        stale: why it is too old, or None.
        clock: why the clock is not to be believed, or None.
        problem: why nothing may be loaded, or None.
        refuses: whether a stale feed refuses loads.
    """

    feed: InForce | None
    age: timedelta | None
    stale: str | None
    clock: str | None
    problem: RevocationError | None
    refuses: bool


@dataclass(frozen=True, slots=True)
class _State:
    generation: int = 0
    stamp: object = None
    feed: InForce | None = None
    problem: RevocationError | None = None
    # When it was last known to be how late, by the wall's clock and by the one that never jumps.
    wall: datetime | None = None
    steady: float = 0.0


class Guard:
    """Decides over loads.  For any thread."""

    def __init__(
        self,
        keeper: Keeper,
        *,
        trust: TrustStore,
        rule: RevocationRule,
        capabilities: Sequence[Capability[Any, Any]],
        recorder: Recorder,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Use what that keeper keeps; it is read when it is first asked for.

        Args:
            keeper: of the newest accepted feed.
            trust: whose feeds count.
            rule: the policy's.
            capabilities: those that there are.
            recorder: takes an event of each feed that is accepted or refused.
            now: the time, with a zone.
        """
        self.keeper, self.trust, self.rule = keeper, trust, rule
        self._capabilities, self._recorder, self._now = tuple(capabilities), recorder, now
        self._lock, self._pid = threading.RLock(), os.getpid()
        self._state = _State(stamp=object())  # like nothing that is kept
        self._seen: float | None = None
        self._said: dict[str, str | None] = {}

    @property
    def generation(self) -> int:
        """Counts how often another feed came into force."""
        return self._state.generation

    # -- questions --------------------------------------------------------------------------------

    def admit(self, subject: Subject) -> None:
        """Pass if that plugin may be loaded.

        Raises:
            VerificationError: `verify.revoked`, with the entry and its reason.
            RevocationError: `revocation.stale`, where policy refuses that; `revocation.state`.
        """
        self.refresh()
        state = self._state
        name = f"{subject.id}@{subject.version}"
        if state.feed is not None and (entry := state.feed.index.find(subject)) is not None:
            raise _revoked(entry, state.feed.sequence, name)
        if state.problem is not None:
            raise RevocationError(
                f"{state.problem.context}: {state.problem.message}",
                code=state.problem.code,
                context=name,
            )
        if self.rule.stale == "refuse" and (late := self._stale(state)) is not None:
            raise RevocationError(
                late,
                code="revocation.stale",
                context=name,
                faults=[Fault("", "policy refuses that", "capwasm revocations fetch")],
            )

    def admit_grants(self, subject: Subject, grants: Grants) -> None:
        """Pass if nothing of what it would be granted is denied to it.

        Raises:
            VerificationError: `verify.revoked`.
        """
        feed = self._state.feed
        if feed is None:
            return
        for name, grant in grants.by_capability.items():
            for granted in grant.allow:
                entry = feed.index.clause(subject.id, name, granted.clause)
                if entry is not None:
                    raise _revoked(entry, feed.sequence, f"{subject.id}@{subject.version}")

    def denied(self, subject: Subject) -> str | None:
        """Why a plugin that runs may do so no longer, or None.  Reads nothing."""
        feed = self._state.feed
        entry = None if feed is None else feed.index.find(subject)
        return None if feed is None or entry is None else _why(entry, feed.sequence)

    @property
    def feed(self) -> InForce | None:
        """What is in force, or None."""
        return self._state.feed

    @property
    def index(self) -> Index | None:
        """What answers for it, or None."""
        feed = self._state.feed
        return None if feed is None else feed.index

    def status(self) -> Status:
        """How things stand, as of now."""
        self.refresh()
        state = self._state
        feed = state.feed
        return Status(
            feed=feed,
            age=None if feed is None else self._time(state) - feed.issued,
            stale=self._stale(state),
            clock=self._clock(state),
            problem=state.problem,
            refuses=self.rule.stale == "refuse",
        )

    # -- changes ----------------------------------------------------------------------------------

    def take(self, data: bytes, source: str, *, quiet: bool = False) -> bool:
        """Accept a feed, if it is signed, in time and new; whether it is new.

        It is in force, also in other processes soon, before its event is recorded: a full disk must
        not keep a revoked plugin running.

        Args:
            data: the envelope.
            source: where it came from, for the audit.
            quiet: whether a refusal is not recorded, for it will be tried again.

        Raises:
            VerificationError, RevocationError: as `verify_feed` and `Keeper.accept`; the one before
                stays in force.
            AuditError: it is in force, and that could not be recorded.
        """
        try:
            feed = verify_feed(data, self.trust, self._now())
            stamp = self.keeper.accept(feed, self._now())
        except (VerificationError, RevocationError) as exc:
            if not quiet:
                self._record(DENIED, "refused", exc.message, exc.code, source=source)
            raise
        if stamp is None:
            self.refresh()
            return False
        with self._lock:
            before = self._state.feed
            if before is None or before.sequence < feed.sequence:  # else another was faster
                self._put(stamp, self._in_force(feed, self._now(), None), self._now())
        self._record(
            ALLOWED,
            "accepted",
            f"feed {feed.sequence}",
            "",
            source=source,
            digest=feed.digest,
            signers=list(feed.signers),
            entries=feed.content.deny.count,
        )
        return True

    def refresh(self) -> None:
        """Put in force what is kept now, if that is another feed than before.  Cheap if not."""
        if self._pid != os.getpid():
            # A fork may have copied the lock while another thread held it.
            self._lock, self._pid = threading.RLock(), os.getpid()
        with self._lock:
            try:
                stamp: object = self.keeper.stamp()
                if stamp == self._state.stamp:
                    return
                kept = self.keeper.load()
                self._check_order(kept)
            except RevocationError as exc:
                self._broken(exc)
                return
            before = self._state.feed
            if kept is None:
                self._put(stamp, None, None)
                return
            same = before is not None and before.digest == kept.feed.digest
            feed = before if same else self._in_force(kept.feed, kept.accepted, self._doubt(kept))
            self._put(stamp, feed, max(kept.latest, self._now()))

    def note_time(self) -> None:
        """Remember how late it is, so that a clock which is put back is noticed after a restart.

        Raises:
            RevocationError: `revocation.state`.
        """
        if self._state.feed is not None:
            self.keeper.note_time(self._now())

    def beat(self) -> None:
        """Tell that somebody looks for new feeds; when he falls silent, what is kept is stale."""
        self._seen = time.monotonic()

    def report(self) -> None:
        """Record it, once, when the feed has become stale or fresh, or the clock went back.

        Raises:
            AuditError: it can't be recorded.
        """
        state = self._state
        stale = self._stale(state)
        if state.feed is None and self.rule.stale == "report" and not self.rule.url:
            stale = None  # nobody wants one
        problem = None if state.problem is None else state.problem.message
        for action, found, code in (
            ("stale", stale, "revocation.stale"),
            ("clock", self._clock(state), "revocation.future"),
            ("state", problem, "revocation.state"),
        ):
            # How old it is changes all the time; that it is too old is told once.
            told = None if found is None else code
            if told != self._said.get(action):
                self._said[action] = told
                if found is not None:
                    self._record(FAILED, action, found, code)
                else:
                    self._record(ALLOWED, action, "no more", "")

    # -- inside -----------------------------------------------------------------------------------

    def _put(self, stamp: object, feed: InForce | None, wall: datetime | None) -> None:
        generation = self._state.generation + (feed is not self._state.feed)
        self._state = _State(generation, stamp, feed, None, wall, time.monotonic())

    def _in_force(self, feed: Feed, accepted: datetime, doubt: str | None) -> InForce:
        return InForce(
            index=Index(feed, self._capabilities),
            sequence=feed.sequence,
            digest=feed.digest,
            issued=feed.issued,
            expires=feed.expires,
            accepted=accepted,
            entries=feed.content.deny.count,
            doubt=doubt,
        )

    def _doubt(self, kept: Kept) -> str | None:
        """Why a kept feed would not be accepted today; its seal shows that it once was."""
        try:
            check_signatures(kept.feed.data, self.trust, self._now())
        except VerificationError as exc:
            return f"{exc.message} ({exc.code})"
        return None

    def _check_order(self, kept: Kept | None) -> None:
        """What this process has seen is not forgotten, even if all files were put back."""
        before = self._state.feed
        if before is not None and (kept is None or kept.feed.sequence < before.sequence):
            raise RevocationError(
                f"feed {before.sequence} was in force, and what is kept is older",
                code="revocation.state",
                context=ascii(str(self.keeper.directory))[1:-1],
            )

    def _broken(self, problem: RevocationError) -> None:
        before = self._state
        self._state = _State(
            before.generation, object(), before.feed, problem, before.wall, before.steady
        )

    def _time(self, state: _State) -> datetime:
        """The wall's clock, but never before what is known: time does not go back."""
        known = self._known(state)
        return self._now() if known is None else max(self._now(), known)

    @staticmethod
    def _known(state: _State) -> datetime | None:
        if state.wall is None:
            return None
        return state.wall + timedelta(seconds=time.monotonic() - state.steady)

    def _clock(self, state: _State) -> str | None:
        known = self._known(state)
        if known is None or known - self._now() <= SKEW:
            return None
        return f"the clock went back: it was {known:%Y-%m-%dT%H:%M:%SZ} before"

    def _stale(self, state: _State) -> str | None:
        feed = state.feed
        if feed is None:
            return "no revocation feed was ever accepted"
        now = self._time(state)
        what = f"revocation feed {feed.sequence}"
        if feed.doubt is not None:
            return f"the signatures of {what} no longer count: {feed.doubt}"
        if feed.expires <= now:
            return f"{what} expired at {feed.expires:%Y-%m-%dT%H:%M:%SZ}"
        if now - feed.issued > timedelta(hours=self.rule.max_age_hours):
            hours = (now - feed.issued) / timedelta(hours=1)
            return (
                f"{what} is {hours:.0f} hours old; policy wants at most {self.rule.max_age_hours}"
            )
        if self._seen is not None and time.monotonic() - self._seen > SILENT_SECONDS:
            return "the watch over revocation feeds has stopped"
        return None

    def _record(self, verdict: str, action: str, target: str, reason: str, **details: Any) -> None:
        self._recorder.record(
            Event(
                "revocation",
                verdict,
                action=action,
                target=target[:300],
                reason=reason,
                details=details,
            )
        )


def subject_of(artifact: Proven) -> Subject:
    """A plugin, as a feed may speak of it."""
    return Subject(
        artifact.id,
        artifact.version,
        frozenset({artifact.digest, *artifact.digests.values()}),
        frozenset(s.key_id for s in artifact.signers),
    )


def _why(entry: Entry, sequence: int) -> str:
    return f"revoked by feed {sequence}: {entry}"


def _revoked(entry: Entry, sequence: int, name: str) -> VerificationError:
    return VerificationError(
        _why(entry, sequence),
        code="verify.revoked",
        context=name,
        faults=[Fault(entry.kind, entry.reason or "no reason given")],
    )
