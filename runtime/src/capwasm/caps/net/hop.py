"""One hop that was allowed: its exchange with the origin, under its leases, recorded at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import h11

from capwasm.call import CallRecord, current_call
from capwasm.errors import AuditError, CapError, CapwasmError
from capwasm.events import ALLOWED, DENIED, FAILED
from capwasm.handles import Lease
from capwasm.record.redact import Redactor

from .body import Body, decoder_for
from .exchange import Exchange
from .message import decoded, encoded, framing_of, location_of, shown
from .refusal import Refusal, refusal
from .request import Headers, Prepared
from .watch import Watch

__all__ = ["Answer", "Ended", "Hop", "verdict_of"]

MAX_RESPONSE_HEADERS: Final = 200

T = TypeVar("T")
Ended = Callable[["Hop", str, str, str], None]
"""Told once how a hop ended: itself, verdict, reason, detail."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer.

    Attributes:
        status: 200 and the like.
        headers: without those that frame the message; secrets that were sent are masked.
        location: where it redirects to, if it does and is to be followed; as the origin sent it.
    """

    status: int
    headers: Headers
    location: str | None


def verdict_of(exc: CapError) -> str:
    """Whether a refusal is a decision of ours, or something that failed."""
    return DENIED if exc.word in ("denied", "invalid", "closed") else FAILED


class Hop:
    """One request under way, and its answer.  Whatever goes wrong ends it for good.

    Attributes:
        request: what was asked for.   leases: what must stay in force; the grant's is the first.
        exchange: with the origin.   deadline: `time.monotonic()` at which it must be over, or None.
        answer: once its head is here.   failure: what ended it, or None.
    """

    __slots__ = (
        "_body",
        "_ended",
        "_headers",
        "_mask",
        "answer",
        "deadline",
        "exchange",
        "failure",
        "leases",
        "request",
    )

    def __init__(
        self,
        exchange: Exchange,
        request: Prepared,
        headers: Headers,
        leases: Sequence[Lease],
        mask: Redactor,
        deadline: float | None,
        ended: Ended,
    ) -> None:
        """Nothing was sent yet; `headers` are all but those that frame the message."""
        self.exchange = exchange
        self.request = request
        self.leases = tuple(leases)
        self.deadline = deadline
        self.answer: Answer | None = None
        self.failure: Refusal | None = None
        self._headers = headers
        self._mask = mask
        self._body: Body | None = None
        self._ended: Ended | None = ended

    # -- steps ---------------------------------------------------------------------------------

    def run(self, step: Callable[[Watch], T], until: float | None = None) -> T:
        """Take a step under one watch, for the call under way.

        Args:
            step: given what to look at before and while it waits.
            until: `time.monotonic()` at which it must have ended, besides the deadline.

        Raises:
            CapError: `invalid`, `too-large`, `timeout`, `closed`, `unavailable`.
            CapwasmError: the call must end.
        """
        if self.failure is not None:
            raise self.failure.with_traceback(None)
        call = current_call()
        before = self._body.decoded if self._body else 0
        failure: BaseException
        try:
            limit = self.deadline if until is None else min(until, self.deadline or until)
            # The guest may have dropped the secrets' handles by now; their leases still count.
            watch = Watch.of(call, self.leases, limit, self._phase())
            if self._ended is not None:
                watch.check()
            value = step(watch)
        except AuditError:
            self._fail(refusal("closed", "revoked", "not on record"))
            raise
        except CapError as exc:
            known = exc if isinstance(exc, Refusal) else refusal(exc.word, "revoked", exc.detail)
            self._fail(known, verdict_of(exc), known.reason, exc.detail)
            failure = known
        except CapwasmError as exc:
            self._fail(refusal("closed", "revoked", exc.code), FAILED, exc.code)
            failure = exc
        except BaseException:
            self._fail(refusal("closed", "revoked", "interrupted"))
            raise
        else:
            if self._body is not None and self._body.ended:
                self.end(ALLOWED, "done")
            return value
        finally:
            if self._body is not None:
                call.charge_host_work(self._body.decoded - before)
        # Raised afresh: the frames below hold the request's headers, secrets among them (SEC-10).
        failure.__cause__ = failure.__context__ = None
        raise failure.with_traceback(None)

    def _phase(self) -> str:
        if self.answer is not None:
            return "body"
        return "head" if self.exchange.finished else "send"

    # -- the request ---------------------------------------------------------------------------

    def begin(self, length: int | None) -> None:
        """Give the head to be sent.

        Args:
            length: of the body, in bytes; None where that will show in the end.
        """
        headers = (*self._headers, *framing_of(self.request.method, length))
        self._headers = ()
        self.exchange.ask(self.request.method, self.request.url.target, encoded(headers))

    @property
    def begun(self) -> bool:
        """Whether the head was given."""
        return not self._headers

    def send(self, until: float | None = None) -> Answer:
        """Send the request, whole, and return once the answer's head is here.

        Raises:
            As `run`.
        """
        body = self.request.body

        def step(watch: Watch) -> Answer:
            self.begin(len(body or b""))
            self.exchange.send_whole(body or b"", watch)
            head = self.exchange.wait_head(watch.narrowed(watch.until, "head"))
            return self._answered(head, watch.call)

        return self.run(step, until)

    # -- the answer ----------------------------------------------------------------------------

    def look(self, watch: Watch) -> Answer | None:
        """The answer's head, if it is here: a step for `run`."""
        if self.answer is None and (head := self.exchange.head(watch.call)) is not None:
            self._answered(head, watch.call)
        return self.answer

    def fill(self, watch: Watch, *, block: bool) -> bool:
        """Get bytes of the body ready: a step for `run`; there must be an answer.

        Returns:
            Whether there are any, or it has ended.
        """
        body, exchange = self._body, self.exchange
        assert body is not None
        while not body.ready and not body.ended:
            if body.go_on():
                continue
            chunk = exchange.wait_chunk(watch) if block else exchange.chunk(watch.call)
            if chunk is None:
                body.end()
            elif not chunk:
                return False
            else:
                body.feed(chunk)
        return True

    def take(self, length: int) -> bytes:
        """Up to `length` bytes of what `fill` got ready; none at the end."""
        return self._body.take(length) if self._body else b""

    @property
    def read_whole(self) -> bool:
        """Whether all of the answer was taken."""
        return self._body is not None and self._body.ended and not self._body.ready

    def _answered(self, head: h11.Response, call: CallRecord) -> Answer:
        request = self.request
        if head.status_code < 200:
            raise refusal("unavailable", "protocol", f"an answer of {head.status_code}")
        raw = head.headers.raw_items()
        if len(raw) > MAX_RESPONSE_HEADERS:
            why = f"more than {MAX_RESPONSE_HEADERS} headers"
            raise refusal("too-large", "headers", why, "response")
        headers = decoded(raw)
        framing = {name.lower() for name, _ in headers}
        if framing >= {"content-length", "transfer-encoding"}:
            # RFC 9112, 6.3: what lies between may have believed the other one.
            raise refusal("unavailable", "protocol", "a length and a transfer encoding")
        location = location_of(head.status_code, headers) if request.redirects != "manual" else None
        bodiless = request.method == "HEAD" or head.status_code in (204, 304)
        # A redirect's body is never read, so never decoded either (NET-22).
        encodings = [v for n, v in headers if n.lower() == "content-encoding"]
        decoder = None if bodiless or location is not None else decoder_for(encodings)
        # Also where no secret was sent yet: one that is sent later may come back through this body.
        self._body = Body(decoder, self._mask.stream(), call.limits.net_bytes)
        self.answer = Answer(
            head.status_code,
            shown(headers, is_head=request.method == "HEAD", mask=self._mask),
            location,
        )
        return self.answer

    def trailers(self) -> Headers:
        """What came after the body, once it has ended; secrets that were sent are masked."""
        raw = self.exchange.trailers[:MAX_RESPONSE_HEADERS]
        return shown(decoded(raw), is_head=False, mask=self._mask)

    # -- its end -------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether it has ended, and its end was told."""
        return self._ended is None

    def end(self, verdict: str, reason: str, detail: str = "") -> None:
        """Let go of the connection, and tell how it ended; once.

        Raises:
            AuditError: it could not be recorded.
        """
        ended, self._ended = self._ended, None
        if ended is not None:
            self._headers = ()
            # What was not sent would be missing from the next request.
            if verdict != ALLOWED or not self.exchange.sent:
                self.exchange.connection.close()
            ended(self, verdict, reason, detail)

    def _fail(
        self, failure: Refusal, verdict: str = "", reason: str = "", detail: str = ""
    ) -> None:
        """End it with that; where there is no verdict, nothing is recorded."""
        self.failure = failure
        self.exchange.connection.close()
        if verdict:
            self.end(verdict, reason, detail)

    def drop(self) -> None:
        """Nobody wants the rest.  That always succeeds, also when the audit's sink is gone."""
        done = self._body is not None and self._body.ended
        if not done and self.failure is None:
            self.failure = refusal("closed", "revoked", "it was dropped")
        with contextlib.suppress(AuditError):
            self.end(ALLOWED, "done" if done else "dropped")
