"""Frames between the host and a process that it does not trust, and the memory for large values.

A lane is a socket that keeps the bounds of messages (`SOCK_SEQPACKET`), so there are no half frames
to wait for and none that run together: one datagram is one msgpack array of at most `MAX_FRAME` bytes.
Whatever is larger goes through two windows of shared memory, one for each direction:

* `up`, which the shim may write at any moment.  The host never maps it: it copies a range out, once,
  and looks at nothing but the copy.
* `down`, which the host writes.  The shim has it open for reading only, and reads it in place.

Descriptors go down only: the host receives none, whatever is sent (IPC-09).

Both sides wait by asking again for some microseconds before they sleep, since waking a sleeping
process costs more than most answers take; they stop doing so where answers take longer.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, Protocol

import msgpack

__all__ = [
    "MAX_FRAME",
    "DownReader",
    "DownWriter",
    "Lane",
    "PeerClosed",
    "ProtocolFault",
    "UpReader",
    "UpWriter",
    "make_down",
    "make_up",
    "pair",
]

MAX_FRAME: Final = 64 * 1024
"""Bytes of a datagram at most."""

BULK: Final = 8 * 1024
"""Bytes of a string of bytes from which it goes through the window."""

MAX_LISTS: Final = 1 << 20
"""Arrays within one frame at most: an empty one takes a byte in it, and 56 in memory (IPC-04)."""

MAX_FDS: Final = 4
"""Descriptors that come with one frame at most."""

_BIG: Final = 0x80
_EXT: Final = 1
_RANGE: Final = struct.Struct("<QQ")
# What a small call takes over there, and what a caller does here between two of them.
_SPIN_SECONDS: Final = 80e-6
_QUICK_SECONDS: Final = 300e-6
_TICK_MS: Final = 10
# A frame fits the socket's buffer many times over, so only who never reads makes a send wait.
_SEND_SECONDS: Final = 2.0
_KEEP_BYTES: Final = 1 << 20
_SEALS: Final = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_PUNCH: Final = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


class ProtocolFault(Exception):
    """The peer did what it must never do."""


class PeerClosed(Exception):
    """The peer is gone, or has closed its end."""


# -- windows --------------------------------------------------------------------------------------


class Out(Protocol):
    """A window to write to."""

    size: int

    def write(self, at: int, data: Any) -> None:
        """Write there."""


class In(Protocol):
    """A window to read from."""

    size: int

    def read(self, at: int, length: int) -> Any:
        """The bytes there."""


class _Kept:
    """The host's side of a window, which owns its descriptor.  Closed by itself when nobody has it."""

    fd = -1

    def __init__(self, fd: int, size: int) -> None:
        """Keep that memory file, whose descriptor is owned from now on, also when this fails."""
        self.fd = fd
        self.size = size
        self._high = 0

    def trim(self) -> None:
        """Give back the memory of large values."""
        if self._high > _KEEP_BYTES:
            _punch(self.fd, self.size)
            self._high = 0

    def close(self) -> None:
        """Close the descriptor, once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class UpReader(_Kept):
    """The host's side of the window that the shim writes."""

    def read(self, at: int, length: int) -> bytes:
        """A copy of the bytes there, which nobody can change any more."""
        self._high = max(self._high, at + length)
        parts = []
        while length:
            part = os.pread(self.fd, length, at)
            if not part:
                raise ProtocolFault("a window is shorter than it was made")
            parts.append(part)
            at, length = at + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class UpWriter:
    """The shim's side of the window that it writes."""

    def __init__(self, fd: int, size: int) -> None:
        """Map that memory file; the descriptor is the caller's to close."""
        self.size = size
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def write(self, at: int, data: Any) -> None:
        """Copy the bytes there."""
        self._map[at : at + len(data)] = data


class DownWriter(_Kept):
    """The host's side of the window that it writes."""

    def __init__(self, fd: int, size: int) -> None:
        """Map that memory file; see `_Kept`."""
        super().__init__(fd, size)
        self._map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def write(self, at: int, data: Any) -> None:
        """Copy the bytes there."""
        self._high = max(self._high, at + len(data))
        self._map[at : at + len(data)] = data

    def close(self) -> None:
        """Close the descriptor and the mapping, once."""
        super().close()
        if hasattr(self, "_map"):
            self._map.close()


