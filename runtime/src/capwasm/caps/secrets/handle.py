"""The handle of a secret: the one place where the host takes a secret's value in hand.

Each use fetches the value anew and asks every switch there is: the handle, its lease, the clause's
own lease, the revocation of the name, and the vault.  So a revocation or a rotation holds from the
next use on, with no grace (SEC-06).
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from capwasm.capability import Grant, OpenContext
from capwasm.errors import CapabilityError, CapError, InternalError
from capwasm.events import ALLOWED, DENIED, FAILED
from capwasm.handles import Handle, Lease

from .model import DEFAULT_LEASE_MS, SecretClause
from .origin import canonical_origin
from .sealed import SecretBytes
from .source import SecretSource

__all__ = ["Desk", "Redactor", "SecretHandle", "SecretsState"]

_WORDS: Final = {"capability.no-secret": "denied", "capability.secret-revoked": "closed"}


class Redactor(Protocol):
    """Learns the values that must not appear in any log.  Safe to call from any thread."""

    def register(self, name: str, value: bytes) -> bool:
        """Mask `value`, in all its usual encodings, from now on.  Called before its first use.

        Returns:
            False when the value is one that can't be masked, such as one of three letters.
        """


class Desk:
    """What all instances share: the vault, the redactor, and the revocations."""

    def __init__(
        self,
        vault: SecretSource,
        redactor: Redactor,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fetch from `vault`, tell `redactor`, and measure leases by `monotonic`, in seconds."""
        self.vault = vault
        self.monotonic = monotonic
        self._redactor = redactor
        self._leases: dict[str, Lease] = {}
        self._known: set[bytes] = set()
        self._digest_key = os.urandom(32)
        self._lock = threading.Lock()

    def lease(self, name: str) -> Lease:
        """The switch behind every handle to that secret, in all plugins."""
        with self._lock:
            return self._leases.setdefault(name, Lease())

    def renew(self, name: str) -> None:
        """Give a new switch to handles from now on; those of a revoked one stay dead."""
        with self._lock:
            self._leases[name] = Lease()

    def fetch(self, name: str) -> SecretBytes:
        """The value as it is now, which the redactor has been told of (LOG-02).

        Raises:
            CapError: `denied`, when the vault has none; `closed`, when it was revoked there;
                `unavailable`, when the vault can't be used.
            InternalError: the redactor failed, so the value may not be used.
        """
        try:
            value = self.vault.get(name)
        except CapabilityError as exc:
            raise CapError(_WORDS.get(exc.code, "unavailable"), exc.message) from None
        digest = value.digest(self._digest_key)
        if digest not in self._known:
            # Not raised within `except`: a traceback would carry the redactor's frames, and the
            # value in them (SEC-10).
            if not self._register(name, value):
                raise InternalError("the redactor failed; the secret was not used")
            self._known.add(digest)
        return value

    def _register(self, name: str, value: SecretBytes) -> bool:
        try:
            self._redactor.register(name, value.expose())
        except Exception:  # noqa: BLE001  whatever it was, the value isn't masked
            return False
        return True


