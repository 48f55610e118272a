"""`wasi:random`, all of it from the random capability.

The insecure functions give the same bytes as the secure one: a weaker generator would be one more
thing to get wrong.  The seed needs the grant too, so that a plugin without it is the same function
of its inputs every time.
"""

from __future__ import annotations

from typing import Protocol

from capwasm.capability import HostFunc, Interface
from capwasm.errors import CapError, GuestTrap, ValueLimitExceeded

from ._refuse import Ledger, Refused, named

__all__ = ["interfaces"]

_FUNCTIONS = {
    "random/random": ("get-random-bytes", "get-random-u64"),
    "random/insecure": ("get-insecure-random-bytes", "get-insecure-random-u64"),
    "random/insecure-seed": ("insecure-seed",),
}


class _Random(Protocol):
    """The part of the random capability's state that is used here.

    It bounds and records; its words are `denied` and `too-large`.
    """

    def bytes(self, length: int, /) -> bytes:
        """That many random bytes."""


def interfaces(source: _Random | None, ledger: Ledger) -> list[Interface]:
    """`wasi:random/*`; `source` is the random capability's state, or None where not granted."""

    def serve(full: str, name: str) -> HostFunc:
        if source is None:
            return Refused(ledger, full, table="random")

        def draw(length: int) -> bytes:
            # WIT has no error here, so a refusal ends the call.
            try:
                return source.bytes(length)
            except CapError as exc:
                if exc.word == "too-large":
                    raise ValueLimitExceeded(
                        f"the plugin asked {full} for {length} bytes: {exc.detail}"
                    ) from None
                raise GuestTrap(
                    f"the plugin called {full}: {exc.detail or exc.word}", code="grant.denied"
                ) from None

        def u64() -> int:
            return int.from_bytes(draw(8), "little")

        if name.endswith("bytes"):
            return draw
        return u64 if name.endswith("u64") else lambda: (u64(), u64())

    return [
        Interface(named(i), {name: serve(f"wasi:{i}.{name}", name) for name in names})
        for i, names in _FUNCTIONS.items()
    ]
