"""Waiting for a request that is under way: each look takes the steps that can be taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from capwasm.caps.net.hop import Hop
from capwasm.errors import CapError
from capwasm.handles import Lease
from capwasm.wasi.io import SLICE_NS, Pollable

__all__ = ["HopPollable"]

_LONG_NS: Final = 3_600_000_000_000


class HopPollable(Pollable):
    """Ready when something of a request is, or has failed."""

    __slots__ = ("_answer", "_hop", "_look")

    def __init__(
        self, look: Callable[[], bool], hop: Callable[[], Hop | None], *, answer: bool
    ) -> None:
        """Wait for it.

        Args:
            look: whether it is ready; may take steps, and fail.
            hop: the request, once it is under way.
            answer: whether it is the answer that is waited for.
        """
        super().__init__(Lease())
        self._look = look
        self._hop = hop
        self._answer = answer

    def wait_ns(self) -> int:
        """Nothing if it is ready or has failed, else the time until it fails."""
        try:
            if self._look():
                return 0
        except CapError:
            return 0  # whoever looks for itself is told
        hop = self._hop()
        if hop is None or hop.deadline is None:
            return _LONG_NS
        return max(1, int((hop.deadline - time.monotonic()) * 1e9))

    def source(self) -> tuple[int, int] | None:
        """The socket."""
        hop = self._hop()
        if hop is None or hop.over:
            return None
        exchange = hop.exchange
        return exchange.connection.stream.fileno(), exchange.events(answer=self._answer)

    def pause(self, ns: int) -> None:
        """Sleep for a slice: there is nothing to be woken by."""
        time.sleep(min(ns, SLICE_NS) / 1e9)
