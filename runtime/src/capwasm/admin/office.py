"""What the pages read and can have done: one home directory, one person, nothing of the web.

Policy and trust store are read anew for each request, so that a page never shows or decides by what
was true when the process started.  A change takes the lock of the commands' audit log, is recorded
there, and is the same change as the command of that name makes.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from capwasm.capability import Capability
from capwasm.capsule.keys import PrivateKey, PublicKey
from capwasm.capsule.trust import TrustStore, utc_now
from capwasm.errors import AdminError, CapwasmError
from capwasm.events import Event, NullRecorder
from capwasm.grants.policy import Policy
from capwasm.home import Home
from capwasm.registry.desk import Desk
from capwasm.registry.model import Outcome, State
from capwasm.registry.registry import Registry

from .chains import Chain, Chains
from .counts import Counts

__all__ = ["LOGS", "Brief", "Identity", "Office"]

LOGS: Final[Mapping[str, str]] = {
    "runtime": "The runtime's log",
    "commands": "The log of commands and of this page",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the page acts for: the holder of the key that it was started with, or its user.

    Attributes:
        name: of the key in the trust store, or of the user of the operating system.
        key: signs what is said here; None: there is nothing to sign with.
        roles: of the key, by the trust store of today.
        remark: why the key does not count, or empty.
    """

    name: str
    key: PrivateKey | None = None
    roles: frozenset[str] = frozenset()
    remark: str = ""

    @property
    def key_id(self) -> str:
        """Of the key, in hex; empty if there is none."""
        return "" if self.key is None else self.key.public.key_id


@dataclass(frozen=True, slots=True)
class Brief:
    """What every page shows.

    Attributes:
        stamp: differs once the registry was changed.
        waiting: versions that wait for somebody.
        due: what is to be said of the policy's date, or empty.
    """

    stamp: str
    waiting: int
    due: str


class Office:
    """One home, for one person.  For any thread."""

    def __init__(
        self,
        home: Home,
        *,
        user: str,
        key: PrivateKey | None = None,
        capabilities: Sequence[Capability[Any, Any]],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Nothing is read yet.

        Args:
            home: the directory.
            user: who acts where there is no key.
            key: of a reviewer.
            capabilities: all that there are.
            now: the time, with a zone.
        """
        self.home, self.capabilities, self.now = home, tuple(capabilities), now
        self._user, self._key = user, key
        self._lock = threading.Lock()
        self.chains = Chains({"runtime": home.audit, "commands": home.audit_commands})
        self.counts = Counts(home.audit)

    # -- what is true now --------------------------------------------------------------------------

    @property
    def me(self) -> Identity:
        """Who acts here, by the trust store of today."""
        if self._key is None:
            return Identity(self._user)
        try:
            known = self.home.trust().find(self._key.public.key_id)
        except CapwasmError as exc:
            return Identity(self._user, self._key, remark=exc.message)
        if known is None:
            return Identity(self._user, self._key, remark="the trust store does not know its key")
        refusal = known.refusal(self.now(), None)
        return Identity(
            known.name, self._key, frozenset(known.roles), "" if refusal is None else refusal[1]
        )

    @property
    def signer(self) -> PrivateKey:
        """What signs here.

        Raises:
            AdminError: `admin.key`.
        """
        if self._key is None:
            raise AdminError(
                "this page was started without a key; start it with --key to sign reviews",
                code="admin.key",
            )
        return self._key

    def policy(self) -> Policy:
        """The operator's.

        Raises:
            PolicyError: it is malformed.
        """
        return self.home.policy(self.capabilities)

    def trust(self) -> TrustStore:
        """The trusted keys.

        Raises:
            PolicyError: it is malformed.
        """
        return self.home.trust()

    def brief(self) -> Brief:
        """What every page shows.  Never raises: the page of an error needs it too."""
        waiting, due, stamp = 0, "", ""
        try:
            due = self.policy().governance(self.now().date()).line() or ""
            with self.reading() as registry:
                stamp = self.stamp(registry)
                waiting = sum(p.waiting is not None for p in registry.list())
        except CapwasmError:
            pass
        return Brief(stamp, waiting, due[:1].upper() + due[1:])

    def stamp(self, registry: Registry) -> str:
        """Differs once something was changed in the registry, by whomever."""
        return hashlib.sha256(repr(registry.stamp()).encode()).hexdigest()[:16]

    def chain(self, log: str, *, check: bool = False) -> Chain:
        """See `Chains.look`."""
        return self.chains.look(log, self._anchors(), self.now(), check=check)

    def _anchors(self) -> PublicKey | None:
        """What signs the anchors of this home's logs."""
        if not self.home.audit_key.exists():
            return None
        with contextlib.suppress(CapwasmError):
            return PrivateKey.load(self.home.audit_key).public
        return None

    # -- reading and changing ----------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[Registry]:
        """The registry, to look at.

        Raises:
            PolicyError: policy or trust store are malformed.
        """
        registry = self.home.registry(
            NullRecorder(), trust=self.trust(), policy=self.policy(), capabilities=self.capabilities
        )
        with registry:
            yield registry

    @contextlib.contextmanager
    def desk(self) -> Iterator[Desk]:
        """The reviewers' desk, to look at."""
        with self.reading() as registry:
            yield Desk(registry)

    @contextlib.contextmanager
    def changing(self) -> Iterator[Registry]:
        """The registry, to change it: one change at a time, each recorded before it happens.

        Raises:
            PolicyError: policy or trust store are malformed.
            AuditError: `audit.busy`; the log can't be written, or does not verify.
        """
        policy, trust = self.policy(), self.trust()
        with (
            self._lock,
            self.home.commands_recorder() as recorder,
            self.home.registry(
                recorder, trust=trust, policy=policy, capabilities=self.capabilities
            ) as registry,
        ):
            yield registry

    def record(self, verdict: str, action: str, reason: str = "") -> None:
        """Record what happened at the door.

        Raises:
            AuditError: it can't be.
        """
        event = Event("admin", verdict, action=action, target=self.me.name, reason=reason)
        with self._lock, self.home.commands_recorder() as recorder:
            recorder.record(event)

    def act(self, deed: Callable[[Registry, str], Outcome]) -> Outcome:
        """Have something done in the registry, under the name of who is here."""
        who = self.me.name
        with self.changing() as registry:
            return deed(registry, who)

    def suspended(self) -> int:
        """How many plugins are out of service for now."""
        with self.reading() as registry:
            return sum(p.state == State.SUSPENDED for p in registry.list())
