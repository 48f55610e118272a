"""Why a request was refused or failed: a word for the guest, a stable reason for the audit."""

from __future__ import annotations

from typing import Final

from capwasm.errors import CapError

__all__ = ["KINDS", "REASONS", "Refusal", "refusal"]

# Stable words: dashboards and alerts depend on them.
REASONS: Final[dict[str, str]] = {
    "bad-url": "The URL is malformed, or one that parsers read differently.",
    "bad-method": "The method is not one of those known.",
    "bad-header": "A header is malformed.",
    "bad-body": "A body stands where there is none.",
    "bad-timeout": "The timeout is out of range.",
    "bad-redirects": "The way with redirects is unknown.",
    "bad-length": "A read asks for nothing.",
    "forbidden-header": "The guest set a header that is the host's own.",
    "headers": "Too many or too large headers, of the request or the response.",
    "credentials": "Too many credentials.",
    "not-granted": "No clause in force allows the request, or one denies it.",
    "private-address": "The name leads to an address that is not public and not granted.",
    "redirect-denied": "Redirects were refused, or this one can't be followed.",
    "redirect-downgrade": "A redirect from https to http.",
    "redirect-leak": "A redirect's URL carries an injected secret.",
    "too-many-redirects": "More redirects than are followed.",
    "credential-denied": "The secret is not for this origin, or can't be put into a header.",
    "revoked": "The grant or a secret was revoked, or the handle dropped.",
    "timeout": "The time is over.",
    "no-address": "The name doesn't resolve.",
    "unreachable": "The connection failed or broke off.",
    "tls": "The certificate or the TLS handshake is not acceptable.",
    "protocol": "The origin's answer is not HTTP/1.1 as it should be.",
    "encoding": "The body's encoding is unknown, nested or damaged.",
    "too-large": "The body is larger than allowed.",
    "busy": "Too many lookups or open files in the process.",
}

KINDS: Final[dict[str, tuple[str, ...]]] = {
    # What was waited for.
    "timeout": ("lookup", "connect", "send", "head", "body"),
    "unreachable": ("refused", "unroutable"),
    "tls": ("certificate",),
    "protocol": ("incomplete",),
    "headers": ("response",),
    "too-large": ("response",),
}


class Refusal(CapError):
    """A `CapError` with the reason that the audit records.  It carries no part of the request.

    Attributes:
        kind: what `wasi:http` tells apart and the reason doesn't; one of `KINDS`, or empty.
    """

    def __init__(self, word: str, reason: str, detail: str, kind: str) -> None:
        """Keep them apart."""
        super().__init__(word, detail)
        self.reason = reason
        self.kind = kind


def refusal(word: str, reason: str, detail: str = "", kind: str = "") -> Refusal:
    """A refusal with a known reason, and one of the kinds that it has."""
    if reason not in REASONS:
        raise ValueError(f"unknown reason {reason!r}")
    if kind and kind not in KINDS.get(reason, ()):
        raise ValueError(f"unknown kind {kind!r} of {reason}")
    return Refusal(word, reason, detail, kind)
