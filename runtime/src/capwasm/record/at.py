"""Finds one record of an audit log by its number: by halving, so that it costs the same in any log."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from ._chain import MAX_LINE, parse
from ._read import end_of_lines, open_segment, segments_of

__all__ = ["record_at"]


def record_at(directory: str | PathLike[str], seq: int) -> tuple[dict[str, Any], str] | None:
    """A record by its number, with its line as it stands; None if it is not there.

    A line whose own hash does not hold comes as `{"broken": why}`; where it would stand is found by
    its neighbours.

    Raises:
        AuditError: there is no log to read.
    """
    for _, path in reversed(segments_of(Path(directory))):
        with open_segment(path) as file:
            end = end_of_lines(file)
            first = _number(file, 0, end)
            if first is None or first > seq:
                continue
            return _from(file, _place(file, seq, end), end, seq)
    return None


def _from(file: BinaryIO, at: int, end: int, seq: int) -> tuple[dict[str, Any], str] | None:
    """The record of that number, which stands here or behind lines that are broken."""
    broken: tuple[dict[str, Any], str] | None = None
    file.seek(at)
    while at < end and (line := file.readline(MAX_LINE)):
        at += len(line)
        try:
            sealed, fields = parse(line)
        except ValueError as exc:
            text = line.decode("ascii", "replace").rstrip()
            broken = broken or ({"broken": str(exc)}, text)
            continue
        return (fields, line.decode("ascii").rstrip()) if sealed.seq == seq else broken
    return broken


def _number(file: BinaryIO, at: int, end: int) -> int | None:
    """The number of the first sound record from there on, or None."""
    file.seek(at)
    while at < end and (line := file.readline(MAX_LINE)):
        at += len(line)
        try:
            return parse(line)[0].seq
        except ValueError:
            continue
    return None


def _place(file: BinaryIO, seq: int, end: int) -> int:
    """Where the line begins that follows the last record below `seq`; `end` if all are below."""
    low, high = 0, end  # lines that begin before `low` are below; from `high` on they are not
    while low < high:
        begin = _line_at(file, (low + high) // 2, low)
        found = _number(file, begin, high)
        if found is None or found >= seq:
            high = begin
            continue
        file.seek(begin)
        low = begin
        while low < high:  # past the sound record that was found, and what is broken before it
            line = file.readline(MAX_LINE)
            low += len(line)
            try:
                parse(line)
            except ValueError:
                continue
            break
    return low


def _line_at(file: BinaryIO, at: int, least: int) -> int:
    """The beginning of the line that holds that byte."""
    begin = max(least, at - MAX_LINE)
    cut = os.pread(file.fileno(), at - begin, begin).rfind(b"\n")
    return begin + cut + 1
