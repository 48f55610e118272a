"""Random bytes, fit for keys: `[random]` in plugin.toml.

token = random.bytes(32)
"""

from __future__ import annotations

import builtins
from typing import cast

from ._bindings import RandomImport, guard, load
from .errors import from_wit

__all__ = ["bytes", "integer"]

_random = cast("RandomImport", load("capwasm_random", "capwasm_guest.random"))


def bytes(n: int) -> builtins.bytes:  # noqa: A001
    """`n` bytes, at most 64 KiB.

    Raises:
        TooLarge: more than that.
        Denied: not granted.
    """
    guard("random")
    with from_wit(f"random.bytes {n}"):
        return _random.bytes(n)


def integer(below: int) -> int:
    """A whole number from 0 to `below` - 1, each as likely as the others.

    Raises:
        ValueError: `below` is not from 1 to 2**64.
    """
    guard("random")
    if not 1 <= below <= 2**64:
        raise ValueError("below must be from 1 to 2**64")
    # What is left over at the top would make the small numbers more likely: draw again.
    limit = 2**64 - 2**64 % below
    while True:
        value = _random.next_u64()
        if value < limit:
            return value % below
