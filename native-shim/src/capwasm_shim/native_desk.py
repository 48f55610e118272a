"""What the functions of a native plugin's tables work on: its lane, its handles, and raw memory.

What comes from the plugin is checked as far as an honest mistake goes, so that the mistake is an error
of that function.  A pointer that points nowhere ends the process: it is the plugin's own.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from .frames import Lane
from .native_abi import BAD_ARGUMENT, TOO_LARGE

__all__ = ["Desk", "Refusal", "address_of", "view_of"]

_COPY_BYTES: Final = 8 * 1024  # below it one copy more costs less than a view
_READ_ONLY: Final = 0x100  # PyBUF_READ


class Refusal(Exception):
    """The function returns `status`; nothing was asked."""

    def __init__(self, status: int) -> None:
        """Keep it."""
        self.status = status


class Desk:
    """What the functions of one process share.

    Attributes:
        lane: where to ask.
        limit: bytes that one question can carry.
        kept: what the last answer's pointers point at.
        live: kind of each handle that the plugin holds.
        drops: handles that it gave up since the last frame.
    """

    def __init__(self, lane: Lane, limit: int) -> None:
        """Hold nothing yet."""
        self.lane = lane
        self.limit = limit
        self.kept: list[Any] = []
        self.live: dict[int, str] = {}
        self.drops: list[int] = []

    def text(self, at: int | None, size: int) -> str:
        """Text of the plugin's."""
        return self.copy(at, size).decode()

    def copy(self, at: int | None, size: int) -> bytes:
        """Bytes of the plugin's."""
        if not size:
            return b""
        if at is None:
            raise Refusal(BAD_ARGUMENT)
        if size > self.limit:
            raise Refusal(TOO_LARGE)
        return ctypes.string_at(at, size)

    def bulk(self, at: int | None, size: int) -> Any:
        """What stands for bytes of the plugin's in a frame."""
        if size < _COPY_BYTES or at is None or size > self.limit:
            return self.copy(at, size)
        try:
            return self.lane.put(view_of(at, size))
        except ValueError:
            raise Refusal(TOO_LARGE) from None

    def array(self, at: int | None, count: int, row: type[ctypes.Structure]) -> Any:
        """An array of the plugin's."""
        if not count:
            return ()
        if at is None:
            raise Refusal(BAD_ARGUMENT)
        if count > self.limit // ctypes.sizeof(row):
            raise Refusal(TOO_LARGE)
        return (row * count).from_address(at)

    def keep(self, data: bytes | memoryview) -> Any:
        """Keep what a pointer will point at; what to assign to the pointer."""
        self.kept.append(data)
        return data if isinstance(data, bytes) else address_of(data)


class _Buffer(ctypes.Structure):
    """`Py_buffer` of Python's C API."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.POINTER(_Buffer),)
_release.restype = None
_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view.restype = ctypes.py_object


def address_of(data: memoryview) -> int:
    """Where the bytes of a view are; whoever asks keeps the view.

    ctypes itself gives no address of memory that is read-only, as a window's is.
    """
    buffer = _Buffer()
    _get(data, buffer, 0)
    try:
        return int(buffer.buf)
    finally:
        _release(buffer)


def view_of(at: int, size: int) -> memoryview:
    """A read-only view of memory that stays where it is for as long as the view is used."""
    found: memoryview = _view(at, size, _READ_ONLY)
    return found
