"""What `wasi:filesystem` shares with its streams: the words for a failure, and the open file."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from capwasm.caps.fs.faults import FsError
from capwasm.caps.fs.handle import Dir, File
from capwasm.errors import CapError

from .io import InputStream, OutputStream

__all__ = ["ERROR_CODES", "FAMILY", "FileInput", "FileOutput", "Shared", "answers"]

FAMILY = "filesystem"
"""Marks the stream errors whose word is an `error-code` of `wasi:filesystem`."""

ERROR_CODES: dict[int, str] = {
    errno.EACCES: "access",
    errno.EAGAIN: "would-block",
    errno.EALREADY: "already",
    errno.EBADF: "bad-descriptor",
    errno.EBUSY: "busy",
    errno.EDEADLK: "deadlock",
    errno.EDQUOT: "quota",
    errno.EEXIST: "exist",
    errno.EFBIG: "file-too-large",
    errno.EILSEQ: "illegal-byte-sequence",
    errno.EINPROGRESS: "in-progress",
    errno.EINTR: "interrupted",
    errno.EINVAL: "invalid",
    errno.EIO: "io",
    errno.EISDIR: "is-directory",
    errno.ELOOP: "loop",
    errno.EMLINK: "too-many-links",
    errno.EMSGSIZE: "message-size",
    errno.ENAMETOOLONG: "name-too-long",
    errno.ENODEV: "no-device",
    errno.ENOENT: "no-entry",
    errno.ENOLCK: "no-lock",
    errno.ENOMEM: "insufficient-memory",
    errno.ENOSPC: "insufficient-space",
    errno.ENOTDIR: "not-directory",
    errno.ENOTEMPTY: "not-empty",
    errno.ENOTRECOVERABLE: "not-recoverable",
    errno.EOPNOTSUPP: "unsupported",
    errno.ENOSYS: "unsupported",
    errno.ENOTTY: "no-tty",
    errno.ENXIO: "no-such-device",
    errno.EOVERFLOW: "overflow",
    errno.EPERM: "not-permitted",
    errno.EPIPE: "pipe",
    errno.EROFS: "read-only",
    errno.ESPIPE: "invalid-seek",
    errno.ETXTBSY: "text-file-busy",
    errno.EXDEV: "cross-device",
}
"""errno to `error-code`; whatever is not here is `io`."""

ResultT = TypeVar("ResultT")


def _word(exc: CapError) -> str:
    """The `error-code` of a failure in `caps.fs`."""
    if isinstance(exc, FsError):
        # The WIT text asks for EROFS where the system's own word would be EPERM.
        return "read-only" if exc.reason == "read-only" else ERROR_CODES.get(exc.errno, "io")
    return "bad-descriptor" if exc.word == "closed" else exc.word


def answers(function: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """The function, with its failures in WASI's words."""

    @functools.wraps(function)
    def call(*args: Any) -> ResultT:
        try:
            return function(*args)
        except CapError as exc:
            raise CapError(_word(exc), exc.detail) from None

    return call


class Shared:
    """An open file or directory that a descriptor and its streams hold together.

    WIT lets a guest drop them in any order; the last one closes the file.  A mount's own directory
    is `kept`: the capability closes it, and no guest can.
    """

    __slots__ = ("holders", "node")

    def __init__(self, node: Dir | File, *, kept: bool = False) -> None:
        """Nobody holds it yet, or the capability does."""
        self.node = node
        self.holders = 1 if kept else 0

    def hold(self) -> None:
        """One more holder."""
        self.holders += 1

    def let_go(self) -> None:
        """One fewer; the last one closes it."""
        self.holders -= 1
        if self.holders == 0:
            self.node.close()


class FileInput(InputStream):
    """A file's bytes from an offset on."""

    __slots__ = ("_offset", "_shared")

    family = FAMILY

    def __init__(self, shared: Shared, offset: int) -> None:
        """Read from `offset` on."""
        super().__init__(shared.node.lease)
        self._shared = shared
        self._offset = offset
        shared.hold()

    def pull(self, length: int) -> bytes | None:
        """The next bytes; None at the end of the file."""
        assert isinstance(self._shared.node, File)
        try:
            data = self._shared.node.read(self._offset, length)
        except FsError as exc:
            raise CapError(_word(exc), exc.detail) from None
        self._offset += len(data)
        return data or None

    def release(self) -> None:
        """Let go of the file."""
        self._shared.let_go()


class FileOutput(OutputStream):
    """A file, written from an offset on or at its end."""

    __slots__ = ("_offset", "_shared")

    family = FAMILY

    def __init__(self, shared: Shared, offset: int | None) -> None:
        """Write at `offset`, or at the end if it is None."""
        super().__init__(shared.node.lease)
        self._shared = shared
        self._offset = offset
        shared.hold()

    def push(self, data: bytes) -> None:
        """Write all of it."""
        assert isinstance(self._shared.node, File)
        try:
            if self._offset is None:
                self._shared.node.append(data)
            else:
                self._shared.node.write(self._offset, data)
                self._offset += len(data)
        except FsError as exc:
            raise CapError(_word(exc), exc.detail) from None

    def release(self) -> None:
        """Let go of the file."""
        self._shared.let_go()
