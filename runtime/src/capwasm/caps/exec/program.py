"""The operator's program, as it lies on the disk: what it is, and whether it is to be believed.

It is opened and judged anew for each run.  What is executed is then compared with what was judged
(`capwasm_shim.execute`), so nothing can take its place in between; and a program that the system's
updates have replaced is the new one from the next run on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from capwasm.caps._paths import MAX_PATH, host_path_fault

__all__ = ["Identity", "Program", "Unusable", "identity", "opened"]

Identity = tuple[int, int]
"""Device and inode."""

_ELF: Final = b"\x7fELF"
_HEADER: Final = struct.Struct("=16sHHIQQQIHHHHHH")  # Elf64_Ehdr, elf(5)
_SEGMENT: Final = struct.Struct("=IIQQQQQQ")  # Elf64_Phdr
_PT_INTERP: Final = 3
_MAX_SEGMENTS: Final = 256
_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class Unusable(Exception):
    """A program or a path can't be used; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Program:
    """An open program that may be run.

    Attributes:
        fd: of the file that was judged.
        real: where that lies, all links followed.
        loader: the path of its dynamic loader, or None if it is linked statically.
    """

    fd: int
    real: str
    loader: str | None

    @property
    def identity(self) -> Identity:
        """What the file is, whatever it is called."""
        return identity(os.fstat(self.fd))


def identity(info: os.stat_result) -> Identity:
    """Device and inode of a file."""
    return info.st_dev, info.st_ino


@contextlib.contextmanager
def opened(path: str) -> Iterator[Program]:
    """The program at an absolute path, whose links are the operator's own and are followed.

    Raises:
        Unusable: it is gone; is no regular file; gives rights of its own (setuid, setgid, file
            capabilities); could be changed by others than root and this user, itself or any directory
            above it; or is no binary for this machine, such as a script.
    """
    fd = _judge(path)
    try:
        loader = _loader(fd, path)
        if loader is not None:
            os.close(_judge(loader))
        yield Program(fd, _real(fd), loader)
    finally:
        os.close(fd)


def _judge(path: str) -> int:
    """A descriptor of the file, if it may be run."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as exc:
        raise Unusable(f"{path} can't be opened: {exc.strerror}") from None
    try:
        _check(path, fd)
    except OSError as exc:
        os.close(fd)
        raise Unusable(f"{path} can't be judged: {exc.strerror}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(path: str, fd: int) -> None:
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise Unusable(f"{path} is no regular file")
    if info.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise Unusable(f"{path} runs with the rights of its owner or group (setuid, setgid)")
    if _has_capabilities(fd):
        raise Unusable(f"{path} has file capabilities, which give it rights of its own")
    place = _real(fd)
    _check_owner(place, info)
    while place != "/":
        place = os.path.dirname(place)  # noqa: PTH120  text
        _check_owner(place, os.stat(place))  # noqa: PTH116  text


def _real(fd: int) -> str:
    real = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115  no path, but a window of the kernel
    if (fault := host_path_fault(real)) is not None:
        raise Unusable(f"{real!a} {fault}")
    return real


def _check_owner(path: str, info: os.stat_result) -> None:
    """Pass if nobody but root and this user can put something else there."""
    writable = info.st_mode & _WRITE
    if info.st_gid == 0:
        writable &= ~stat.S_IWGRP  # root's own group
    if info.st_mode & stat.S_ISVTX and stat.S_ISDIR(info.st_mode):
        writable = 0  # a name in there is its owner's alone to take away: /tmp
    if writable or info.st_uid not in {0, os.geteuid()}:
        raise Unusable(
            f"others can change {path} (mode {stat.S_IMODE(info.st_mode):04o}, uid {info.st_uid}, gid"
            f" {info.st_gid})"
        )


def _has_capabilities(fd: int) -> bool:
    try:
        return bool(os.getxattr(fd, "security.capability"))
    except OSError as exc:
        if exc.errno in {errno.ENODATA, errno.EOPNOTSUPP}:
            return False
        raise


def _loader(fd: int, path: str) -> str | None:
    """What the kernel would start in the program's place, as the file itself says."""
    try:
        return _interpreter(fd, path)
    except OSError as exc:
        raise Unusable(f"{path} can't be read: {exc.strerror}") from None


def _interpreter(fd: int, path: str) -> str | None:
    head = os.pread(fd, _HEADER.size, 0)
    if head[:2] == b"#!":
        raise Unusable(
            f"{path} is a script: name its interpreter as the program, and the script as its first"
            " argument and in reads"
        )
    # The magic, the class and the byte order; and the processor.
    ours = _own_header()
    if len(head) < _HEADER.size or (head[:6], head[18:20]) != (ours[:6], ours[18:20]):
        raise Unusable(f"{path} is no binary for this machine")
    _, _, _, _, _, start, _, _, _, size, count, *_ = _HEADER.unpack(head)
    if size != _SEGMENT.size or count > _MAX_SEGMENTS:
        raise Unusable(f"{path} is no binary for this machine")
    for index in range(count):
        segment = os.pread(fd, size, start + index * size)
        if len(segment) != size:
            raise Unusable(f"{path} is cut off")
        kind, _, offset, _, _, length, _, _ = _SEGMENT.unpack(segment)
        if kind == _PT_INTERP:
            loader = os.fsdecode(os.pread(fd, min(length, MAX_PATH), offset).rstrip(b"\0"))
            if (fault := host_path_fault(loader)) is not None:
                raise Unusable(f"{path}: its loader {loader!a} {fault}")
            return loader
    return None


@functools.cache
def _own_header() -> bytes:
    """The header of the program that we are: what runs here."""
    fd = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, _HEADER.size, 0)
    finally:
        os.close(fd)
