"""What the engine asks of a secret's handle, and what it does with the answer.

Capabilities don't know each other's types: whatever the secrets capability hands out is used
through these few words.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from capwasm.errors import CapError
from capwasm.handles import Lease
from capwasm.record.redact import MIN_SECRET, Redactor

from .refusal import refusal

__all__ = ["Credential", "injected"]


class Credential(Protocol):
    """A handle to a secret that may be put into requests."""

    lease: Lease

    def injects_into(self, origin: str) -> bool:
        """Whether the secret may go to that origin.  Records nothing."""
        ...

    def inject(self, origin: str) -> tuple[str, str]:
        """The header and its whole value for a request to that origin.

        Asked at every hop, so that a revocation takes effect between two.

        Args:
            origin: `https://host:port`, always with the port.

        Raises:
            CapError: `denied`, `closed` or `unavailable`.
        """
        ...


def injected(
    credentials: Sequence[Credential], origin: str, mask: Redactor, *, first: bool
) -> list[tuple[str, str]]:
    """The headers that carry the secrets to `origin`; `mask` learns each before it is sent.

    Args:
        credentials: those that the guest named.
        origin: that of this hop.
        mask: takes the secrets out of what comes back.
        first: whether the guest itself named the origin.  Then a secret that is not for it is a
            refusal; after a redirect it just stays behind (NET-10, SEC-09).

    Raises:
        CapError: `denied`, `closed`, `unavailable`.
    """
    headers: dict[str, tuple[str, str]] = {}
    for number, credential in enumerate(credentials):
        if not first and not credential.injects_into(origin):
            continue
        try:
            name, value = credential.inject(origin)
        except CapError as exc:
            reason = "revoked" if exc.word == "closed" else "credential-denied"
            raise refusal(exc.word, reason, exc.detail) from None
        if name.lower() in headers:
            raise refusal("denied", "credential-denied", "two secrets want the same header")
        for part in _parts(value):
            mask.register(f"credential-{number}", part)
        headers[name.lower()] = name, value
    return list(headers.values())


def _parts(value: str) -> Iterator[bytes]:
    """The value, and the secret that it was most likely made of: `Bearer x`, `key="x"`, Basic."""
    scheme, _, rest = value.partition(" ")
    texts = {value, rest, *re.split(r'[\s=:,;"]+', rest or value)}
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest, validate=True).partition(b":")
        except binascii.Error:
            pass
        else:
            yield from (p for p in (password, user + b":" + password) if len(p) >= MIN_SECRET)
    yield from (t.encode() for t in texts if len(t) >= MIN_SECRET and len(set(t)) > 2)
