"""Verifies the chain of an audit log that it does not trust.

One walk, holding one line.  A record *fits* that has the next number and names the hash of the one
before.  What does not fit begins a *run*, which goes on as long as its records follow one another.
A run that catches up with the chain is taken for the chain: records before it are missing, or were
replaced.  Another was put in or moved, and the chain goes on where it was.  So one change is one
problem or two, and not a thousand.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from capwasm.errors import AuditError

from ._audit_report import MAX_PROBLEMS, Place, Problem, Report
from ._chain import (
    BEGIN,
    GENESIS,
    Head,
    Sealed,
    anchor_message,
    is_sound,
    parse,
    retention_message,
)
from ._read import lines_of, open_segment, segments_of
from .sinks import read_mark

if TYPE_CHECKING:
    from capwasm.capsule.keys import PublicKey

__all__ = ["Check", "Problem", "Report", "verify_log"]

GAP_CHARS: Final = 200
MAX_KNOWN: Final = 2_000_000  # records of which it is remembered that they are there, in 16 bytes
MAX_GLUED: Final = 8  # records in one line: one byte makes it two
ATTEMPTS: Final = 3
SHORTEST: Final = 75  # bytes that every record has more of
PROGRESS_LINES: Final = 2_000
_SPECIAL: Final = frozenset({"gap", "anchor", "retention"})


def verify_log(
    directory: str | PathLike[str],
    *,
    keys: Sequence[PublicKey] = (),
    head: Head | None = None,
    heads: Iterable[Head] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Find every record that was changed, removed, put in or moved.  Also while it is written to.

    Without a key this shows damage and clumsy hands; whoever can write the files can make a whole
    new chain.  A key, or a head kept elsewhere, shows that too.

    Args:
        directory: of the log.
        keys: those whose signed anchors count.  With any, an anchor that they did not sign is a
            problem, and so is a log without one.
        head: what was kept elsewhere; its record must still be there.
        heads: more of them.
        progress: told, now and then, how many bytes of how many were read.

    Raises:
        AuditError: `audit.sink` when there is no log to read.
    """
    path = Path(directory)
    kept = [*heads, *([head] if head else [])]
    for attempt in range(ATTEMPTS):
        try:
            return _verify(path, keys, kept, progress)
        except AuditError as exc:
            # Pruned meanwhile: what is left is a log of its own.
            if attempt == ATTEMPTS - 1 or not isinstance(exc.__cause__, FileNotFoundError):
                raise
    raise AssertionError("unreachable")


def _verify(
    path: Path,
    keys: Sequence[PublicKey],
    heads: Sequence[Head],
    progress: Callable[[int, int], None] | None,
) -> Report:
    files = segments_of(path)
    # Read before the records: it can't be ahead of what is then read.
    mark = read_mark(path)
    check = Check(keys, [*([mark.head] if mark else ()), *heads])
    check.report.heads = len(heads)
    sizes = [file.lstat().st_size if file.exists() else 0 for _, file in files]
    for index, (number, file) in enumerate(files):
        name = file.name
        if index and number != files[index - 1][0] + 1:
            check.fault("segment", Place(name), None, "the segment before this one is missing")
        last = index == len(files) - 1
        # Above the mark lies what a crash may have torn.
        torn = mark.size if mark and mark.segment == number else 0
        at_risk = last and mark is not None and number - mark.segment in (0, 1)
        with open_segment(file) as opened:
            for done in check.segment(
                number, name, opened, last=last, torn=torn if at_risk else None
            ):
                if progress:
                    progress(sum(sizes[:index]) + done, sum(sizes))
    check.finish(files[-1][1].name)
    if mark is None and not heads:
        message = "missing or unreadable: a cut at the end can't be seen"
        check.fault("mark", Place("head.json"), None, message)
    return check.report


@dataclass(slots=True)
class _Run:
    """Records that follow one another, and not the chain."""

    place: Place
    first: Sealed
    fields: dict[str, Any]
    seq: int
    hash: str


@dataclass(slots=True)
class _Broken:
    """Lines, one after the other, that are no records or not any more."""

    place: Place
    line: bytes
    why: str
    count: int = 1


