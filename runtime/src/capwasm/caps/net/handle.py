"""The response that a guest holds: its head, and the body that is still on its way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import httpcore

from capwasm.call import current_call
from capwasm.errors import AuditError, CapError, CapwasmError
from capwasm.events import ALLOWED, DENIED, FAILED
from capwasm.handles import Handle, Lease

from .body import Body
from .pool import Connection, protocol_errors
from .refusal import Refusal, refusal
from .request import Headers
from .watch import Watch

__all__ = ["Ended", "ResponseHandle", "verdict_of"]

MAX_READ: Final = 1024 * 1024

Ended = Callable[["ResponseHandle", str, str, str], None]
"""Told once how a response ended: itself, verdict, reason, detail."""


def verdict_of(exc: CapError) -> str:
    """Whether a refusal is a decision of ours, or something that failed."""
    return DENIED if exc.word in ("denied", "invalid", "closed") else FAILED


class ResponseHandle(Handle):
    """A response.  Whoever holds it reads the body at their own pace, each read within limits.

    Attributes:
        status: 200 and the like.
        headers: without those that frame the message; secrets that were sent are masked.
        url: what answered.
    """

    __slots__ = (
        "_body",
        "_deadline",
        "_ended",
        "_failure",
        "_leases",
        "_response",
        "connection",
        "headers",
        "status",
        "url",
    )

    def __init__(
        self,
        leases: Sequence[Lease],
        response: httpcore.Response,
        connection: Connection,
        headers: Headers,
        url: str,
        body: Body,
        deadline: float | None,
        ended: Ended,
    ) -> None:
        """Hold an open response; the first of `leases` is the grant's."""
        super().__init__(leases[0])
        self.status: int = response.status
        self.headers = headers
        self.url = url
        self.connection = connection
        self._leases = tuple(leases)
        self._response = response
        self._body = body
        self._deadline = deadline
        self._ended: Ended | None = ended
        self._failure: tuple[str, str, str] | None = None

    def read(self, length: int) -> bytes:
        """Up to `length` bytes of the body, at most 1 MiB, as soon as there are any.

        Raises:
            CapError: `invalid`, `too-large`, `timeout`, `closed`, `unavailable`.
            CapwasmError: the call must end.
        """
        if length < 1:
            raise refusal("invalid", "bad-length", "a read of nothing")
        with self._reading() as room:
            return self._body.read(min(length, MAX_READ, room))

    def read_all(self, limit: int) -> bytes:
        """The rest of the body.

        Raises:
            CapError: `too-large` when it is more than `limit` bytes, and as `read`.
            CapwasmError: the call must end.
        """
        out = bytearray()
        with self._reading() as room:
            while piece := self._body.read(MAX_READ):
                out += piece
                if len(out) > min(limit, room):
                    raise refusal("too-large", "too-large", f"more than {min(limit, room)} bytes")
        return bytes(out)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[int]:
        """Read under one watch; whatever goes wrong ends the response for good.

        Yields:
            How many bytes may cross to the guest at once.
        """
        if self._failure is not None:
            raise refusal(*self._failure)
        call = current_call()
        before = self._body.decoded
        try:
            # The guest may have dropped the secrets' handles by now; their leases still count.
            watch = Watch.of(call, self._leases, self._deadline)
            watch.check()
            self.check()
            if self._ended is not None:  # else the connection may serve another by now
                self.connection.stream.watch = watch
            with protocol_errors():
                yield call.limits.value_bytes
        except CapError as exc:
            reason = exc.reason if isinstance(exc, Refusal) else "revoked"
            self._failure = exc.word, reason, exc.detail
            self._end(verdict_of(exc), reason, exc.detail)
            raise
        except CapwasmError as exc:
            self._failure = "closed", "revoked", exc.code
            self._end(FAILED, exc.code, "")
            raise
        except BaseException:
            self._failure = "closed", "revoked", "interrupted"
            if self._ended is not None:
                self.connection.http.close()
            raise
        finally:
            call.charge_host_work(self._body.decoded - before)
        if self._body.ended:
            self._end(ALLOWED, "done", "")

    def discard(self) -> None:
        """Close it without reading the rest.

        Raises:
            AuditError: its end could not be recorded.
        """
        self._end(ALLOWED, "redirected", "")
        self.close()

    def release(self) -> None:
        """Close the connection, unless the body was read to its end and it can serve again."""
        # To let go must always succeed, also when the audit's sink is gone.
        with contextlib.suppress(AuditError):
            self._end(ALLOWED, "done" if self._body.ended else "dropped", "")

    def _end(self, verdict: str, reason: str, detail: str) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        if verdict != ALLOWED:
            self.connection.http.close()
        self._response.close()
        ended(self, verdict, reason, detail)
