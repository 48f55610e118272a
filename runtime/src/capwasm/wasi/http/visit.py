"""One request that a plugin answers: two bounded buffers between a client and a guest's thread.

Whoever serves the client feeds the one and takes from the other; the guest reads and writes as it does
with every stream.  Neither side can make the other hold more than `AHEAD` bytes and a piece.  Each is told
when it can go on: the guest by the bell, which wakes a poll; the server by a call of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from capwasm.errors import CapError

from .bell import Bell

__all__ = [
    "AHEAD",
    "TOO_LONG",
    "Inflow",
    "Outflow",
    "RequestHead",
    "ResponseHead",
    "Taken",
    "Visit",
]

AHEAD: Final = 256 * 1024
"""Bytes that are held each way before the other side has to take some."""
TOO_LONG: Final = "HTTP-response-body-size"

Pairs = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What the plugin is told of a request; checked by whoever made it.

    Attributes:
        method: in capitals, as it came.   scheme: `http`, `https`.
        authority: host and port, or None.   path: with the query.
        headers: names in small letters, and values.
    """

    method: str
    scheme: str
    authority: str | None
    path: str
    headers: Pairs


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What the plugin has answered, as it gave it; well-formed, and no more is known of it."""

    status: int
    headers: Pairs


class Taken(NamedTuple):
    """What has come of a response's body since the last look.

    Attributes:
        data: the bytes.   ended: whether that is all.   cut: whether it broke off, and never ends.
        trailers: what comes after it.
    """

    data: bytes
    ended: bool
    cut: bool
    trailers: Pairs


class Inflow:
    """The body of the request."""

    def __init__(self, told: Callable[[], None], bell: Bell) -> None:
        """Hold nothing yet.

        Args:
            told: there is room again; called from the guest's thread.
            bell: rung for the guest.
        """
        self._lock = threading.Lock()
        self._pieces: deque[memoryview] = deque()
        self._size = 0
        self._told, self._bell = told, bell
        self._ended = self._unwanted = False
        self._failure = ""

    @property
    def hungry(self) -> bool:
        """Whether more may be fed."""
        return self._size < AHEAD

    def feed(self, data: bytes) -> None:
        """Add some, however much came."""
        with self._lock:
            if self._unwanted or self._ended or not data:
                return
            self._pieces.append(memoryview(data))
            self._size += len(data)
        self._bell.ring()

    def end(self, failure: str = "") -> None:
        """That was all; or the rest can't come, for that `error-code`."""
        with self._lock:
            self._ended = True
            self._failure = self._failure or failure
        self._bell.ring()

    def drop(self) -> None:
        """Nobody reads any more: what comes is thrown away."""
        with self._lock:
            self._unwanted = True
            self._pieces.clear()
            self._size = 0
        self._told()

    def ready(self) -> bool:
        """Whether `pull` has something to say."""
        return bool(self._pieces) or self._ended

    def pull(self, length: int) -> bytes | None:
        """1 to `length` bytes; empty when none are there yet; None at the end.

        Raises:
            CapError: the `error-code` for which the rest does not come.
        """
        with self._lock:
            if not self._pieces:
                if self._failure:
                    raise CapError(self._failure)
                return None if self._ended else b""
            was_full = self._size >= AHEAD
            piece = self._pieces.popleft()
            if len(piece) > length:
                self._pieces.appendleft(piece[length:])
                piece = piece[:length]
            self._size -= len(piece)
            room = was_full and self._size < AHEAD
        if room:
            self._told()
        return bytes(piece)


