"""The screen of `capwasm top`: columns that fit, keys, and the terminal as it was afterwards."""

from __future__ import annotations

import contextlib
import math
import os
import re
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import colour, shown

if TYPE_CHECKING:
    from capwasm.monitor.live import Live, Row

__all__ = ["SORTS", "View"]

MOST_NEW: Final = 400
"""Rounds of reading before the screen is drawn again."""

_HELP: Final = (
    "q quit  c calls  f failures  d denials  l latency  u fuel  b bytes  s strikes  n name  r turn"
)
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O.|.)?")  # an arrow, say
_STATES: Final = {
    "loaded": "green",
    "back-off": "yellow",
    "refused": "yellow",
    "suspended": "red",
    "evicted": "red",
    "revoked": "red",
    "held": "red",
}

_By = Callable[["Row"], Any]
# key -> (word, what it sorts by); all but the name are sorted from the most down.
SORTS: Final[dict[str, tuple[str, _By]]] = {
    "c": ("calls", lambda r: r.calls),
    "f": ("failures", lambda r: r.failures),
    "d": ("denials", lambda r: r.denied),
    "l": ("latency", lambda r: -1.0 if r.p95 is None else r.p95),
    "u": ("fuel", lambda r: r.fuel),
    "b": ("bytes", lambda r: r.net + r.output),
    "s": ("strikes", lambda r: r.strikes),
    "n": ("name", lambda r: r.plugin),
}
# The columns in the order in which they stand: title, width, cell, and how soon it is left out where
# there is no room.
_COLUMNS: Final[tuple[tuple[str, int, Callable[[Row], str], int], ...]] = (
    ("state", 9, lambda r: r.state or "?", 0),
    ("calls/s", 8, lambda r: _short(r.calls), 0),
    ("fail", 6, lambda r: _short(r.failures), 0),
    ("deny", 6, lambda r: _short(r.denied), 0),
    ("p50", 7, lambda r: _ms(r.p50), 3),
    ("p95", 7, lambda r: _ms(r.p95), 1),
    ("fuel/s", 7, lambda r: _short(r.fuel), 4),
    ("net/s", 7, lambda r: _short(r.net, "B"), 5),
    ("out/s", 7, lambda r: _short(r.output, "B"), 6),
    ("strikes", 7, lambda r: _short(r.strikes), 2),
)
_NAME: Final = 12


