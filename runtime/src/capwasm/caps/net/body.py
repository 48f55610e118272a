"""A response's body: undone from its encoding, bounded, and without the secrets that were sent."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final, Protocol

from .refusal import refusal

__all__ = ["ACCEPT_ENCODING", "Body", "Mask", "decoder_for"]

ACCEPT_ENCODING: Final = "gzip, deflate"

# zlib can't do better than 1030:1; text that is worth sending stays far below this.
MAX_RATIO: Final = 200
RATIO_FROM: Final = 1024 * 1024  # bytes out, before which a ratio means nothing
STEP: Final = 64 * 1024  # bytes out of the decoder at a time: all that a bomb can occupy


class Mask(Protocol):
    """Takes secrets out of bytes that come in pieces."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return those that are safe by now."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


class Decoder:
    """Undoes gzip or deflate, at most `STEP` bytes at a time."""

    def __init__(self, *, deflate: bool) -> None:
        """Undo gzip, or else deflate, with or without a zlib header."""
        self._zlib = None if deflate else zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._head = b""
        self._tail = b""
        self._fed = False
        self.pending = False
        """Whether `step` may yield more without more input."""

    def step(self, data: bytes) -> bytes:
        """Take `data`; return what comes out, at most `STEP` bytes of it.

        Raises:
            CapError: `unavailable`, when the data is damaged or goes on after its end.
        """
        self._fed = self._fed or bool(data)
        if self._zlib is None:
            self._head += data
            if len(self._head) < 2:
                return b""
            # RFC 9110 means zlib by "deflate"; some servers send the bare stream.
            wrapped = self._head[0] & 0x0F == 8 and int.from_bytes(self._head[:2], "big") % 31 == 0
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
            data = self._head
        try:
            out = self._zlib.decompress(self._tail + data, STEP)
        except zlib.error:
            raise refusal("unavailable", "encoding", "the body's encoding is damaged") from None
        self._tail = self._zlib.unconsumed_tail
        # A full step may have left output within zlib although it took all the input.
        self.pending = bool(self._tail) or (len(out) == STEP and not self._zlib.eof)
        if self._zlib.unused_data:
            raise refusal("unavailable", "encoding", "data after the end of the encoded body")
        return out

    def finish(self) -> None:
        """Pass if the data was whole, or empty.

        Raises:
            CapError: `unavailable`.
        """
        if self._fed and (self._zlib is None or not self._zlib.eof):
            raise refusal("unavailable", "encoding", "the encoded body is cut off")


def decoder_for(encodings: Sequence[str]) -> Decoder | None:
    """The decoder for the values of `Content-Encoding`, or None for a plain body.

    Raises:
        CapError: `unavailable` for an unknown encoding, or for one within another (NET-22).
    """
    words = [w.strip().lower() for value in encodings for w in value.split(",")]
    words = [w for w in words if w not in ("", "identity")]
    if not words:
        return None
    if len(words) > 1 or words[0] not in ("gzip", "x-gzip", "deflate"):
        raise refusal("unavailable", "encoding", "not gzip or deflate, or more than one of them")
    return Decoder(deflate=words[0] == "deflate")


class Body:
    """What was read of a body and not yet taken; a chunk goes in when the one before it is out."""

    def __init__(self, decoder: Decoder | None, mask: Mask | None, limit: int) -> None:
        """Begin empty.

        Args:
            decoder: undoes its encoding, if it has one.
            mask: takes secrets out, if any were sent.
            limit: bytes, decoded, after which the body is too large.
        """
        self._decoder = decoder
        self._mask = mask
        self._limit = limit
        self._ready = b""
        self._raw = 0
        self.decoded = 0
        self.ended = False

    def take(self, length: int) -> bytes:
        """Up to `length` bytes of what is ready."""
        ready = self._ready
        if len(ready) <= length:
            self._ready = b""
            return ready
        self._ready = ready[length:]
        return ready[:length]

    @property
    def ready(self) -> int:
        """Bytes that can be taken."""
        return len(self._ready)

    def go_on(self) -> bool:
        """Get what the decoder still has of earlier chunks ready; says whether there was any.

        Raises:
            CapError: `too-large`, `unavailable`.
        """
        if self._decoder is None or not self._decoder.pending:
            return False
        self._get_ready(self._decoder.step(b""))
        return True

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk, as sent, without its framing.

        Raises:
            CapError: `too-large`, `unavailable`.
        """
        self._raw += len(chunk)
        self._get_ready(chunk if self._decoder is None else self._decoder.step(chunk))

    def end(self) -> None:
        """That was the last chunk.

        Raises:
            CapError: `unavailable`: its encoding is cut off.
        """
        if self._decoder is not None:
            self._decoder.finish()
        self.ended = True
        if self._mask is not None:
            self._ready += self._mask.finish()

    def _get_ready(self, data: bytes) -> None:
        self.decoded += len(data)
        if self.decoded > self._limit:
            raise refusal("too-large", "too-large", f"more than {self._limit} bytes", "response")
        if self.decoded > RATIO_FROM and self.decoded > self._raw * MAX_RATIO:
            raise refusal(
                "too-large", "too-large", f"decodes to more than {MAX_RATIO} times", "response"
            )
        masked = data if self._mask is None else self._mask.feed(data)
        self._ready = self._ready + masked if self._ready else masked
