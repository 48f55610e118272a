"""Takes records out of an audit log: as they are, to be verified elsewhere, or as a table to look at.

An export of a span of time is a piece of the chain: a first line that says what it is and which
record it follows, the records' own lines, byte for byte, and a last line with their number, the
digest of all before it, and the signature of the log's key.  One that was filtered has the same
lines, says so, and is no chain.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from capwasm.errors import AuditError

from ._audit_check import Check, Report
from ._audit_report import Place
from ._chain import Head, parse
from ._read import end_of_lines, lines_of, open_segment, segments_of
from .redact import printable
from .search import Query
from .sinks import read_mark

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey, PublicKey

__all__ = ["Exported", "export_csv", "export_jsonl", "verify_export"]

FORMAT: Final = 1
NAME: Final = "capwasm-audit-export"
COLUMNS: Final = (
    *("seq", "time", "kind", "verdict", "plugin", "action", "target", "reason", "details"),
    *("run", "hash"),
)
# What makes a spreadsheet take a cell for a formula, also behind spaces and in full width.
_FORMULA: Final = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20|%]|[\t\r\n]")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported.

    Attributes:
        records: how many.   first, last: their numbers; 0 if there are none.
        complete: whether it is a piece of the chain, which can be verified.
        signed: whether it ends with a signature.
    """

    records: int
    first: int
    last: int
    complete: bool
    signed: bool


def export_jsonl(
    directory: str | PathLike[str],
    query: Query,
    out: BinaryIO,
    *,
    key: PrivateKey | None = None,
) -> Exported:
    """Write the records that `query` wants as lines of JSON.  Holds one record.

    Args:
        directory: of the log.
        query: a span of time gives a piece of the chain; all else a filtered export.
        out: written to from where it stands.
        key: signs the end.

    Raises:
        AuditError: `audit.tampered` where the records do not follow one another; `audit.sink`.
        OSError: `out` can't be written.
    """
    mark = read_mark(Path(directory))
    digest = hashlib.sha256()

    def write(data: bytes) -> None:
        digest.update(data)
        out.write(data)

    after, last, count = Head(0, ""), Head(0, ""), 0
    log = mark.log if mark else ""
    for line, head, fields in _wanted(Path(directory), query):
        if not count:
            after = Head(head.seq - 1, fields["prev"])
            write(_first_line(log, query, after))
        write(line)
        last, count = head, count + 1
    if not count:
        write(_first_line(log, query, after))
    end: dict[str, Any] = {
        "records": count,
        "seq": last.seq,
        "hash": last.hash,
        "sha256": digest.hexdigest(),
    }
    if key is not None:
        signature = base64.b64encode(key.sign(_message(log, after, end))).decode()
        end |= {"key": key.public.key_id, "signature": signature}
    out.write(json.dumps({"end": end}).encode() + b"\n")
    first = after.seq + 1 if count else 0
    return Exported(count, first, last.seq, query.is_open, key is not None)


def export_csv(directory: str | PathLike[str], query: Query, out: BinaryIO) -> Exported:
    """Write the records that `query` wants as a table, in UTF-8.  Holds one record.

    No cell is taken for a formula: what could be begins with `'`.  A table is for people, and can't
    be verified.

    Raises:
        AuditError, OSError: as `export_jsonl`.
    """
    first = last = count = 0
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for line, head, fields in _wanted(Path(directory), query):
        details = json.dumps(fields.get("details"), ensure_ascii=False)
        row = fields | {"details": details, "hash": line[9:73].decode()}
        writer.writerow([head.seq, *(_cell(row.get(name, "")) for name in COLUMNS[1:])])
        out.write(text.getvalue().encode("utf-8", "replace"))
        text.seek(0)
        text.truncate()
        first, last, count = first or head.seq, head.seq, count + 1
    out.write(text.getvalue().encode())
    return Exported(count, first, last, complete=False, signed=False)


def _cell(value: object) -> str:
    text = printable(str(value))
    return f"'{text}" if _FORMULA.match(text) else text


def _wanted(directory: Path, query: Query) -> Iterator[tuple[bytes, Head, dict[str, Any]]]:
    """Line, head and fields of each record.  Of an open query what lies in between counts too."""
    check: Check | None = None
    for name, place, line in _all_lines(directory):
        try:
            sealed, fields = parse(line)
        except ValueError as exc:
            raise _tampered(name, place, str(exc)) from None
        when = str(fields.get("time"))
        if query.is_open:
            if check is None and when < query.since:
                continue
            if query.until and when >= query.until:
                return
        if check is None:
            check = Check((), start=Head(sealed.seq - 1, fields["prev"]))
        # Links are looked at in any case: an export of a chain with holes would hide them.
        check.line(place, line)
        if check.report.head != sealed.head:
            raise _tampered(name, place, "it does not follow the record before it")
        if query.is_open or query.matches(fields):
            yield line, sealed.head, fields


