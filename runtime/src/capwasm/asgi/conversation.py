"""One request on the event loop: what comes is fed to the plugin, what it answers is sent.

Three tasks: the call, on a thread of the plugin's; one that listens to the client, to its very end; one
that speaks.  Whatever ends first decides what becomes of the others, and none outlives the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any, Final

from capwasm.errors import (
    CallInterrupted,
    CapwasmError,
    ConcurrencyExceeded,
    DeadlineExceeded,
    GuestError,
    InstanceClosedError,
)
from capwasm.record.redact import printable
from capwasm.wasi.http.incoming import IncomingRequest, ResponseOutparam
from capwasm.wasi.http.visit import RequestHead, Taken, Visit

from .heads import STATUS, response_headers, trailer_headers

__all__ = ["Conversation", "Incomplete", "say", "status_of"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Call = Callable[[IncomingRequest, ResponseOutparam], Awaitable[Any]]

RETRY_SECONDS: Final = 1
_GRACE_SECONDS: Final = 0.25
_LOG: Final = logging.getLogger("capwasm.asgi")
_WORDS: Final = {
    400: "Bad Request",
    403: "Forbidden",
    411: "Length Required",
    413: "Content Too Large",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class Incomplete(Exception):
    """A response broke off that had begun: the server has to close the connection.

    There is no other way in ASGI to tell a client that it has not got all.  It says nothing of why;
    the log does.
    """

    def __init__(self) -> None:
        """For the server."""
        super().__init__("the plugin's response broke off")


def status_of(error: BaseException) -> int:
    """What a client is told of a call that failed: the core is a gateway, and the plugin behind it."""
    match error:
        case ConcurrencyExceeded() | InstanceClosedError() | CallInterrupted():
            return 503
        case DeadlineExceeded():
            return 504
        case GuestError():
            return 502
        case _:
            return 500


async def say(send: Send, status: int, *, head: bool = False) -> None:
    """Send a whole response of our own, in which nothing is anybody's text."""
    text = f"{_WORDS.get(status, 'Error')}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_SECONDS).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else text, "more_body": False})