class Outflow:
    """The body of a response.  It may be written before anybody has been given the response."""

    def __init__(self) -> None:
        """Hold nothing; nobody takes yet."""
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        self._size = self._written = 0
        self._length: int | None = None
        self._trailers: Pairs = ()
        self._ended = self._cut = self._closed = self._mute = self._fresh = False
        self.visit: Visit | None = None

    def begin(self, visit: Visit, length: int | None, *, mute: bool) -> None:
        """From now on it is that one's.

        Args:
            visit: is told of what comes.
            length: what was stated.
            mute: whether the answer has no body, whatever is written.
        """
        with self._lock:
            self.visit, self._length, self._mute = visit, length, mute
            if mute:
                self._pieces.clear()
                self._size, self._length = 0, None
            self._check()

    # -- the guest's side -----------------------------------------------------------------------

    def room(self) -> bool:
        """Whether a piece may be written.

        Raises:
            CapError: `closed`: nobody takes any more.
        """
        if self._closed:
            raise CapError("closed", "the client has gone")
        return self._size < AHEAD

    def ready(self) -> bool:
        """Whether `room` would say more than that there is none."""
        return self._closed or self._size < AHEAD

    def push(self, data: bytes) -> None:
        """Take a piece.

        Raises:
            CapError: `closed`; an `error-code`: it is more than was stated.
        """
        with self._lock:
            if self._closed:
                raise CapError("closed", "the client has gone")
            self._written += len(data)
            if not self._mute:
                self._pieces.append(data)
                self._size += len(data)
            self._check()
            over = self._cut
        self._tell()
        if over:
            raise CapError(TOO_LONG, "more than Content-Length says")

    def finish(self, trailers: Pairs = ()) -> None:
        """It ends here.

        Raises:
            CapError: an `error-code`: it is less than was stated.
        """
        with self._lock:
            self._ended = True
            self._trailers = trailers
            self._check()
            short = self._cut
        self._tell()
        if short:
            raise CapError(TOO_LONG, "less than Content-Length says")

    def drop(self) -> None:
        """Nobody writes any more; if it has not ended, it never does."""
        with self._lock:
            self._cut = self._cut or not self._ended
        self._tell()

    def _check(self) -> None:
        length = self._length
        if length is None:
            return
        if self._written > length or (self._ended and self._written < length):
            self._cut = True
        elif self._written == length:
            self._ended = True  # a client that counts waits for no more

    def _tell(self) -> None:
        visit = self.visit
        if visit is None:
            return
        with self._lock:  # one word is enough until it was looked
            known, self._fresh = self._fresh, True
        if not known:
            visit.told()

    # -- the server's side ----------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether all of it was written."""
        return self._ended and not self._cut

    @property
    def mute(self) -> bool:
        """Whether it is nothing, whatever was written."""
        return self._mute

    def take(self) -> Taken:
        """What has come since; the guest may then write on."""
        with self._lock:
            self._fresh = False
            pieces, self._pieces = self._pieces, []
            self._size = 0
            taken = Taken(b"".join(pieces), self._ended, self._cut, self._trailers)
        if pieces and self.visit is not None:
            self.visit.bell.ring()
        return taken

    def close(self) -> None:
        """Nobody takes any more."""
        with self._lock:
            self._closed = True
            self._pieces.clear()
            self._size = 0


class Visit:
    """A request and its answer.

    Attributes:
        head: the request's.   inflow: its body.
        response, outflow: what was answered, once it was; the head and its body.
        failure: the `error-code` that was answered in its place, or empty.
        bell: rung for the guest when it can go on.
        told: called when the server can; from the guest's thread.
    """

    def __init__(self, head: RequestHead, told: Callable[[], None]) -> None:
        """Begin."""
        self.head = head
        self.told = told
        self.bell = Bell()
        self.inflow = Inflow(told, self.bell)
        self.response: ResponseHead | None = None
        self.outflow: Outflow | None = None
        self.failure = ""
        self._gone = False

    def answer(self, response: ResponseHead, outflow: Outflow, length: int | None) -> None:
        """The plugin answers."""
        mute = self.head.method == "HEAD" or response.status in (204, 304)
        outflow.begin(self, length, mute=mute)
        self.outflow, self.response = outflow, response
        if self._gone:
            outflow.close()
        self.told()

    def fail(self, code: str) -> None:
        """The plugin says that it can't."""
        self.failure = code
        self.told()

    def leave(self) -> None:
        """The client has gone, or is told nothing more: what the guest waits for fails."""
        self._gone = True
        if self.outflow is not None:
            self.outflow.close()
        self.inflow.end("connection-terminated")
        self.bell.ring()


def pairs_of(entries: Sequence[tuple[str, bytes]]) -> Pairs:
    """With names in small letters."""
    return tuple((name.lower(), value) for name, value in entries)
