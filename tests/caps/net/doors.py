"""The two doors to the egress engine, each used as its guests use it: one table of cases for both.

A case says what is asked and which word of `capwasm:fetch` answers; for `wasi:http` the door holds which
`error-code`s stand for that word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from capwasm.caps.net.host import NetState
from capwasm.caps.net.request import RequestSpec
from capwasm.errors import CapError
from capwasm.values import Err, Ok, Variant
from capwasm.wasi import WasiServer
from tests.helpers import open_context

__all__ = ["Coded", "FetchDoor", "HttpDoor", "WebGuest"]

_WORDS = {
    "denied": "HTTP-request-denied destination-IP-prohibited loop-detected forbidden immutable",
    "invalid": "HTTP-request-URI-invalid HTTP-request-method-invalid invalid-syntax unfit",
    "too-large": "HTTP-request-body-size HTTP-response-body-size HTTP-request-header-section-size"
    " HTTP-response-header-section-size",
    "timeout": "DNS-timeout connection-timeout connection-write-timeout HTTP-response-timeout"
    " connection-read-timeout",
    "unavailable": "DNS-error connection-refused connection-terminated connection-limit-reached"
    " destination-IP-unroutable HTTP-protocol-error HTTP-response-incomplete"
    " HTTP-response-content-coding",
    "insecure": "TLS-protocol-error TLS-certificate-error",
}
WORD_OF = {code: word for word, codes in _WORDS.items() for code in codes.split()}


class Coded(Exception):
    """What a guest was told: the name of an `error-code` or of a `header-error`, or `unfit`."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass
class Reply:
    """An answer, as both doors give it."""

    status: int
    headers: list[tuple[str, str]]
    url: str
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)


class FetchDoor:
    """`capwasm:fetch`."""

    name = "fetch"

    def ask(self, engine: Any, grant: Any, call: Any, spec: RequestSpec, limit: int) -> Reply:
        """Send, follow, and read all; raises `CapError`."""
        response = engine.request(grant, spec, call)
        try:
            body = response.read_all(limit)
        finally:
            response.close()
        return Reply(response.status, list(response.headers), response.url, body)


class HttpDoor:
    """`wasi:http`, by a guest whose library follows redirects."""

    name = "wasi:http"

    def ask(self, engine: Any, grant: Any, call: Any, spec: RequestSpec, limit: int) -> Reply:
        """Send, follow, and read all; raises `CapError` with the word that the code stands for."""
        guest = WebGuest(NetState(grant, engine))
        url, method, body = spec.url, spec.method, spec.body
        for hop in range(11):
            try:
                options = {} if spec.timeout_ms is None else {"first": spec.timeout_ms * 1_000_000}
                reply = guest.ask(method, url, spec.headers, body, **options)
            except Coded as exc:
                word = WORD_OF[exc.code]
                # Who follows a redirect to what is no URL was denied it, in the words of the other.
                raise CapError("denied" if hop and word == "invalid" else word) from None
            location = {n.lower(): v for n, v in reply.headers}.get("location")
            if spec.redirects != "follow" or location is None or reply.status // 100 != 3:
                return reply
            url = urljoin(url, location)
            if reply.status == 303:
                method, body = "GET", None
        raise CapError("denied")


