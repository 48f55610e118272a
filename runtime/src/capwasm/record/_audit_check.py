"""Verifies the chain of an audit log that it does not trust."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._chain import GENESIS, Head, anchor_message, parse
from ._read import lines_of, open_segment, segments_of
from .sinks import read_mark

if TYPE_CHECKING:
    from capwasm.capsule.keys import PublicKey

__all__ = ["Problem", "Report", "verify_log"]

MAX_PROBLEMS: Final = 100
MAX_GAPS: Final = 100
GAP_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """One place where the log is not what it was.

    Attributes:
        segment: the file's name.   line: its line, from 1; 0 for the whole.
        seq: the record there or expected there, or None when it can't be told.
        message: what is wrong.
    """

    segment: str
    line: int
    seq: int | None
    message: str

    def __str__(self) -> str:
        """One line for a person."""
        where = f"{self.segment}:{self.line}" if self.line else self.segment
        return f"{where}: " + (f"record {self.seq}: " if self.seq else "") + self.message


@dataclass(slots=True)
class Report:
    """What `verify_log` found.

    Attributes:
        records: lines read.   first: number of the first record; past 1 when older segments were
            archived.   head: the newest record.   segments: files read.
        anchors: anchors in the chain.   signed: those with a good signature by a key given.
        signed_to: the newest record that such a signature covers: up to there nobody without the
            key can have changed anything.
        gaps: the first records of the log itself that say that something is missing or was
            refused.   gap_count: how many there are.
        problems: the first of all that is wrong, in order.   count: how many there are.
    """

    records: int = 0
    first: int = 0
    head: Head = GENESIS
    segments: int = 0
    anchors: int = 0
    signed: int = 0
    signed_to: int = 0
    gaps: list[str] = field(default_factory=list)
    gap_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    count: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.count == 0

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        return {
            "ok": self.ok,
            "records": self.records,
            "first": self.first,
            "head": {"seq": self.head.seq, "hash": self.head.hash},
            "segments": self.segments,
            "anchors": self.anchors,
            "signed": self.signed,
            "signed_to": self.signed_to,
            "gaps": self.gaps,
            "gap_count": self.gap_count,
            "count": self.count,
            "problems": [
                {"segment": p.segment, "line": p.line, "seq": p.seq, "message": p.message}
                for p in self.problems
            ],
        }


def verify_log(
    directory: str | PathLike[str], *, keys: Sequence[PublicKey] = (), head: Head | None = None
) -> Report:
    """Find every record that was changed, removed, put in or moved.  Also while it is written to.

    Without a key this shows damage and clumsy hands; whoever can write the files can make a whole
    new chain.  A key, or a head kept elsewhere, shows that too.

    Args:
        directory: of the log.
        keys: those whose signed anchors count.  With any, an anchor that they did not sign is a
            problem, and so is a log without one.
        head: a `Head` that was kept elsewhere; its record must still be there.

    Raises:
        AuditError: `audit.sink` when there is no log to read.
    """
    path = Path(directory)
    files = segments_of(path)
    # Read before the records: it can't be ahead of what is then read.
    mark = read_mark(path)
    check = _Check(keys, [h for h in (mark.head if mark else None, head) if h is not None])
    for index, (number, file) in enumerate(files):
        if index and number != files[index - 1][0] + 1:
            check.fault(file.name, 0, None, "the segment before this one is missing")
        check.segment(number, file, last=index == len(files) - 1)
    check.finish(files[-1][1].name)
    if mark is None and head is None:
        check.fault("head.json", 0, None, "missing or unreadable: a cut at the end can't be seen")
    return check.report


class _Check:
    """One walk along the chain."""

    def __init__(self, keys: Sequence[PublicKey], heads: Sequence[Head]) -> None:
        self.report = Report()
        self._keys = {key.key_id: key for key in keys}
        self._due = {h.seq: h.hash for h in heads}
        self._seq: int | None = None  # of the record before
        self._follow: set[str] = set()  # what the next record may name as the one before
        self._log = ""

    def fault(self, segment: str, line: int, seq: int | None, message: str) -> None:
        self.report.count += 1
        if len(self.report.problems) < MAX_PROBLEMS:
            self.report.problems.append(Problem(segment, line, seq, message))

    def segment(self, number: int, path: Path, *, last: bool) -> None:
        self.report.segments += 1
        if self._seq is None and number == 1:
            self._seq, self._follow = 0, {GENESIS.hash}
        with open_segment(path) as file:
            # What is appended from now on is not looked at: the log may be in use.
            size = os.fstat(file.fileno()).st_size
            if size == 0 and not last:
                self.fault(path.name, 0, None, "empty")
            for line, (_, data) in enumerate(lines_of(file, size, patient=last), 1):
                self._line(number, path.name, line, data)

    def _line(self, number: int, name: str, line: int, data: bytes) -> None:
        report = self.report
        report.records += 1
        expected = None if self._seq is None else self._seq + 1
        try:
            sealed, fields = parse(data)
        except ValueError as exc:
            self.fault(name, line, expected, str(exc))
            # Go on as if it had been right, so that one change is one problem.
            self._seq, self._follow = expected, _stated(data)
            self._due.pop(expected or 0, None)
            return
        seq, prev = sealed.seq, fields["prev"]
        if expected is not None and seq < expected:
            self.fault(name, line, seq, f"put in or moved: record {expected} belongs here")
            return
        if expected is not None and seq > expected:
            self.fault(name, line, seq, f"removed: records {expected} to {seq - 1} are missing")
        elif self._follow and prev not in self._follow:
            self.fault(name, line, seq, "put in or changed: it does not follow the one before it")
        self._seq, self._follow = seq, {sealed.hash}
        report.first, report.head = report.first or seq, sealed.head
        if self._due.pop(seq, sealed.hash) != sealed.hash:
            self.fault(name, line, seq, "changed: another record of this number was noted before")
        kind, details = fields.get("kind"), fields.get("details")
        if not isinstance(details, dict):
            details = {}
        if kind == "gap":
            report.gap_count += 1
            if len(report.gaps) < MAX_GAPS:
                report.gaps.append(_gap(seq, fields.get("reason"), details))
        elif kind == "anchor":
            self._anchor(name, line, seq, fields, details)
        if line == 1 and (kind, details.get("segment")) != ("anchor", number):
            self.fault(name, line, seq, "moved: the segment does not begin with its own anchor")

    def _anchor(
        self, name: str, line: int, seq: int, fields: dict[str, Any], details: dict[str, Any]
    ) -> None:
        report = self.report
        report.anchors += 1
        log = _plain(details.get("log"))
        if self._log and log != self._log:
            self.fault(name, line, seq, "put in: the anchor is of another log")
        self._log = self._log or log
        if not self._keys:
            return
        key = self._keys.get(_plain(details.get("key")))
        try:
            signature = base64.b64decode(_plain(details.get("signature")), validate=True)
        except (binascii.Error, ValueError):
            signature = b""
        message = anchor_message(log, seq, _plain(fields.get("time")), fields["prev"])
        if key is not None and key.verify(signature, message):
            report.signed += 1
            report.signed_to = seq - 1
        else:
            self.fault(name, line, seq, "the anchor is not signed by a key that counts")

    def finish(self, name: str) -> None:
        report = self.report
        for seq in sorted(self._due):
            if seq > report.head.seq:
                missing = f"records {report.head.seq + 1} to {seq} were there and are gone"
                self.fault(name, 0, seq, f"cut off: {missing}")
            elif seq >= report.first > 0:
                self.fault(name, 0, seq, "removed: the record was noted before, and is gone")
        if self._keys and not report.signed:
            self.fault(name, 0, None, "no anchor is signed by a key that counts")


def _plain(value: object) -> str:
    """Text as it is, a number as text, and nothing of what may be nested without end."""
    return str(value) if isinstance(value, str | int) else ""


def _gap(seq: int, reason: object, details: dict[str, Any]) -> str:
    words = (f"{k}={_plain(v)}" for k, v in details.items() if isinstance(v, str | int))
    return " ".join([f"record {seq}: {_plain(reason)}", *words])[:GAP_CHARS]


def _stated(line: bytes) -> set[str]:
    """The hashes by which the next record may call a broken one: as stated, and as it is."""
    return {line[9:73].decode("ascii", "replace"), hashlib.sha256(line[75:-1]).hexdigest()}
