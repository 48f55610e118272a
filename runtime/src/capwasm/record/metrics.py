"""Numbers for Prometheus, made of the same events that the audit log keeps.

They live in a registry of their own.  Labels are bounded, each metric's for itself: plugin ids
without versions, and words of a known shape; what comes past the bound is counted as `other`, so no
plugin can swell the registry.

==================================  ==========================  ===================================
metric                              labels                      from
==================================  ==========================  ===================================
capwasm_calls_total                 plugin, outcome             `call`: `ok` or the error code; its `calls`
capwasm_call_seconds                plugin                      its `ms`, as a histogram
capwasm_call_fuel_total             plugin                      its `fuel`
capwasm_host_calls_total            plugin                      its `host-calls`
capwasm_net_bytes_total             plugin                      its `net-bytes`
capwasm_output_bytes_total          plugin                      its `output-bytes`
capwasm_denials_total               plugin, kind, reason        every event that was denied
capwasm_limit_hits_total            plugin, limit               `limit`: the error code
capwasm_crashes_total               plugin, reason              `crash`
capwasm_loads_total                 verdict, reason             `load`
capwasm_stops_total                 plugin, action              `kill`: `kill`, `evict`, `hold`, else `call`
capwasm_back_offs_total             plugin                      `instance`: it must wait
capwasm_log_dropped_total           plugin                      `log`: its `records`
capwasm_events_total                kind, verdict               every event
capwasm_record_failures_total       recorder                    `Recorders`: audit or hook failed
==================================  ==========================  ===================================

A timeout is a call whose outcome is `limit.deadline`.  What there is now, and not what happened, is told
by the gauges of a runtime that was opened with these metrics: see `monitor.gauges`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from capwasm.events import DENIED, Event

from .tally import SECONDS, buckets

__all__ = ["Metrics", "MetricsServer", "serve_metrics"]

MAX_PLUGINS: Final = 1_000
MAX_WORDS: Final = 200
OTHER: Final = "other"
_STOPS: Final = frozenset({"kill", "evict", "hold"})

_WORD: Final = re.compile(r"[a-z][a-z0-9.-]{0,47}")
_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")


class _Bound:
    """Passes the first so many labels of a shape; the rest are one."""

    def __init__(self, shape: re.Pattern[str], size: int) -> None:
        self._shape, self._size = shape, size
        self._seen: set[str] = set()

    def __call__(self, label: str) -> str:
        if label in self._seen:
            return label
        if len(self._seen) >= self._size or not self._shape.fullmatch(label):
            return OTHER
        self._seen.add(label)
        return label


class _Here(threading.local):
    counting = False


class Metrics:
    """Counts events.  A `Recorder` in its own right, and safe for any thread."""

    def __init__(self) -> None:
        """All at zero, in a new registry (`registry`, for an embedder's own exporter)."""
        import prometheus_client as prom

        self.registry = prom.CollectorRegistry()

        def counter(name: str, doc: str, *labels: str) -> prom.Counter:
            return prom.Counter(f"capwasm_{name}", doc, labels, registry=self.registry)

        self._calls = counter("calls", "Calls into plugins.", "plugin", "outcome")
        self._seconds = prom.Histogram(
            "capwasm_call_seconds",
            "Time of a call.",
            ["plugin"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._details = {
            "fuel": counter("call_fuel", "Fuel that calls used.", "plugin"),
            "host-calls": counter("host_calls", "Host calls that plugins made.", "plugin"),
            "net-bytes": counter("net_bytes", "Bytes over the network.", "plugin"),
            "output-bytes": counter("output_bytes", "Bytes of plugins' output.", "plugin"),
        }
        self._denials = counter("denials", "What was denied.", "plugin", "kind", "reason")
        self._limits = counter("limit_hits", "Limits that were reached.", "plugin", "limit")
        self._crashes = counter("crashes", "Plugins that trapped.", "plugin", "reason")
        self._loads = counter("loads", "Capsules loaded or refused.", "verdict", "reason")
        self._stops = counter("stops", "Plugins and calls that were ended.", "plugin", "action")
        self._back_offs = counter("back_offs", "Waits after crashes in a row.", "plugin")
        self._dropped = counter("log_dropped", "Log records dropped.", "plugin")
        self._events = counter("events", "Events recorded.", "kind", "verdict")
        self._failures = counter("record_failures", "Recorders that failed.", "recorder")
        self._plugin = _Bound(_ID, MAX_PLUGINS)
        self._words: dict[tuple[Any, str], _Bound] = {}
        self._children: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()
        self._todo: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._here = _Here()

    def record(self, event: Event) -> None:
        """The same as `observe`."""
        self.observe(event)

    def observe(self, event: Event) -> None:
        """Count one event.  Whatever is in it, nothing is raised for it."""
        self._soon(self._count, event)

    def _soon(self, count: Callable[[Any], None], subject: Any) -> None:
        # The locks below are not re-entrant, and not all are ours: what a signal's handler records
        # in the midst of this waits until the thread is out of it.
        self._todo.append((count, subject))
        self._count_all()

    def _count_all(self) -> None:
        if self._here.counting:
            return
        self._here.counting = True
        try:
            while self._todo:
                with contextlib.suppress(IndexError):  # another thread was at it
                    count, subject = self._todo.popleft()
                    count(subject)
        finally:
            self._here.counting = False

    def _count(self, event: Event) -> None:
        plugin = event.plugin.partition("@")[0]
        self._add(self._events, event.kind, event.verdict)
        if event.verdict == DENIED:
            self._add(self._denials, plugin, event.kind, _code(event.reason))
        match event.kind:
            case "call":
                self._call(plugin, event)
            case "limit":
                self._add(self._limits, plugin, _code(event.reason))
            case "crash":
                self._add(self._crashes, plugin, _code(event.reason))
            case "load":
                self._add(self._loads, event.verdict, _code(event.reason))
            case "kill":
                self._add(self._stops, plugin, event.action if event.action in _STOPS else "call")
            case "instance" if event.reason == "guest.backoff":
                self._add(self._back_offs, plugin)
            case "log":
                self._add(self._dropped, plugin, amount=_number(event.details, "records"))
            case _:
                pass

    def failed(self, recorder: str) -> None:
        """Count a recorder that failed: `audit`, `hook`, `log`."""
        self._soon(lambda name: self._add(self._failures, name), recorder)

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        import prometheus_client as prom

        counting, self._here.counting = self._here.counting, True
        try:
            return prom.generate_latest(self.registry)
        finally:
            self._here.counting = counting
            self._count_all()

    def _call(self, plugin: str, event: Event) -> None:
        seconds, calls = _number(event.details, "ms") / 1000, 1
        histogram = self._child(self._seconds, plugin)
        within = buckets(event.details.get("within-ms"))
        if within is None:
            histogram.observe(seconds)
        else:
            # Many at once, each in its own bucket; there is no public way to say so.
            calls = sum(within)
            histogram._sum.inc(seconds)  # noqa: SLF001
            for bucket, count in zip(histogram._buckets, within, strict=True):  # noqa: SLF001
                bucket.inc(count)
        self._add(self._calls, plugin, _code(event.reason) or "ok", amount=calls)
        for key, metric in self._details.items():
            if amount := _number(event.details, key):
                self._add(metric, plugin, amount=amount)

    def _add(self, metric: Any, *labels: str, amount: float = 1) -> None:
        self._child(metric, *labels).inc(amount)

    def _child(self, metric: Any, *labels: str) -> Any:
        child = self._children.get((metric, *labels))
        if child is not None:
            return child
        with self._lock:
            names = metric._labelnames  # noqa: SLF001  there is no public way to ask
            bounded = [
                self._plugin(text)
                if name == "plugin" and text
                else self._words.setdefault((metric, name), _Bound(_WORD, MAX_WORDS))(text)
                if text
                else ""
                for name, text in zip(names, labels, strict=True)
            ]
            child = metric.labels(*bounded)
            if tuple(bounded) == labels:  # else the cache itself would grow without bound
                self._children[metric, *labels] = child
            return child


def _code(reason: str) -> str:
    """A reason as a label: words joined by dashes, or `other`."""
    return reason if not reason or _WORD.fullmatch(reason) else reason.lower().replace(" ", "-")


def _number(details: Mapping[str, Any], key: str) -> float:
    value = details.get(key, 0)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and 0 <= value < 2**63 else 0.0


class MetricsServer:
    """A small HTTP server with one page.  Stop it with `close`, or leave its `with`."""

    def __init__(self, server: Any, thread: threading.Thread) -> None:
        """Made by `serve_metrics`."""
        self._server, self._thread = server, thread

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve_metrics(
    metrics: Metrics, addr: str = "127.0.0.1", port: int = 9464, *, public: bool = False
) -> MetricsServer:
    """Serve the metrics over plain HTTP, on the loopback interface.

    Args:
        metrics: what to show.
        addr: an IP address.
        port: 0 for any that is free.
        public: whether an address that others can reach is meant.  They will see which plugins run.

    Raises:
        ValueError: the address is no loopback address, and `public` is not set.
        OSError: the port is taken.
    """
    import prometheus_client as prom

    if not public and not ipaddress.ip_address(addr).is_loopback:
        raise ValueError(f"{addr} can be reached from outside; say public=True if that is meant")
    server, thread = prom.start_http_server(port, addr, registry=metrics.registry)
    return MetricsServer(server, thread)
