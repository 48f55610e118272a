"""WASI as one instance gets it, for these tests: every function by its full name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capwasm.caps.clock.handle import ClockState
from capwasm.caps.clock.model import ClockClause
from capwasm.caps.log.handle import Buckets, LogState, PluginRecord
from capwasm.caps.log.model import LogClause
from capwasm.caps.random.handle import RandomState, system_bytes
from capwasm.caps.random.model import RandomClause
from capwasm.events import Event
from capwasm.record.redact import Redactor
from capwasm.values import Err, Variant
from capwasm.wasi import WasiConfig, wasi_interfaces
from tests.helpers import ListRecorder, grant_of, open_context

CLOSED = Err(Variant("closed"))


class Wasi:
    """The functions of `wasi_interfaces`, as `wasi["io/poll.poll"]`."""

    def __init__(
        self, opened: Mapping[str, Any] | None = None, config: WasiConfig | None = None
    ) -> None:
        self.recorder = ListRecorder()
        ctx = open_context(Path("/nonexistent"), recorder=self.recorder)
        self.interfaces = {_key(i.name): i for i in wasi_interfaces(opened or {}, ctx, config)}

    def __getitem__(self, name: str) -> Any:
        interface, _, function = name.partition(".")
        return self.interfaces[interface].functions[function]

    def method(self, resource: str, name: str, *args: Any) -> Any:
        """Call `[method]stream.read` of the one interface that has it."""
        full = f"[method]{resource}.{name}"
        [function] = [i.functions[full] for i in self.interfaces.values() if full in i.functions]
        return function(*args)

    @property
    def events(self) -> list[Event]:
        return [e for e in self.recorder.events if e.kind == "wasi"]


def _key(name: str) -> str:
    """Without the version, unless that is a draft."""
    bare, _, version = name.removeprefix("wasi:").partition("@")
    return f"{bare}@{version}" if "-" in version else bare


class VirtualTime:
    """A time source that only moves when somebody sleeps."""

    def __init__(self, now: int = 1_700_000_000_123_456_789) -> None:
        self.now = now
        self.slept = 0

    def wall_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now

    def sleep_ns(self, ns: int) -> None:
        self.now += ns
        self.slept += ns


def clock_state(source: Any, *, sleep: bool = True, wall: bool = True) -> ClockState:
    """A granted clock with steps of 1 ms."""
    return ClockState(grant_of(ClockClause(1, wall, sleep)), open_context(Path("/x")), source)


def random_state() -> RandomState:
    """Granted random bytes, up to 64 KiB at a time."""
    return RandomState(grant_of(RandomClause(64 * 1024)), open_context(Path("/x")), system_bytes)


def log_state(kept: list[PluginRecord]) -> LogState:
    """A granted log, which puts its records in `kept`."""
    grant = grant_of(LogClause(rate=10_000))
    return LogState(grant, open_context(Path("/x")), Redactor(), Buckets(), kept.append)
