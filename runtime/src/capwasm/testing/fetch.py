"""Answers for what a plugin fetches: all rules of egress hold, and only the wire is another.

The URL is parsed, a grant must allow it, the name is resolved (to an address that the test may
choose) and judged, secrets are put in, the request is recorded and charged.  What comes out is HTTP/1.1,
which is read here, given to the test's answer, and written back as HTTP/1.1.
"""

from __future__ import annotations

import json as jsons
import select
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import h11

from capwasm.call import CallRecord
from capwasm.capability import Grant, OpenContext
from capwasm.caps.net import Net
from capwasm.caps.net.egress import EgressEngine
from capwasm.caps.net.host import NetState
from capwasm.caps.net.model import NetClause
from capwasm.caps.net.url import Address, Url, UrlError, parse_url
from capwasm.caps.net.watch import Watch
from capwasm.caps.net.wire import PinnedStream

from .errors import BenchError, UnansweredError

__all__ = ["Answer", "Fetches", "Request"]

# Of example.com's kind: public, and nothing is ever sent there.
_SOMEWHERE: Final = "93.184.215.14"
_PIECE: Final = 64 * 1024  # of an answer


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it would have left, with the secrets that were put in.

    Attributes:
        method: in capitals.   url: whole.   headers: with lower-case names.   body: whole.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        return jsons.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back.

    Attributes:
        status: 200 and the like.   headers: name → value.   body: whole.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Handler = Callable[[Request], Answer]


@dataclass(slots=True)
class _Rule:
    method: str
    prefix: str
    handler: Handler
    left: int | None


class Fetches:
    """The answers of one bench, and what was asked.  For any thread."""

    def __init__(self, mask: Callable[[str], str] = str) -> None:
        """No answer yet: the first fetch that comes through fails the test.

        Args:
            mask: takes secrets out of what a failure tells.
        """
        self._mask = mask
        self._rules: list[_Rule] = []
        self._addresses: dict[str, Sequence[str]] = {}
        self._lock = threading.Lock()
        self.requests: list[Request] = []

    def answer(
        self,
        url: str,
        handler: Handler | None = None,
        *,
        method: str = "*",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        json: Any = None,
        times: int | None = None,
    ) -> None:
        """Answer requests to this URL; the answer that was given last counts.

        Args:
            url: whole, or with a `*` at its end for all that begin so.
            handler: makes the answer, in place of the words below.
            method: the one method that is answered; `*` for all.
            status: of the answer.
            headers: of the answer.
            body: of the answer.
            json: what its body holds as JSON, with the content type of that.
            times: how often; then the answer that was given before counts again.

        Raises:
            ValueError: the URL is malformed, or there is both a body and JSON.
        """
        if handler is None:
            if json is not None and body:
                raise ValueError("an answer has a body or JSON, not both")
            given = dict(headers or {})
            if json is not None:
                body = jsons.dumps(json)
                given = {"content-type": "application/json"} | given
            data = body.encode() if isinstance(body, str) else body
            ready = Answer(status, given, data)
            handler = lambda _request: ready  # noqa: E731
        with self._lock:
            self._rules.insert(0, _Rule(method.upper(), _pattern(url), handler, times))

    def resolve(self, name: str, *addresses: str) -> None:
        """Have a name stand for these addresses, which are judged as ever; for none, it has none."""
        with self._lock:
            self._addresses[name] = addresses

    # -- for the capability --------------------------------------------------------------------

    def lookup(self, name: str, port: int) -> Sequence[str]:
        """A `caps.net.resolve.Resolve`."""
        del port
        if name in self._addresses:
            return self._addresses[name]
        if name == "localhost" or name.endswith(".localhost"):
            return ["127.0.0.1"]
        return [_SOMEWHERE]

    def respond(self, request: Request) -> Answer:
        """The answer to a request.

        Raises:
            UnansweredError: there is none.
            BenchError: the test's own function failed.
        """
        with self._lock:
            self.requests.append(request)
            rule = next((r for r in self._rules if _fits(r, request)), None)
            if rule is not None and rule.left is not None:
                rule.left -= 1
        if rule is None:
            url = self._mask(request.url)
            raise UnansweredError(
                f"the plugin fetched {request.method} {url}, and the test has no answer:\n"
                f'    bench.fetch.answer("{url}", json=...)'
            )
        try:
            return rule.handler(request)
        except Exception as exc:
            raise BenchError(f"the answer to {self._mask(request.url)} failed: {exc!r}") from exc


