"""`wasi:http` 0.2, incoming: what a plugin holds of a request that it answers.

None of it is power: a request is what a client sent, less what the core hides; a response is bytes that
go to that client alone, if the core lets them.
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Callable
from typing import Final

from capwasm.call import current_call
from capwasm.errors import CapError, GuestTrap
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Ok, Result, Variant
from capwasm.wasi.io import MAX_CHUNK, SLICE_NS, InputStream, OutputStream, Pollable, poll

from .download import FutureTrailers, IncomingBody
from .errors import FAMILY, error_code
from .fields import Fields
from .upload import OutgoingBody
from .visit import Outflow, Pairs, ResponseHead, Visit, pairs_of

__all__ = ["IncomingRequest", "OutgoingResponse", "ResponseOutparam"]

_METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
)
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
# 1xx is no answer; what a server makes of others is nobody's to guess.
_STATUS: Final = range(200, 600)
_BAD_HEAD: Final = "HTTP-response-header-section-size"


class _VisitPollable(Pollable):
    """Ready when that of a visit is that is looked for."""

    __slots__ = ("_look", "_visit")

    def __init__(self, look: Callable[[], bool], visit: Callable[[], Visit | None]) -> None:
        super().__init__(Lease())
        self._look = look
        self._visit = visit

    def wait_ns(self) -> int:
        visit = self._visit()
        if visit is not None:
            visit.bell.hush()
        return 0 if self._look() else SLICE_NS

    def source(self) -> tuple[int, int] | None:
        visit = self._visit()
        fd = None if visit is None else visit.bell.fileno()
        return None if fd is None else (fd, select.POLLIN)

    def pause(self, ns: int) -> None:
        """Sleep for a slice: there is nothing to be woken by."""
        time.sleep(min(ns, SLICE_NS) / 1e9)


class IncomingRequest(Handle):
    """A request.  See `RequestHead`."""

    __slots__ = ("_consumed", "_visit")

    def __init__(self, visit: Visit) -> None:
        """Hold it."""
        super().__init__(Lease())
        self._visit = visit
        self._consumed = False

    def method(self) -> Variant:
        """Its method."""
        word = self._visit.head.method
        return Variant(word.lower()) if word in _METHODS else Variant("other", word)

    def path_with_query(self) -> str | None:
        """Its path, below where the plugin stands, and its query."""
        return self._visit.head.path

    def scheme(self) -> Variant | None:
        """Its scheme."""
        word = self._visit.head.scheme.upper()
        return Variant(word) if word in ("HTTP", "HTTPS") else Variant("other", word.lower())

    def authority(self) -> str | None:
        """What the client called this host."""
        return self._visit.head.authority

    def headers(self) -> Fields:
        """Its headers, less those that frame the message and those that the core hides."""
        return Fields(self._visit.head.headers, fixed=True)

    def consume(self) -> IncomingBody | Err[None]:
        """The body, once."""
        if self._consumed:
            return Err(None)
        self._consumed = True
        return _RequestBody(self._visit)


# The next three are to the guest what those of a response are.  They share no state with these, so
# `Handle` begins them.


class _RequestBody(IncomingBody):
    """The body of a request."""

    __slots__ = ("_read", "_visit")

    def __init__(self, visit: Visit) -> None:
        Handle.__init__(self, Lease())
        self._visit = visit
        self._read: _RequestStream | None = None

    def stream(self) -> InputStream | Err[None]:
        if self._read is not None:
            return Err(None)
        self._read = _RequestStream(self._visit)
        return self._read

    def finish(self) -> FutureTrailers:  # type: ignore[override] # whichever body it is called on
        if self._read is not None and self._read.held:
            raise GuestTrap("the plugin finished a body whose stream it still holds")
        self.close()
        return _NoTrailers()

    def release(self) -> None:
        self._visit.inflow.drop()


class _NoTrailers(FutureTrailers):
    """An ASGI server tells of none."""

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        Handle.__init__(self, Lease())
        self._asked = False

    def subscribe(self) -> Pollable:
        return Pollable(self.lease)

    def get(self) -> Result[Result[Fields | None, Variant], None] | None:
        if self._asked:
            return Err(None)
        self._asked = True
        return Ok(Ok(None))

    def release(self) -> None:
        pass


class _RequestStream(InputStream):
    """Where the body of a request is read from."""

    __slots__ = ("_visit",)

    family = FAMILY

    def __init__(self, visit: Visit) -> None:
        super().__init__(Lease())
        self._visit = visit

    @property
    def held(self) -> bool:
        return self._open

    def pull(self, length: int) -> bytes | None:
        data = self._visit.inflow.pull(length)
        if data:
            current_call().charge_net(len(data))
        return data

    def subscribe(self) -> Pollable:
        return _VisitPollable(self._visit.inflow.ready, lambda: self._visit)


class OutgoingResponse(Handle):
    """An answer, until it is given."""

    __slots__ = ("_fields", "_status", "_taken", "outflow")

    def __init__(self, headers: Fields) -> None:
        """200, with these headers."""
        super().__init__(Lease())
        self._fields = headers
        self._status = 200
        self._taken = False
        self.outflow = Outflow()

    def status_code(self) -> int:
        """200 and the like."""
        return self._status

    def set_status_code(self, status: int) -> Err[None] | None:
        """Set it, if it is one of a whole answer."""
        if status not in _STATUS:
            return Err(None)
        self._status = status
        return None

    def headers(self) -> Fields:
        """Its headers, which can't be changed any more."""
        return self._fields.copy(fixed=True)

    def body(self) -> OutgoingBody | Err[None]:
        """Its body, once."""
        if self._taken:
            return Err(None)
        self._taken = True
        return _ResponseBody(self.outflow)

    def answer(self, visit: Visit) -> None:
        """Give it."""
        pairs = pairs_of(self._fields.pairs)
        stated = [v.decode("latin-1") for n, v in pairs if n == "content-length"]
        if len(stated) > 1 or (stated and not _LENGTH.fullmatch(stated[0])):
            visit.fail(_BAD_HEAD)
            return
        if not self._taken:
            self.outflow.finish()
        length = int(stated[0]) if stated else None
        visit.answer(ResponseHead(self._status, pairs), self.outflow, length)