class View:
    """What is shown, and how."""

    def __init__(self, home: Path, live: Live, follow: Any, sort: str) -> None:
        self._home, self._live, self._follow = home, live, follow
        self._key = next(key for key, (word, _) in SORTS.items() if word == sort)
        self._turned = self._help = self._paused = False
        self._trouble = ""

    def read(self) -> None:
        """Take what the log got since the last look."""
        self._trouble = ""
        try:
            for _ in range(MOST_NEW):
                records = self._follow.new()
                for record in records:
                    self._live.take(record)
                if not records:
                    return
        except Exception as exc:  # noqa: BLE001  shown; the log may come back
            self._trouble = shown(exc)

    def rows(self) -> list[Row]:
        """In the order that is wanted."""
        word, by = SORTS[self._key]
        rows = self._live.rows(time.time(), self._strikes())
        return sorted(rows, key=by, reverse=(word != "name") is not self._turned)

    def _strikes(self) -> dict[str, int]:
        """As the home has them; none where they can't be read."""
        from capwasm.errors import CapwasmError

        if not os.path.lexists(self._home / "strikes.db"):
            return {}
        from capwasm.home import Home
        from capwasm.monitor.docket import Docket

        from ._plugin import capabilities

        with contextlib.suppress(CapwasmError), contextlib.closing(Docket(self._home)) as docket:
            if self._minutes is None:
                self._minutes = Home(self._home).policy(capabilities()).strikes.minutes
            return docket.points(int(time.time()), 60 * self._minutes)
        return {}

    _minutes: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "time": round(time.time(), 3),
            "newest": round(self._live.newest, 3) or None,
            "window": self._live.window,
            "broken": self._live.broken,
            "plugins": [
                {
                    "plugin": r.plugin,
                    "version": r.version or None,
                    "state": r.state or None,
                    "why": r.why or None,
                    "calls_per_second": round(r.calls, 3),
                    "failures": r.failures,
                    "outcomes": dict(r.outcomes),
                    "denials": dict(r.denials),
                    "p50_ms": _finite(r.p50),
                    "p95_ms": _finite(r.p95),
                    "fuel_per_second": round(r.fuel),
                    "net_bytes_per_second": round(r.net),
                    "output_bytes_per_second": round(r.output),
                    "strikes": r.strikes,
                }
                for r in self.rows()
            ],
        }

    # -- the screen -------------------------------------------------------------------------------

    def frame(self, width: int, height: int | None) -> list[str]:
        """The lines to show, none wider or more than there is room for; None: as many as there are."""
        rows = self.rows()
        shown_columns = _fitting(width)
        name = max(_NAME, width - sum(w + 1 for _, w, _, _ in shown_columns) - 1)
        name = min(name, max([_NAME, *(len(r.plugin) for r in rows)]))
        heads = [f"{'plugin':<{name}}", *(f"{t:>{w}}" for t, w, _, _ in shown_columns)]
        lines = [self._headline(width, rows), click.style(" ".join(heads)[:width], bold=True)]
        room = None if height is None else max(0, height - len(lines) - 3)
        for row in rows[:room]:
            cells = [_clip(shown(row.plugin), name).ljust(name)]
            for _, cell_width, cell, _ in shown_columns:
                cells.append(f"{_clip(cell(row), cell_width):>{cell_width}}")
            text = " ".join(cells)[:width]
            state = f"{row.state:>9}"
            if row.state in _STATES and state in text:
                text = text.replace(state, click.style(state, fg=_STATES[row.state]), 1)
            lines.append(text)
        lines += [click.style(_clip(line, width), dim=True) for line in self._notes(rows)]
        return lines if height is None else lines[:height]

    def _headline(self, width: int, rows: Sequence[Row]) -> str:
        age = time.time() - self._live.newest
        when = "no record yet" if not self._live.newest else f"newest record {_age(age)} ago"
        words = [
            f"{len(rows)} plugin{'s' * (len(rows) != 1)}",
            f"{_short(sum(r.calls for r in rows))} calls/s",
            f"last {self._live.window} s",
            when,
            f"by {SORTS[self._key][0]}",
        ]
        if self._paused:
            words.append("PAUSED")
        if self._live.broken:
            words.append(f"{self._live.broken} broken records")
        return _clip("capwasm top: " + ", ".join(words), width)

    def _notes(self, rows: Sequence[Row]) -> Iterator[str]:
        """Below the table: what is worst, in words."""
        if self._trouble:
            yield self._trouble
        if self._help:
            yield _HELP
        for row in [r for r in rows if r.why][:2]:
            yield f"{shown(row.plugin)}: {shown(row.why)}"
        for row in sorted(rows, key=lambda r: r.denied + r.failures, reverse=True)[:2]:
            told = {**row.outcomes, **row.denials}
            if told:
                words = ", ".join(f"{shown(w)} {n:,}" for w, n in list(told.items())[:4])
                yield f"{shown(row.plugin)}: {words}"

    def run(self, interval: float) -> None:
        """Draw until somebody presses q."""
        with _screen() as fd:
            until = 0.0
            while True:
                now = time.monotonic()
                if now >= until:
                    if not self._paused:
                        self.read()
                    until = now + interval
                size = shutil.get_terminal_size()
                lines = self.frame(size.columns, size.lines)
                text = "\r\n".join(line + "\x1b[K" for line in lines)
                click.echo(f"\x1b[H{text}\x1b[J", nl=False, color=colour())
                sys.stdout.flush()
                for key in _keys(fd, max(0.0, until - time.monotonic())):
                    if not self._pressed(key):
                        return

    def _pressed(self, key: str) -> bool:
        """Do what a key says; False to end."""
        if key in "q\x03\x04":
            return False
        if key in SORTS:
            self._key, self._turned = key, False
        elif key == "r":
            self._turned = not self._turned
        elif key in "h?":
            self._help = not self._help
        elif key in "p ":
            self._paused = not self._paused
        return True


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """The terminal to ourselves, key by key, and as it was afterwards."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        click.echo("\x1b[?1049h\x1b[?25l", nl=False)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        click.echo("\x1b[?25h\x1b[?1049l", nl=False)
        sys.stdout.flush()


def _keys(fd: int, seconds: float) -> str:
    """What was pressed within so long; an escape sequence is no key."""
    ready, _, _ = select.select([fd], [], [], seconds)
    if not ready:
        return ""
    data = os.read(fd, 64)
    if not data:  # the terminal has gone
        return "q"
    return _SEQUENCE.sub("", data.decode("utf-8", "replace"))


def _fitting(width: int) -> list[tuple[str, int, Callable[[Row], str], int]]:
    """The columns that there is room for beside a name."""
    columns = list(_COLUMNS)
    while sum(w + 1 for _, w, _, _ in columns) + _NAME > width:
        last = max(columns, key=lambda c: c[3])
        if not last[3]:
            break
        columns.remove(last)
    return columns


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _short(value: float, unit: str = "") -> str:
    """A number in at most six characters: `0.4`, `812`, `12.3k`."""
    if value == 0:
        return "-"
    if value < 10 and value != int(value):
        return f"{value:.1f}{unit}" if value >= 0.05 else f"<0.1{unit}"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return (
                f"{value / size:.1f}{letter}"
                if value < 100 * size
                else f"{value / size:.0f}{letter}"
            )
    return f"{value:.0f}{unit}"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    if math.isinf(value):
        return ">60s"
    return f"<{value / 1000:g}s" if value >= 1000 else f"<{value:g}ms"


def _age(seconds: float) -> str:
    for size, letter in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {letter}"
    return f"{max(0.0, seconds):.0f} s"


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
