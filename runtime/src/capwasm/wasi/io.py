"""`wasi:io`: errors, polling and byte streams.

A stream or pollable here starts no thread: a read asks its source, a write goes to its sink before it
returns, or is held by a sink that says beforehand how much it can hold.  So nothing that a guest does
with them makes the host's memory grow.  Timers and sockets can make a poll wait.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

from capwasm.call import current_call
from capwasm.capability import Interface
from capwasm.errors import CapError, DeadlineExceeded, GuestTrap, ValueLimitExceeded
from capwasm.handles import Handle, Lease
from capwasm.values import Err, Variant

from ._refuse import named

__all__ = ["MAX_CHUNK", "InputStream", "IoError", "OutputStream", "Pollable", "interfaces", "poll"]

MAX_CHUNK = 64 * 1024
"""Most bytes that one call moves.  A list<u8> takes 32 times its size while it crosses."""

MAX_BLOCKING = 4096
"""Most bytes of the `blocking-write…-and-flush` functions; the WIT text fixes it."""

MAX_POLL = 1024
"""Most pollables of one poll."""

SLICE_NS = 20_000_000
"""After so long, a poll that waits for sockets looks at all else again."""

StreamError = Err[Variant]


def _closed() -> StreamError:
    return Err(Variant("closed"))


class IoError(Handle):
    """Why a stream failed: a word, and whose words it is one of."""

    __slots__ = ("family", "word")

    def __init__(self, lease: Lease, word: str, family: str) -> None:
        """Keep one word; no text of the host is ever in it."""
        super().__init__(lease)
        self.word = word
        self.family = family

    def to_debug_string(self) -> str:
        """The word."""
        return self.word


class Pollable(Handle):
    """Something to wait for.  This one is ready; a timer or a socket may not be yet."""

    __slots__ = ()

    def wait_ns(self) -> int:
        """Nanoseconds until it is ready; 0 or less when it is."""
        return 0

    def pause(self, ns: int) -> None:
        """Let up to `ns` pass, and less when the call is cancelled meanwhile."""
        raise NotImplementedError

    def source(self) -> tuple[int, int] | None:
        """A descriptor, and the events of `select.poll` that may make it ready sooner."""
        return None

    def ready(self) -> bool:
        """Whether `block` would return at once."""
        return self.wait_ns() <= 0

    def block(self) -> None:
        """Wait until ready; see `poll`."""
        poll([self])


def poll(pollables: Sequence[Pollable]) -> list[int]:
    """Wait until at least one is ready; the indices of all that are.

    Raises:
        GuestTrap: the list is empty (the WIT text says that it traps).
        ValueLimitExceeded: more than `MAX_POLL`.
        DeadlineExceeded: the call's time is over, or one host call may not block for so long.
        CallInterrupted: another thread ended the call.
    """
    if not pollables:
        raise GuestTrap("the plugin polled an empty list")
    if len(pollables) > MAX_POLL:
        raise ValueLimitExceeded(f"the plugin polled more than {MAX_POLL} pollables at a time")
    call = current_call()
    end = time.monotonic() + call.remaining()
    while True:
        waits = [p.wait_ns() for p in pollables]
        ready = [i for i, ns in enumerate(waits) if ns <= 0]
        if ready:
            return ready
        call.check()
        left = end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                f"one host call waited longer than {call.limits.host_call_ms} ms "
                "(limits.host-call-ms)",
                context=call.plugin,
            )
        nearest = min(range(len(waits)), key=waits.__getitem__)
        longest = min(waits[nearest], int(left * 1e9) + 1)
        sources = [s for p in pollables if (s := p.source()) is not None]
        if sources:
            _pause(sources, min(longest, SLICE_NS))
        else:
            pollables[nearest].pause(longest)


def _pause(sources: Sequence[tuple[int, int]], ns: int) -> None:
    poller = select.poll()
    wanted: dict[int, int] = {}
    for fileno, events in sources:
        wanted[fileno] = wanted.get(fileno, 0) | events
    for fileno, events in wanted.items():
        poller.register(fileno, events)
    poller.poll(-(-ns // 1_000_000))


class InputStream(Handle):
    """Bytes to read.  A subclass overrides `pull`; this one is at its end."""

    __slots__ = ("_ended",)

    family = "io"

    def __init__(self, lease: Lease) -> None:
        """Begin open."""
        super().__init__(lease)
        self._ended = False

    def pull(self, length: int) -> bytes | None:
        """1 to `length` bytes; empty when none are there yet; None at the end.

        Raises:
            CapError: a word of `family`, or `closed`.
        """
        del length
        return None

    def subscribe(self) -> Pollable:
        """Ready when `pull` has bytes, an end or an error."""
        return Pollable(self.lease)

    def read(self, length: int) -> bytes | StreamError:
        """Up to `length` bytes, at most `MAX_CHUNK`, without waiting."""
        if self._ended or not self.alive:
            return _closed()
        if length == 0:
            return b""
        try:
            chunk = self.pull(min(length, MAX_CHUNK))
        except CapError as exc:
            self._ended = True
            return _failed(self, exc)
        if chunk is None:
            self._ended = True
            return _closed()
        return chunk

    def blocking_read(self, length: int) -> bytes | StreamError:
        """`read`, after waiting until there is a byte, an end or an error."""
        while True:
            chunk = self.read(length)
            if chunk != b"" or length == 0:
                return chunk
            poll([self.subscribe()])

    def skip(self, length: int) -> int | StreamError:
        """`read`, and tell how many bytes it was."""
        return _skipped(self.read(length))

    def blocking_skip(self, length: int) -> int | StreamError:
        """`blocking_read`, and tell how many bytes it was."""
        return _skipped(self.blocking_read(length))


class OutputStream(Handle):
    """A place to write to.  A subclass overrides `push`."""

    __slots__ = ("_ended", "_permit")

    family = "io"

    def __init__(self, lease: Lease) -> None:
        """Begin open, with no permit."""
        super().__init__(lease)
        self._ended = False
        self._permit = 0

    def push(self, data: bytes) -> None:
        """Take all of `data` before returning.

        Raises:
            CapError: a word of `family`, or `closed`.
        """
        raise NotImplementedError

    def room(self) -> int:
        """How many bytes `push` would take now.

        Raises:
            CapError: as `push`.
        """
        return MAX_CHUNK

    def settle(self) -> None:
        """Wait until nothing is held back any more.

        Raises:
            CapError: as `push`.
        """

    def subscribe(self) -> Pollable:
        """Ready when `check_write` would say more than 0, or an error."""
        return Pollable(self.lease)

    def check_write(self) -> int | StreamError:
        """How many bytes the next writes may carry."""
        if self._ended or not self.alive:
            return _closed()
        try:
            self._permit = min(self.room(), MAX_CHUNK)
        except CapError as exc:
            return self._broken(exc)
        return self._permit

    def write(self, contents: bytes) -> StreamError | None:
        """Write within the permit.

        Raises:
            GuestTrap: over what `check-write` permitted (the WIT text says that it traps).
        """
        self._spend(len(contents))
        return self._send(contents)

    def blocking_write_and_flush(self, contents: bytes) -> StreamError | None:
        """Write up to `MAX_BLOCKING` bytes; needs no permit.

        Raises:
            GuestTrap: more than that.
        """
        _bound(len(contents))
        return self._send_settled(contents)

    def flush(self) -> StreamError | None:
        """Nothing is held back on purpose, so this only tells whether the stream is open."""
        return _closed() if self._ended or not self.alive else None

    def blocking_flush(self) -> StreamError | None:
        """`flush`, and wait until nothing is held back."""
        return self.flush() or self._settle()

    def write_zeroes(self, length: int) -> StreamError | None:
        """`write` of that many zero bytes; the guest pays for each.

        Raises:
            GuestTrap: over what `check-write` permitted.
        """
        self._spend(length)
        current_call().charge_host_work(length)
        return self._send(bytes(length))

    def blocking_write_zeroes_and_flush(self, length: int) -> StreamError | None:
        """`blocking_write_and_flush` of that many zero bytes; the guest pays for each.

        Raises:
            GuestTrap: more than `MAX_BLOCKING`.
        """
        _bound(length)
        current_call().charge_host_work(length)
        return self._send_settled(bytes(length))

    def splice(self, src: InputStream, length: int) -> int | StreamError:
        """Move up to `length` bytes from `src`, at most `MAX_CHUNK`; the guest pays for each."""
        return self._move(src, length, block=False)

    def blocking_splice(self, src: InputStream, length: int) -> int | StreamError:
        """`splice`, after waiting until `src` has a byte, an end or an error."""
        return self._move(src, length, block=True)

    def _move(self, src: InputStream, length: int, *, block: bool) -> int | StreamError:
        if block:
            poll([self.subscribe()])
        permit = self.check_write()
        if isinstance(permit, Err):
            return permit
        wanted = min(length, permit)
        chunk = src.blocking_read(wanted) if block else src.read(wanted)
        if isinstance(chunk, Err):
            return chunk
        current_call().charge_host_work(len(chunk))
        failure = self.write(chunk)
        return len(chunk) if failure is None else failure

    def _spend(self, size: int) -> None:
        if size > self._permit:
            raise GuestTrap(
                f"the plugin wrote {size} bytes to a stream that permitted {self._permit}"
            )
        self._permit -= size

    def _send(self, data: bytes) -> StreamError | None:
        if self._ended or not self.alive:
            return _closed()
        if not data:
            return None
        try:
            self.push(data)
        except CapError as exc:
            return self._broken(exc)
        return None

    def _send_settled(self, data: bytes) -> StreamError | None:
        """Send once there is room, and wait until nothing is held back."""
        return self.flush() or self._settle() or self._send(data) or self._settle()

    def _settle(self) -> StreamError | None:
        try:
            self.settle()
        except CapError as exc:
            return self._broken(exc)
        return None

    def _broken(self, exc: CapError) -> StreamError:
        self._ended = True
        return _failed(self, exc)


def _failed(stream: InputStream | OutputStream, exc: CapError) -> StreamError:
    if exc.word == "closed":
        return _closed()
    return Err(Variant("last-operation-failed", IoError(stream.lease, exc.word, stream.family)))


def _skipped(chunk: bytes | StreamError) -> int | StreamError:
    if isinstance(chunk, Err):
        return chunk
    current_call().charge_host_work(len(chunk))
    return len(chunk)


def _bound(size: int) -> None:
    if size > MAX_BLOCKING:
        raise GuestTrap(
            f"the plugin wrote {size} bytes at once, and blocking-write-and-flush takes "
            f"{MAX_BLOCKING}"
        )


# They hold nothing of an instance, so all share them.
_INTERFACES = (
    Interface(
        named("io/error"),
        {"[method]error.to-debug-string": IoError.to_debug_string},
        {"error": IoError},
    ),
    Interface(
        named("io/poll"),
        {
            "poll": poll,
            "[method]pollable.ready": Pollable.ready,
            "[method]pollable.block": Pollable.block,
        },
        {"pollable": Pollable},
    ),
    Interface(
        named("io/streams"),
        {
            "[method]input-stream.read": InputStream.read,
            "[method]input-stream.blocking-read": InputStream.blocking_read,
            "[method]input-stream.skip": InputStream.skip,
            "[method]input-stream.blocking-skip": InputStream.blocking_skip,
            "[method]input-stream.subscribe": lambda stream: stream.subscribe(),
            "[method]output-stream.check-write": OutputStream.check_write,
            "[method]output-stream.write": OutputStream.write,
            "[method]output-stream.blocking-write-and-flush": (
                OutputStream.blocking_write_and_flush
            ),
            "[method]output-stream.flush": OutputStream.flush,
            "[method]output-stream.blocking-flush": OutputStream.blocking_flush,
            "[method]output-stream.subscribe": lambda stream: stream.subscribe(),
            "[method]output-stream.write-zeroes": OutputStream.write_zeroes,
            "[method]output-stream.blocking-write-zeroes-and-flush": (
                OutputStream.blocking_write_zeroes_and_flush
            ),
            "[method]output-stream.splice": OutputStream.splice,
            "[method]output-stream.blocking-splice": OutputStream.blocking_splice,
        },
        {"input-stream": InputStream, "output-stream": OutputStream},
    ),
)


def interfaces() -> list[Interface]:
    """`wasi:io/{error,poll,streams}`.  They hold no power, so they need no grant."""
    return list(_INTERFACES)
