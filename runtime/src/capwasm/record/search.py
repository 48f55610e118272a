"""Looks for records in an audit log: from the newest backwards, a page at a time, within bounds.

What the commands, the page and the live view show comes from here.  It is a view and no proof: a
record whose own hash does not hold is shown as broken, but only `verify_log` sees what is missing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from json.encoder import encode_basestring_ascii as quoted
from os import PathLike
from pathlib import Path
from typing import Any, Final

from capwasm.errors import AuditError

from ._chain import MAX_LINE, is_sound, parse
from ._read import POLL_SECONDS, backwards, end_of_lines, lines_of, open_segment, segments_of

__all__ = ["Follow", "Page", "Query", "moment", "search", "tail"]

BUDGET: Final = 64 * 2**20
MAX_PAGE: Final = 10_000
SLACK: Final = timedelta(hours=1)  # by which a clock may have been set back

_CURSOR: Final = re.compile(r"([0-9]{1,12}):([0-9]{1,18})")
_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FORM: Final = "%Y-%m-%dT%H:%M:%S"


def moment(text: str, now: datetime | None = None) -> str:
    """A point in time as records write it.

    Args:
        text: `2026-01-31`, `2026-01-31T12:00`, with `:30`, with `Z` or `+02:00` (UTC if neither); or
            so long ago: `90s`, `15m`, `2h`, `7d`.
        now: what `ago` counts from.

    Raises:
        ValueError: it is none of these.
    """
    try:
        if found := _AGO.fullmatch(text):
            when = (now or datetime.now(UTC)).replace(microsecond=0) - timedelta(
                **{_UNITS[found[2]]: int(found[1])}
            )
        else:
            when = datetime.fromisoformat(text)
            when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
        text = when.astimezone(UTC).strftime(_FORM).rjust(19, "0")
        return f"{text}.{when.microsecond:06d}" if when.microsecond else text
    except ValueError:
        raise ValueError(
            "write a time such as 2026-01-31T12:00 (UTC), or 15m, 2h, 7d ago"
        ) from None
    except OverflowError:
        raise ValueError("that is beyond what a calendar has") from None


@dataclass(frozen=True, slots=True)
class Query:
    """Which records are wanted; what is left empty asks for nothing.

    Attributes:
        plugin: its id, or `id@version`.   kinds, verdicts: one of these words.
        since, until: from then on, and before then, as `moment` gives it.
        text: stands in one of the record's texts, in any case.
    """

    plugin: str = ""
    kinds: frozenset[str] = frozenset()
    verdicts: frozenset[str] = frozenset()
    since: str = ""
    until: str = ""
    text: str = ""

    @property
    def is_open(self) -> bool:
        """Whether every record of its time is wanted."""
        return not (self.plugin or self.kinds or self.verdicts or self.text)

    def matches(self, record: dict[str, Any]) -> bool:
        """Whether this record is wanted."""
        name, when = str(record.get("plugin")), str(record.get("time"))
        return (
            self.plugin in ("", name, name.partition("@")[0])
            and (not self.kinds or record.get("kind") in self.kinds)
            and (not self.verdicts or record.get("verdict") in self.verdicts)
            and self.since <= when
            and (not self.until or when < self.until)
            and (not self.text or self.text.casefold() in _texts(record))
        )


def _reader(query: Query) -> Callable[[bytes], dict[str, Any] | None]:
    """Of a line gives the record if it is wanted, or what is wrong with the line."""
    # A line is passed over by a look at its bytes and its hash; what may be wanted is parsed.
    groups = [
        [f'"{name}":{quoted(word)}'.encode() for word in words]
        for name, words in (("kind", query.kinds), ("verdict", query.verdicts))
        if words
    ]
    if query.plugin:
        groups.append([f'"plugin":{quoted(query.plugin)[:-1]}'.encode()])

    # As it stands in a line, if JSON writes it so; a letter that is like an ASCII one is escaped.
    plain = query.text.isascii() and query.text.isprintable() and not set('"\\') & set(query.text)
    needle = query.text.lower().encode() if plain else b""

    def read(line: bytes) -> dict[str, Any] | None:
        for group in groups:
            if not any(map(line.__contains__, group)) and is_sound(line):
                return None
        if needle and needle not in (low := line.lower()) and b"\\u" not in low and is_sound(line):
            return None
        record = record_of(line)
        return record if "broken" in record or query.matches(record) else None

    return read


_FIELDS: Final = ("kind", "verdict", "plugin", "action", "target", "reason")


def _texts(record: dict[str, Any]) -> str:
    todo = [*(record.get(name) for name in _FIELDS), record.get("details")]
    texts = []
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value
        elif value is not None:
            texts.append(str(value))
    return "\n".join(texts).casefold()


def record_of(line: bytes) -> dict[str, Any]:
    """The fields of a line, or `{"broken": why}`."""
    try:
        return parse(line)[1]
    except ValueError as exc:
        return {"broken": str(exc)}


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what was asked for.

    Attributes:
        records: the newest first; a line that is no record, or was changed, is `{"broken": why}`.
        next: what `search` takes as `before` to go on; None at the beginning of the log.
        looked_at: lines that were read for it.
    """

    records: tuple[dict[str, Any], ...]
    next: str | None
    looked_at: int


