"""Requests of the operator's own: to a plugin repository, to an OCI registry.

They go the way of a plugin's requests (`caps.net`): names are resolved once, in bounded time; the
connection leads to just these addresses; TLS is by name; no proxy, cookie or variable of the
environment is looked at.  What is refused to a plugin, this machine's own and private addresses, is
allowed here: it is the operator who names the URL.  No redirect is followed, an answer is as large
as its caller allows and no larger, and neither a silent nor a dripping server holds anybody up.
"""

from __future__ import annotations

import functools
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, NoReturn

import h11

from .call import CallRecord
from .caps.net.exchange import Exchange
from .caps.net.message import encoded, framing_of
from .caps.net.pool import Connection
from .caps.net.refusal import Refusal
from .caps.net.resolve import Lookups
from .caps.net.url import Address, Url, UrlError, parse_url
from .caps.net.watch import Watch
from .caps.net.wire import connect, tls_context
from .errors import CapError, GuestError, RepositoryError
from .handles import Lease
from .limits import Limits

__all__ = ["Answer", "Headers", "Patience", "Web", "checked_url"]

Headers = Sequence[tuple[str, str]]

# The heads of both sides, over and above the bodies.
_HEADS: Final = 256 * 1024
_MAX_HEADERS: Final = 128
# word of a refusal, or its reason -> code of the error
_CODES: Final = {
    "timeout": "repository.timeout",
    "too-large": "repository.too-large",
    "tls": "repository.tls",
    "protocol": "repository.protocol",
    "bad-header": "repository.protocol",
}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take.

    Attributes:
        idle: seconds for the connection, for the head of the answer, and for each piece of its body.
        total: seconds for all of it.
    """

    idle: float = 30.0
    total: float = 600.0


@dataclass(slots=True)
class Answer:
    """The head of an answer; its body is read by `chunks` or `read`, once.

    Attributes:
        status: as sent.   headers: names in lower case, in order.
    """

    url: str
    status: int
    headers: list[tuple[str, str]]
    _chunks: Iterator[bytes] = field(repr=False)

    def header(self, name: str) -> str | None:
        """The value of a header that stands once, or None.

        Raises:
            RepositoryError: `repository.protocol`: it stands twice.
        """
        found = {value for key, value in self.headers if key == name.lower()}
        if len(found) > 1:
            raise RepositoryError(
                f"the answer has more than one {name}", code="repository.protocol", context=self.url
            )
        return found.pop() if found else None

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces, as they come.

        Raises:
            RepositoryError: it is too large, too slow, or breaks off.
        """
        return self._chunks

    def read(self) -> bytes:
        """The body, whole."""
        return b"".join(self._chunks)


class Web:
    """Sends requests, each over a connection of its own.  Safe to use from any thread."""

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        plain_http: bool = False,
        patience: Patience = Patience(),
        lookups: Lookups | None = None,
    ) -> None:
        """Make one; it takes no power until it is used.

        Args:
            ca_file: PEM file of the only authorities to trust, if not the system's.
            plain_http: whether `http://` may lead off this machine.
            patience: for each request.
            lookups: the resolver.
        """
        self._tls = functools.cache(lambda: _context(ca_file))
        self._plain_http = plain_http
        self._patience = patience
        self._lookups = lookups or Lookups()

    @contextmanager
    def request(
        self, url: str, *, limit: int, method: str = "GET", headers: Headers = (), body: bytes = b""
    ) -> Iterator[Answer]:
        """Send a request, and give the answer's head.  The connection is closed at the end.

        Args:
            url: where to.
            limit: bytes that the answer's body may have.
            method: in capitals.
            headers: besides `Host`, `Connection`, `Accept-Encoding`, `Content-Length`.
            body: sent as it is.

        Raises:
            RepositoryError: `repository.url`, `.insecure`, `.unreachable`, `.timeout`, `.tls`,
                `.protocol`, `.too-large`.
        """
        target = checked_url(url, plain_http=self._plain_http)
        with _told(str(target)):
            until = time.monotonic() + self._patience.total
            # The way of a call, though nobody's: it counts the bytes, and its lease stays in force.
            limits = Limits(net_bytes=limit + len(body) + _HEADS, wall_ms=24 * 3600 * 1000)
            call, lease = CallRecord("", method, limits), Lease()

            def watch() -> Watch:
                return Watch(call, (lease,), min(until, time.monotonic() + self._patience.idle))

            host = target.host
            addresses = (
                self._lookups.addresses("", host, target.port, watch())
                if isinstance(host, str)
                else [host]
            )
            if not self._may_ask(target, addresses):
                _refuse("repository.insecure", "the name leads to another machine, in plain http")
            stream = connect(addresses, target, self._tls, watch())
            try:
                exchange = Exchange(Connection(stream, lease, target.origin))
                exchange.ask(method, target.target, _whole(method, target, headers, body))
                # A body may take all the time that there is, its answer as long as the head of any.
                exchange.send_whole(body, Watch(call, (lease,), until) if body else watch())
                response = exchange.wait_head(watch())
                yield _answer(response, exchange, str(target), watch, limit, method)
            finally:
                stream.close()

    def _may_ask(self, url: Url, addresses: Sequence[Address]) -> bool:
        secure = url.scheme == "https" or self._plain_http
        return secure or all(address.is_loopback for address in addresses)


