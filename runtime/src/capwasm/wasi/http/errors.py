"""From the words of the egress engine to `error-code` of `wasi:http`: the one table.  Pure.

The codes are those of RFC 9209, of which each program's library knows what it means.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from capwasm.caps.net.refusal import Refusal
from capwasm.errors import CapError
from capwasm.values import Err, Variant
from capwasm.wasi.io import IoError

__all__ = ["CODES", "FAMILY", "codes", "error_code", "failed", "refused", "stream_code"]

FAMILY: Final = "http"
"""Marks the stream errors whose word is an `error-code` of `wasi:http`."""

DENIED: Final = "HTTP-request-denied"

# (reason, kind) -> code; a kind that is not here is told as the reason alone.
CODES: Final[dict[tuple[str, str], str]] = {
    ("not-granted", ""): DENIED,
    ("forbidden-header", ""): DENIED,
    ("credential-denied", ""): DENIED,
    ("credentials", ""): DENIED,
    ("revoked", ""): DENIED,
    ("redirect-denied", ""): DENIED,
    ("redirect-downgrade", ""): DENIED,
    ("redirect-leak", ""): DENIED,
    ("too-many-redirects", ""): "loop-detected",
    ("private-address", ""): "destination-IP-prohibited",
    ("bad-url", ""): "HTTP-request-URI-invalid",
    ("bad-method", ""): "HTTP-request-method-invalid",
    ("bad-header", ""): "HTTP-protocol-error",
    ("bad-body", ""): "HTTP-request-body-size",
    ("bad-timeout", ""): "configuration-error",
    ("bad-redirects", ""): "internal-error",
    ("bad-length", ""): "internal-error",
    ("headers", ""): "HTTP-request-header-section-size",
    ("headers", "response"): "HTTP-response-header-section-size",
    ("too-large", ""): "HTTP-request-body-size",
    ("too-large", "response"): "HTTP-response-body-size",
    ("timeout", ""): "HTTP-response-timeout",
    ("timeout", "lookup"): "DNS-timeout",
    ("timeout", "connect"): "connection-timeout",
    ("timeout", "send"): "connection-write-timeout",
    ("timeout", "head"): "HTTP-response-timeout",
    ("timeout", "body"): "connection-read-timeout",
    ("no-address", ""): "DNS-error",
    ("busy", ""): "connection-limit-reached",
    ("unreachable", ""): "connection-terminated",
    ("unreachable", "refused"): "connection-refused",
    ("unreachable", "unroutable"): "destination-IP-unroutable",
    ("tls", ""): "TLS-protocol-error",
    ("tls", "certificate"): "TLS-certificate-error",
    ("protocol", ""): "HTTP-protocol-error",
    ("protocol", "incomplete"): "HTTP-response-incomplete",
    ("encoding", ""): "HTTP-response-content-coding",
}

# What the other cases carry; all that they could say is optional, and left out.
_PAYLOADS: Final[dict[str, Any]] = {"DNS-error": {"rcode": None, "info_code": None}}


def refused(exc: CapError) -> str:
    """The name of the code for a refusal."""
    if isinstance(exc, Refusal):
        whole = CODES.get((exc.reason, exc.kind))
        return whole or CODES[exc.reason, ""]
    return DENIED if exc.word in ("denied", "closed") else "internal-error"


@contextmanager
def codes() -> Iterator[None]:
    """Tell refusals as a stream does: their word is the name of the code.

    That a stream is `closed` is said as such.
    """
    try:
        yield
    except Refusal as exc:
        raise CapError(refused(exc), exc.detail) from None


def error_code(name: str) -> Variant:
    """The case of that name, whose payload says nothing."""
    return Variant(name, _PAYLOADS.get(name))


def failed(exc: CapError) -> Err[Variant]:
    """The refusal, as what a function returns."""
    return Err(error_code(refused(exc)))


def stream_code(error: IoError) -> Variant | None:
    """`http-error-code`: the code of a stream's error, if it is one of these streams'."""
    return error_code(error.word) if error.family == FAMILY else None