class DownReader:
    """The shim's side of the window that the host writes."""

    def __init__(self, fd: int, size: int) -> None:
        """Map that memory file; the descriptor is the caller's to close."""
        self.size = size
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        self._view = memoryview(self.map)

    def read(self, at: int, length: int) -> memoryview:
        """The bytes there, in place: the host may write others once it has answered again."""
        return self._view[at : at + length]


def make_up(size: int) -> tuple[UpReader, int]:
    """A window for the shim to write: the host's side, and the descriptor to hand over and close.

    Raises:
        OSError: there is no memory file to be had.
    """
    reader = UpReader(_memory("up", size), size)
    return reader, os.dup(reader.fd)


def make_down(size: int) -> tuple[DownWriter, int]:
    """A window for the host to write: its side, and a read-only descriptor to hand over and close.

    Raises:
        OSError: there is no memory file to be had, or no /proc to open it again for reading only.
    """
    writer = DownWriter(_memory("down", size), size)
    return writer, os.open(f"/proc/self/fd/{writer.fd}", os.O_RDONLY | os.O_CLOEXEC)


def _memory(name: str, size: int) -> int:
    fd = os.memfd_create(f"capwasm-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _punch(fd: int, size: int) -> None:
    # Pages from the first mebibyte on; without the call they stay until the process ends.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).fallocate(
            fd, _PUNCH, ctypes.c_int64(_KEEP_BYTES), ctypes.c_int64(size - _KEEP_BYTES)
        )


