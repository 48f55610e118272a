"""What the check of an audit log's chain said last, and when: it is run when it is worth it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from capwasm.capsule.keys import PublicKey
from capwasm.errors import AuditError
from capwasm.record._read import segments
from capwasm.record.audit import Report, verify_log
from capwasm.record.sinks import read_mark

__all__ = ["Chain", "Chains"]

SMALL: Final = 16 * 2**20
"""Bytes up to which a log is checked without being asked to: some tens of thousands of records."""
FRESH_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Chain:
    """What is known of a log's chain.

    Attributes:
        log: `runtime` or `commands`.
        report: of the last check; None if there was none.   when: it was.
        problem: why there is nothing to check, or empty.
        signed: whether its anchors were held against the home's own key.
    """

    log: str
    report: Report | None = None
    when: datetime | None = None
    problem: str = ""
    signed: bool = False

    @property
    def word(self) -> str:
        """`intact`, `broken`, `not checked`, `no log`."""
        if self.report is None:
            return "no log" if self.problem else "not checked"
        return "intact" if self.report.ok else "broken"


class Chains:
    """The audit logs of a home, by name.  For any thread; one check at a time."""

    def __init__(self, places: dict[str, Path]) -> None:
        """Nothing is read yet.

        Args:
            places: name of a log -> its directory.
        """
        self._places = places
        self._lock = threading.Lock()
        self._known: dict[str, tuple[object, Chain]] = {}

    def directory(self, log: str) -> Path:
        """Where a log is."""
        return self._places[log]

    def look(self, log: str, key: PublicKey | None, now: datetime, *, check: bool = False) -> Chain:
        """What is known of a log's chain.

        A small log is checked at once, unless it was a moment ago; a large one when asked to.

        Args:
            log: its name.
            key: what signs its anchors, or None.
            now: with a zone.
            check: whether somebody asks for it.
        """
        directory = self._places[log]
        try:
            files = segments(directory)
            size = sum(path.stat().st_size for _, path in files)
        except OSError:
            files, size = [], 0
        if not files:
            return Chain(log, problem="nothing was recorded yet")
        mark = read_mark(directory)
        with self._lock:
            before, known = self._known.get(log, (None, Chain(log)))
            age = None if known.when is None else (now - known.when).total_seconds()
            same = mark is not None and before == mark.head and age is not None
            if not check and (
                size > SMALL or (age is not None and age < FRESH_SECONDS) or (same and known.when)
            ):
                return known
            try:
                report = verify_log(directory, keys=[] if key is None else [key])
            except AuditError as exc:
                return Chain(log, problem=exc.message)
            made = Chain(log, report, now, signed=key is not None)
            self._known[log] = (mark.head if mark else None, made)
            return made
