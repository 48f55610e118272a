"""One request and its answer over one connection, a step at a time (RFC 9112).  Nothing here waits.

What was given to be sent is held until the socket takes it; what is asked for is there, or not yet.
Whoever wants to wait looks at `events`.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import h11

from capwasm.call import CallRecord

from .pool import Connection
from .refusal import refusal
from .watch import Watch

__all__ = ["Exchange"]

_Pairs = Sequence[tuple[bytes, bytes]]


class Exchange:
    """A request that is being sent, and an answer that is being read.

    Attributes:
        connection: over which.
        refused: whether the other end takes no more of the request; it may still answer.
        trailers: after the end of the answer's body.
    """

    __slots__ = ("_head", "_out", "connection", "refused", "trailers")

    def __init__(self, connection: Connection) -> None:
        """Nothing was sent yet."""
        self.connection = connection
        self.refused = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self._out = bytearray()
        self._head: h11.Response | None = None

    # -- the request ---------------------------------------------------------------------------

    def ask(self, method: str, target: str, headers: _Pairs) -> None:
        """Give the head to be sent.

        Raises:
            CapError: `invalid`: it can't be put into HTTP/1.1.
        """
        self._give(h11.Request, method=method.encode(), target=target.encode(), headers=headers)

    def give(self, data: bytes) -> None:
        """Give a piece of the body to be sent."""
        self._give(h11.Data, data=data)

    def finish(self, trailers: _Pairs = ()) -> None:
        """The request ends here."""
        self._give(h11.EndOfMessage, headers=trailers)

    @property
    def finished(self) -> bool:
        """Whether the request was given, whole."""
        return self.connection.http.our_state in (h11.DONE, h11.MUST_CLOSE)

    @property
    def sent(self) -> bool:
        """Whether nothing that was given is left, or lost."""
        return not self._out and not self.refused

    def push(self, call: CallRecord) -> bool:
        """Send what the socket takes; says whether nothing is left.

        Raises:
            CapwasmError: the call must end.
        """
        while self._out:
            try:
                with memoryview(self._out) as view:
                    count = self.connection.stream.write(view, call)
            except OSError:
                self.refused = True
                self._out.clear()
                return True
            if not count:
                return False
            del self._out[:count]
        return True

    def _give(self, event: type, **words: object) -> None:
        with _rules():
            data = self.connection.http.send(event(**words))
        if data and not self.refused:
            self._out += data

    # -- the answer ----------------------------------------------------------------------------

    def head(self, call: CallRecord) -> h11.Response | None:
        """The head of the answer, or None: it is not here yet.

        Raises:
            CapError: `too-large`, `unavailable`.
            CapwasmError: the call must end.
        """
        while self._head is None:
            event = self._event(call)
            if event is None:
                return None
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                raise refusal("unavailable", "protocol", "it changes to a protocol not asked for")
            if isinstance(event, h11.Response):
                self._head = event
        return self._head

    def chunk(self, call: CallRecord) -> bytes | None:
        """A piece of the answer's body; empty: none is here yet; None: it has ended.

        Raises:
            As `head`.
        """
        event = self._event(call)
        if event is None:
            return b""
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self.trailers = list(event.headers.raw_items())
        return None

    def _event(self, call: CallRecord) -> h11.Event | None:
        http, stream = self.connection.http, self.connection.stream
        with _rules(ended=True):
            while (event := http.next_event()) is h11.NEED_DATA:
                data = stream.read(call)
                if data is None:
                    return None
                if data == b"" and http.their_state is h11.SEND_RESPONSE:
                    raise refusal(
                        "unavailable", "protocol", "it hung up before its answer", "incomplete"
                    )
                http.receive_data(data)
        # Paused it is where nothing more was asked for.
        return event if isinstance(event, h11.Event) else None

    # -- waiting -------------------------------------------------------------------------------

    def events(self, *, answer: bool) -> int:
        """The events of `select.poll` after which another step is worth a try.

        Args:
            answer: whether the answer is wanted, or only that the request goes on.
        """
        stream = self.connection.stream
        events = stream.writing if self._out else 0
        return events | (stream.reading if answer else 0) or select.POLLOUT

    def wait(self, watch: Watch, *, answer: bool) -> None:
        """Wait for such an event.

        Raises:
            As `Watch.check`.
        """
        watch.wait_socket(self.connection.stream.fileno(), self.events(answer=answer))

    def send_whole(self, body: bytes, watch: Watch) -> None:
        """Send the body and the end of the request, and wait until all of it was taken.

        Raises:
            As `Watch.check`; CapwasmError: the call must end.
        """
        if body:
            self.give(body)
        self.finish()
        while True:
            watch.check()
            if self.push(watch.call):
                return
            self.wait(watch, answer=False)

    def wait_head(self, watch: Watch) -> h11.Response:
        """The head of the answer, as soon as it is here.

        Raises:
            As `head` and `Watch.check`.
        """
        while True:
            watch.check()
            if (head := self.head(watch.call)) is not None:
                return head
            self.wait(watch, answer=True)

    def wait_chunk(self, watch: Watch) -> bytes | None:
        """A piece of the body as soon as there is one; None: it has ended.

        Raises:
            As `chunk` and `Watch.check`.
        """
        while True:
            watch.check()
            if (chunk := self.chunk(watch.call)) != b"":
                return chunk
            self.wait(watch, answer=True)


@contextmanager
def _rules(*, ended: bool = False) -> Iterator[None]:
    """Turn what breaks the rules of HTTP into refusals; h11's texts may hold parts of a message."""
    try:
        yield
    except h11.RemoteProtocolError as exc:
        if exc.error_status_hint == 431:
            raise refusal(
                "too-large", "headers", "the response's head is too large", "response"
            ) from None
        cut = "incomplete" if ended and str(exc).startswith("peer closed") else ""
        raise refusal("unavailable", "protocol", "the answer is not HTTP/1.1", cut) from None
    except h11.LocalProtocolError:
        raise refusal("invalid", "bad-header", "the request can't be put into HTTP/1.1") from None
