"""Calls, failures and denials by plugin and hour, counted from the audit log as it grows.

Only what came since the last time is read, from the newest backwards and within bounds: of a log
that grows faster than it is looked at the charts show the newest part, and say so.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, DENIED, FAILED
from capwasm.record.search import Query, moment, search

from .charts import Chart, Series, bars

__all__ = ["RANGES", "Counts"]

HOURS: Final = 7 * 24
MAX_PLUGINS: Final = 500
MAX_ROUNDS: Final = 10
PER_ROUND: Final = 1_000
OTHER: Final = "(others)"
RANGES: Final = {"day": ("the last 24 hours", 24, 1, 4), "week": ("the last 7 days", HOURS, 6, 4)}
"""Word -> what it is called, its hours, the hours of one bar, the bars from one mark to the next."""

_Row = list[int]
_Hours = dict[int, _Row]


class Counts:
    """The counts of one log.  For any thread."""

    def __init__(self, directory: Path) -> None:
        """Nothing is read yet."""
        self._directory = directory
        self._lock = threading.Lock()
        self._plugins: OrderedDict[str, _Hours] = OrderedDict()
        self._whole: _Hours = {}
        self._seen = 0
        self.partial = False
        """Whether there was more than was looked at."""

    def chart(self, plugin: str | None, span: str, now: datetime) -> Chart:
        """Bars of one plugin, or of all.

        Args:
            plugin: its id; None for all.
            span: a word of `RANGES`.
            now: with a zone.
        """
        name, hours, each, every = RANGES[span]
        with self._lock:
            self._read(now)
            rows = self._whole if plugin is None else self._plugins.get(plugin, {})
            last = int(now.timestamp()) // 3600
            first = last - last % each - hours + each
            slots = [
                [
                    sum(rows.get(h, (0, 0, 0))[kind] for h in range(at, at + each))
                    for kind in range(3)
                ]
                for at in range(first, first + hours, each)
            ]
        kinds = (("went well", "calls"), ("failed", "failed"), ("denied", "denied"))
        series = [Series(n, k, tuple(s[i] for s in slots)) for i, (n, k) in enumerate(kinds)]
        whose = "Calls and denials" if plugin is None else f"Calls and denials of {plugin}"
        begin = datetime.fromtimestamp(first * 3600, UTC)
        return bars(f"{whose}, {name}", series, begin, timedelta(hours=each), every=every)

    def _read(self, now: datetime) -> None:
        records: list[dict[str, Any]] = []
        query, before = Query(since=moment(f"{HOURS}h", now)), None
        for _ in range(MAX_ROUNDS):
            try:
                found = search(self._directory, query, limit=PER_ROUND, before=before)
            except AuditError:  # there is none, or not yet
                return
            records += [r for r in found.records if _number(r.get("seq")) > self._seen]
            before = found.next
            known = [_number(r["seq"]) for r in found.records if "seq" in r]  # not what is broken
            if before is None or (known and min(known) <= self._seen):
                break
        else:
            self.partial = True
        for record in records:
            self._take(record)
        self._seen = max([self._seen, *(_number(r.get("seq")) for r in records)])
        first = int(now.timestamp()) // 3600 - HOURS
        for rows in (self._whole, *self._plugins.values()):
            for hour in [h for h in rows if h < first]:
                del rows[hour]

    def _take(self, record: dict[str, Any]) -> None:
        verdict, kind, details = (record.get(w) for w in ("verdict", "kind", "details"))
        many = details if isinstance(details, dict) else {}
        if verdict == DENIED:  # a loop of denials is recorded as a number
            place, amount = 2, _number(many.get("times")) or 1
        elif kind == "call" and verdict == FAILED:
            place, amount = 1, 1
        elif kind == "call" and verdict == ALLOWED:
            place, amount = 0, _number(many.get("calls")) or 1
        else:
            return
        try:
            hour = int(datetime.fromisoformat(str(record.get("time"))[:19] + "+00:00").timestamp())
        except ValueError:
            return
        plugin = str(record.get("plugin")).partition("@")[0]
        if plugin not in self._plugins and len(self._plugins) >= MAX_PLUGINS:
            plugin = OTHER
        for rows in (self._whole, self._plugins.setdefault(plugin, {})):
            rows.setdefault(hour // 3600, [0, 0, 0])[place] += amount


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0
