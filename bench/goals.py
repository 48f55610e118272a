"""What the engine should reach, as data, held against the figures of one run.

A time is a goal for an idle machine of the kind on which wasmtime-py's scalar call takes 13.0 µs.
So it is scaled by what that call takes in the same run.  Ratios are not scaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .cases import APART
from .report import OURS, Row, find, scaling, show, show_ratio

__all__ = ["GOALS", "Goal", "Verdict", "judge", "needed", "view"]

REFERENCE_SECONDS = 13.0e-6
"""wasmtime-py's scalar call on an idle machine."""

_SCALAR = ("call", "scalar")
_FRESH = "fresh, to its first call"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one goal stands.

    Attributes:
        found: the figure, for people; the worst, of several.
        met: none if it was not measured.
    """

    goal: Goal
    wanted: str
    found: str
    met: bool | None


class Rule(Protocol):
    """What a row must show."""

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Group and name of each row that it looks at."""

    def check(self, rows: Sequence[Row], scale: float) -> tuple[str, str, bool | None]:
        """What is wanted, what was found, and whether that will do."""


@dataclass(frozen=True, slots=True)
class AtMost:
    """Each row takes at most so many seconds."""

    seconds: float
    rows: tuple[tuple[str, str], ...]

    def check(self, rows: Sequence[Row], scale: float) -> tuple[str, str, bool | None]:
        """The slowest decides."""
        scaled = self.seconds * scale
        wanted = f"at most {show(self.seconds)}, here {show(scaled)}"
        figures = [row.figures[OURS].median for row in _found(rows, self.rows, OURS)]
        if len(figures) < len(self.rows):
            return wanted, "-", None
        return wanted, show(max(figures)), max(figures) <= scaled


@dataclass(frozen=True, slots=True)
class Ahead:
    """Each row shows that `other` needs at least so many times more."""

    other: str
    times: float
    rows: tuple[tuple[str, str], ...]

    def check(self, rows: Sequence[Row], scale: float) -> tuple[str, str, bool | None]:
        """The least ahead decides."""
        del scale
        wanted = f"{self.times:g}× ahead of {self.other}"
        ratios = [row.ratio(self.other) for row in _found(rows, self.rows, self.other)]
        known = [ratio for ratio in ratios if ratio is not None]
        if len(known) < len(self.rows):
            return wanted, "-", None
        return wanted, show_ratio(min(known)), min(known) >= self.times


@dataclass(frozen=True, slots=True)
class Adds:
    """Each of the second rows takes at most so many seconds more than the first beside it."""

    seconds: float
    pairs: tuple[tuple[tuple[str, str], tuple[str, str]], ...]

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Both of each pair."""
        return tuple(row for pair in self.pairs for row in pair)

    def check(self, rows: Sequence[Row], scale: float) -> tuple[str, str, bool | None]:
        """The most decides."""
        scaled = self.seconds * scale
        wanted = f"at most {show(self.seconds)} more, here {show(scaled)}"
        figures = [row.figures[OURS].median for row in _found(rows, self.rows, OURS)]
        if len(figures) < len(self.rows):
            return wanted, "-", None
        most = max(b - a for a, b in zip(figures[::2], figures[1::2], strict=True))
        return wanted, show(most), most <= scaled


@dataclass(frozen=True, slots=True)
class Scales:
    """So many threads do so many times the work of one."""

    threads: int
    times: float

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """One thread, and that many."""
        what = "a million rounds"
        return ("threads", f"{what}, 1 thread"), ("threads", f"{what}, {self.threads} threads")

    def check(self, rows: Sequence[Row], scale: float) -> tuple[str, str, bool | None]:
        """Of the pairs of one round."""
        del scale
        wanted = f"{self.times:g}× the work of one thread"
        found = scaling(rows, "a million rounds", OURS).get(self.threads)
        if found is None:
            return wanted, "-", None
        return wanted, f"{found:.2f}×", found >= self.times


@dataclass(frozen=True, slots=True)
class Grows:
    """Resident memory grows by at most so much."""

    kib: float
    rows: tuple[tuple[str, str], ...]

    def check(self, rows: Sequence[Row], scale: float) -> tuple[str, str, bool | None]:
        """The most decides."""
        del scale
        wanted = f"at most {self.kib:,.0f} KiB"
        figures = [max(row.figures[OURS].samples) for row in _found(rows, self.rows, OURS)]
        if len(figures) < len(self.rows):
            return wanted, "-", None
        return wanted, show(max(figures), "KiB"), max(figures) <= self.kib


def _found(rows: Sequence[Row], names: Sequence[tuple[str, str]], subject: str) -> Iterator[Row]:
    for group, name in names:
        row = find(rows, group, name)
        if row is not None and {OURS, subject} <= row.figures.keys():
            yield row


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of what should be reached."""

    text: str
    rule: Rule