class _ResponseBody(OutgoingBody):
    """The body of an answer."""

    __slots__ = ("_out", "_written")

    def __init__(self, outflow: Outflow) -> None:
        Handle.__init__(self, Lease())
        self._out = outflow
        self._written: _ResponseStream | None = None

    def write(self) -> OutputStream | Err[None]:  # type: ignore[override] # not into an upload
        if self._written is not None:
            return Err(None)
        self._written = _ResponseStream(self._out)
        return self._written

    def finish(self, trailers: Fields | None) -> Err[Variant] | None:  # type: ignore[override]
        if self._written is not None and self._written.held:
            raise GuestTrap("the plugin finished a body whose stream it still holds")
        pairs: Pairs = pairs_of(trailers.pairs) if trailers else ()
        try:
            self._out.finish(pairs)
        except CapError as exc:
            return Err(error_code(exc.word))
        return None

    def release(self) -> None:
        self._out.drop()


class _ResponseStream(OutputStream):
    """Where the body of an answer is written to."""

    __slots__ = ("_out",)

    family = FAMILY

    def __init__(self, outflow: Outflow) -> None:
        super().__init__(Lease())
        self._out = outflow

    @property
    def held(self) -> bool:
        return self._open

    def room(self) -> int:
        return MAX_CHUNK if self._out.room() else 0

    def push(self, data: bytes) -> None:
        current_call().charge_net(len(data))
        self._out.push(bytes(data))

    def settle(self) -> None:
        """Wait until the client's side has taken what is more than it may be behind."""
        while not self._out.room():
            poll([self.subscribe()])

    def subscribe(self) -> Pollable:
        out = self._out
        return _VisitPollable(out.ready, lambda: out.visit)


class ResponseOutparam(Handle):
    """Where the answer is given; whoever drops it gives none."""

    __slots__ = ("_visit",)

    def __init__(self, visit: Visit) -> None:
        """Wait for it."""
        super().__init__(Lease())
        self._visit = visit

    @staticmethod
    def set(param: ResponseOutparam, response: Result[OutgoingResponse, Variant]) -> None:
        """Give the answer, or say why there is none.  The engine sees to it that it is once."""
        if isinstance(response, Err):
            param._visit.fail(response.error.case)
        else:
            response.value.answer(param._visit)
