"""What a plugin tried and was refused becomes the least manifest that would ask for it.

A `Learner` keeps the refusals of a run, which the capabilities record anyway, each as the few words
that are safe to show: an origin and a path, a name, a key; never a body or a value.  `propose` makes
tables of them.  Every table is parsed as a manifest's before it is shown, so what comes out is one
that `capwasm manifest check` takes.  It grants nothing: policy and consent decide, as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from capwasm.capability import Capability
from capwasm.errors import Fault
from capwasm.events import DENIED, FAILED, Event
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.wasi import DECLARED

from .attempt import Attempt, Table, attempt_of, one_line
from .text import manifest_text, why_not
from .wants import learned, unused

__all__ = ["Learner", "Proposal"]

MAX_ATTEMPTS: Final = 1000  # that differ; a hostile plugin makes up new ones for ever
MAX_NOTES: Final = 100
MAX_TABLES: Final = 64  # of one capability, as a manifest may have


@dataclass(frozen=True, slots=True)
class Proposal:
    """A manifest that asks for what was tried.

    Attributes:
        text: the whole `plugin.toml`, which parses.
        tables: those that were learned.
        notes: what no table can give, or what a person should know besides.
        attempts: all that was tried and refused, each with how often.
        left_off: attempts beyond those that are kept.
    """

    text: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    attempts: Mapping[Attempt, int]
    left_off: int

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "manifest": self.text,
            "tables": [
                {"capability": t.capability, "words": dict(t.words), "notes": list(t.notes)}
                for t in self.tables
            ],
            "notes": list(self.notes),
            "attempts": [a._asdict() | {"times": n} for a, n in self.attempts.items()],
            "left-off": self.left_off,
        }


@dataclass
class Learner:
    """Keeps what one plugin is refused.  For any thread; made to be the hook of a runtime.

    Attributes:
        capabilities: those that there are.
        manifest: what it asks for already; None for a file without one.
    """

    capabilities: Sequence[Capability[Any, Any]]
    manifest: Manifest | None = None
    _attempts: dict[Attempt, int] = field(default_factory=dict)
    _notes: dict[str, None] = field(default_factory=dict)
    _tables: set[str] = field(default_factory=set)
    _imported: set[str] = field(default_factory=set)
    _left_off: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, event: Event) -> None:
        """Learn of an event; those that tell of no refusal are nothing to it."""
        if event.kind in ("limit", "crash") and event.verdict in (DENIED, FAILED):
            self.note(f"{event.kind}: {event.reason or event.action}")
        if event.verdict != DENIED:
            return
        attempt = attempt_of(event, {c.name for c in self.capabilities})
        if attempt is None:
            return
        with self._lock:
            if attempt in self._attempts or len(self._attempts) < MAX_ATTEMPTS:
                self._attempts[attempt] = self._attempts.get(attempt, 0) + 1
            else:
                self._left_off += 1

    def undeclared(self, faults: Iterable[Fault]) -> None:
        """Learn of imports that the manifest does not declare, as a `LinkError` tells them."""
        known = {c.name for c in self.capabilities}
        for fault in faults:
            name = (fault.fix or "").strip("[]")
            if name in known:
                self._tables.add(name)
            else:
                self.note(f"imports {fault.path}: {fault.message}")

    def imports(self, interfaces: Iterable[str]) -> None:
        """Learn what a component imports: it does not load where that is not declared.

        A table that was never needed is proposed as optional.
        """
        bare = {name.partition("@")[0] for name in interfaces}
        for capability in self.capabilities:
            ours = {name.partition("@")[0] for name in capability.interfaces}
            ours |= {name for name, table in DECLARED.items() if table == capability.name}
            if ours & bare:
                self._imported.add(capability.name)

    def note(self, text: str) -> None:
        """Keep a line for the person who decides."""
        with self._lock:
            if len(self._notes) < MAX_ATTEMPTS:
                self._notes.setdefault(one_line(text))

    def propose(self, plugin: Mapping[str, Any]) -> Proposal:
        """The least manifest that asks for all that was tried, on top of what was asked before.

        Args:
            plugin: the words of its `[plugin]` table.

        Raises:
            ManifestError: `plugin` is malformed.
        """
        with self._lock:
            attempts, notes = dict(self._attempts), list(self._notes)
        by_kind: dict[str, list[Attempt]] = {}
        for attempt in attempts:
            by_kind.setdefault(attempt.kind, []).append(attempt)
        tables: list[Table] = []
        for capability in self.capabilities:
            name = capability.name
            rows, more = learned(name, by_kind, name in self._tables, self.manifest)
            notes += more
            if not rows and name in self._imported and not self._asks(name):
                rows = unused(name)
            for row in rows[:MAX_TABLES]:
                reason = why_not(capability, row.words, self.manifest)
                if reason is None:
                    tables.append(row)
                else:
                    notes.append(f"{name}: {dict(row.words)}: {reason}")
            if len(rows) > MAX_TABLES:
                notes.append(f"{name}: {len(rows) - MAX_TABLES} more tables than fit")
        notes += [f"no permission gives {a}" for a in by_kind.get("wasi", ())]
        shown = list(dict.fromkeys(map(one_line, notes)))
        if len(shown) > MAX_NOTES:  # a manifest has a size, and a reader an end
            shown[MAX_NOTES:] = [f"and {len(shown) - MAX_NOTES} notes more"]
        text = manifest_text(plugin, self.capabilities, self.manifest, tables, shown)
        parse_manifest(text.encode(), self.capabilities, context="the proposal")
        return Proposal(text, tuple(tables), tuple(shown), attempts, self._left_off)

    def _asks(self, name: str) -> bool:
        return self.manifest is not None and name in self.manifest.requests
