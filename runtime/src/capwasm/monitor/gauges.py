"""What there is now in one runtime, for Prometheus: looked up when it is asked for, never on a call's way.

====================================  ============  ====================================================
metric                                labels        what
====================================  ============  ====================================================
capwasm_plugin_state                  plugin, state  1 for the state that it is in; see `states`
capwasm_instances                     plugin        instances that live
capwasm_calls_under_way               plugin        calls that have not returned
capwasm_memory_limit_bytes            plugin        what one instance may have
capwasm_processes                     plugin        processes that run it, where it has its own
capwasm_process_starts_total          plugin        how many were started
capwasm_process_peak_bytes            plugin        the most memory that one of those had, as yet
capwasm_back_off_seconds              plugin        how long it must still wait
capwasm_strikes                       plugin        strikes within the window, when last written down
capwasm_runtime_instances                           instances of all plugins
capwasm_runtime_instances_limit                     as many as there may be
capwasm_compilations_total            source        `memory`, `cache`, `compiler`: where code came from
capwasm_compile_seconds_total                       seconds that compiling took
====================================  ============  ====================================================
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.errors import CapwasmError
from capwasm.plugin import Plugin
from capwasm.record.metrics import MAX_PLUGINS, Metrics
from capwasm.registry.shelf import Shelf

from .strikes import Strikes

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["STATES", "Gauges"]

STATES: Final = (
    "held",
    "revoked",
    "suspended",
    "back-off",
    "loaded",
    "active",
    "waiting",
    "removed",
)
"""Of one plugin, the gravest first: held for its strikes; what the registry says; what runs here."""


@dataclass(frozen=True)
class Gauges:
    """A collector of prometheus-client.

    Attributes:
        plugins: those that are loaded.
        registry: what is installed, or None.   strikes: or None.
    """

    plugins: Callable[[], Sequence[Plugin]]
    engine: PluginEngine
    compiler: Compiler
    registry: Shelf | None
    strikes: Strikes | None

    def join(self, metrics: Metrics) -> Callable[[], None]:
        """Be part of these metrics; what comes back ends that.

        Two runtimes that share metrics would each tell of `capwasm_instances`; the first does.
        """
        try:
            metrics.registry.register(self)
        except ValueError:
            return lambda: None

        def leave() -> None:
            with contextlib.suppress(KeyError):
                metrics.registry.unregister(self)

        return leave

    def describe(self) -> Iterator[Metric]:
        """The names, asked for when it joins: nothing is looked up for them."""
        yield from self._families({}, {})

    def collect(self) -> Iterator[Metric]:
        """The values as they are now."""
        yield from self._families(self.states(), self._numbers())

    def states(self) -> dict[str, str]:
        """The state that each plugin is in, by id; see `STATES`."""
        found: dict[str, set[str]] = {}

        def note(plugin_id: str, state: str) -> None:
            found.setdefault(plugin_id, set()).add(state)

        with contextlib.suppress(CapwasmError):  # told where it matters: at the next load
            for listed in self.registry.list(removed=True) if self.registry is not None else ():
                state = listed.state or "waiting"
                note(listed.id, "removed" if listed.removed else state)
        with contextlib.suppress(CapwasmError):
            for plugin_id in self.strikes.docket.holds() if self.strikes is not None else ():
                note(plugin_id, "held")
        for plugin in self.plugins():
            note(plugin.id, "back-off" if _wait_of(plugin) else "loaded")
        ranks = {state: rank for rank, state in enumerate(STATES)}
        return {
            plugin_id: min(states, key=lambda s: ranks.get(s, len(ranks)))
            for plugin_id, states in sorted(found.items())[:MAX_PLUGINS]
        }

    def _numbers(self) -> dict[str, dict[str, float]]:
        """By metric, by plugin id; of the same id in several versions the sum, or the most."""
        sums: dict[str, Counter[str]] = {name: Counter() for name in _SUMS}
        most: dict[str, dict[str, float]] = {name: {} for name in _MOST}
        for plugin in list(self.plugins())[:MAX_PLUGINS]:
            live, code = plugin._live, plugin._opener.code  # noqa: SLF001  who looks, and calls nothing
            sums["instances"][plugin.id] += len(live)
            sums["calls_under_way"][plugin.id] += len(plugin.under_way())
            most["memory_limit_bytes"][plugin.id] = plugin.limits.memory
            _keep(most["back_off_seconds"], plugin.id, _wait_of(plugin))
            supervisor: Any = getattr(code, "supervisor", None)
            if supervisor is not None:
                sums["processes"][plugin.id] += len(supervisor.processes)
                sums["process_starts"][plugin.id] += supervisor.starts
                _keep(most["process_peak_bytes"], plugin.id, supervisor.peak_bytes())
        if self.strikes is not None:
            most["strikes"] = dict(sorted(self.strikes.standing.items())[:MAX_PLUGINS])
        return {**{name: dict(counts) for name, counts in sums.items()}, **most}

    def _families(
        self, states: dict[str, str], numbers: dict[str, dict[str, float]]
    ) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state = GaugeMetricFamily(
            "capwasm_plugin_state", "The state of a plugin.", labels=["plugin", "state"]
        )
        for plugin_id, word in states.items():
            state.add_metric([plugin_id, word], 1)
        yield state
        for name, text in (_SUMS | _MOST).items():
            kind = CounterMetricFamily if name == "process_starts" else GaugeMetricFamily
            family = kind(f"capwasm_{name}", text, labels=["plugin"])
            for plugin_id, value in numbers.get(name, {}).items():
                family.add_metric([plugin_id], value)
            yield family
        found = self.compiler.found
        yield GaugeMetricFamily(
            "capwasm_runtime_instances", "Instances of all plugins.", value=self.engine.live
        )
        yield GaugeMetricFamily(
            "capwasm_runtime_instances_limit",
            "As many as there may be.",
            value=self.engine.instances,
        )
        source = CounterMetricFamily(
            "capwasm_compilations", "Where compiled code came from.", labels=["source"]
        )
        for word in ("memory", "cache", "compiler"):
            source.add_metric([word], getattr(found, word))
        yield source
        yield CounterMetricFamily(
            "capwasm_compile_seconds", "Seconds that compiling took.", value=found.seconds
        )


_SUMS: Final = {
    "instances": "Instances that live.",
    "calls_under_way": "Calls that have not returned.",
    "processes": "Processes that run a plugin.",
    "process_starts": "Processes that were started.",
}
_MOST: Final = {
    "memory_limit_bytes": "What one instance may have.",
    "process_peak_bytes": "The most memory that a process had.",
    "back_off_seconds": "How long it must still wait.",
    "strikes": "Strikes within the window.",
}


def _wait_of(plugin: Plugin) -> float:
    """Seconds that a plugin must wait before it starts again."""
    supervisor: Any = getattr(plugin._opener.code, "supervisor", None)  # noqa: SLF001  as above
    waits = plugin._backoff.waits  # noqa: SLF001
    return max(waits, supervisor.backoff.waits if supervisor is not None else 0.0)


def _keep(most: dict[str, float], key: str, value: float) -> None:
    most[key] = max(value, most.get(key, 0.0))
