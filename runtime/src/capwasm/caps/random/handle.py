"""Random bytes for one instance.  The only file here that asks the system for them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable

from capwasm.call import current_call
from capwasm.capability import Grant, OpenContext
from capwasm.errors import CallInterrupted, CapError
from capwasm.events import DENIED

from .model import MAX_BYTES, RandomClause

__all__ = ["RandomState", "SeededBytes", "system_bytes"]

system_bytes = os.urandom


class SeededBytes:
    """The same bytes for the same seed, for replays and tests.  Never fit for keys.

    SHAKE-256 over the seed and a counter of calls.
    """

    def __init__(self, seed: bytes) -> None:
        """Begin the sequence of `seed`."""
        self._seed = seed
        self._calls = 0
        self._lock = threading.Lock()

    def __call__(self, length: int) -> bytes:
        """The next `length` bytes."""
        with self._lock:
            self._calls += 1
            return hashlib.shake_256(self._calls.to_bytes(8) + self._seed).digest(length)


class RandomState:
    """What one instance gets of randomness."""

    __slots__ = ("_ctx", "_grant", "_source")

    def __init__(
        self, grant: Grant[RandomClause], ctx: OpenContext, source: Callable[[int], bytes]
    ) -> None:
        """Draw from `source`."""
        self._grant = grant
        self._ctx = ctx
        self._source = source

    def bytes(self, length: int) -> bytes:
        """`length` random bytes; each is charged to the call.

        Raises:
            CapError: `denied`, when it was not granted or was revoked; `too-large`, for more than
                the grant allows a call, and for more than 64 KiB in any case.
        """
        if self._grant.find(lambda _: True) is None:
            self._refuse("denied", "not granted, or revoked", length)
        if self._grant.find(lambda c: length <= min(c.bytes_per_call, MAX_BYTES)) is None:
            self._refuse("too-large", "more than bytes-per-call", length)
        current_call().charge_host_work(length)
        return self._source(length)

    def next_u64(self) -> int:
        """64 random bits.

        Raises:
            CallInterrupted: it was not granted or was revoked; the function has no error to return.
        """
        try:
            return int.from_bytes(self.bytes(8))
        except CapError as exc:
            raise CallInterrupted(f"random: {exc.detail}", context=self._ctx.plugin) from None

    def _refuse(self, word: str, reason: str, length: int) -> None:
        self._ctx.record(
            "random", DENIED, action="bytes", reason=reason, details={"length": length}
        )
        raise CapError(word, reason)
