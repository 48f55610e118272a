"""What plugins do right now, worked out from the records of an audit log and from nothing else.

A record says when it was made, so what is told of the last minute is right at the first look.  What
is kept is bounded, whatever the log holds: so many plugins, so many words of each, a cell a second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from capwasm.events import ALLOWED, ASKED, DENIED, FAILED
from capwasm.record.tally import SECONDS, buckets

__all__ = ["MAX_PLUGINS", "Live", "Row"]

MAX_PLUGINS: Final = 1_000
MAX_WORDS: Final = 32
OTHER: Final = "other"
_BOUNDS_MS: Final = (*(1000 * s for s in SECONDS), float("inf"))
_ENDS: Final = frozenset({"suspended", "evicted", "revoked", "sent"})


@dataclass(slots=True)
class _Cell:
    """One second of one plugin."""

    calls: int = 0
    failures: int = 0
    fuel: int = 0
    net: int = 0
    output: int = 0
    within: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS_MS))
    denials: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Plugin:
    version: str = ""
    state: str = ""
    why: str = ""
    cells: dict[int, _Cell] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One plugin, over the window.

    Attributes:
        state: `loaded`, `back-off`, `suspended`, `evicted`, `revoked`, `held`, `ended`, `refused`, or
            empty if the part of the log that was read does not say.   why: of a state that is none.
        calls, fuel, net, output: a second; calls of every outcome, bytes.
        failures: calls that failed, in all of the window.   outcomes: by which error.
        denials: by reason.
        p50, p95: milliseconds within which so many calls returned; None without a call.
        strikes: as the home has them, or 0.
    """

    plugin: str
    version: str
    state: str
    why: str
    calls: float
    failures: int
    outcomes: Mapping[str, int]
    denials: Mapping[str, int]
    p50: float | None
    p95: float | None
    fuel: float
    net: float
    output: float
    strikes: int

    @property
    def denied(self) -> int:
        """Of all reasons."""
        return sum(self.denials.values())


