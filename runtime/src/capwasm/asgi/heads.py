"""What a plugin is told of a request's head, and what a client is told of a response's.  Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from capwasm.wasi.http.visit import RequestHead

__all__ = [
    "HIDE",
    "STATUS",
    "WITHHOLD",
    "Bounds",
    "NotServed",
    "request_head",
    "response_headers",
    "trailer_headers",
]

HIDE: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Headers of the client that a plugin is not shown, unless the core says otherwise: its credentials.

They are for the application that the plugin is a part of.  A plugin that saw a session's cookie could act
as that user everywhere else in it.
"""

WITHHOLD: Final = frozenset(
    {
        "alt-svc",
        "clear-site-data",
        "nel",
        "public-key-pins",
        "report-to",
        "reporting-endpoints",
        "service-worker-allowed",
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
        "x-accel-redirect",
        "x-lighttpd-send-file",
        "x-reproxy-url",
        "x-sendfile",
    }
)
"""Headers of a plugin that a client is not sent, unless the core says otherwise.

They act on more than this answer: on the cookies and the storage of the whole origin, on other paths,
or on a proxy in between, which some of them have send a file of its own.
"""

# Of the connection alone (RFC 9110, 7.6.1), or the server's own to say.
_HOPS: Final = frozenset(
    {
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What frames or routes a message must not come after it (RFC 9110, 6.5.1).
_NEVER_LAST: Final = frozenset(
    {
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "host",
        "server",
    }
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
# Any byte but the controls: a client's headers may be of any encoding.
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_SAFE: Final = "/:@!$&'()*+,;=-._~"  # RFC 3986: what stands for itself in a path
_AUTHORITY: Final = re.compile(r"[0-9A-Za-z.\-_~%\[\]:]{1,300}")

# RFC 9209 recommends these; what is not here is the plugin's fault, as far as a client is concerned.
STATUS: Final[Mapping[str, int]] = {
    "DNS-timeout": 504,
    "connection-limit-reached": 503,
    "connection-read-timeout": 504,
    "connection-timeout": 504,
    "connection-write-timeout": 504,
    "destination-unavailable": 503,
    "HTTP-request-denied": 403,
    "HTTP-request-length-required": 411,
    "HTTP-request-body-size": 413,
    "HTTP-request-method-invalid": 400,
    "HTTP-request-URI-invalid": 400,
    "HTTP-request-URI-too-long": 414,
    "HTTP-request-header-section-size": 431,
    "HTTP-request-header-size": 431,
    "HTTP-request-trailer-section-size": 431,
    "HTTP-request-trailer-size": 431,
    "HTTP-response-timeout": 504,
    "internal-error": 500,
}


class NotServed(Exception):
    """A request that no plugin is asked about."""

    def __init__(self, status: int, why: str) -> None:
        """Answer it with that status; `why` is for the log."""
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a request may be.

    Attributes:
        body: bytes of its body.   headers: how many.   header_bytes: of all together.
        target: bytes of its path with the query.
    """

    body: int = 16 * 1024 * 1024
    headers: int = 100
    header_bytes: int = 32 * 1024
    target: int = 8 * 1024

    def __post_init__(self) -> None:
        """Refuse what bounds nothing."""
        for name in self.__slots__:
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a whole number from 0 up")


def request_head(scope: Mapping[str, Any], bounds: Bounds, hide: Collection[str]) -> RequestHead:
    """What the plugin is told of the request.

    A server has parsed it; it is looked at again, for any may call.

    Args:
        scope: of ASGI.
        bounds: how large it may be.
        hide: names of headers, in small letters, that it is not told.

    Raises:
        NotServed: it is too large, or malformed.
    """
    pairs = [(bytes(n).decode("latin-1").lower(), bytes(v)) for n, v in scope["headers"]]
    if len(pairs) > bounds.headers or sum(len(n) + len(v) for n, v in pairs) > bounds.header_bytes:
        raise NotServed(431, "its headers are too many or too large")
    if not all(_TOKEN.fullmatch(n) and _VALUE.fullmatch(v) for n, v in pairs):
        raise NotServed(400, "a header is malformed")
    if not _TOKEN.fullmatch(scope["method"]):
        raise NotServed(400, "its method is no token")
    _check_length(pairs, bounds)
    own = _HOPS | {"host"} | set(hide) | set(_named(v for n, v in pairs if n == "connection"))
    return RequestHead(
        method=scope["method"],
        scheme=scope.get("scheme") or "http",
        authority=_authority([v for n, v in pairs if n == "host"]),
        path=_target(scope, bounds.target),
        headers=tuple((n, v) for n, v in pairs if n not in own),
    )


def _check_length(pairs: list[tuple[str, bytes]], bounds: Bounds) -> None:
    lengths = {v.strip(b" \t") for n, v in pairs if n == "content-length"}
    if not lengths:
        return
    (length, *others) = lengths
    if others or not length.isdigit() or len(length) > 18:
        raise NotServed(400, "its length is not one plain number")
    if int(length) > bounds.body:
        raise NotServed(413, "its body is too large")


def _named(values: Iterable[bytes]) -> Iterable[str]:
    for value in values:
        yield from (word.strip(" \t").lower() for word in value.decode("latin-1").split(","))


def _authority(hosts: list[bytes]) -> str | None:
    if not hosts:
        return None
    text = hosts[0].decode("latin-1")
    if len(hosts) > 1 or (text and not _AUTHORITY.fullmatch(text)):
        raise NotServed(400, "its Host is not one host")
    return text or None


def _target(scope: Mapping[str, Any], most: int) -> str:
    """The path below where the plugin is mounted, as it came, and the query."""
    raw = scope.get("raw_path")
    path = quote(raw.partition(b"?")[0], safe=f"{_SAFE}%") if raw else quote(scope["path"], _SAFE)
    root = quote(scope.get("root_path") or "", _SAFE).rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    query = quote(scope.get("query_string") or b"", safe=f"{_SAFE}%?[]")
    target = f"{path if path.startswith('/') else f'/{path}'}{f'?{query}' if query else ''}"
    if len(target) > most:
        raise NotServed(414, "its path and query are too long")
    return target


def response_headers(
    pairs: Iterable[tuple[str, bytes]], withhold: Collection[str]
) -> list[tuple[bytes, bytes]]:
    """What the client is sent of the plugin's headers.

    Args:
        pairs: names in small letters, and values: well-formed, for `fields` takes no others.
        withhold: names of headers that it is not sent.
    """
    pairs = list(pairs)
    dropped = _HOPS | set(withhold) | set(_named(v for n, v in pairs if n == "connection"))
    return [(n.encode(), v.strip(b" \t")) for n, v in pairs if n not in dropped]


def trailer_headers(
    pairs: Iterable[tuple[str, bytes]], withhold: Collection[str]
) -> list[tuple[bytes, bytes]]:
    """As `response_headers`, for what comes after the body."""
    return response_headers(pairs, _NEVER_LAST | set(withhold))
