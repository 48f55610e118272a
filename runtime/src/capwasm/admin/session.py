"""Who is at the page: the token of the start, tries at it, and the sessions that it is changed for.

All of it lives in memory and ends with the process.  Of a token or a session only a digest is
kept, compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from capwasm.errors import AdminError

__all__ = ["Doorkeeper", "Flash", "Session"]

Clock = Callable[[], float]

IDLE_SECONDS: Final = 30 * 60
WHOLE_SECONDS: Final = 8 * 3600
ROTATE_SECONDS: Final = 10 * 60
GRACE_SECONDS: Final = 30
"""How long a rotated id still opens its session: for requests that were under way."""
MAX_SESSIONS: Final = 16
FREE_TRIES: Final = 5
MAX_WAIT_SECONDS: Final = 60.0
MAX_FIELD: Final = 256


class Flash(NamedTuple):
    """What is told once on the next page."""

    kind: str
    """`done`."""
    text: str


@dataclass(slots=True)
class Session:
    """One signed-in browser.

    Attributes:
        form: the secret that its forms are bound to; it stays when the id is rotated.
        began, seen, rotated: by the monotonic clock.
        flash: what the next page tells.
    """

    form: bytes
    began: float
    seen: float
    rotated: float
    flash: Flash | None = None
    ids: dict[bytes, float] = field(default_factory=dict)
    """Digest of each id that opens it -> until when."""

    @property
    def token(self) -> str:
        """What every form of this session carries."""
        return hmac.digest(self.form, b"form", "sha256").hex()

    def check(self, given: str) -> None:
        """Pass if a form is one of this session's.

        Raises:
            AdminError: `admin.csrf`.
        """
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            raise AdminError("the form is not one of this session", code="admin.csrf")


class Doorkeeper:
    """Lets in whoever knows the token, and knows who is in.  For any thread."""

    def __init__(self, token: str, *, clock: Clock = time.monotonic) -> None:
        """Nobody is in yet.

        Args:
            token: what a person must show; at least 128 bits of chance, so 22 characters.
            clock: seconds that never go back.

        Raises:
            ValueError: the token is too short to be one.
        """
        if len(token) < 22:
            raise ValueError("a token needs at least 22 characters")
        self._token, self._clock = _digest(token), clock
        self._lock = threading.Lock()
        self._sessions: dict[bytes, Session] = {}
        self._wrong, self._shut = 0, 0.0
        self._stranger = secrets.token_bytes(32)

    # -- before ------------------------------------------------------------------------------------

    def nonce(self) -> str:
        """What a browser holds while it looks at the form to sign in."""
        return secrets.token_urlsafe(18)

    def stranger_form(self, nonce: str) -> str:
        """What the form to sign in carries, for a browser with that nonce."""
        return hmac.digest(self._stranger, nonce.encode("utf-8", "replace"), "sha256").hex()

    def check_stranger(self, nonce: str, given: str) -> None:
        """Pass if the form to sign in was given to this browser.

        Raises:
            AdminError: `admin.csrf`.
        """
        made = self.stranger_form(nonce).encode()
        if not nonce or not hmac.compare_digest(given.encode("utf-8", "replace"), made):
            raise AdminError("the form is not one of this browser", code="admin.csrf")

    def enter(self, token: str) -> str:
        """A new session for whoever knows the token; returns its id.

        After a few wrong ones nobody is let in for a while, which doubles up to a minute; the right
        token is then refused just so, and a guess tells nothing.

        Raises:
            AdminError: `admin.token`, `admin.throttled`.
        """
        right = hmac.compare_digest(_digest(token[:MAX_FIELD]), self._token)
        with self._lock:
            now = self._clock()
            if now < self._shut:
                raise AdminError(
                    f"too many wrong tokens; try again in {int(self._shut - now) + 1} s",
                    code="admin.throttled",
                )
            if not right:
                self._wrong += 1
                if self._wrong >= FREE_TRIES:
                    wait = 2.0 ** min(self._wrong - FREE_TRIES, 6)
                    self._shut = now + min(wait, MAX_WAIT_SECONDS)
                raise AdminError("that is not the token", code="admin.token")
            self._wrong = 0
            made = secrets.token_urlsafe(32)
            if len(self._sessions) >= MAX_SESSIONS:
                self._forget(min(self._sessions.values(), key=lambda s: s.seen))
            session = Session(secrets.token_bytes(32), now, now, now)
            self._add(session, made, now + WHOLE_SECONDS)
            return made

    # -- within ------------------------------------------------------------------------------------

    def find(self, session_id: str, *, quiet: bool = False) -> tuple[Session | None, str | None]:
        """The session of an id, and the new id if it was time for one.

        Args:
            session_id: from the cookie, whatever that holds.
            quiet: a program asks, not a person: it does not keep the session awake.
        """
        digest = _digest(session_id[:MAX_FIELD])
        with self._lock:
            now = self._clock()
            session = self._sessions.get(digest)
            if session is None:
                return None, None
            if now - session.began > WHOLE_SECONDS or now - session.seen > IDLE_SECONDS:
                self._forget(session)
                return None, None
            if now > session.ids[digest]:
                del self._sessions[digest], session.ids[digest]
                return None, None
            if quiet:
                return session, None
            session.seen = now
            if now - session.rotated < ROTATE_SECONDS:
                return session, None
            session.rotated = now
            for known in session.ids:
                session.ids[known] = min(session.ids[known], now + GRACE_SECONDS)
            made = secrets.token_urlsafe(32)
            self._add(session, made, session.began + WHOLE_SECONDS)
            return session, made

    def leave(self, session: Session) -> None:
        """End a session: none of its ids and none of its forms is good any more."""
        with self._lock:
            self._forget(session)

    def _add(self, session: Session, made: str, until: float) -> None:
        digest = _digest(made)
        session.ids[digest] = until
        self._sessions[digest] = session

    def _forget(self, session: Session) -> None:
        for digest in session.ids:
            self._sessions.pop(digest, None)
        session.ids.clear()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