class Check:
    """One walk along a chain: `segment` or `line` for all there is, then `finish`, then `report`."""

    def __init__(
        self, keys: Sequence[PublicKey], heads: Iterable[Head] = (), start: Head | None = None
    ) -> None:
        """Begin after `start`; without it, wherever the first record says."""
        self.report = Report()
        self.fault = self.report.fault
        self.log = ""
        self._keys = {key.key_id: key for key in keys}
        self._due: dict[int, set[str]] = {}
        for seq, digest in heads:
            self._due.setdefault(seq, set()).add(digest)
        self._last: Head | Sealed | None = start
        self._begun: tuple[Place, int, str] | None = None  # where, if it was not said
        self._pruned: Head | None = None
        self._run: _Run | None = None
        self._broken: _Broken | None = None
        self._strays: list[tuple[int, Place, Head, int]] = []  # which problem; from where to where
        self._seqs, self._marks = array("Q"), array("Q")  # of the records, and of their hashes

    def segment(
        self, number: int, name: str, file: BinaryIO, *, last: bool, torn: int | None
    ) -> Iterator[int]:
        """Walk along one file of a log; gives, now and then and at the end, how far it is.

        Args:
            number: the segment's.
            name: the file's.
            file: the file, open at its beginning.
            last: whether it may be written to now.
            torn: from which byte on a line without its end is what a crash left; None: nowhere.
        """
        self.report.segments += 1
        if self._last is None and number == 1:
            self._last = GENESIS
        # What is appended from now on is not looked at: the log may be in use.
        size = os.fstat(file.fileno()).st_size
        if size == 0 and not last:
            self.fault("segment", Place(name), None, "empty")
        for line, (begin, data) in enumerate(lines_of(file, size, patient=last), 1):
            place = Place(name, line, begin)
            if torn is not None and begin >= torn and not data.endswith(b"\n"):
                self.report.gap(
                    f"{name}: {len(data)} bytes at the end that a crash left unfinished"
                )
                continue
            fields = self.line(place, data)
            if line == 1 and fields is not None and not _begins(fields, number):
                message = "moved: the segment does not begin with its own anchor"
                self.fault("moved", place, fields["seq"], message)
            if line % PROGRESS_LINES == 0:
                yield begin
        yield size

    def line(self, place: Place, data: bytes) -> dict[str, Any] | None:
        """Take the next line; its fields if it is a record."""
        self.report.records += 1
        if self._broken is not None and len(data) < SHORTEST:  # of these there may be one a byte
            self._broken.count += 1
            self._broken.line = data
            return None
        for _ in range(MAX_GLUED):
            try:
                sealed, fields = parse(data)
            except ValueError as exc:
                if (found := _whole_part(data)) is None:
                    self._add_broken(place, data, str(exc))
                    return None
                # Only the end of a line is not what it was: what stands on both sides is whole.
                (sealed, fields), rest, at = found
                self._take(place, sealed, fields)
                where = place._replace(byte=place.byte + at)
                self.fault("changed", where, sealed.seq, "changed: the end of its line is another")
                if not rest:
                    return fields
                self.report.records += 1
                place = place._replace(byte=place.byte + len(data) - len(rest))
                data = rest
            else:
                self._take(place, sealed, fields)
                return fields
        self._add_broken(place, data, "too many records in one line")
        return None

    # -- the chain ---------------------------------------------------------------------------------

    def _take(self, place: Place, sealed: Sealed, fields: dict[str, Any]) -> None:
        seq, prev = sealed.seq, fields["prev"]
        last = self._last
        if last is None:
            last = self._last = Head(seq - 1 - (self._broken.count if self._broken else 0), prev)
            self._begun = (self._broken.place if self._broken else place, last.seq + 1, prev)
        if seq == last.seq + 1 and prev == last.hash:
            if self._run is not None or self._broken is not None:
                self._pass_over()
            self._accept(place, sealed, fields)
            return
        run = self._run
        if run is not None and seq == run.seq + 1 and prev == run.hash:
            run.seq, run.hash = seq, sealed.hash
            if seq > last.seq:
                self._adopt(run)
                self._accept(place, sealed, fields)
            return
        if run is not None:
            self._stray(run)
        self._run = run = _Run(place, sealed, fields, seq, sealed.hash)
        if self._broken is not None and seq > last.seq + 1:
            self._adopt(run)

    def _accept(self, place: Place, sealed: Sealed, fields: dict[str, Any]) -> None:
        report, seq = self.report, sealed.seq
        self._last = sealed
        report.first, report.head = report.first or seq, sealed.head
        if len(self._seqs) < MAX_KNOWN:
            self._seqs.append(seq)
            self._marks.append(int(sealed.hash[:16], 16))
        if seq in self._due and self._due.pop(seq) != {sealed.hash}:
            message = "replaced: another record of this number was noted before"
            self.fault("replaced", place, seq, message)
        kind = fields.get("kind")
        if kind not in _SPECIAL:
            return
        details = fields.get("details")
        details = details if isinstance(details, dict) else {}
        if kind == "gap":
            report.gap(_gap(seq, fields.get("reason"), details))
        elif kind == "anchor":
            self._anchor(place, seq, fields, details)
        else:
            self._retention(place, seq, fields, details)

    def _pass_over(self) -> None:
        """The chain goes on where it was: what stood in between was put there."""
        if (run := self._run) is not None:
            self._stray(run)
        if (broken := self._broken) is not None:
            self._broken = None
            message = f"put in: no record is missing here, and this is none ({broken.why})"
            self.fault("inserted", broken.place, None, message)

    def _stray(self, run: _Run) -> None:
        self._run = None
        if (at := len(self.report.problems)) < MAX_PROBLEMS:
            self._strays.append((at, run.place, run.first.head, run.seq))
        self.fault("inserted", run.place, run.first.seq, "put in")

    def _adopt(self, run: _Run) -> None:
        """The run is the chain: tell of what is missing before it."""
        assert self._last is not None
        self._run, broken, self._broken = None, self._broken, None
        seq, due = run.first.seq, self._last.seq + 1
        missing = seq - due
        if broken is not None:
            count = max(1, min(broken.count, missing))
            self._changed(broken, due, count, run.fields["prev"])
            missing, due = missing - count, due + count
        if missing > 0:
            message = f"removed: {_records(due, seq - 1)} are missing before it"
            self.fault("removed", run.place, seq, message)
        elif missing < 0 and broken is None:
            message = "put in: what stands before it has its number, and nothing that follows"
            self.fault("inserted", run.place, seq, message)
        elif broken is None:
            message = "replaced: this record or the one before it is another than was written"
            self.fault("replaced", run.place, seq, message)
        if seq >= self._last.seq + 1:
            self._accept(run.place, run.first, run.fields)

    # -- broken lines ------------------------------------------------------------------------------

    def _add_broken(self, place: Place, data: bytes, why: str) -> None:
        if self._broken is None:
            self._broken = _Broken(place, data, why)
        else:
            self._broken.count += 1
            self._broken.line = data

    def _changed(self, broken: _Broken, seq: int, count: int, prev: str) -> None:
        """Tell of `count` records from `seq` on; `prev` is what the next record calls the last."""
        place, line = broken.place, broken.line
        message = broken.why
        if count > 1:
            message = f"{_records(seq, seq + count - 1)} are changed"
        elif broken.count > 1:
            message = f"changed: it is in {broken.count} lines"
        elif prev == line[9:73].decode("ascii", "replace"):
            end = place.byte + len(line) - 1
            message = f"changed: in its fields, bytes {place.byte + 75} to {end}"
        elif prev == hashlib.sha256(line[75:-1]).hexdigest():
            message = f"changed: in the hash it states, bytes {place.byte} to {place.byte + 74}"
        self.fault("changed", place, seq, message)
        gone = range(seq, seq + count)
        few: Iterable[int] = gone if count < len(self._due) else list(self._due)
        for number in few:
            if number in gone:
                self._due.pop(number, None)

    # -- anchors, retention ------------------------------------------------------------------------

    def _anchor(
        self, place: Place, seq: int, fields: dict[str, Any], details: dict[str, Any]
    ) -> None:
        report = self.report
        report.anchors += 1
        log = _plain(details.get("log"))
        if self.log and log != self.log:
            self.fault("inserted", place, seq, "put in: the anchor is of another log")
        self.log = self.log or log
        if not self._keys:
            return
        message = anchor_message(log, seq, _plain(fields.get("time")), fields["prev"])
        if self.is_signed(details, message):
            report.signed += 1
            report.signed_to = seq - 1
        else:
            self.fault("unsigned", place, seq, "the anchor is not signed by a key that counts")

    def _retention(
        self, place: Place, seq: int, fields: dict[str, Any], details: dict[str, Any]
    ) -> None:
        upto = Head(details.get("seq", 0), _plain(details.get("hash")))
        if type(upto.seq) is not int or not 0 < upto.seq < seq:
            self.fault("inserted", place, seq, "put in: it tells of no records that can be pruned")
            return
        stamp = _plain(fields.get("time"))
        message = retention_message(_plain(details.get("log")), seq, stamp, fields["prev"], upto)
        if self._keys and not self.is_signed(details, message):
            self.fault("unsigned", place, seq, "what was pruned is not signed by a key that counts")
        elif self._pruned is None or upto.seq > self._pruned.seq:
            self._pruned = upto
            self.report.pruned_to = upto.seq

    def is_signed(self, details: dict[str, Any], message: bytes) -> bool:
        """Whether a key that counts has signed it: `key` and `signature` are in `details`."""
        key = self._keys.get(_plain(details.get("key")))
        try:
            signature = base64.b64decode(_plain(details.get("signature")), validate=True)
        except (binascii.Error, ValueError):
            return False
        return key is not None and key.verify(signature, message)

    # -- the end -----------------------------------------------------------------------------------

    def forget_after(self, seq: int) -> None:
        """Nothing is known of what comes later: heads that speak of it say nothing."""
        for number in [n for n in self._due if n > seq]:
            del self._due[number]
            self.report.old_heads += 1

    def finish(self, name: str, *, vouched: bool = False) -> None:
        """Tell of what can only be told at the end, which is in the file of that name.

        Args:
            name: the last file's.
            vouched: whether a signature covers all of it, so that no anchor need have one.
        """
        report, last = self.report, self._last
        if (run := self._run) is not None and last is not None:
            if run.seq > last.seq:
                self._adopt(run)
            else:
                self._stray(run)
        if (broken := self._broken) is not None:
            head = self._last.seq if self._last is not None else 0
            self._changed(broken, head + 1, broken.count, "")
        for index, place, first, to in self._strays:
            report.problems[index] = self._told(place, first, to)
        for seq in sorted(self._due):
            if seq > report.head.seq:
                message = f"cut off: {_records(report.head.seq + 1, seq)} were there and are gone"
                self.fault("cut", Place(name), seq, message)
            elif seq < report.first:
                report.old_heads += 1
            else:
                message = "removed: the record was noted before, and is gone"
                self.fault("removed", Place(name), seq, message)
        self._check_beginning()
        if self._keys and not report.signed and not vouched:
            self.fault("unsigned", Place(name), None, "no anchor is signed by a key that counts")

    def _told(self, place: Place, first: Head, to: int) -> Problem:
        """What a run that is not of the chain is, now that the whole chain is known."""
        at = bisect_left(self._seqs, first.seq)
        which = _records(first.seq, to)
        if at == len(self._seqs) or self._seqs[at] != first.seq:
            kind, message = "moved", f"moved: {which} stand here, and belong elsewhere"
        elif self._marks[at] == int(first.hash[:16], 16):
            kind, message = "duplicated", f"put in: {which} stand here a second time"
        else:
            kind, message = "inserted", f"put in: {which} of the chain are others"
        return Problem(kind, *place, first.seq, message)

    def _check_beginning(self) -> None:
        if self._begun is None:
            return
        place, first, prev = self._begun
        pruned = self._pruned
        if first == 1 and prev == GENESIS.hash:
            return
        if pruned is not None and (first <= pruned.seq or pruned == (first - 1, prev)):
            return
        told = f"only up to {pruned.seq}" if pruned else "by the log itself never"
        message = f"removed: {_records(1, first - 1)} are missing; pruned was {told}"
        self.report.problems.insert(0, Problem("removed", *place, first, message))
        self.report.count += 1


