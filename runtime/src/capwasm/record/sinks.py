"""Where the audit log's bytes go: a directory of segments, or memory.

A directory holds `000001.jsonl`, `000002.jsonl`, … (the highest is written to), `head.json` and
`lock`.  A segment is written at explicit offsets, so a write that was interrupted is simply done
again at the same place.  `head.json` says up to where the log has reached the disk: damage below
that mark is no accident, and what lies above it is cut back to the last whole record.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from dataclasses import dataclass, replace
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from capwasm._files import sync_directory, why
from capwasm.errors import AuditError

from ._chain import GENESIS, MAX_LINE, Head, parse
from ._read import SUFFIX, segments
from .retention import Keeping, Pruning, plan, remove

__all__ = [
    "FileSink",
    "Mark",
    "MemorySink",
    "Resume",
    "Segment",
    "Sink",
    "Written",
    "is_foreign",
    "read_mark",
]

HEAD_BYTES: Final = 512  # one sector, so that it is written whole
_LOG: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Mark:
    """What `head.json` holds: up to where the log is on the disk."""

    log: str
    segment: int
    size: int
    head: Head


@dataclass(frozen=True, slots=True)
class Resume:
    """Where an opened sink goes on.

    Attributes:
        log: the log's id, or empty for a new one.   head: the last whole record.
        size: bytes of the current segment that are kept.
        torn: bytes after them that were cut off.
        unmarked: whether records were there, but no mark.
        began: when the current segment was begun, in seconds since 1970, and its first record.
    """

    log: str = ""
    head: Head = GENESIS
    size: int = 0
    torn: int = 0
    unmarked: bool = False
    began: tuple[float, int] | None = None


class Segment(Protocol):
    """One file of the log."""

    number: int

    def write(self, data: bytes, at: int) -> None:
        """Put `data` at offset `at`, whole; doing it twice is doing it once.

        Raises:
            OSError: not all of it was written; what is beyond `at` means nothing.
        """

    def sync(self) -> None:
        """Bring all to the disk.

        Raises:
            OSError: it may not be there, and never will be.
        """


@dataclass(frozen=True, slots=True)
class Written:
    """Up to where a log is written.  One object, so that no interrupt sees half a change."""

    head: Head
    segment: Segment
    size: int


def is_foreign(exc: Exception) -> bool:
    """Whether a signal's handler has raised it (a `TimeoutError`, say), and no system call."""
    return isinstance(exc, OSError) and exc.errno is None


class Sink(Protocol):
    """A place that keeps segments.  Used under the log's own lock."""

    resume: Resume

    def current(self) -> Segment:
        """The segment to write to."""

    def rotate(self, number: int) -> Segment:
        """Begin segment `number`.  Called again with the same if the last call was interrupted."""

    def mark(self, mark: Mark) -> None:
        """Note that the log is on the disk up to here."""

    def outlived(self, keep: Keeping) -> Pruning | None:
        """The oldest segments that need no longer be kept.

        Raises:
            ValueError: they are damaged.
            OSError, AuditError: they can't be read.
        """

    def remove(self, pruning: Pruning) -> None:
        """Remove them.

        Raises:
            OSError: not all could be.
        """

    def close(self) -> None:
        """Let go.  The caller has synced."""


# -- memory ---------------------------------------------------------------------------------------


class _MemorySegment:
    def __init__(self, number: int) -> None:
        self.number = number
        self.data = bytearray()

    def write(self, data: bytes, at: int) -> None:
        self.data[at:] = data

    def sync(self) -> None:
        pass


class MemorySink:
    """Keeps the log in memory, for tests and for tools."""

    def __init__(self) -> None:
        """Empty."""
        self.resume = Resume()
        self.segments = [_MemorySegment(1)]
        self.marked: Mark | None = None

    @property
    def records(self) -> list[dict[str, Any]]:
        """All records written so far, each checked against its hash."""
        lines = (line for s in self.segments for line in bytes(s.data).splitlines(keepends=True))
        return [parse(line)[1] for line in lines]

    def current(self) -> Segment:
        """The newest segment."""
        return self.segments[-1]

    def rotate(self, number: int) -> Segment:
        """Add a segment."""
        self.segments = [*self.segments[: number - 1], _MemorySegment(number)]
        return self.segments[-1]

    def mark(self, mark: Mark) -> None:
        """Keep it."""
        self.marked = mark

    def outlived(self, keep: Keeping) -> None:
        """All is kept."""

    def remove(self, pruning: Pruning) -> None:
        """Never asked for."""

    def close(self) -> None:
        """Nothing to let go."""


