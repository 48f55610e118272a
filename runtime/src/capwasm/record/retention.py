"""What of a log need no longer be kept: whole segments, the oldest first, and never the newest.

Before a segment goes, a signed `retention` record says up to where, by number and hash.  So a log
that begins there verifies, and one that begins anywhere later does not.  A crash in between leaves
segments that the record speaks of; they are looked at again when the log is opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from capwasm._files import sync_directory

from ._chain import MAX_LINE, Head, parse
from ._read import backwards, end_of_lines, open_segment, segments_of

__all__ = ["Keeping", "Pruning", "plan", "remove"]

FORM: Final = "%Y-%m-%dT%H:%M:%S"


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long and how much is kept.

    Attributes:
        days: since the newest record of a segment; 0 is for ever.
        bytes: of all segments together; 0 is without end.
    """

    days: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Pruning:
    """What is to be removed, or was.

    Attributes:
        segments: their numbers.   bytes: what they take.
        first: the number of the first record that goes.   upto: the last, with its hash.
        why: `age` or `size`.
    """

    segments: tuple[int, ...]
    bytes: int
    first: int
    upto: Head
    why: str


def plan(directory: Path, keep: Keeping, now: datetime | None = None) -> Pruning | None:
    """What `keep` lets go, or None.

    Raises:
        ValueError: what would have to go, or what follows it, is damaged: nobody prunes evidence.
        AuditError: it can't be read.
        OSError: likewise.
    """
    if not keep.days and not keep.bytes:
        return None
    files = segments_of(directory)
    sizes = {number: path.stat().st_size for number, path in files}
    limit = ""
    if keep.days:
        limit = ((now or datetime.now(UTC)) - timedelta(days=keep.days)).strftime(FORM)
    total = sum(sizes.values())
    gone: list[tuple[int, Path]] = []
    why = "age"
    for number, path in files[:-1]:
        if keep.bytes and total > keep.bytes:
            why = "size"
        elif not limit or _newest(path)[1] >= limit:
            break
        gone.append((number, path))
        total -= sizes[number]
    if not gone:
        return None
    upto, _ = _newest(gone[-1][1])
    with open_segment(gone[0][1]) as file:
        first, _ = _parsed(file.readline(MAX_LINE), gone[0][1])
    with open_segment(files[len(gone)][1]) as file:
        after, prev = _parsed(file.readline(MAX_LINE), files[len(gone)][1])
    if (after.seq, prev) != (upto.seq + 1, upto.hash) or first.seq > upto.seq:
        raise ValueError(f"{files[len(gone)][1].name} does not follow the segment before it")
    numbers = tuple(number for number, _ in gone)
    return Pruning(numbers, sum(sizes[n] for n in numbers), first.seq, upto, why)


def remove(directory: Path, numbers: Sequence[int]) -> None:
    """Remove these segments, the oldest first, so that what is left is whole at each moment.

    Raises:
        OSError: not all could be removed.
    """
    for number, path in segments_of(directory):
        if number in numbers:
            path.unlink()
    sync_directory(directory)


def _newest(path: Path) -> tuple[Head, str]:
    """The last record of a segment, and when it was made."""
    with open_segment(path) as file:
        line = _last_line(file)
    head, _ = _parsed(line, path)
    return head, str(parse(line)[1].get("time"))


def _last_line(file: BinaryIO) -> bytes:
    end = end_of_lines(file)
    if end != os.fstat(file.fileno()).st_size:
        return b""
    return next((line for _, line in backwards(file, end)), b"")


def _parsed(line: bytes, path: Path) -> tuple[Head, str]:
    try:
        sealed, fields = parse(line)
    except ValueError as exc:
        raise ValueError(f"{path.name} is damaged: {exc}") from None
    return sealed.head, fields["prev"]