def _no_map(_map: object) -> None:
    raise ProtocolFault("no frame holds a map")


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a new lane; neither is inherited.

    Raises:
        OSError: there are no descriptors left.
    """
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


# -- lanes ----------------------------------------------------------------------------------------


class Lane:
    """One end of a lane.  For one thread at a time.

    Attributes:
        received: descriptors that came with the last frame; whoever takes them closes them.
    """

    def __init__(
        self, sock: socket.socket, out: Out | None, into: In | None, *, descriptors: bool = False
    ) -> None:
        """Speak on that socket, which is closed with the lane.

        Args:
            sock: of `pair`.
            out: the window to write, or None: nothing large is sent.
            into: the window to read, or None: nothing large is taken.
            descriptors: whether frames may come with descriptors; never on the host's side.
        """
        sock.setblocking(False)  # noqa: FBT003  no keyword is taken
        self.sock = sock
        self.received: list[int] = []
        self._out = out
        self._in = into
        self._room = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize) if descriptors else 0
        self._buffer = bytearray(MAX_FRAME + 1)
        self._view = memoryview(self._buffer)
        self._packer = msgpack.Packer(use_bin_type=True)
        self._at = 0
        self._left = 0
        self._lists = 0
        self._patient = len(os.sched_getaffinity(0)) > 1
        self._spin = self._patient
        self._poll: select.poll | None = None

    # -- sending --------------------------------------------------------------------------------

    def begin(self, at: int = 0) -> None:
        """Use the window from there on for what is put next; what stands before it is kept."""
        self._at = at

    @property
    def used(self) -> int:
        """How much of the window is used."""
        return self._at

    def put(self, data: Any) -> Any:
        """What stands for these bytes in a frame: they themselves, or where they are in the window.

        Raises:
            ValueError: they don't fit the window any more.
        """
        size = len(data)
        if size < BULK or self._out is None:
            return data if isinstance(data, bytes) else bytes(data)
        at = self._at
        if size > self._out.size - at:
            raise ValueError(f"{size} bytes don't fit the window")
        self._out.write(at, data)
        # Aligned, for those who read numbers in place.
        self._at = min(self._out.size, (at + size + 15) & ~15)
        return msgpack.ExtType(_EXT, _RANGE.pack(at, size))

    def send(self, frame: Sequence[Any], fds: Sequence[int] = ()) -> None:
        """Send a frame, whose large bytes were `put`.

        Raises:
            ValueError: it doesn't fit the window.
            ProtocolFault: the peer never reads (IPC-08), or has not read what came before descriptors.
            PeerClosed: it is gone.
        """
        # Those on their way count as open files of this user, for all of its processes together.
        if fds and fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)) != bytes(4):
            raise ProtocolFault("it asks for descriptors and does not take them")
        data = self._packer.pack(frame)
        if len(data) > MAX_FRAME:
            data = self._packer.pack((frame[0] | _BIG, self.put(data)))
            if len(data) > MAX_FRAME:
                raise ValueError("a frame of that size needs a window")
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []
        )
        until = 0.0
        while True:
            try:
                if rights:
                    self.sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
                else:
                    self.sock.send(data, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                now = monotonic()
                until = until or now + _SEND_SECONDS
                if now >= until:
                    raise ProtocolFault("it does not read what is sent to it") from None
                self._wait(select.POLLOUT, _TICK_MS)
            except OSError as exc:
                if exc.errno in {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF}:
                    raise PeerClosed from None
                raise
            else:
                return

    # -- receiving ------------------------------------------------------------------------------

    def recv(self, tick: Callable[[], None] | None = None) -> list[Any]:
        """Wait for the next frame.

        Args:
            tick: called every 10 ms of waiting; what it raises ends the wait.  Without one, this
                waits for as long as it takes.

        Raises:
            ProtocolFault: it is malformed, or came with what it must not.
            PeerClosed: the peer is gone.
        """
        size = self._take() if self._spin else self._read()
        if size is None:
            size = self._sleep(tick)
        return self._parse(self._view[:size])

    def _take(self) -> int | None:
        """The next datagram's size, if it comes soon."""
        size = self._read()
        if size is None:
            until = monotonic() + _SPIN_SECONDS
            while size is None and monotonic() < until:
                size = self._read()
        return size

    def _sleep(self, tick: Callable[[], None] | None) -> int:
        began = monotonic()
        size = None
        while size is None:
            self._wait(select.POLLIN, _TICK_MS if tick else None)
            if tick:
                tick()
            size = self._read()
        # Where answers are quick, what takes long is the waking up.
        self._spin = self._patient and monotonic() - began < _QUICK_SECONDS
        return size

    def _wait(self, what: int, milliseconds: int | None) -> None:
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
        poll.register(self.sock, what)
        poll.poll(milliseconds)

    def _read(self) -> int | None:
        try:
            size, items, flags, _ = self.sock.recvmsg_into(
                [self._buffer], self._room, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        except OSError as exc:
            if exc.errno in {errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.EPIPE}:
                raise PeerClosed from None
            raise
        if items:
            self._keep(items)
        if flags & socket.MSG_CTRUNC:
            raise ProtocolFault("it sent descriptors")
        if size == 0:
            raise PeerClosed
        if size > MAX_FRAME:
            raise ProtocolFault("a frame is too large")
        return size

    def _keep(self, items: list[tuple[int, int, bytes]]) -> None:
        fds = array.array("i")
        for level, kind, data in items:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        self.received = list(fds)

    def _parse(self, data: memoryview) -> list[Any]:
        self._left = self._in.size if self._in is not None else 0
        frame = self._unpack(data, None)
        if len(frame) == 2 and type(frame[0]) is int and frame[0] & _BIG:
            kind, inner = frame[0] & ~_BIG, frame[1]
            if not isinstance(inner, bytes | memoryview):
                raise ProtocolFault("a large frame without its range")
            self._lists = MAX_LISTS
            frame = self._unpack(inner, self._count)
            if not frame or frame[0] != kind:
                raise ProtocolFault("a large frame is not what it was said to be")
        if not frame or type(frame[0]) is not int:
            raise ProtocolFault("a frame without a kind")
        return frame

    def _unpack(self, data: Any, hook: Callable[[list[Any]], list[Any]] | None) -> list[Any]:
        try:
            frame = msgpack.unpackb(
                data,
                raw=False,
                strict_map_key=True,
                max_map_len=0,
                max_ext_len=_RANGE.size,
                ext_hook=self._range,
                list_hook=hook,
                object_hook=_no_map,
            )
        except ProtocolFault:
            raise
        # What the package raises for bad input is of many kinds, and no kind of ours (IPC-01..05).
        except (
            ValueError,
            TypeError,
            msgpack.UnpackException,
            RecursionError,
            MemoryError,
        ) as exc:
            raise ProtocolFault(f"not msgpack: {type(exc).__name__}") from None
        if not isinstance(frame, list):
            raise ProtocolFault("a frame is an array")
        return frame

    def _count(self, items: list[Any]) -> list[Any]:
        self._lists -= 1
        if self._lists < 0:
            raise ProtocolFault(f"more than {MAX_LISTS} arrays in one frame")
        return items

    def _range(self, code: int, data: bytes) -> Any:
        if code != _EXT or len(data) != _RANGE.size or self._in is None:
            raise ProtocolFault("an extension that there is not")
        at, length = _RANGE.unpack(data)
        # All ranges of a frame together are no more than the window: each is copied (IPC-04).
        self._left -= length
        if at > self._in.size or length > self._in.size - at or self._left < 0:
            raise ProtocolFault("a range outside the window")
        return self._in.read(at, length)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