# -- files ----------------------------------------------------------------------------------------


class _FileSegment:
    """Closes its file when nobody holds it any more: so an interrupt anywhere leaves no mess."""

    def __init__(self, path: Path, number: int) -> None:
        self.fd = -1
        self.number = number
        self.fd = _open(path, os.O_RDWR | os.O_CREAT)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def write(self, data: bytes, at: int) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self.fd, view, at)
            view, at = view[done:], at + done

    def sync(self) -> None:
        os.fdatasync(self.fd) if hasattr(os, "fdatasync") else os.fsync(self.fd)


class FileSink:
    """A directory of segments that one process at a time writes to."""

    def __init__(self, directory: str | PathLike[str]) -> None:
        """Open or make the directory (0700), lock it, and find where the log goes on.

        Raises:
            AuditError: `audit.sink` when it can't be used; `audit.busy` when another process has it;
                `audit.tampered` when records that had reached the disk are gone or changed.
        """
        if os.name != "posix":
            raise AuditError("audit files need flock, which this platform lacks")
        self.directory = Path(directory)
        self._fds: list[int] = []
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.directory.stat().st_mode & 0o002:
                raise AuditError(
                    "anyone may write it; run: chmod o-w on it", context=str(self.directory)
                )
            self._lock = self._keep(_open(self.directory / "lock", os.O_RDWR | os.O_CREAT))
            _lock_alone(self._lock, self.directory)
            marked = read_mark(self.directory)
            numbers = [n for n, _ in segments(self.directory)] or [1]
            self._segment = self._open(numbers[-1])
            self.resume = replace(self._recover(marked), began=self._began())
            os.ftruncate(self._segment.fd, self.resume.size)
            self._head = self._keep(_open(self.directory / "head.json", os.O_RDWR | os.O_CREAT))
            sync_directory(self.directory)
        except OSError as exc:
            self._let_go()
            raise AuditError(why(exc), context=str(self.directory)) from exc
        except BaseException:
            self._let_go()
            raise

    def current(self) -> Segment:
        """The segment with the highest number."""
        return self._segment

    def rotate(self, number: int) -> Segment:
        """Begin that segment.  Whoever holds the one before may go on with it, if interrupted."""
        if self._segment.number != number:
            self._segment = self._open(number)
        sync_directory(self.directory)
        return self._segment

    def mark(self, mark: Mark) -> None:
        """Overwrite `head.json` in place.  It follows the data to the disk, never leads it."""
        text = json.dumps(
            {
                "log": mark.log,
                "segment": mark.segment,
                "size": mark.size,
                "seq": mark.head.seq,
                "hash": mark.head.hash,
            }
        )
        os.pwrite(self._head, text.encode().ljust(HEAD_BYTES - 1) + b"\n", 0)

    def outlived(self, keep: Keeping) -> Pruning | None:
        """As `retention.plan`."""
        return plan(self.directory, keep)

    def remove(self, pruning: Pruning) -> None:
        """As `retention.remove`."""
        remove(self.directory, pruning.segments)

    def close(self) -> None:
        """Close all files, and with them the lock."""
        self._segment.close()
        self._let_go()

    def _let_go(self) -> None:
        while self._fds:
            with contextlib.suppress(OSError):
                os.close(self._fds.pop())

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _open(self, number: int) -> _FileSegment:
        return _FileSegment(self.directory / f"{number:06d}{SUFFIX}", number)

    def _recover(self, mark: Mark | None) -> Resume:
        """Find the last whole record; see the module's first lines for the rule."""
        fd, number = self._segment.fd, self._segment.number
        size = os.fstat(fd).st_size
        if mark is None:
            kept, head, log = _scan(fd, 0, GENESIS if number == 1 else None)
            # Without a mark only a log that never held a whole record may be begun again.
            if kept == 0 and (number > 1 or b"\n" in os.pread(fd, MAX_LINE, 0)):
                self._tampered("head.json is gone, and the chain can't be picked up")
            return Resume(log, head or GENESIS, kept, torn=size - kept, unmarked=kept > 0)
        begin = 0
        if mark.segment == number:
            begin = mark.size
            self._check_mark(fd, mark)
        elif mark.segment == number - 1:  # killed just after a new segment was begun
            self._check_old(mark)
        else:
            self._tampered(f"segment {mark.segment} is gone, or others were added")
        kept, head, _ = _scan(fd, begin, mark.head)
        return Resume(mark.log, head or mark.head, kept, torn=size - kept)

    def _began(self) -> tuple[float, int] | None:
        """When the current segment was begun; now, if its first record does not say."""
        line, _, _ = os.pread(self._segment.fd, MAX_LINE, 0).partition(b"\n")
        try:
            sealed, fields = parse(line + b"\n")
            when = datetime.fromisoformat(str(fields["time"])[:19] + "Z")
        except (ValueError, KeyError):
            return None
        return when.timestamp(), sealed.seq

    def _check_old(self, mark: Mark) -> None:
        with contextlib.closing(_Fd(self.directory / f"{mark.segment:06d}{SUFFIX}")) as old:
            self._check_mark(old.fd, mark)

    def _check_mark(self, fd: int, mark: Mark) -> None:
        """Pass if the record that ends at the mark is the one it names."""
        first = max(0, mark.size - MAX_LINE)
        lines = os.pread(fd, mark.size - first, first).splitlines(keepends=True)
        try:
            if first + sum(map(len, lines)) != mark.size:
                raise ValueError("the file is shorter")
            sealed, _ = parse(lines[-1])
            if sealed.head != mark.head:
                raise ValueError("another record is there")
        except (ValueError, IndexError) as exc:
            self._tampered(f"record {mark.head.seq} reached the disk, but is not there: {exc}")

    def _tampered(self, message: str) -> NoReturn:
        raise AuditError(
            f"{message}.  Run `capwasm audit verify`; to begin a new log, move this one away",
            code="audit.tampered",
            context=str(self.directory),
        )


