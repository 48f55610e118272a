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
        problem: why nothing was checked, or empty.   damaged: whether that is no innocent reason.
        signed: whether its anchors were held against the home's own key.
    """

    log: str
    report: Report | None = None
    when: datetime | None = None
    problem: str = ""
    signed: bool = False
    damaged: bool = False

    @property
    def word(self) -> str:
        """`intact`, `broken`, `not checked`, `no log`."""
        if self.report is None:
            return "broken" if self.damaged else "no log" if self.problem else "not checked"
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

        A small log is checked at once, unless it was a moment ago or no file has changed since; a
        large one when asked to.

        Args:
            log: its name.
            key: what signs its anchors, or None.
            now: with a zone.
            check: whether somebody asks for it.
        """
        directory = self._places[log]
        try:
            files = segments(directory)
        except FileNotFoundError:
            files = []
        except OSError as exc:
            return Chain(log, problem=f"it can't be read: {exc.strerror}", damaged=True)
        if not files:
            if (directory / "head.json").exists() or (directory / "head.json").is_symlink():
                return Chain(log, problem="its records are gone", damaged=True)
            return Chain(log, problem="nothing was recorded yet")
        stamps = tuple(_stamp(path) for path in (directory / "head.json", *(p for _, p in files)))
        size = sum(size for _, _, size, _ in stamps)
        with self._lock:
            before, known = self._known.get(log, (None, Chain(log)))
            age = None if known.when is None else (now - known.when).total_seconds()
            fresh = age is not None and age >= 0 and (age < FRESH_SECONDS or before == stamps)
            if not check and (size > SMALL or fresh):
                return known
            try:
                report = verify_log(directory, keys=[] if key is None else [key])
            except AuditError as exc:
                return Chain(log, problem=exc.message, damaged=True)
            made = Chain(log, report, now, signed=key is not None)
            self._known[log] = (stamps, made)
            return made


def _stamp(path: Path) -> tuple[str, int, int, int]:
    """Differs once a file was touched by anybody: nobody can set a ctime back."""
    try:
        info = path.lstat()
    except OSError:  # pruned just now
        return path.name, 0, 0, 0
    return path.name, info.st_ino, info.st_size, info.st_ctime_ns
