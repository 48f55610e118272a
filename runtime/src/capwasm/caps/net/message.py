"""Between the parts of a request and a response, and their HTTP/1.1 messages.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from capwasm.record.redact import Redactor

from .body import ACCEPT_ENCODING
from .refusal import refusal
from .request import Headers, Prepared, is_header

__all__ = ["complete", "decoded", "encoded", "framing_of", "location_of", "shown"]

USER_AGENT: Final = "capwasm"

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# They frame the message; a body that was decoded has another length.
_FRAMING: Final = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def complete(request: Prepared, secrets: Sequence[tuple[str, str]]) -> Headers:
    """All headers of a request but those that frame it; a secret's takes the place of the guest's own.

    Raises:
        CapError: `denied`, when a secret does not fit a header that may be sent.
    """
    for name, value in secrets:
        if not is_header(name, value):
            raise refusal("denied", "credential-denied", "the secret does not fit a header")
    taken = {name.lower() for name, _ in secrets}
    given = [pair for pair in request.headers if pair[0].lower() not in taken]
    names = taken.union(name.lower() for name, _ in given)
    if "user-agent" not in names:
        given.append(("User-Agent", USER_AGENT))
    if "accept" not in names:
        given.append(("Accept", "*/*"))
    given.append(("Accept-Encoding", ACCEPT_ENCODING))
    return (("Host", request.url.authority), *given, *secrets)


def framing_of(method: str, length: int | None) -> Headers:
    """The headers that tell where the body of a request ends.

    Args:
        method: of the request.
        length: of its body, in bytes; None where that shows at its end.
    """
    if length is None:
        return (("Transfer-Encoding", "chunked"),)
    if length or method in ("POST", "PUT", "PATCH"):
        return (("Content-Length", str(length)),)
    return ()


def encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """A request's headers as they are sent; they were checked to be ASCII."""
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]


def decoded(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    """A response's headers as text; every byte is some character of Latin-1."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def location_of(status: int, headers: Headers) -> str | None:
    """Where a redirect leads, or None if it is none.

    Raises:
        CapError: `denied`, when it leads to more than one place.
    """
    places = {value for name, value in headers if name.lower() == "location"}
    if status not in _REDIRECTS or not places:
        return None
    if len(places) > 1:
        raise refusal("denied", "redirect-denied", "it leads to more than one place")
    return places.pop()


def shown(headers: Headers, *, is_head: bool, mask: Redactor) -> Headers:
    """The headers that a guest may see.

    Args:
        headers: all of the response.
        is_head: whether they answer a HEAD, where `Content-Length` is news and frames nothing.
        mask: takes out the secrets that were sent.
    """
    return tuple(
        (mask.text(name), mask.text(value))
        for name, value in headers
        if not name.lower().startswith("proxy-")
        and (name.lower() not in _FRAMING or (is_head and name.lower() == "content-length"))
    )