class SecretHandle(Handle):
    """One secret, in the hands of one instance.

    The guest may ask for its name and its lease; `inject` and `reveal` are for the host.
    """

    __slots__ = ("_desk", "_state", "_taken", "name")

    def __init__(self, name: str, state: SecretsState) -> None:
        """Take the secret `name`; its lease begins now."""
        super().__init__(state.desk.lease(name))
        self.name = name
        self._state = state
        self._desk = state.desk
        self._taken = state.desk.monotonic()

    def __repr__(self) -> str:
        return f"SecretHandle({self.name!r})"

    @property
    def alive(self) -> bool:
        """Whether anything may still be done with it."""
        return self.lease_ms() > 0

    def get_name(self) -> str:
        """The name it was granted under."""
        return self.name

    def lease_ms(self) -> int:
        """Milliseconds until the last of its leases runs out; 0 when it has or was revoked."""
        if not super().alive:
            return 0
        grant = self._state.grant
        live = (g.clause for g in grant.allow if g.clause.name == self.name and g.lease.alive)
        return max((self._left_ms(clause) for clause in live), default=0)

    def injects_into(self, origin: str) -> bool:
        """Whether `inject(origin)` would pass as far as the grant goes.  Records nothing."""
        exact = _exact(origin)
        return (
            super().alive
            and exact is not None
            and self._live(lambda c: c.injects(self.name, exact)) is not None
        )

    def inject(self, origin: str) -> tuple[str, str]:
        """The header that carries the secret to `origin`: name and value.

        Called once a hop, right before the request is sent.  The value is not kept.

        Args:
            origin: scheme, host and port of this hop, in any spelling.

        Raises:
            CapError: `denied`, when the origin is not in the grant, or the secret can't stand in a
                header; `closed`, when the handle, its lease or the secret is gone; `unavailable`,
                when the vault can't be used.  Each is on record.
            AuditError: the use could not be recorded, so it does not happen.
        """
        details = {"origin": origin[:256]}
        self._check("inject", details)
        exact = _exact(origin)
        if exact is None:
            self._refuse("inject", "denied", "not an origin that may get a secret", details)
        clause = self._granted("inject", lambda c: c.injects(self.name, exact), details)
        if clause.header is None:
            self._refuse("inject", "denied", "no header is granted", details)
        with self._fetch("inject", details) as value:
            if not value.fits_header():
                self._refuse("inject", "denied", "the secret can't stand in a header", details)
            self._state.ctx.record(
                "secret", ALLOWED, action="inject", target=self.name, details=details
            )
            # Each may have been revoked, or run out, while the vault answered.
            self._check("inject", details)
            self._granted("inject", lambda c: c == clause, details)
            # From here on nothing is raised: no traceback can carry the value (SEC-10).
            header, _, template = clause.header.partition(": ")
            return header, value.fill(template)

    def reveal(self) -> bytes:
        """The secret's bytes, for the guest.

        Raises:
            CapError: `denied`, when to see it was not granted; `closed`; `unavailable`.  Each is on
                record.
            AuditError: the use could not be recorded, so it does not happen.
        """
        self._check("reveal", {})
        clause = self._granted("reveal", lambda c: c.reveals(self.name), {})
        with self._fetch("reveal", {}) as value:
            self._state.ctx.record("secret", ALLOWED, action="reveal", target=self.name)
            self._check("reveal", {})
            self._granted("reveal", lambda c: c == clause, {})
            return value.expose()

    def _live(self, allows: Callable[[SecretClause], bool]) -> SecretClause | None:
        """A clause that allows it, under leases that have not run out."""
        found = self._state.grant.find(lambda c: allows(c) and self._left_ms(c) > 0)
        return None if found is None else found.clause

    def _granted(
        self, action: str, allows: Callable[[SecretClause], bool], details: dict[str, str]
    ) -> SecretClause:
        clause = self._live(allows)
        if clause is None:
            grant = self._state.grant
            over = grant.deny.any(allows) is None and any(allows(g.clause) for g in grant.allow)
            reason = "its lease is over, or was revoked" if over else "not granted"
            self._refuse(action, "closed" if over else "denied", reason, details)
        return clause

    def _left_ms(self, clause: SecretClause) -> int:
        used = math.ceil((self._desk.monotonic() - self._taken) * 1000)
        lease = DEFAULT_LEASE_MS if clause.lease_ms is None else clause.lease_ms
        return max(0, lease - used)

    def _check(self, action: str, details: dict[str, str]) -> None:
        try:
            self.check()
        except CapError as exc:
            self._refuse(action, exc.word, exc.detail, details)

    def _fetch(self, action: str, details: dict[str, str]) -> SecretBytes:
        try:
            return self._desk.fetch(self.name)
        except CapError as exc:
            self._refuse(action, exc.word, exc.detail, details)

    def _refuse(self, action: str, word: str, reason: str, details: dict[str, str]) -> NoReturn:
        self._state.refuse(action, self.name, word, reason, details)


class SecretsState:
    """The secrets of one instance."""

    __slots__ = ("ctx", "desk", "grant")

    def __init__(self, grant: Grant[SecretClause], ctx: OpenContext, desk: Desk) -> None:
        """Serve what `grant` holds, from `desk`."""
        self.grant = grant
        self.ctx = ctx
        self.desk = desk

    def get(self, name: str) -> SecretHandle:
        """A handle to the secret of that name.

        Raises:
            CapError: `denied`, when it was not granted or is not there; `closed`, when the grant or
                the secret was revoked; `unavailable`, when the vault can't be used.
        """
        clauses = [g for g in self.grant.allow if g.clause.name == name]
        clauses = [g for g in clauses if not any(g.clause.denied_by(d) for d in self.grant.deny)]
        if not any(g.lease.alive for g in clauses):
            reason = "revoked" if clauses else "not granted"
            # What the guest asked for is its own text; only a piece of it goes on record.
            self.refuse("get", name[:64], "closed" if clauses else "denied", reason, {})
        handle = SecretHandle(name, self)
        try:
            handle.check()
            there = name in self.desk.vault.names()
        except CapError as exc:
            self.refuse("get", name, exc.word, exc.detail, {})
        except CapabilityError as exc:
            self.refuse("get", name, "unavailable", exc.message, {})
        if not there:
            self.refuse("get", name, "denied", "not in the vault", {})
        return handle

    def refuse(
        self, action: str, name: str, word: str, reason: str, details: dict[str, str]
    ) -> NoReturn:
        """Record a refusal or failure, then raise its word.

        Raises:
            CapError: always.
        """
        verdict = FAILED if word == "unavailable" else DENIED
        self.ctx.record(
            "secret", verdict, action=action, target=name, reason=reason, details=details
        )
        raise CapError(word, reason)


def _exact(origin: str) -> str | None:
    try:
        return canonical_origin(origin)
    except ValueError:
        return None
