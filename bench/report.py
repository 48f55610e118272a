"""Results as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .measure import Figures

__all__ = ["COLUMNS", "OURS", "Row", "as_json", "find", "scaling", "show", "show_ratio", "table"]

OURS = "capwasm"
COLUMNS = ("capwasm", "wasmtime-py", "Extism", "Rust", "Rust Val")
_UNDER = "Rust"  # the floor: here the ratio says how far above it we are


@dataclass(frozen=True, slots=True)
class Row:
    """One case: the figures of each subject, or why there are none.

    Attributes:
        unit: of the figures: `s` for times, `KiB` for memory.
    """

    group: str
    name: str
    figures: Mapping[str, Figures]
    skipped: Mapping[str, str] = field(default_factory=dict)
    unit: Literal["s", "KiB"] = "s"

    def ratio(self, other: str) -> float | None:
        """How many times more `other` needs than capwasm; above 1 capwasm is ahead."""
        if OURS not in self.figures or other not in self.figures:
            return None
        return self.figures[other].over(self.figures[OURS])


def find(rows: Sequence[Row], group: str, name: str) -> Row | None:
    """The row of that name, if it was measured."""
    return next((row for row in rows if (row.group, row.name) == (group, name)), None)


def scaling(rows: Sequence[Row], what: str, subject: str) -> dict[int, float]:
    """How much more is done in the same time than by one thread, by threads.

    Args:
        what: `a million rounds` or `a short call`.
    """
    found: dict[int, Figures] = {}
    for row in rows:
        if row.group == "threads" and row.name.startswith(what) and subject in row.figures:
            found[int(row.name.removeprefix(f"{what}, ").split()[0])] = row.figures[subject]
    return {
        threads: statistics.median(
            one / many for one, many in zip(found[1].samples, figures.samples, strict=True)
        )
        for threads, figures in found.items()
        if 1 in found
    }


def as_json(machine: Mapping[str, Any], rows: Sequence[Row], **more: Any) -> dict[str, Any]:
    """All that was measured, in seconds or KiB."""
    return {
        "machine": dict(machine),
        **more,
        "results": [
            {
                "group": row.group,
                "name": row.name,
                "unit": row.unit,
                "subjects": {
                    name: {
                        "median": f.median,
                        "best": f.best,
                        "spread": f.spread,
                        "samples": list(f.samples),
                        "cpu": list(f.cpu),
                        "runs": f.runs,
                    }
                    for name, f in row.figures.items()
                },
                "ratios": {
                    name: row.ratio(name)
                    for name in row.figures
                    if row.ratio(name) and name != OURS
                },
                "skipped": dict(row.skipped),
            }
            for row in rows
        ],
    }


def table(names: Sequence[str], rows: Sequence[Row]) -> str:
    """A Markdown table: medians, spreads and ratios, with the reasons for what is missing."""
    shown = [name for name in COLUMNS if name in names]
    beside = [name for name in shown if name not in {OURS, _UNDER, "Rust Val"}]
    ratios = [(f"{name} / {OURS}", name) for name in beside]
    head = ["", "", *shown, *(title for title, _ in ratios)]
    if _UNDER in shown:
        head.append(f"{OURS} / {_UNDER}")
    lines, group = [head, ["---", "---", *["--:"] * (len(head) - 2)]], ""
    reasons: list[str] = []
    for row in rows:
        cells = [row.group if row.group != group else "", row.name]
        cells += [_figure(row, name, reasons) for name in shown]
        cells += [show_ratio(row.ratio(name)) for _, name in ratios]
        if _UNDER in shown:
            under = row.ratio(_UNDER)
            cells.append(show_ratio(1 / under if under else None))
        lines.append(cells)
        group = row.group
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    drawn = [
        "| "
        + " | ".join(_pad(c, w, i) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        + " |"
        for line in lines
    ]
    notes = [f"{_raised(i)} {reason}" for i, reason in enumerate(reasons, 1)]
    return "\n".join([*drawn, *(["", "; ".join(notes) + "."] if notes else [])])


def _pad(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def _figure(row: Row, name: str, reasons: list[str]) -> str:
    figures = row.figures.get(name)
    if figures is None:
        reason = row.skipped.get(name)
        if not reason:
            return "-"
        if reason not in reasons:
            reasons.append(reason)
        return f"-{_raised(reasons.index(reason) + 1)}"
    spread = "" if figures.spread is None else f" ±{figures.spread * 50:.0f}%"
    return f"{show(figures.median, row.unit)}{spread}"


def show(value: float, unit: str = "s") -> str:
    """Three digits and a unit that fits."""
    if unit != "s":
        return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
    for factor, name in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if value * factor < 999.5:
            return f"{value * factor:.3g} {name}"
    return f"{value:.3g} s"


def show_ratio(ratio: float | None) -> str:
    """Two digits."""
    if ratio is None:
        return "-"
    return f"{ratio:.2g}×" if ratio < 9.95 else f"{ratio:,.0f}×"


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