class _Fd:
    def __init__(self, path: Path) -> None:
        self.fd = _open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.fd)


def _scan(fd: int, at: int, head: Head | None) -> tuple[int, Head | None, str]:
    """Follow the chain from `at`; return where it ends, its head there, and the log's id."""
    log = ""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(at)
        while line := file.readline(MAX_LINE):
            try:
                sealed, fields = parse(line)
            except ValueError:
                break
            if head is not None and (sealed.seq, fields["prev"]) != (head.seq + 1, head.hash):
                break
            head, at = sealed.head, at + len(line)
            details = fields.get("details")
            found = details.get("log") if isinstance(details, dict) else None
            log = log or (found if isinstance(found, str) and _LOG.fullmatch(found) else "")
    return at, head, log


def _open(path: Path, flags: int) -> int:
    # O_NOFOLLOW: nobody can have the log written elsewhere.  O_NONBLOCK: a FIFO does not hang.
    more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    fd = os.open(path, flags | more, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AuditError("not a regular file", context=str(path))
    return fd


def _lock_alone(fd: int, directory: Path) -> None:
    import fcntl

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AuditError(
            "another runtime writes this log; give each its own directory",
            code="audit.busy",
            context=str(directory),
        ) from None


# -- reading --------------------------------------------------------------------------------------


def read_mark(directory: Path) -> Mark | None:
    """What `head.json` says, or None when it is missing or unreadable."""
    try:
        with contextlib.closing(_Fd(directory / "head.json")) as file:
            data = json.loads(os.pread(file.fd, HEAD_BYTES, 0))
        mark = Mark(data["log"], data["segment"], data["size"], Head(data["seq"], data["hash"]))
    except (OSError, AuditError, ValueError, TypeError, KeyError, RecursionError):
        return None
    numbers = (mark.segment, mark.size, mark.head.seq)
    texts = (mark.log, mark.head.hash)
    plain = all(type(n) is int and 0 <= n < 2**62 for n in numbers) and all(
        type(t) is str for t in texts
    )
    return mark if plain else None
