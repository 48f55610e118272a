"""What many tests need: a context to open a capability in, a recorder, a call that is under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capwasm.call import CallRecord, entered
from capwasm.capability import Grant, GrantedClause, OpenContext
from capwasm.events import Event
from capwasm.lattice import Clause, ClauseSet
from capwasm.limits import DEFAULTS, Limits


class ListRecorder:
    """Keeps events in memory."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()

    def record(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def of(self, verdict: str) -> list[Event]:
        return [e for e in self.events if e.verdict == verdict]


def open_context(
    data_dir: Path,
    *,
    plugin_id: str = "acme.demo",
    version: str = "1.0.0",
    instance: int = 1,
    limits: Limits = DEFAULTS,
    recorder: Any = None,
    opened: Mapping[str, Any] | None = None,
) -> OpenContext:
    """A context such as the runtime gives, with a `ListRecorder` unless told otherwise."""
    return OpenContext(
        plugin=f"{plugin_id}@{version}",
        plugin_id=plugin_id,
        instance=instance,
        limits=limits,
        recorder=recorder if recorder is not None else ListRecorder(),
        data_dir=data_dir,
        opened=opened or {},
    )


def grant_of(*clauses: Clause, deny: tuple[Clause, ...] = ()) -> Grant[Any]:
    """A grant of these clauses, each under a lease of its own."""
    return Grant(tuple(GrantedClause(c) for c in clauses), ClauseSet.of(deny))


@contextmanager
def in_call(limits: Limits = DEFAULTS, plugin: str = "acme.demo") -> Iterator[CallRecord]:
    """Run the body as a host function would: within a call on this thread."""
    with entered(CallRecord(plugin, "run", limits)) as record:
        yield record
