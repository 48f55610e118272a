"""Which plots there are, and what they show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from .cases import IDLE, SIZES, THREADS, counted
from .report import COLUMNS, Row, find, scaling, show
from .svg import Axis, chart

__all__ = ["plots", "write_plots"]

_PLACE = Path(__file__).with_name("plots")
_SIZE = dict(SIZES)


def plots(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """The name and text of each plot for which there are figures."""
    for group, what in (("string", "A string"), ("bytes", "A list<u8>")):
        found = {
            name: [
                (float(size), row.figures[name].median)
                for size, label in SIZES
                if (row := find(rows, group, label)) and name in row.figures
            ]
            for name in COLUMNS
        }
        if any(len(points) > 1 for points in found.values()):
            yield (
                f"{group}.svg",
                chart(
                    f"{what}, there and back",
                    "time of one call, by size; both axes are logarithmic",
                    Axis("size", [float(s) for s, _ in SIZES], lambda s: _SIZE[int(s)]),
                    Axis("time of a call", _decades(found), show),
                    found,
                ),
            )
    for name, what, title in (
        ("threads", "a million rounds", "A loop of a million rounds, on several threads"),
        ("threads-short", "a short call", "Short calls, on several threads"),
    ):
        speeds = {s: sorted(scaling(rows, what, s).items()) for s in COLUMNS}
        points = {s: [(float(t), v) for t, v in of] for s, of in speeds.items()}
        if any(len(of) > 1 for of in points.values()):
            yield (
                f"{name}.svg",
                chart(
                    title,
                    "work done in the same time, beside one thread",
                    Axis("threads", [float(t) for t in THREADS], lambda t: f"{t:.0f}"),
                    Axis("times one thread", _steps(points), lambda v: f"{v:g}×", log=False),
                    points,
                ),
            )
    memory = {
        name: [
            (float(count), row.figures[name].median * 1024 * count)
            for count in IDLE
            if (row := find(rows, "memory", f"{counted(count, 'idle instance')}: resident each"))
            and name in row.figures
            and row.figures[name].median > 0
        ]
        for name in COLUMNS
    }
    if any(len(points) > 1 for points in memory.values()):
        yield (
            "instances.svg",
            chart(
                "Resident memory of idle instances",
                "growth of the process, each called once; both axes are logarithmic",
                Axis("instances", [float(n) for n in IDLE], lambda n: f"{n:,.0f}"),
                Axis("resident memory", _decades(memory), _bytes),
                memory,
            ),
        )


def write_plots(rows: Sequence[Row]) -> None:
    """Into bench/plots."""
    _PLACE.mkdir(exist_ok=True)
    for name, text in plots(rows):
        (_PLACE / name).write_text(text, encoding="utf-8")


def _decades(lines: dict[str, list[tuple[float, float]]]) -> list[float]:
    """Powers of ten around every value."""
    values = [value for points in lines.values() for _, value in points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def _steps(lines: dict[str, list[tuple[float, float]]]) -> list[float]:
    """From nothing to above every value, by halves."""
    high = max(value for points in lines.values() for _, value in points)
    return [step / 2 for step in range(max(4, math.ceil(high * 2)) + 1)]


def _bytes(value: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"