def _string(*sizes: str) -> tuple[tuple[str, str], ...]:
    return tuple(("string", size) for size in sizes)


def _bytes(size: str) -> tuple[tuple[str, str], ...]:
    return (("bytes", size),)


def _python(name: str) -> tuple[tuple[str, str], ...]:
    return (("Python plugin", name),)


_APART = tuple(
    (inside, (APART, name))
    for inside, name in (
        (_SCALAR, "scalar call"),
        (("string", "1 kB"), "string, 1 kB"),
        (("bytes", "1 kB"), "bytes, 1 kB"),
    )
)
_FRESH_APART = ((("instance", _FRESH), (APART, "fresh, to its first call")),)
_HOST = ("host call", "a number (clock)"), ("host call", "text for text (setting)")
GOALS = (
    Goal("scalar call", AtMost(2.5e-6, (_SCALAR,))),
    Goal("scalar call", Ahead("wasmtime-py", 5, (_SCALAR,))),
    Goal("strings to 1 kB", Ahead("wasmtime-py", 3, _string("10 B", "1 kB"))),
    Goal("strings to 1 kB", Ahead("Extism", 2, _string("10 B", "1 kB"))),
    Goal("list<u8>, 1 kB", Ahead("wasmtime-py", 80, _bytes("1 kB"))),
    Goal("list<u8>, 1 kB", Ahead("Extism", 1, _bytes("1 kB"))),
    Goal("list<u8>, 100 kB", Ahead("wasmtime-py", 200, _bytes("100 kB"))),
    Goal("list<u8>, 1 MB", Ahead("wasmtime-py", 300, _bytes("1 MB"))),
    Goal("host call with policy check", AtMost(6e-6, _HOST)),
    Goal("fresh store to first call", AtMost(40e-6, (("instance", _FRESH),))),
    Goal(
        "fresh store to first call",
        Ahead("Extism", 10, (("instance", "the same; Extism: Plugin(wasm), cached"),)),
    ),
    Goal("Python plugin, warm start", AtMost(0.120, _python("warm start in a new process"))),
    Goal("Python plugin, second instance", AtMost(2e-3, _python("second instance"))),
    Goal("own process, a call", Adds(100e-6, _APART)),
    Goal("own process, a fresh instance and its call", Adds(100e-6, _FRESH_APART)),
    Goal("native, host call", AtMost(60e-6, ((APART, "native: host call, a number (clock)"),))),
    Goal(
        "native, start to first call", AtMost(15e-3, ((APART, "native: start, to its first call"),))
    ),
    Goal("4 threads on 2 cores", Scales(4, 1.7)),
    Goal("a million calls are flat", Grows(1024, (("memory", "a million calls: grown by"),))),
)


def needed() -> set[tuple[str, str]]:
    """Every row that a goal looks at, and the one that scales them."""
    return {_SCALAR, *(row for goal in GOALS for row in goal.rule.rows)}


def judge(rows: Sequence[Row]) -> tuple[float, list[Verdict]]:
    """The scale of this run (1 if it isn't known), and how each goal stands."""
    row = find(rows, *_SCALAR)
    figures = row.figures.get("wasmtime-py") if row else None
    scale = figures.median / REFERENCE_SECONDS if figures else 1.0
    return scale, [Verdict(goal, *goal.rule.check(rows, scale)) for goal in GOALS]


def view(rows: Sequence[Row]) -> str:
    """Met or not met, with the figures, as a Markdown table."""
    scale, verdicts = judge(rows)
    words = {True: "met", False: "**not met**", None: "not measured"}
    lines = [["goal", "wanted", "found", ""], ["---", "---", "--:", "---"]]
    lines += [[v.goal.text, v.wanted, v.found, words[v.met]] for v in verdicts]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    drawn = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    about = (
        f"Times are goals for an idle machine, on which wasmtime-py's scalar call takes "
        f"{show(REFERENCE_SECONDS)}.\nIn this run it took {show(scale * REFERENCE_SECONDS)}, so "
        f"they are scaled by {scale:.2f}. Ratios are of pairs in this run."
    )
    return "\n".join([*drawn, "", about])
