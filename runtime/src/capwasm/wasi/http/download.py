"""The answer to a request: its head when that is here, and its body as it comes."""

from __future__ import annotations

import time

from capwasm.caps.net.hop import Answer, Hop
from capwasm.caps.net.request import Headers
from capwasm.errors import CapError, GuestTrap
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Ok, Result, Variant
from capwasm.wasi.io import MAX_CHUNK, InputStream, Pollable

from .errors import FAMILY, codes, failed
from .fields import Fields
from .polling import HopPollable
from .upload import Upload

__all__ = ["FutureResponse", "FutureTrailers", "IncomingBody", "IncomingResponse"]


class Download:
    """A request under way, as those see it who wait for the answer.

    Attributes:
        hop: with what was asked.
    """

    __slots__ = ("_between", "_upload", "hop")

    def __init__(self, hop: Hop, upload: Upload, between: float | None) -> None:
        """Wait for it; no more than `between` seconds may lie between two pieces of its body."""
        self.hop = hop
        self._upload = upload
        self._between = between

    def answer(self) -> Answer | None:
        """The head of the answer, if it is here.

        Raises:
            CapError: as `Hop.run`.
        """
        self._upload.push(urgent=True)
        answer = self.hop.run(self.hop.look)
        if answer is not None:
            self._be_patient()
        return answer

    def fill(self) -> bool:
        """Whether there are bytes to take, or the body has ended.

        Raises:
            CapError: as `Hop.run`.
        """
        self._upload.push()
        if not self.hop.run(lambda watch: self.hop.fill(watch, block=False)):
            return False
        self._be_patient()
        return True

    def skip(self) -> bool:
        """Read on and drop what is read; whether the body has ended.

        Raises:
            CapError: as `Hop.run`.
        """
        while self.fill():
            if self.hop.read_whole:
                return True
            self.hop.take(MAX_CHUNK)
        return False

    def _be_patient(self) -> None:
        between = self._between
        self.hop.deadline = None if between is None else time.monotonic() + between


class FutureResponse(Handle):
    """The answer, when it comes."""

    __slots__ = ("_download", "_taken")

    def __init__(self, download: Download) -> None:
        """Wait for it."""
        super().__init__(Lease())
        self._download = download
        self._taken = False

    def subscribe(self) -> Pollable:
        """Ready when `get` has something to give."""
        download = self._download
        return HopPollable(lambda: download.answer() is not None, lambda: download.hop, answer=True)

    def get(self) -> Result[Result[IncomingResponse, Variant], None] | None:
        """The answer or why there is none, once; None as long as neither is known."""
        if self._taken:
            return Err(None)
        try:
            answer = self._download.answer()
        except CapError as exc:
            self._taken = True
            return Ok(failed(exc))
        if answer is None:
            return None
        self._taken = True
        return Ok(Ok(IncomingResponse(self._download, answer)))

    def release(self) -> None:
        """Who drops it untaken wants no answer."""
        if not self._taken:
            self._download.hop.drop()


class IncomingResponse(Handle):
    """The head of an answer."""

    __slots__ = ("_answer", "_consumed", "_download")

    def __init__(self, download: Download, answer: Answer) -> None:
        """Hold it."""
        super().__init__(Lease())
        self._download = download
        self._answer = answer
        self._consumed = False

    def status(self) -> int:
        """200 and the like."""
        return self._answer.status

    def headers(self) -> Fields:
        """Its headers, without those that frame the message."""
        return _fields(self._answer.headers)

    def consume(self) -> IncomingBody | Err[None]:
        """The body, once."""
        if self._consumed:
            return Err(None)
        self._consumed = True
        return IncomingBody(self._download)

    def release(self) -> None:
        """Who drops it unconsumed wants no body."""
        if not self._consumed:
            self._download.hop.drop()


class IncomingBody(Handle):
    """The body of an answer."""

    __slots__ = ("_download", "_finished", "_stream")

    def __init__(self, download: Download) -> None:
        """Hold it; nobody reads yet."""
        super().__init__(Lease())
        self._download = download
        self._stream: BodyInput | None = None
        self._finished = False

    def stream(self) -> InputStream | Err[None]:
        """The stream, the first time that it is asked for."""
        if self._stream is not None:
            return Err(None)
        self._stream = BodyInput(self._download)
        return self._stream

    @staticmethod
    def finish(body: IncomingBody) -> FutureTrailers:
        """What comes after the body; of which the rest is read and dropped.

        Raises:
            GuestTrap: its stream was not dropped (the WIT text says that it traps).
        """
        if body._stream is not None and body._stream.held:
            raise GuestTrap("the plugin finished a body whose stream it still holds")
        body._finished = True
        return FutureTrailers(body._download)

    def release(self) -> None:
        """Who drops it unfinished wants no more."""
        if not self._finished:
            self._download.hop.drop()


class BodyInput(InputStream):
    """Where the body is read from."""

    __slots__ = ("_download",)

    family = FAMILY

    def __init__(self, download: Download) -> None:
        """Read it."""
        super().__init__(Lease())
        self._download = download

    @property
    def held(self) -> bool:
        """Whether the guest has it still."""
        return self._open

    def pull(self, length: int) -> bytes | None:
        """The next bytes; None at the end of the body."""
        with codes():
            if not self._download.fill():
                return b""
        return self._download.hop.take(length) or None

    def subscribe(self) -> Pollable:
        """Ready when `pull` has bytes, an end or an error."""
        download = self._download
        return HopPollable(download.fill, lambda: download.hop, answer=True)


class FutureTrailers(Handle):
    """The trailers, once the body has ended."""

    __slots__ = ("_download", "_taken")

    def __init__(self, download: Download) -> None:
        """Wait for them."""
        super().__init__(Lease())
        self._download = download
        self._taken = False

    def subscribe(self) -> Pollable:
        """Ready when `get` has something to give."""
        download = self._download
        return HopPollable(download.skip, lambda: download.hop, answer=True)

    def get(self) -> Result[Result[Fields | None, Variant], None] | None:
        """The trailers if there are some, or what failed, once; None as long as that is not known."""
        if self._taken:
            return Err(None)
        try:
            if not self._download.skip():
                return None
        except CapError as exc:
            self._taken = True
            return Ok(failed(exc))
        self._taken = True
        trailers = self._download.hop.trailers()
        return Ok(Ok(_fields(trailers) if trailers else None))

    def release(self) -> None:
        """Let go of the connection."""
        self._download.hop.drop()


def _fields(headers: Headers) -> Fields:
    # What an origin sends is any byte; each came as a character of Latin-1, or masked.
    pairs = ((name, value.encode("latin-1", "replace")) for name, value in headers)
    return Fields(pairs, fixed=True)