class WebGuest:
    """Uses the functions of `wasi:http` in the order in which a guest's library does."""

    def __init__(self, net: Any, **opened: Any) -> None:
        states = {"net": net, **opened}
        context = open_context(Path("/nonexistent"), opened=states)
        server = WasiServer(context, net=lambda: net)
        self._functions = {
            (i.name.partition("@")[0].removeprefix("wasi:"), name): function
            for i in server.everything()
            for name, function in i.functions.items()
        }

    def __call__(self, name: str, *args: Any) -> Any:
        """Call `types.[method]fields.get`, `streams.…`, `poll.…`."""
        interface, _, function = name.partition(".")
        package = "io" if interface in ("streams", "poll", "error") else "http"
        return self._functions[f"{package}/{interface}", function](*args)

    def method(self, name: str, *args: Any) -> Any:
        """Call a method of `wasi:http/types`, `fields.get`."""
        return self(f"types.[method]{name}", *args)

    def block(self, pollable: Any) -> None:
        self("poll.[method]pollable.block", pollable)

    def fields(self, headers: Sequence[tuple[str, str]]) -> Any:
        """Fields of these, each appended; raises `Coded` with the `header-error`."""
        fields = self("types.[constructor]fields")
        for name, value in headers:
            try:
                self.method("fields.append", fields, name, value.encode())
            except CapError as exc:
                raise Coded(exc.word) from None
        return fields

    def request(self, method: str, url: str, headers: Sequence[tuple[str, str]] = ()) -> Any:
        """A request; raises `Coded`."""
        request = self("types.[constructor]outgoing-request", self.fields(headers))
        low = method.lower()
        known = method.isupper() and low in ("get", "head", "post", "put", "delete", "patch")
        scheme, _, rest = url.partition("://")
        authority, path = _split(rest)
        kinds = {"http": Variant("HTTP"), "https": Variant("HTTPS")}
        for name, value in (
            ("method", Variant(low) if known else Variant("other", method)),
            ("scheme", kinds.get(scheme, Variant("other", scheme))),
            ("authority", authority),
            ("path-with-query", path),
        ):
            if isinstance(self.method(f"outgoing-request.set-{name}", request, value), Err):
                raise Coded("unfit")
        return request

    def handle(self, request: Any, **options: int) -> Any:
        """Hand it over; the future.  Raises `Coded`."""
        times = None
        if options:
            times = self("types.[constructor]request-options")
            for word, ns in options.items():
                name = {"first": "first-byte", "connect": "connect", "between": "between-bytes"}
                self.method(f"request-options.set-{name[word]}-timeout", times, ns)
        future = self("outgoing-handler.handle", request, times)
        if isinstance(future, Err):
            raise Coded(future.error.case)
        return future

    def write(self, stream: Any, data: bytes) -> None:
        """All of it, as `check-write` allows."""
        while data:
            self.block(self("streams.[method]output-stream.subscribe", stream))
            room = self.streamed(self("streams.[method]output-stream.check-write", stream))
            self.streamed(self("streams.[method]output-stream.write", stream, data[:room]))
            data = data[room:]

    def streamed(self, value: Any) -> Any:
        """The value, or `Coded` with what the stream's error stands for."""
        if isinstance(value, Err):
            if value.error.case == "closed":
                raise Coded("closed")
            raise Coded(self("types.http-error-code", value.error.value).case)
        return value

    def answer(self, future: Any) -> Any:
        """The response, once it is here."""
        while (got := self.method("future-incoming-response.get", future)) is None:
            self.block(self.method("future-incoming-response.subscribe", future))
        inner = got.value
        if isinstance(inner, Err):
            raise Coded(inner.error.case)
        return inner.value

    def pieces(self, stream: Any) -> Iterator[bytes]:
        """The body, piece by piece."""
        while True:
            try:
                yield self.streamed(
                    self("streams.[method]input-stream.blocking-read", stream, 1 << 20)
                )
            except Coded as exc:
                if exc.code == "closed":
                    return
                raise

    def reply(self, future: Any, url: str = "") -> Reply:
        """The whole answer."""
        response = self.answer(future)
        headers = self.method("fields.entries", self.method("incoming-response.headers", response))
        reply = Reply(
            self.method("incoming-response.status", response),
            [(n, v.decode("latin-1")) for n, v in headers],
            url,
        )
        body = self.method("incoming-response.consume", response)
        stream = self.method("incoming-body.stream", body)
        reply.body = b"".join(self.pieces(stream))
        stream.close()
        rest = self("types.[static]incoming-body.finish", body)
        while (got := self.method("future-trailers.get", rest)) is None:
            self.block(self.method("future-trailers.subscribe", rest))
        assert isinstance(got, Ok)
        if isinstance(got.value, Err):
            raise Coded(got.value.error.case)
        if got.value.value is not None:
            trailers = self.method("fields.entries", got.value.value)
            reply.trailers = [(n, v.decode("latin-1")) for n, v in trailers]
        rest.close()
        response.close()
        return reply

    def ask(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        **options: int,
    ) -> Reply:
        """Send it all and read it all."""
        request = self.request(method, url, headers)
        out = self.method("outgoing-request.body", request)
        future = self.handle(request, **options)
        try:
            if body:
                stream = self.method("outgoing-body.write", out)
                try:
                    self.write(stream, body)
                except Coded as exc:
                    if exc.code != "closed":  # else there may be an answer
                        raise
                stream.close()
            ended = self("types.[static]outgoing-body.finish", out, None)
            if isinstance(ended, Err):
                raise Coded(ended.error.case)
            return self.reply(future, url)
        finally:
            future.close()


def _split(rest: str) -> tuple[str, str]:
    at = min((rest.find(c) for c in "/?#" if c in rest), default=len(rest))
    return rest[:at], rest[at:] or "/"