class Live:
    """Takes records in the order of the log, and tells of the last seconds."""

    def __init__(self, window: int = 60) -> None:
        """Know nothing yet.

        Args:
            window: seconds that are told of.
        """
        self.window = window
        self.newest = 0.0
        self.broken = 0
        self._plugins: dict[str, _Plugin] = {}

    def take(self, record: Mapping[str, Any]) -> None:
        """Count one record; whatever is in it, nothing is raised for it."""
        when = _seconds(record.get("time"))
        kind, verdict = record.get("kind"), record.get("verdict")
        if "broken" in record or when is None or not isinstance(kind, str):
            self.broken += 1
            return
        self.newest = when  # the log is in order: if this is earlier, a clock was set back
        if kind == "runtime.start":
            for known in self._plugins.values():
                known.state = known.why = ""
            return
        name = record.get("plugin")
        plugin_id, _, version = name.partition("@") if isinstance(name, str) else ("", "", "")
        if not plugin_id:
            return
        if plugin_id not in self._plugins and len(self._plugins) >= MAX_PLUGINS:
            plugin_id = OTHER
        plugin = self._plugins.setdefault(plugin_id, _Plugin())
        plugin.version = version or plugin.version
        details = record.get("details")
        details = details if isinstance(details, dict) else {}
        reason = _word(record.get("reason"))
        self._note_state(plugin, kind, verdict, record, reason)
        if kind == "call":
            self._call(self._cell(plugin, when), verdict, reason, details)
        elif kind in ASKED and verdict == DENIED:
            times = max(1, _number(details, "times"))
            _add(self._cell(plugin, when).denials, f"{kind} {reason}", times)

    def rows(self, now: float, strikes: Mapping[str, int] | None = None) -> list[Row]:
        """Every plugin, by id.

        Args:
            now: seconds since 1970.
            strikes: by plugin id.
        """
        held = strikes or {}
        return [
            self._row(plugin_id, plugin, now, held.get(plugin_id, 0))
            for plugin_id, plugin in sorted(self._plugins.items())
        ]

    # -- inside -----------------------------------------------------------------------------------

    def _cell(self, plugin: _Plugin, when: float) -> _Cell:
        second = int(when)
        cells = plugin.cells
        if second not in cells:
            for other in [s for s in cells if abs(s - second) >= self.window]:
                del cells[other]
        return cells.setdefault(second, _Cell())

    def _call(self, cell: _Cell, verdict: object, reason: str, details: dict[str, Any]) -> None:
        within = buckets(details.get("within-ms"))
        if within is None:
            within = [0] * len(_BOUNDS_MS)
            within[min(bisect_left(_BOUNDS_MS, _float(details, "ms")), len(within) - 1)] = 1
        calls = sum(within)
        cell.calls += calls
        cell.within = [a + b for a, b in zip(cell.within, within, strict=True)]
        if verdict == FAILED:
            cell.failures += calls
            _add(cell.outcomes, reason, calls)
        cell.fuel += _number(details, "fuel")
        cell.net += _number(details, "net-bytes")
        cell.output += _number(details, "output-bytes")

    def _note_state(
        self, plugin: _Plugin, kind: str, verdict: object, record: Mapping[str, Any], reason: str
    ) -> None:
        text = str(record.get("reason") or "")[:200]
        match kind, record.get("action"):
            case "load", _ if verdict == ALLOWED:
                plugin.state, plugin.why = "loaded", ""
            case "load", _ if plugin.state != "loaded":
                plugin.state, plugin.why = "refused", reason
            case "kill", "evict":
                word = text.split(":")[0].split(" ")[0]
                plugin.state, plugin.why = word if word in _ENDS else "ended", text
            case "kill", "hold":
                plugin.state, plugin.why = "held", text
            case "instance", "back-off":
                plugin.state, plugin.why = "back-off", reason
            case "call", _ if verdict == ALLOWED and plugin.state in ("", "back-off", "refused"):
                plugin.state, plugin.why = "loaded", ""
            case _:
                pass

    def _row(self, plugin_id: str, plugin: _Plugin, now: float, strikes: int) -> Row:
        cells = [c for s, c in plugin.cells.items() if now - self.window < s <= now + 1]
        within = [sum(column) for column in zip(*(c.within for c in cells), strict=True)]
        denials: Counter[str] = Counter()
        outcomes: Counter[str] = Counter()
        for cell in cells:
            denials += cell.denials
            outcomes += cell.outcomes
        # Of a plugin that was first seen a moment ago, the moment; else rates would begin too low.
        first = min((s for s in plugin.cells if s > now - self.window), default=now)
        seconds = max(1.0, min(self.window, now - first))
        return Row(
            plugin=plugin_id,
            version=plugin.version,
            state=plugin.state,
            why=plugin.why,
            calls=sum(c.calls for c in cells) / seconds,
            failures=sum(c.failures for c in cells),
            outcomes=dict(outcomes.most_common()),
            denials=dict(denials.most_common()),
            p50=_quantile(within, 0.50),
            p95=_quantile(within, 0.95),
            fuel=sum(c.fuel for c in cells) / seconds,
            net=sum(c.net for c in cells) / seconds,
            output=sum(c.output for c in cells) / seconds,
            strikes=strikes,
        )


def _quantile(within: list[int], share: float) -> float | None:
    """The bound within which that share returned, in milliseconds; infinity past the last."""
    wanted, seen = share * sum(within), 0
    for bound, count in zip(_BOUNDS_MS, within, strict=False):
        seen += count
        if seen and seen >= wanted:
            return bound
    return None


def _seconds(text: object) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None


def _word(value: object) -> str:
    return value[:64] if isinstance(value, str) and value else "-"


def _number(details: Mapping[str, Any], key: str) -> int:
    value = details.get(key, 0)
    return value if type(value) is int and 0 <= value < 2**63 else 0


def _float(details: Mapping[str, Any], key: str) -> float:
    value = details.get(key, 0)
    return float(value) if type(value) in (int, float) and 0 <= value < 2**63 else 0.0


def _add(counts: Counter[str], word: str, times: int) -> None:
    counts[word if word in counts or len(counts) < MAX_WORDS else OTHER] += times
