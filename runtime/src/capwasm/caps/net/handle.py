"""The response that a guest of `capwasm:fetch` holds: its head, and the body that is on its way."""

from __future__ import annotations

from typing import Final

from capwasm.call import current_call
from capwasm.handles import Handle

from .hop import Answer, Hop
from .refusal import refusal
from .watch import Watch

__all__ = ["ResponseHandle"]

MAX_READ: Final = 1024 * 1024


class ResponseHandle(Handle):
    """A response.  Whoever holds it reads the body at their own pace, each read within limits.

    Attributes:
        status: 200 and the like.
        headers: without those that frame the message; secrets that were sent are masked.
        url: what answered.
    """

    __slots__ = ("_hop", "headers", "status", "url")

    def __init__(self, hop: Hop, answer: Answer) -> None:
        """Hold an answered request."""
        super().__init__(hop.leases[0])
        self.status = answer.status
        self.headers = answer.headers
        self.url = str(hop.request.url)
        self._hop = hop

    def read(self, length: int) -> bytes:
        """Up to `length` bytes of the body, at most 1 MiB, as soon as there are any.

        Raises:
            CapError: `invalid`, `too-large`, `timeout`, `closed`, `unavailable`.
            CapwasmError: the call must end.
        """
        if length < 1:
            raise refusal("invalid", "bad-length", "a read of nothing")

        def step(watch: Watch) -> bytes:
            self._hop.fill(watch, block=True)
            return self._hop.take(min(length, MAX_READ, watch.call.limits.value_bytes))

        return self._reading().run(step)

    def read_all(self, limit: int) -> bytes:
        """The rest of the body.

        Raises:
            CapError: `too-large` when it is more than `limit` bytes, and as `read`.
            CapwasmError: the call must end.
        """
        limit = min(limit, current_call().limits.value_bytes)
        out = bytearray()

        def step(watch: Watch) -> None:
            while self._hop.fill(watch, block=True) and (piece := self._hop.take(MAX_READ)):
                out.extend(piece)
                if len(out) > limit:
                    raise refusal("too-large", "too-large", f"more than {limit} bytes", "response")

        self._reading().run(step)
        return bytes(out)

    def _reading(self) -> Hop:
        if not self._open:
            self.check()
        return self._hop

    def release(self) -> None:
        """Close the connection, unless the body was read to its end and it can serve again."""
        self._hop.drop()