def search(
    directory: str | PathLike[str],
    query: Query | None = None,
    *,
    limit: int = 100,
    before: str | None = None,
    budget: int = BUDGET,
) -> Page:
    """The newest records that `query` wants, at most `limit`; also while the log is written to.

    Args:
        directory: of the log.
        query: all records if None.
        limit: records, at most 10,000.
        before: the `next` of an earlier page.  What was pruned since is passed over.
        budget: bytes that are read at most, some 64 MiB in half a second.  A page may thus
            have fewer records than there are, or none, and still a `next`.

    Raises:
        AuditError: there is no log to read.
        ValueError: `before` is no `next`.
    """
    query = query or Query()
    limit = max(1, min(limit, MAX_PAGE))
    files = segments_of(Path(directory))
    until: int | None = None
    if before is not None:
        if (place := _CURSOR.fullmatch(before)) is None:
            raise ValueError("not a place in the log")
        number, until = int(place[1]), int(place[2])
        files = [f for f in files if f[0] <= number]
        until = until if files and files[-1][0] == number else None
    oldest, read = _earlier(query.since), _reader(query)
    found: list[dict[str, Any]] = []
    looked_at = 0
    for number, path in reversed(files):
        try:
            file = open_segment(path)
        except AuditError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):  # pruned just now, and all before it
                break
            raise
        with file:
            end = end_of_lines(file)
            end, until = end if until is None else min(end, until), None
            for begin, line in backwards(file, end):
                looked_at += 1
                budget -= len(line)
                record = read(line)
                if record is not None:
                    found.append(record)
                elif oldest and _time_of(line) < oldest:
                    return Page(tuple(found), None, looked_at)
                if len(found) == limit or budget <= 0:
                    more = begin > 0 or number > files[0][0]
                    return Page(tuple(found), f"{number}:{begin}" if more else None, looked_at)
    return Page(tuple(found), None, looked_at)


def _earlier(since: str) -> str:
    if not since:
        return ""
    try:
        when = datetime.strptime(since[:19], _FORM).replace(tzinfo=UTC) - SLACK
    except (ValueError, OverflowError):
        return ""
    return when.strftime(_FORM)


_TIME: Final = re.compile(rb'"time":"([0-9T:.-]{19,30}Z?)"')


def _time_of(line: bytes) -> str:
    found = _TIME.search(line)
    return found[1].decode() if found else "9"


class Follow:
    """What is recorded from now on, over segments.  Never waits: ask it as often as you like."""

    def __init__(self, directory: str | PathLike[str]) -> None:
        """Begin at the log's end.

        Raises:
            AuditError: there is no log to read.
        """
        self._directory = Path(directory)
        self._number, self._path = segments_of(self._directory)[-1]
        with open_segment(self._path) as file:
            self._at = end_of_lines(file)

    def before(self, count: int) -> Iterator[dict[str, Any]]:
        """The last `count` records up to here, oldest first.

        Raises:
            AuditError: the log is gone.
        """
        spans: list[tuple[Path, int, int]] = []
        for number, path in reversed(segments_of(self._directory)):
            if count <= 0 or number > self._number:
                continue
            with open_segment(path) as file:
                end = begin = self._at if number == self._number else end_of_lines(file)
                for begin, _ in islice(backwards(file, end), count):  # noqa: B007  used after it
                    count -= 1
            spans.append((path, begin, end))
        for path, begin, end in reversed(spans):
            with open_segment(path) as file:
                for _, line in lines_of(file, end, begin):
                    yield record_of(line)

    def new(self) -> list[dict[str, Any]]:
        """The records that came since the last time, oldest first; of very many, the first.

        Raises:
            AuditError: the log is gone.
        """
        while True:
            # Looked for first: a segment that another follows grows no more.
            after = [f for f in segments_of(self._directory) if f[0] > self._number]
            with open_segment(self._path) as file:
                file.seek(self._at)
                data = file.read(4 * MAX_LINE)
            whole = data[: data.rfind(b"\n") + 1]
            if not whole and len(data) >= MAX_LINE:  # no record, and it never will be
                whole = data
            self._at += len(whole)
            if whole:
                lines = whole.removesuffix(b"\n").split(b"\n")
                return [record_of(line + b"\n") for line in lines]
            if data or not after:
                return []
            (self._number, self._path), self._at = after[0], 0


def tail(
    directory: str | PathLike[str],
    count: int = 20,
    *,
    follow: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Iterator[dict[str, Any]]:
    """The last `count` records, oldest first, then with `follow` each new one as it comes.

    A line that is no record, or that was changed, comes as `{"broken": why}`.

    Args:
        directory: of the log.
        count: how many to begin with.
        follow: go on for ever, over segments.
        stop: asked every fifth of a second whether to end.

    Raises:
        AuditError: there is no log to read.
    """
    new = Follow(directory)
    yield from new.before(count)
    while follow and not (stop is not None and stop()):
        records = new.new()
        yield from records
        if not records:
            time.sleep(POLL_SECONDS)
