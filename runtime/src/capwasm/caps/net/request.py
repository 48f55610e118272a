"""A request as a guest asks for it, and as it has been checked: nothing malformed goes further."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

from .credential import Credential
from .model import ALL_METHODS
from .refusal import refusal
from .url import Url, UrlError, parse_url

__all__ = [
    "Headers",
    "Prepared",
    "Redirects",
    "RequestSpec",
    "checked_headers",
    "is_forbidden",
    "is_header",
    "is_well_formed",
    "prepare",
]

Headers = tuple[tuple[str, str], ...]
Redirects = Literal["follow", "manual", "refuse"]

MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32 * 1024
MAX_CREDENTIALS: Final = 8
MAX_TIMEOUT_MS: Final = 2**32 - 1

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE: Final = re.compile(r"[\t -~]*")

# They frame the message or steer proxies and connections: the host's own business (NET-19).
_FORBIDDEN: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    }
)
# What another origin must not get to see (NET-10).
_PERSONAL: Final = frozenset({"authorization", "cookie", "cookie2"})
_OF_BODY: Final = ("content-encoding", "content-language", "content-location", "content-type")


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """A request, whole, as asked for.

    Attributes:
        method: one of `ALL_METHODS`.
        url: absolute.
        headers: names and values; a name may stand more than once.
        body: the body, or None.
        timeout_ms: milliseconds for the whole exchange; None for what the call's limits allow.
        redirects: `follow`, `manual` or `refuse`.
        credentials: secrets to put in, as far as their own grants allow.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    timeout_ms: int | None = None
    redirects: Redirects = "follow"
    credentials: Sequence[Credential] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose every part was checked: what one hop sends, secrets aside."""

    method: str
    url: Url
    headers: Headers
    body: bytes | None = field(repr=False)
    timeout: float | None
    redirects: Redirects
    credentials: tuple[Credential, ...]

    def redirected(self, status: int, url: Url) -> Prepared:
        """The request that follows this one's redirect, as the Fetch standard makes it."""
        method, body, headers = self.method, self.body, self.headers
        becomes_get = (status in (301, 302) and method == "POST") or (
            status == 303 and method not in ("GET", "HEAD")
        )
        if becomes_get:
            method, body = "GET", None
            headers = _without(headers, _OF_BODY)
        if url.origin != self.url.origin:
            headers = _without(headers, _PERSONAL)
        return replace(self, method=method, body=body, headers=headers, url=url)


def prepare(spec: RequestSpec) -> Prepared:
    """Check every part of a request (NET-18, NET-19, NET-29).

    Raises:
        CapError: `invalid`, `denied` for a header that is the host's own, or `too-large`.
    """
    if spec.method not in ALL_METHODS:
        raise refusal("invalid", "bad-method", "not one of the known methods")
    if spec.redirects not in get_args(Redirects):
        raise refusal("invalid", "bad-redirects", "not one of the known ways")
    if len(spec.credentials) > MAX_CREDENTIALS:
        raise refusal("too-large", "credentials", f"more than {MAX_CREDENTIALS} credentials")
    if spec.body is not None and spec.method in ("GET", "HEAD"):
        raise refusal("invalid", "bad-body", f"a {spec.method} request has no body")
    try:
        url = parse_url(spec.url)
    except UrlError as exc:
        raise refusal("invalid", "bad-url", str(exc)) from None
    return Prepared(
        spec.method,
        url,
        checked_headers(spec.headers),
        None if spec.body is None else bytes(spec.body),
        _timeout(spec.timeout_ms),
        spec.redirects,
        tuple(spec.credentials),
    )


def is_header(name: str, value: str) -> bool:
    """Whether a header may stand in a request at all, whoever puts it there."""
    return is_well_formed(name, value) and not is_forbidden(name)


def is_well_formed(name: str, value: str = "") -> bool:
    """Whether the name is a token, and the value visible ASCII, spaces and tabs."""
    return bool(_NAME.fullmatch(name) and _VALUE.fullmatch(value))


def is_forbidden(name: str) -> bool:
    """Whether a header of that name is the host's own business."""
    low = name.lower()
    return low in _FORBIDDEN or low.startswith("proxy-")


def checked_headers(pairs: Sequence[tuple[str, str]]) -> Headers:
    """Headers that a guest wants to send, or trailers, as far as they are left to it.

    Raises:
        CapError: `invalid`, `denied` for one that is the host's own, or `too-large`.
    """
    if len(pairs) > MAX_HEADERS:
        raise refusal("too-large", "headers", f"more than {MAX_HEADERS} headers")
    out: list[tuple[str, str]] = []
    size = 0
    for name, value in pairs:
        size += len(name) + len(value) + 4
        if size > MAX_HEADER_BYTES:
            raise refusal("too-large", "headers", f"more than {MAX_HEADER_BYTES} bytes of headers")
        if not is_well_formed(name, value):
            raise refusal("invalid", "bad-header", "a header's name or value is malformed")
        if is_forbidden(name):
            raise refusal("denied", "forbidden-header", f"{name.lower()} is the host's own")
        # Which encodings can be undone here is for the host to say.
        if name.lower() != "accept-encoding":
            out.append((name, value.strip(" \t")))
    return tuple(out)


def _timeout(timeout_ms: int | None) -> float | None:
    if timeout_ms is None:
        return None
    # `type` and not isinstance: neither true nor a float, so neither NaN nor infinity.
    if type(timeout_ms) is not int or not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        raise refusal("invalid", "bad-timeout", f"must be from 1 to {MAX_TIMEOUT_MS} ms")
    return timeout_ms / 1000


def _without(headers: Headers, names: Sequence[str] | frozenset[str]) -> Headers:
    return tuple(pair for pair in headers if pair[0].lower() not in names)