def _begins(fields: dict[str, Any], number: int) -> bool:
    details = fields.get("details")
    return (
        isinstance(details, dict)
        and fields.get("kind") == "anchor"
        and details.get("segment") == number
    )


def _records(first: int, last: int) -> str:
    return f"records {first} to {last}"


def _plain(value: object) -> str:
    """Text as it is, a number as text, and nothing of what may be nested without end."""
    return str(value) if isinstance(value, str | int) else ""


def _gap(seq: int, reason: object, details: dict[str, Any]) -> str:
    words = (f"{k}={_plain(v)}" for k, v in details.items() if isinstance(v, str | int))
    return " ".join([f"record {seq}: {_plain(reason)}", *words])[:GAP_CHARS]


def _whole_part(line: bytes) -> tuple[tuple[Sealed, dict[str, Any]], bytes, int] | None:
    """If only the end of a line is damaged: the record, what stands behind it, and where it ends."""
    at = line.find(BEGIN, 1)
    ends = [(at - 1, at), (at, at)] if at > 0 else [(len(line) - 1, len(line)), (len(line),) * 2]
    for end, rest in ends:
        part = line[:end] + b"\n"
        if part != line and is_sound(part):
            with contextlib.suppress(ValueError):
                return parse(part), line[rest:], end
    return None
