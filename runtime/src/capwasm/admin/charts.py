"""Bars over time as plain geometry: what a template draws as SVG, and as a table beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

__all__ = ["Bar", "Chart", "Series", "Tick", "bars", "nice"]

WIDTH: Final = 960
HEIGHT: Final = 210
LEFT: Final = 52
RIGHT: Final = 6
TOP: Final = 12
BOTTOM: Final = 26
GAP: Final = 0.28
"""Of a slot, what stays free."""
LEAST: Final = 2.0
"""So high is a bar that is not zero, so that it can be seen."""


@dataclass(frozen=True, slots=True)
class Series:
    """One row of numbers, one a slot of time."""

    name: str
    kind: str
    """Names its colour and its pattern: `calls`, `failed`, `denied`."""
    values: tuple[int, ...]

    @property
    def total(self) -> int:
        """Of all slots."""
        return sum(self.values)


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle, in the chart's own units."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """All that a template draws.

    Attributes:
        title: what it shows, for everybody.   series: its numbers.
        slots: the beginning of each slot, for the table.
        bars, across, down: its parts.   base: where zero is.
    """

    title: str
    series: tuple[Series, ...]
    slots: tuple[str, ...]
    bars: tuple[Bar, ...]
    across: tuple[Tick, ...]
    down: tuple[Tick, ...]
    base: float = HEIGHT - BOTTOM
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to see."""
        return not any(s.total for s in self.series)

    @property
    def told(self) -> str:
        """The same in one sentence, for who can't see it."""
        parts = [f"{s.total:,} {s.name}" for s in self.series]
        return f"{self.title}: {', '.join(parts)}."

    @property
    def rows(self) -> list[tuple[str, tuple[int, ...]]]:
        """Each slot that is not all zero, with its numbers."""
        found = []
        for index, slot in enumerate(self.slots):
            values = tuple(s.values[index] for s in self.series)
            if any(values):
                found.append((slot, values))
        return found


def nice(most: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50, … that is not below."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= most:
                return factor * step
        step *= 10


def bars(
    title: str, series: Sequence[Series], begin: datetime, slot: timedelta, *, every: int
) -> Chart:
    """Stacked bars, one a slot.

    Args:
        title: what they show.
        series: from the axis up; all of one length.
        begin: of the first slot.
        slot: how long each is.
        every: how many slots there are from one mark of time to the next.
    """
    count = len(series[0].values)
    most = nice(max((sum(s.values[i] for s in series) for i in range(count)), default=0) or 1)
    inner, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = inner / count
    form = "%H:%M" if slot < timedelta(days=1) else "%d %b"
    times = [begin + slot * i for i in range(count)]
    found = []
    for index, when in enumerate(times):
        y = float(HEIGHT - BOTTOM)
        for one in series:
            value = one.values[index]
            if not value:
                continue
            tall = max(LEAST, high * value / most)
            y -= tall
            found.append(
                Bar(
                    one.kind,
                    round(LEFT + step * (index + GAP / 2), 2),
                    round(max(y, TOP), 2),
                    round(step * (1 - GAP), 2),
                    round(tall, 2),
                    f"{when:%d %b %H:%M}: {value:,} {one.name}",
                )
            )
    return Chart(
        title=title,
        series=tuple(series),
        slots=tuple(f"{when:%Y-%m-%d %H:%M}" for when in times),
        bars=tuple(found),
        across=tuple(
            Tick(round(LEFT + step * (i + 0.5), 2), f"{times[i]:{form}}")
            for i in range(every // 2, count, every)
        ),
        down=tuple(
            Tick(round(HEIGHT - BOTTOM - high * part / 2, 2), f"{most * part / 2:,.10g}")
            for part in ((0, 2) if most == 1 else (0, 1, 2))
        ),
    )
