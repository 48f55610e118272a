"""Results as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .measure import Figures

__all__ = ["Row", "as_json", "table"]

OURS = "capwasm"


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
    unit: str = "s"

    def ratio(self, other: str) -> float | None:
        """How many times more `other` needs than capwasm; above 1 capwasm is ahead."""
        if OURS not in self.figures or other not in self.figures:
            return None
        return self.figures[other].over(self.figures[OURS])


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
    """A Markdown table: medians, spreads, and how many times more the others need."""
    others = [name for name in names if name != OURS]
    head = ["", "", *names, *(f"{name} / {OURS}" for name in others)]
    lines = [head, ["---", "---", *["--:"] * (len(head) - 2)]]
    group = ""
    for row in rows:
        cells = [row.group if row.group != group else "", row.name]
        cells += [_figure(row, name) for name in names]
        cells += [_ratio(row.ratio(name)) for name in others]
        lines.append(cells)
        group = row.group
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "| "
        + " | ".join(_pad(c, w, i) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        + " |"
        for line in lines
    )


def _pad(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def _figure(row: Row, name: str) -> str:
    figures = row.figures.get(name)
    if figures is None:
        return "-"
    value = figures.median
    if row.unit != "s":
        return f"{value:.0f} {row.unit}"
    for factor, unit in ((1e6, "µs"), (1e3, "ms"), (1.0, "s")):
        if value * factor < 1000 or unit == "s":
            return f"{value * factor:.3g} {unit} ±{figures.spread * 50:.0f}%"
    raise AssertionError(value)


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio:.2g}×" if ratio < 10 else f"{ratio:.0f}×"
