"""What a verification of an audit log says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ._chain import GENESIS, Head

__all__ = ["DAMAGE", "Place", "Problem", "Report"]

MAX_PROBLEMS: Final = 100
MAX_GAPS: Final = 100

# Stable words: what kind of damage it is.
DAMAGE: Final = {
    "changed": "Bytes of a record, or the end of its line, are not what was written.",
    "replaced": "A record is whole, and is not the one that was there.",
    "inserted": "Something stands there that was never written there.",
    "duplicated": "A record stands there a second time.",
    "moved": "Records or a segment stand at another place than their own.",
    "removed": "Records are missing before this place.",
    "cut": "Records that had reached the disk are missing at the end.",
    "segment": "A segment is missing or empty.",
    "unsigned": "An anchor or a retention record has no signature of a key that counts.",
    "mark": "head.json is missing or unreadable: a cut at the end could not be seen.",
    "export": "The export's first or last line does not fit what is between them.",
}


class Place(NamedTuple):
    """Where a line stands: the file's name, the line from 1, the byte from 0 at which it begins."""

    segment: str
    line: int = 0
    byte: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """One place where the log is not what it was.

    Attributes:
        kind: a word of `DAMAGE`.
        segment: the file's name.   line: its line, from 1; 0 for the whole.
        byte: where in the file that line begins, or the damage itself where that is known.
        seq: the record there or expected there, or None when it can't be told.
        message: what is wrong.
    """

    kind: str
    segment: str
    line: int
    byte: int
    seq: int | None
    message: str

    def __str__(self) -> str:
        """One line for a person."""
        where = f"{self.segment}:{self.line}" if self.line else self.segment
        at = f" (byte {self.byte})" if self.line else ""
        return f"{where}: " + (f"record {self.seq}: " if self.seq else "") + self.message + at

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": self.kind,
            "segment": self.segment,
            "line": self.line,
            "byte": self.byte,
            "seq": self.seq,
            "message": self.message,
        }


@dataclass(slots=True)
class Report:
    """What `verify_log` found.

    Attributes:
        records: lines read.   first: number of the first record; past 1 when older segments were
            pruned.   head: the newest record.   segments: files read.
        pruned_to: the record up to which the log itself says that it was pruned; 0 if it never was.
        anchors: anchors in the chain.   signed: those with a good signature by a key given.
        signed_to: the newest record that such a signature covers: up to there nobody without the
            key can have changed anything.
        heads: heads kept elsewhere that were held against the log.   old_heads: those that speak of
            records that were pruned, and so say nothing any more.
        gaps: the first records of the log itself that say that something is missing or was
            refused.   gap_count: how many there are.
        problems: the first of all that is wrong, in order.   count: how many there are.
    """

    records: int = 0
    first: int = 0
    head: Head = GENESIS
    segments: int = 0
    pruned_to: int = 0
    anchors: int = 0
    signed: int = 0
    signed_to: int = 0
    heads: int = 0
    old_heads: int = 0
    gaps: list[str] = field(default_factory=list)
    gap_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    count: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.count == 0

    def fault(self, kind: str, place: Place, seq: int | None, message: str) -> None:
        """Add a problem; of very many the first are kept."""
        self.count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(kind, *place, seq, message))

    def gap(self, text: str) -> None:
        """Add what the log says of its own gaps."""
        self.gap_count += 1
        if len(self.gaps) < MAX_GAPS:
            self.gaps.append(text)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        return {
            "ok": self.ok,
            "records": self.records,
            "first": self.first,
            "head": {"seq": self.head.seq, "hash": self.head.hash},
            "segments": self.segments,
            "pruned_to": self.pruned_to,
            "anchors": self.anchors,
            "signed": self.signed,
            "signed_to": self.signed_to,
            "heads": self.heads,
            "old_heads": self.old_heads,
            "gaps": self.gaps,
            "gap_count": self.gap_count,
            "count": self.count,
            "problems": [problem.to_dict() for problem in self.problems],
        }
