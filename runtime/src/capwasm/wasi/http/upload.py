"""The body of a request: held until the request is on its way, then sent as it comes.

How a body is framed shows as late as can be.  A program that writes a little and finishes has sent a
body with a length, as servers like it best; one that goes on writing sends chunks.  The head leaves with
the first of: the end of the body, more than `HELD` bytes of it, a wish for the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from capwasm.caps.net.hop import Hop
from capwasm.caps.net.message import encoded
from capwasm.caps.net.refusal import refusal
from capwasm.caps.net.request import checked_headers
from capwasm.caps.net.watch import Watch
from capwasm.errors import CapError, GuestTrap
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Variant
from capwasm.wasi.io import MAX_CHUNK, OutputStream, Pollable, poll

from .errors import FAMILY, codes, failed
from .fields import Fields
from .polling import HopPollable

__all__ = ["BodyStream", "OutgoingBody", "Upload"]

HELD: Final = 64 * 1024
"""Bytes after which a request that is under way goes out in chunks."""
AHEAD: Final = 256 * 1024
"""Bytes that may be written before the request is handed over."""

Trailers = Sequence[tuple[bytes, bytes]]


class Upload:
    """What was written of a body, and how far it is sent.

    Attributes:
        hop: the request, once it was handed over.
        taken: whether the guest has asked for the body.   finished: whether it has ended.
    """

    __slots__ = ("_held", "_length", "_trailers", "_written", "finished", "hop", "taken")

    def __init__(self) -> None:
        """Hold nothing."""
        self.hop: Hop | None = None
        self.taken = self.finished = False
        self._held = bytearray()
        self._length: int | None = None
        self._written = 0
        self._trailers: Trailers = ()

    def declared(self, length: int | None) -> int:
        """Take the length that the guest has stated; the bytes that are known to come.

        Raises:
            CapError: `too-large`: more was written already, or less and that is all.
        """
        self._length = length
        self._check_length()
        return self._written if length is None else length

    def start(self, hop: Hop) -> None:
        """The request is on its way.

        Raises:
            CapError: as `Hop.run`.
        """
        self.hop = hop
        if not self.taken:
            self.finished = True
        self._forward()

    def room(self) -> int:
        """How many bytes may be written now.

        Raises:
            CapError: as `Hop.run`.
        """
        if self.hop is None:
            return AHEAD - len(self._held)
        self._check_open()
        return MAX_CHUNK if self.push() else 0

    def write(self, data: bytes) -> None:
        """Take some.

        Raises:
            CapError: `too-large`: there is no room, or more than was stated; as `Hop.run`.
        """
        self._written += len(data)
        self._check_length()
        if self.hop is None:
            if len(self._held) + len(data) > AHEAD:
                raise refusal("too-large", "too-large", "too much before the request is sent")
            self._held += data
            return
        self._check_open()
        if data and self.hop.request.method in ("GET", "HEAD"):
            raise refusal("invalid", "bad-body", "a GET or HEAD request has no body")
        if not self.hop.begun:
            self._held += data
            self._forward()
            return
        self.hop.run(lambda watch: self._give(data, watch))
        self._check_open()

    def finish(self, trailers: Trailers = ()) -> None:
        """It ends here.

        Raises:
            CapError: `too-large`: less than was stated; as `Hop.run`.
        """
        self.finished = True
        self._trailers = trailers
        self._check_length()
        if self.hop is not None and not self.hop.over:
            self._forward()

    def push(self, *, urgent: bool = False) -> bool:
        """Send on; whether nothing waits for the socket.

        Args:
            urgent: whether the answer is wanted, so that the head must leave.

        Raises:
            CapError: as `Hop.run`.
        """
        hop = self.hop
        if hop is None or hop.over:
            return True
        if urgent and not hop.begun:
            self._forward(urgent=True)
        return hop.run(lambda watch: hop.exchange.push(watch.call))

    def drop(self) -> None:
        """Nobody will write more: where it has not ended, it never will."""
        if not self.finished and self.hop is not None and not self.hop.over:
            self.hop.drop()

    def _forward(self, *, urgent: bool = False) -> None:
        """Let the head and what is held go, if it is time."""
        hop = self.hop
        assert hop is not None
        if self.finished or urgent or len(self._held) > HELD:
            hop.run(self._go)

    def _go(self, watch: Watch) -> None:
        hop, held = self.hop, bytes(self._held)
        assert hop is not None
        self._held.clear()
        bodiless = hop.request.method in ("GET", "HEAD")
        if held and bodiless:
            raise refusal("invalid", "bad-body", "a GET or HEAD request has no body")
        if not hop.begun:
            length = self._length
            if bodiless or (length is None and self.finished and not self._trailers):
                length = len(held)
            hop.begin(length)
        self._give(held, watch)

    def _give(self, data: bytes, watch: Watch) -> None:
        hop = self.hop
        assert hop is not None
        if data:
            hop.exchange.give(data)
        if self.finished and not hop.exchange.finished:
            hop.exchange.finish(self._trailers)
        hop.exchange.push(watch.call)

    def _check_open(self) -> None:
        """Pass if the origin takes more.

        Raises:
            CapError: `closed`: it does not; its answer may still come, or has come already.
        """
        hop = self.hop
        if hop is not None and hop.failure is None and (hop.over or hop.exchange.refused):
            raise CapError("closed", "the origin takes no more")

    def _check_length(self) -> None:
        length = self._length
        if length is None:
            return
        if self._written > length or (self.finished and self._written < length):
            short = "less" if self._written < length else "more"
            why = refusal("too-large", "too-large", f"{short} than Content-Length says")
            if self.hop is not None and not self.hop.over:
                self.hop.run(lambda _: _raise(why))
            raise why


def _raise(exc: CapError) -> None:
    raise exc


class OutgoingBody(Handle):
    """A request's body, to be written once and finished."""

    __slots__ = ("_stream", "_upload")

    def __init__(self, upload: Upload) -> None:
        """Hold it; nobody writes yet."""
        super().__init__(Lease())
        self._upload = upload
        self._stream: BodyStream | None = None

    def write(self) -> BodyStream | Err[None]:
        """The stream, the first time that it is asked for."""
        if self._stream is not None:
            return Err(None)
        self._stream = BodyStream(self._upload)
        return self._stream

    @staticmethod
    def finish(body: OutgoingBody, trailers: Fields | None) -> Err[Variant] | None:
        """End it.

        Raises:
            GuestTrap: its stream was not dropped (the WIT text says that it traps).
        """
        if body._stream is not None and body._stream.held:
            raise GuestTrap("the plugin finished a body whose stream it still holds")
        pairs = [(n, v.decode("latin-1")) for n, v in trailers.pairs] if trailers else []
        try:
            # Checked again: an origin's own fields may be handed back.
            body._upload.finish(encoded(checked_headers(pairs)))
        except CapError as exc:
            body._upload.drop()
            return failed(exc)
        return None

    def release(self) -> None:
        """Without `finish` the request stays without an end, so it is given up."""
        self._upload.drop()


class BodyStream(OutputStream):
    """Where the body is written to."""

    __slots__ = ("_upload",)

    family = FAMILY

    def __init__(self, upload: Upload) -> None:
        """Write to it."""
        super().__init__(Lease())
        self._upload = upload

    @property
    def held(self) -> bool:
        """Whether the guest has it still."""
        return self._open

    def room(self) -> int:
        """As the upload says."""
        with codes():
            return self._upload.room()

    def push(self, data: bytes) -> None:
        """Hand it on."""
        with codes():
            self._upload.write(data)

    def settle(self) -> None:
        """Wait until the socket has taken what it was given."""
        with codes():
            while not self._upload.push():
                poll([self.subscribe()])

    def subscribe(self) -> Pollable:
        """Ready when there is room."""
        upload = self._upload
        return HopPollable(lambda: upload.room() > 0, lambda: upload.hop, answer=False)
