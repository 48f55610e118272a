"""A line chart as SVG that reads well on a light page and on a dark one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "chart"]

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 112, 60, 52
_NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
_LINE = 15  # between two labels at the least

# Name → colour on light, colour on dark.  Told apart by people who see few colours, too: the lines
# also differ in their marks, and each has its name at its end.
_COLOURS = {
    "capwasm": ("#0550ae", "#6cb6ff"),
    "wasmtime-py": ("#bc4c00", "#f0883e"),
    "Extism": ("#1a7f37", "#56d364"),
    "Rust": ("#59636e", "#b1bac4"),
    "Rust Val": ("#8250df", "#c297ff"),
}
_MARKS = {
    "capwasm": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "wasmtime-py": "M-3.5-3.5h7v7h-7z",
    "Extism": "M0-4.5L4.5 3.5H-4.5z",
    "Rust": "M0-4.5L4.5 0L0 4.5L-4.5 0z",
    "Rust Val": "M-4-4L4 4M-4 4L4-4",
}


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction.

    Attributes:
        title: what it is.
        ticks: where it is marked, from its one end to its other.
        say: a tick in words.
        log: whether equal distances are equal ratios.
    """

    title: str
    ticks: Sequence[float]
    say: Callable[[float], str]
    log: bool = True

    def place(self, value: float) -> float:
        """From 0 at the one end to 1 at the other."""
        scale = math.log10 if self.log else float
        low, high = scale(self.ticks[0]), scale(self.ticks[-1])
        return (scale(value) - low) / (high - low)


def chart(
    title: str,
    note: str,
    across: Axis,
    up: Axis,
    lines: Mapping[str, Sequence[tuple[float, float]]],
) -> str:
    """The chart.

    Args:
        title: in a few words.
        note: one line below it.
        across, up: the axes.
        lines: points by name, sorted; the names are of `_COLOURS`.
    """

    def x(value: float) -> float:
        return round(_LEFT + across.place(value) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - up.place(value) * (_HEIGHT - _TOP - _BOTTOM), 1)

    parts = [
        f'<svg {_NAMESPACE} viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style(lines)}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>',
        f'<text class="title" x="16" y="26">{escape(title)}</text>',
        f'<text class="soft" x="16" y="44">{escape(note)}</text>',
    ]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for tick in up.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y(tick)}H{right}"/>')
        where = f'x="{_LEFT - 8}" y="{y(tick) + 4}" text-anchor="end"'
        parts.append(f'<text class="soft" {where}>{escape(up.say(tick))}</text>')
    for tick in across.ticks:
        parts.append(f'<path class="grid" d="M{x(tick)} {_TOP}V{bottom}"/>')
        where = f'x="{x(tick)}" y="{bottom + 18}" text-anchor="middle"'
        parts.append(f'<text class="soft" {where}>{escape(across.say(tick))}</text>')
    middle = (_LEFT + right) / 2
    where = f'x="{middle:.0f}" y="{_HEIGHT - 12}" text-anchor="middle"'
    parts.append(f'<text class="soft" {where}>{escape(across.title)}</text>')
    centre = (_TOP + bottom) / 2
    where = f'transform="translate(18 {centre:.0f}) rotate(-90)" text-anchor="middle"'
    parts.append(f'<text class="soft" {where}>{escape(up.title)}</text>')
    names = [name for name in _COLOURS if lines.get(name)]
    for name in reversed(names):  # ours on top
        points = [(x(a), y(b)) for a, b in lines[name]]
        path = "L".join(f"{a} {b}" for a, b in points)
        parts.append(f'<path class="line {_class(name)}" d="M{path}"/>')
        for a, b in points:
            where = f'transform="translate({a} {b})"'
            parts.append(f'<path class="mark {_class(name)}" {where} d="{_MARKS[name]}"/>')
    ends = {name: (x(lines[name][-1][0]), y(lines[name][-1][1])) for name in names}
    for name, height in _spread({n: end[1] for n, end in ends.items()}).items():
        where = f'x="{max(right, ends[name][0]) + 12}" y="{height + 4:.1f}"'
        parts.append(f'<text class="name {_class(name)}" {where}>{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _spread(heights: Mapping[str, float]) -> dict[str, float]:
    """The same order, none closer to the next than a line is high."""
    found: dict[str, float] = {}
    last = -math.inf
    for name in sorted(heights, key=lambda n: heights[n]):
        last = found[name] = max(heights[name], last + _LINE)
    over = max(0.0, last - (_HEIGHT - _BOTTOM)) if found else 0.0
    return {name: height - over for name, height in found.items()}


def _class(name: str) -> str:
    return name.lower().replace(" ", "-")


def _style(names: Mapping[str, object]) -> str:
    def colours(which: int) -> str:
        return "".join(
            f".{_class(name)}{{--c:{pair[which]}}}"
            for name, pair in _COLOURS.items()
            if name in names
        )

    return (
        "text{font:12px system-ui,sans-serif}"
        ".page{fill:#fff}.title{fill:#1f2328;font-size:15px;font-weight:600}.soft{fill:#59636e}"
        ".grid{stroke:#d8dee4;fill:none}"
        ".line{fill:none;stroke:var(--c);stroke-width:1.5}.line.capwasm{stroke-width:2.5}"
        ".mark{fill:var(--c);stroke:var(--c)}.name{fill:var(--c);font-weight:600}"
        f"{colours(0)}"
        "@media(prefers-color-scheme:dark){"
        ".page{fill:#0d1117}.title{fill:#f0f6fc}.soft{fill:#9198a1}.grid{stroke:#2a313c}"
        f"{colours(1)}}}"
    )