def _all_lines(directory: Path) -> Iterator[tuple[str, Place, bytes]]:
    files = segments_of(directory)
    with open_segment(files[-1][1]) as file:
        newest = end_of_lines(file)
    for number, path in files:
        with open_segment(path) as file:
            end = newest if number == files[-1][0] else file.seek(0, io.SEEK_END)
            for line, (begin, data) in enumerate(lines_of(file, end), 1):
                yield path.name, Place(path.name, line, begin), data


def _tampered(name: str, place: Place, why: str) -> AuditError:
    return AuditError(
        f"{name}:{place.line}: {why}.  Run `capwasm audit verify`; keep a copy of the directory",
        code="audit.tampered",
    )


def _first_line(log: str, query: Query, after: Head) -> bytes:
    asked = {
        "plugin": query.plugin,
        "kinds": sorted(query.kinds),
        "verdicts": sorted(query.verdicts),
        "text": query.text,
        "since": query.since,
        "until": query.until,
    }
    data = {
        NAME: FORMAT,
        "log": log,
        "complete": query.is_open,
        "filter": {word: value for word, value in asked.items() if value},
        "after": {"seq": after.seq, "hash": after.hash},
    }
    return json.dumps(data).encode() + b"\n"


def _message(log: str, after: Head, end: dict[str, Any]) -> bytes:
    words = (after.seq, after.hash, *(end.get(w) for w in ("records", "seq", "hash", "sha256")))
    return "\n".join([f"{NAME} {FORMAT}", log, *map(str, words), ""]).encode()


# -- reading ---------------------------------------------------------------------------------------


def verify_export(
    path: str | PathLike[str],
    *,
    keys: Sequence[PublicKey] = (),
    heads: Sequence[Head] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Find every record of an export that was changed, removed, put in or moved.

    Args:
        path: the file.
        keys: those whose signatures count; with any, anchors and the end must be signed by one.
        heads: heads of the log that were kept elsewhere.
        progress: told, now and then, how many bytes of how many were read.

    Raises:
        AuditError: `audit.export` if it is no export, or a filtered one, which is no chain.
    """
    name = Path(path).name
    with open_segment(Path(path)) as file:
        size = file.seek(0, io.SEEK_END)
        lines = lines_of(file, size)
        first = next(lines, (0, b""))[1]
        log, after = _parse_first(first)
        digest = hashlib.sha256(first)
        check = Check(keys, heads, start=after)
        check.report.heads = len(heads)
        place, held = Place(name), b""
        for number, (begin, data) in enumerate(lines, 2):
            if held:
                digest.update(held)
                check.line(place, held)
            place, held = Place(name, number, begin), data
            if progress and number % 2_000 == 0:
                progress(begin, size)
    end = _parse_end(held)
    if end is None:
        if held:
            check.line(place, held)
        check.finish(name)
        check.fault("cut", place, None, "cut off: the export's last line is missing or changed")
        return check.report
    check.forget_after(end["seq"])
    vouched = bool(keys) and check.is_signed(end, _message(log, after, end))
    check.finish(name, vouched=vouched)
    report = check.report
    if vouched:
        report.signed_to = report.head.seq
    elif keys and "signature" in end:
        check.fault("unsigned", place, None, "the end is not signed by a key that counts")
    found = (report.records, report.head if report.records else Head(0, ""))
    if report.ok and found != (end["records"], (end["seq"], end["hash"])):
        message = f"the last line tells of {end['records']} records up to {end['seq']}"
        kind = "cut" if end["seq"] > report.head.seq else "export"
        check.fault(kind, place, None, message)
    elif report.ok and (digest.hexdigest() != end["sha256"] or log != (check.log or log)):
        check.fault("export", Place(name, 1), None, "the first line is not what was written")
    return report


def _parse_first(line: bytes) -> tuple[str, Head]:
    try:
        data = json.loads(line)
        if type(data[NAME]) is not int or type(data["complete"]) is not bool:
            raise TypeError
        log, after = data["log"], Head(data["after"]["seq"], data["after"]["hash"])
        if not all(type(t) is str for t in (log, after.hash)) or type(after.seq) is not int:
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        raise AuditError("no export of an audit log", code="audit.export") from None
    if data[NAME] != FORMAT:
        raise AuditError("an export of a newer capwasm", code="audit.export")
    if not data["complete"]:
        raise AuditError(
            "a filtered export: records between its own are left out on purpose, so it can't be"
            " verified as a chain; export the span of time without filters",
            code="audit.export",
        )
    return log, after


def _parse_end(line: bytes) -> dict[str, Any] | None:
    try:
        end = json.loads(line)["end"] if line.endswith(b"\n") else {}
        numbers, texts = (end["records"], end["seq"]), (end["hash"], end["sha256"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    plain = all(type(n) is int for n in numbers) and all(type(t) is str for t in texts)
    return end if plain and isinstance(end, dict) else None