def checked_url(text: str, *, plain_http: bool = False) -> Url:
    """The URL, if it may be asked.

    Raises:
        RepositoryError: `repository.url` if it is none; `repository.insecure` for `http://` to
            another machine, unless `plain_http`.
    """
    try:
        url = parse_url(text)
    except UrlError as exc:
        raise RepositoryError(
            f"not a URL that can be asked: {exc}", code="repository.url"
        ) from None
    if url.scheme == "http" and not plain_http and not _is_loopback(url):
        raise RepositoryError(
            "plain http to another machine is off: write https://, or allow it for this one",
            code="repository.insecure",
            context=url.origin,
        )
    return url


def _is_loopback(url: Url) -> bool:
    if isinstance(url.host, IPv4Address | IPv6Address):
        return url.host.is_loopback
    return url.host == "localhost"


def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return tls_context(ca_file)
    except OSError as exc:
        raise RepositoryError(
            f"the authorities to trust can't be read: {exc.strerror or exc}",
            code="repository.tls",
            context=str(ca_file or ""),
        ) from None


def _whole(method: str, url: Url, headers: Headers, body: bytes) -> list[tuple[bytes, bytes]]:
    own = (("Host", url.authority), ("Connection", "close"), ("Accept-Encoding", "identity"))
    given = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    return [*encoded((*own, *framing_of(method, len(body)))), *given]


def _answer(
    response: h11.Response,
    exchange: Exchange,
    url: str,
    watch: Callable[[], Watch],
    limit: int,
    method: str,
) -> Answer:
    headers = [
        (n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in response.headers.raw_items()
    ]
    names = [name for name, _ in headers]
    if len(headers) > _MAX_HEADERS or response.status_code < 200:
        _refuse(
            "repository.protocol", f"an answer of {response.status_code}, {len(headers)} headers"
        )
    if "transfer-encoding" in names and "content-length" in names:
        _refuse("repository.protocol", "the answer has a length and a transfer encoding")
    if any(v.lower() != "identity" for n, v in headers if n == "content-encoding"):
        _refuse("repository.protocol", "the answer is encoded, though that was not asked for")
    told = next((v for n, v in headers if n == "content-length"), "0")
    if method != "HEAD" and (not told.isascii() or not told.isdigit() or int(told[:20]) > limit):
        _refuse("repository.too-large", f"the answer is larger than {limit} bytes")

    def chunks() -> Iterator[bytes]:
        size = 0
        while True:
            with _told(url):
                piece = exchange.wait_chunk(watch())
            if piece is None:
                return
            size += len(piece)
            if size > limit:
                _refuse("repository.too-large", f"the answer is larger than {limit} bytes", url)
            yield piece

    return Answer(url, response.status_code, headers, chunks())


def _refuse(code: str, message: str, context: str = "") -> NoReturn:
    raise RepositoryError(message, code=code, context=context)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn what the way there raises into a `RepositoryError` that names the URL."""
    try:
        yield
    except RepositoryError as exc:
        exc.context = exc.context or url
        raise
    except Refusal as exc:
        code = _CODES.get(exc.reason) or _CODES.get(exc.word) or "repository.unreachable"
        what = {"repository.timeout": "the server is too slow"}.get(code, "can't be asked")
        why = exc.detail or exc.reason
        raise RepositoryError(f"{what}: {why}", code=code, context=url) from None
    except CapError as exc:
        raise RepositoryError(
            f"can't be asked: {exc.detail}", code="repository.unreachable", context=url
        ) from None
    except GuestError:  # the budget of bytes
        raise RepositoryError(
            "the answer is larger than allowed", code="repository.too-large", context=url
        ) from None