class Conversation:
    """A request, from its head to the end of all that came of it."""

    def __init__(
        self,
        name: str,
        head: RequestHead,
        call: Call,
        *,
        max_body: int,
        withhold: Collection[str],
        send_seconds: float,
    ) -> None:
        """Begin nothing yet.

        Args:
            name: of the plugin, for the log.
            head: of the request.
            call: the plugin's function; cancelling it interrupts the plugin.
            max_body: bytes.
            withhold: as for `response_headers`.
            send_seconds: how long a client may take for the rest once the plugin is done.
        """
        self._loop = asyncio.get_running_loop()
        self._name, self._head, self._call = name, head, call
        self._max_body, self._withhold, self._send_seconds = max_body, withhold, send_seconds
        self._visit = Visit(head, self._told)
        self._answered, self._hungry = asyncio.Event(), asyncio.Event()
        self._started = self._sent = self._large = False

    def _told(self) -> None:
        """From the guest's thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._stir)

    def _stir(self) -> None:
        self._answered.set()
        self._hungry.set()

    async def run(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Have it answered.

        Raises:
            Incomplete: the response broke off.
        """
        visit = self._visit
        call = asyncio.ensure_future(self._call(IncomingRequest(visit), ResponseOutparam(visit)))
        listen = asyncio.ensure_future(self._listen(receive))
        trailers = "http.response.trailers" in (scope.get("extensions") or {})
        speak = asyncio.ensure_future(self._speak(send, trailers=trailers))
        try:
            await self._follow(call, listen, speak, send)
        finally:
            visit.leave()
            for task in (call, listen, speak):
                task.cancel()
            # Cancelled again, it is waited for all the same: the guest's thread uses the visit.
            ended = asyncio.gather(call, listen, speak, return_exceptions=True)
            cancelled: asyncio.CancelledError | None = None
            while not ended.done():
                try:
                    await asyncio.shield(ended)
                except asyncio.CancelledError as exc:
                    cancelled = exc
            visit.bell.close()
            if cancelled is not None:
                raise cancelled

    async def _follow(
        self,
        call: asyncio.Future[Any],
        listen: asyncio.Future[None],
        speak: asyncio.Future[None],
        send: Send,
    ) -> None:
        await asyncio.wait({call, listen, speak}, return_when=asyncio.FIRST_COMPLETED)
        if not (call.done() or speak.done()):
            if not self._large:
                self._log(None, "the client has gone")
                return
            await self._break_off(413, "its body is too large", speak, send)
            return
        out = self._visit.outflow
        if not speak.done() and out is not None and out.whole:
            # All is said, but not sent yet: for that a client has its own time.
            still = {speak} if listen.done() else {speak, listen}
            await asyncio.wait(
                still, timeout=self._send_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not speak.done():
                if listen.done() and not self._large:
                    self._log(None, "the client has gone")
                    return
                self._log(None, "the client takes the response too slowly")
                raise Incomplete
        if speak.done():
            await self._after(call, speak, send)
            return
        status, why = self._outcome(call)
        await self._break_off(status, why, speak, send)

    async def _after(
        self, call: asyncio.Future[Any], speak: asyncio.Future[None], send: Send
    ) -> None:
        """What was to be sent is sent, or could not be."""
        error = speak.exception()
        if isinstance(error, Incomplete):
            # Why is known once the call has ended; for that it has little time.
            self._visit.leave()
            await asyncio.wait({call}, timeout=_GRACE_SECONDS)
            call.cancel()
            await asyncio.wait({call})
            status, why = self._outcome(call)
            await self._break_off(status, why or "the response broke off", speak, send)
            return
        if error is not None:
            self._log(None, f"it could not be sent: {type(error).__name__}")
            if not isinstance(error, OSError):
                raise error
            return
        # It may go on for as long as its limits let it: the client has all, and waits for nothing.
        await asyncio.wait({call})
        if error := call.exception():
            self._log(None, f"after its response: {_why(error)}")

    async def _break_off(
        self, status: int, why: str, speak: asyncio.Future[None], send: Send
    ) -> None:
        """Say that nothing came of it; or, where a response has begun, have it seen that it ended.

        Raises:
            Incomplete: it has begun.
        """
        self._visit.leave()
        speak.cancel()
        await asyncio.wait({speak})
        if self._sent:
            return
        self._log(status, why)
        if self._started:
            raise Incomplete
        await say(send, status, head=self._head.method == "HEAD")

    def _outcome(self, call: asyncio.Future[Any]) -> tuple[int, str]:
        """What a client is told, and the log, of a call that has ended without a whole response."""
        error = None if call.cancelled() else call.exception()
        if self._visit.failure:
            return STATUS.get(self._visit.failure, 502), f"it answered {self._visit.failure}"
        if error is None:
            return 502, "it gave no whole response"
        return status_of(error), _why(error)

    def _log(self, status: int | None, why: str) -> None:
        path = printable(self._head.path.partition("?")[0][:200])
        told = "" if status is None else f", answered {status}"
        _LOG.warning("%s: %s %s%s: %s", self._name, self._head.method[:20], path, told, why)

    # -- the tasks ------------------------------------------------------------------------------

    async def _listen(self, receive: Receive) -> None:
        """Feed the body; return once the client is gone, or has sent too much."""
        inflow, size, more = self._visit.inflow, 0, True
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if not more:
                continue
            data = message.get("body", b"")
            size += len(data)
            if size > self._max_body:
                inflow.end("HTTP-request-body-size")
                self._large = True
                return
            inflow.feed(data)
            more = message.get("more_body", False)
            if not more:
                inflow.end()
            while more and not inflow.hungry:
                self._hungry.clear()
                if not inflow.hungry:
                    await self._hungry.wait()

    async def _speak(self, send: Send, *, trailers: bool) -> None:
        """Send the response, as it comes.

        Raises:
            Incomplete: it broke off.
        """
        visit = self._visit
        while visit.response is None:  # if there never is one, the call's end says so
            await self._change()
        response, out = visit.response, visit.outflow
        assert out is not None
        taken = Taken(b"", ended=True, cut=False, trailers=()) if out.mute else out.take()
        if taken.cut:
            raise Incomplete
        headers = response_headers(response.headers, self._withhold)
        if response.status == 204:
            headers = [h for h in headers if h[0] != b"content-length"]
        last = trailer_headers(taken.trailers, self._withhold) if trailers else []
        stated = any(name == b"content-length" for name, _ in headers)
        if taken.ended and not last and not stated and not out.mute:
            headers.append((b"content-length", str(len(taken.data)).encode()))
        start: Message = {
            "type": "http.response.start",
            "status": response.status,
            "headers": headers,
        }
        # Trailers must be announced before anybody knows whether there will be some.
        late = trailers and not stated and not out.mute and (not taken.ended or bool(last))
        if late:
            start["trailers"] = True
        self._started = True
        await send(start)
        while True:
            if taken.cut:
                raise Incomplete
            if taken.data or taken.ended:
                await send(
                    {
                        "type": "http.response.body",
                        "body": taken.data,
                        "more_body": not taken.ended,
                    }
                )
            if taken.ended:
                break
            await self._change()
            taken = out.take()
        if late:
            last = trailer_headers(taken.trailers, self._withhold)
            await send({"type": "http.response.trailers", "headers": last, "more_trailers": False})
        self._sent = True

    async def _change(self) -> None:
        await self._answered.wait()
        self._answered.clear()


def _why(error: BaseException) -> str:
    """For the operator's log: the code, and what we say of it; of a plugin's text, what can be shown."""
    if isinstance(error, CapwasmError):
        return f"{error.code}: {printable(error.message.partition(chr(10))[0][:200])}"
    return type(error).__name__
