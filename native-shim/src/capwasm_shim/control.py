"""The socket between the host and its fork server: one msgpack array a datagram, with descriptors.

Both ends are trusted, and each is the other's only peer; so what is malformed here is a defect and no
attack.  It is refused all the same, and its descriptors are closed.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

import msgpack

__all__ = ["MAX_FDS", "MAX_MESSAGE", "Malformed", "pack", "receive", "send"]

MAX_FDS: Final = 250
"""Descriptors that come with one message at most; the kernel takes 253."""

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of one message at most."""

_FD: Final = array.array("i").itemsize
_ROOM: Final = socket.CMSG_SPACE(253 * _FD)


class Malformed(Exception):
    """A message that is none, or that lost its descriptors.

    Attributes:
        message: what it said, if that can be told; else empty.
    """

    def __init__(self, text: str, message: Sequence[Any] = ()) -> None:
        """Keep both."""
        super().__init__(text)
        self.message = message


def pack(message: Sequence[Any]) -> bytes:
    """The datagram of a message.

    Raises:
        ValueError: it is too large.
        TypeError: it holds what msgpack has no word for.
    """
    data = msgpack.packb(message)
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(data)} bytes, over {MAX_MESSAGE}")
    return bytes(data)


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one datagram, or none if it would have to wait.

    Raises:
        OSError: as of `sendmsg`.
    """
    rights = array.array("i", fds).tobytes()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if fds else []
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def receive(sock: socket.socket) -> tuple[list[Any], list[int]]:
    """The next message and the descriptors that came with it, which are the caller's to close.

    Raises:
        EOFError: the other end is gone.
        Malformed: it is no message; its descriptors are closed.
        OSError: as of `recvmsg`.
    """
    try:
        data, items, flags, _ = _take(sock)
    except ConnectionResetError:
        # The kernel tells first that the other end left something unread, and then what it had said.
        try:
            data, items, flags, _ = _take(sock)
        except OSError:
            raise EOFError from None
    except BrokenPipeError:
        raise EOFError from None
    fds = array.array("i")
    for level, kind, payload in items:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % _FD])
    try:
        if not data:
            raise EOFError
        message = _parse(data)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Malformed("no descriptors are left", message)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return message, list(fds)


def _take(sock: socket.socket) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
    return sock.recvmsg(MAX_MESSAGE + 1, _ROOM, socket.MSG_CMSG_CLOEXEC)


def _parse(data: bytes) -> list[Any]:
    try:
        message = msgpack.unpackb(data)
    # What the package raises for bad input is of many kinds, and no kind of ours.
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as exc:
        raise Malformed(f"not msgpack: {type(exc).__name__}") from None
    if not isinstance(message, list) or not message or type(message[0]) is not int:
        raise Malformed("a message is an array that begins with its kind")
    return message