def _pattern(url: str) -> str:
    bare = url.removesuffix("*")
    try:
        parsed = str(parse_url(bare))
    except UrlError as exc:
        raise ValueError(f"{url}: {exc}") from None
    return f"{parsed}*" if url.endswith("*") else parsed


def _fits(rule: _Rule, request: Request) -> bool:
    if rule.left == 0 or rule.method not in ("*", request.method):
        return False
    if rule.prefix.endswith("*"):
        return request.url.startswith(rule.prefix[:-1])
    return request.url == rule.prefix


class BenchNet(Net):
    """The network capability with another wire."""

    def __init__(self, fetches: Fetches) -> None:
        """Answer from these."""
        super().__init__(fetches.lookup)
        self._fetches = fetches

    def open(self, grant: Grant[NetClause], ctx: OpenContext) -> NetState:
        """The product's own engine, which asks `_dial` where it would have connected."""
        engine = EgressEngine(
            ctx.plugin_id, ctx.record, self._lookups, self._context, dial=self._dial
        )
        return NetState(grant, engine)

    def _dial(
        self, addresses: list[Address], url: Url, _tls: Callable[[], Any], watch: Watch
    ) -> PinnedStream:
        del watch
        return AnsweredStream(addresses[0], url, self._fetches)


class AnsweredStream(PinnedStream):
    """A connection whose other end is the test."""

    def __init__(  # there is no socket to take over
        self, address: Address, url: Url, fetches: Fetches
    ) -> None:
        """Nothing was sent yet."""
        self.address = address
        self.sent = self.received = 0
        self.reading, self.writing = select.POLLIN, select.POLLOUT
        self._url, self._fetches = url, fetches
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._out = bytearray()
        self.closed = False

    def write(self, data: memoryview, call: CallRecord) -> int:
        """Take all of it; at the end of a request, its answer is ready."""
        call.charge_net(len(data))
        self.sent += len(data)
        self._http.receive_data(bytes(data))
        self._hear()
        return len(data)

    def _hear(self) -> None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._request = event
                self._body.clear()
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
            else:
                return

    def read(self, call: CallRecord) -> bytes:
        """What is left of the answer."""
        room = max(1, call.limits.net_bytes - call.net_bytes + 1)
        data = bytes(self._out[: min(_PIECE, room)])
        del self._out[: len(data)]
        self.received += len(data)
        call.charge_net(len(data))
        return data

    def has_news(self) -> bool:
        """Whether there is something to read that nobody asked for."""
        return bool(self._out) or self.closed

    def close(self) -> None:
        """End it."""
        self.closed = True

    def _answer(self) -> None:
        head = self._request
        assert head is not None
        host = next(v for n, v in head.headers if n == b"host").decode()
        request = Request(
            head.method.decode(),
            str(parse_url(f"{self._url.scheme}://{host}{head.target.decode()}")),
            {n.decode(): v.decode("latin-1") for n, v in head.headers},
            bytes(self._body),
        )
        answer = self._fetches.respond(request)
        headers = {n.lower(): v for n, v in answer.headers.items()}
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        if "transfer-encoding" not in headers and answer.status != 204:
            headers.setdefault("content-length", str(len(answer.body)))
        try:
            self._send(h11.Response(status_code=answer.status, headers=list(headers.items())))
            if not bodiless and answer.body:
                self._send(h11.Data(answer.body))
            self._send(h11.EndOfMessage())
            if self._http.our_state is h11.DONE:
                self._http.start_next_cycle()
        except h11.LocalProtocolError as exc:
            raise BenchError(f"the answer to {request.url} is no HTTP: {exc}") from None

    def _send(self, event: Any) -> None:
        self._out += self._http.send(event) or b""
