"""Looks backwards through an audit log: the newest records that fit, page by page.

A page costs no more than it looks at: where a record stands is found by halving, then the lines
before it are read block by block, and after so many of them the answer says where to go on.  Nothing
is held against the chain here, for that is `verify_log`'s; but a line whose own hash does not hold
comes as `{"broken": why}`, whatever was looked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Final

from ._audit_check import _end_of_lines, _open, _segments
from ._chain import MAX_LINE, parse

__all__ = ["Found", "find_record", "search"]

BLOCK: Final = 64 * 1024
MOST_LOOKED: Final = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """One page of an audit log.

    Attributes:
        records: the newest first.
        looked: how many lines were read.
        older: pass this as `before` for the next page; None at the beginning of the log.
    """

    records: tuple[dict[str, Any], ...]
    looked: int
    older: int | None


def search(
    directory: str | PathLike[str],
    *,
    before: int | None = None,
    count: int = 50,
    wanted: Callable[[dict[str, Any]], bool] = lambda _record: True,
    looked_at: int = MOST_LOOKED,
) -> Found:
    """The newest records that fit, before a number.

    Args:
        directory: of the log.
        before: only records of a lower number; None for all.
        count: how many at most.
        wanted: asked of each record that is whole.
        looked_at: lines that are read at most.

    Raises:
        AuditError: there is no log to read.
    """
    found: list[dict[str, Any]] = []
    looked, last = 0, before
    for record in _backwards(Path(directory), before):
        if looked >= looked_at or len(found) >= count:
            return Found(tuple(found), looked, last)
        looked += 1
        seq = record.get("seq")
        last = seq if isinstance(seq, int) else None if last is None else last - 1
        if "broken" in record or wanted(record):
            found.append(record)
    return Found(tuple(found), looked, None)


def find_record(directory: str | PathLike[str], seq: int) -> tuple[dict[str, Any], str] | None:
    """A record by its number, and its line as it stands; None if it is not there.

    Raises:
        AuditError: there is no log to read.
    """
    for _, path in reversed(_segments(Path(directory))):
        with _open(path) as file:
            end = _end_of_lines(file)
            if end == 0 or (first := _first(file, 0, end)) is None or first > seq:
                continue
            place = _place(file, seq, end)
            if place >= end:
                return None
            file.seek(place)
            line = file.readline(MAX_LINE)
            try:
                sealed, fields = parse(line)
            except ValueError as exc:
                return {"broken": str(exc), "seq": seq}, line.decode("ascii", "replace").rstrip()
            if sealed.seq == seq:
                return fields, line.decode("ascii").rstrip()
            return None
    return None


def _backwards(directory: Path, before: int | None) -> Iterator[dict[str, Any]]:
    for _, path in reversed(_segments(directory)):
        with _open(path) as file:
            end = _end_of_lines(file)
            if end and before is not None:
                first = _first(file, 0, end)
                if first is not None and first >= before:
                    continue
                end = _place(file, before, end)
            for line in _lines_back(file, end):
                yield _record(line)


def _first(file: BinaryIO, at: int, end: int) -> int | None:
    """The number of the first whole record from there on, or None."""
    file.seek(at)
    while at < end and (line := file.readline(MAX_LINE)):
        at += len(line)
        try:
            return parse(line)[0].seq
        except ValueError:
            continue
    return None


def _place(file: BinaryIO, seq: int, end: int) -> int:
    """Where the first record of at least that number begins; `end` if there is none."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        begin = _line_at(file, middle, low)
        found = _first(file, begin, high)
        if found is None or found >= seq:
            high = begin if begin < high else low
            if begin == low:
                break
        else:
            file.seek(begin)
            begin += len(file.readline(MAX_LINE))
            low = max(begin, low + 1)
    return low


def _line_at(file: BinaryIO, at: int, least: int) -> int:
    """The beginning of the line that holds that byte."""
    begin = max(least, at - MAX_LINE)
    block = os.pread(file.fileno(), at - begin, begin)
    cut = block.rfind(b"\n")
    return begin + cut + 1 if cut >= 0 else begin


def _lines_back(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The lines before `end`, the last first; one too long to be a record comes in pieces."""
    rest = b""
    while end > 0:
        begin = max(0, end - BLOCK)
        block = os.pread(file.fileno(), end - begin, begin) + rest
        end = begin
        lines = block.splitlines(keepends=True)
        rest = b"" if begin == 0 else lines.pop(0)
        yield from reversed(lines)
        if len(rest) > MAX_LINE:
            yield rest
            rest = b""


def _record(line: bytes) -> dict[str, Any]:
    try:
        return parse(line)[1]
    except ValueError as exc:
        return {"broken": str(exc)}
