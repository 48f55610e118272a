"""Reads the segments of a log that is not trusted, and that may be written to meanwhile."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from capwasm.errors import AuditError

from ._chain import MAX_LINE

__all__ = [
    "POLL_SECONDS",
    "SUFFIX",
    "backwards",
    "end_of_lines",
    "lines_of",
    "open_segment",
    "segments",
    "segments_of",
]

SUFFIX: Final = ".jsonl"
POLL_SECONDS: Final = 0.2
BLOCK: Final = 2 * MAX_LINE


def segments(directory: Path) -> list[tuple[int, Path]]:
    """The segments of a log, oldest first; none if there are none.

    Raises:
        OSError: the directory can't be read.
    """
    found = [
        (int(path.stem), path)
        for path in directory.iterdir()
        if path.suffix == SUFFIX and path.stem.isdecimal() and path.stem.isascii()
    ]
    return sorted(found)


def segments_of(directory: Path) -> list[tuple[int, Path]]:
    """Number and path of each segment, the oldest first; at least one.

    Raises:
        AuditError: there is no log to read.
    """
    try:
        found = segments(directory)
    except OSError as exc:
        raise AuditError(
            f"can't be read: {exc.strerror}", context=ascii(str(directory))[1:-1]
        ) from exc
    if not found:
        raise AuditError("no audit log is here", context=ascii(str(directory))[1:-1])
    return found


def open_segment(path: Path) -> BinaryIO:
    """A segment, to be read; neither a link nor a FIFO.

    Raises:
        AuditError: it can't be read; from a `FileNotFoundError` if it is not there (any more).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise AuditError(f"can't be read: {exc.strerror}", context=path.name) from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AuditError("not a regular file", context=path.name)
    return os.fdopen(fd, "rb")


def lines_of(
    file: BinaryIO, size: int, at: int = 0, *, patient: bool = False
) -> Iterator[tuple[int, bytes]]:
    """The lines from `at` to `size`, each with the byte at which it begins.

    Of one that is longer than a record can be only the beginning is held.  With `patient`, a last
    line that is incomplete is given a moment: it may be in the making.
    """
    file.seek(at)
    while at < size and (line := file.readline(MAX_LINE)):
        begin, at = at, at + len(line)
        if not line.endswith(b"\n"):
            if len(line) == MAX_LINE:
                rest = line
                while not rest.endswith(b"\n") and (rest := file.readline(MAX_LINE)):
                    at += len(rest)
            elif patient:
                time.sleep(POLL_SECONDS)
                line += file.readline(MAX_LINE)
        yield begin, line


def end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line ends."""
    size = os.fstat(file.fileno()).st_size
    first = max(0, size - MAX_LINE)
    return first + os.pread(file.fileno(), size - first, first).rfind(b"\n") + 1


def backwards(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines before `end`, the last first, each with the byte at which it begins.

    One block is held.  Of a line that is longer than a record can be only its end is.
    """
    at, rest = end, b""
    while at > 0:
        size = min(BLOCK, at)
        at -= size
        data = os.pread(file.fileno(), size, at) + rest
        parts = data.removesuffix(b"\n").split(b"\n")
        begin = at + sum(map(len, parts)) + len(parts)
        whole = parts if at == 0 else parts[1:]
        for part in reversed(whole):
            begin -= len(part) + 1
            yield begin, part + b"\n"
        rest = b"" if at == 0 else parts[0][-MAX_LINE:] + b"\n"
