"""One instance for several calls, with its state and its resources."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from .call import CallRecord
from .calling import Ticket, run_elsewhere
from .engine.crossing import GuestResource
from .engine.exports import Export, ExportTable, Namespace
from .engine.trampoline import guarded
from .instance import Instance, Way
from .threads import LOCAL, Workers

__all__ = ["Session"]


class Session:
    """One instance for several calls.  A context manager; a trap ends it.

    Attributes:
        functions: all that it offers.
        exports: the same as attributes, called on this instance.
    """

    def __init__(
        self,
        instance: Instance,
        functions: ExportTable,
        workers: Workers,
        on_close: Callable[[], None],
    ) -> None:
        """Hold the instance; `Plugin.session` made it, and `on_close` may be called twice."""
        self.exports = Namespace(functions, self._bind)
        self._instance = instance
        self.functions = functions
        self._workers = workers
        self._on_close = on_close
        self._known: dict[str, Callable[..., Any]] = {}

    def call(self, function: str, *args: Any) -> Any:
        """As `Plugin.call`, on this instance.

        Raises:
            GuestError, InstanceClosedError, TypeError, ValueError: as `Plugin.call`.
        """
        known = self._known.get(function)
        if known is None:
            known = self._known[function] = self._bind(self.functions.find(function))
        return known(*args)

    def _bind(self, export: Export) -> Callable[..., Any]:
        instance, workers = self._instance, self._workers
        plugin, limits, way = instance.plugin, instance.limits, instance.way(export)
        action, tally = way.action, way.tally

        def function(*args: Any) -> Any:
            here = LOCAL.here
            if here.room < 1:
                return run_elsewhere(workers, lambda ticket: self._run(way, args, ticket))
            record = CallRecord(plugin, action, limits, instance)
            return instance.enter(here, record, way.run, args, tally)

        return function

    def _run(self, way: Way, args: Any, ticket: Ticket) -> Any:
        record = self._instance.record(way.action)
        ticket.bind(record)
        record.check()
        return self._instance.enter(LOCAL.here, record, way.run, args, way.tally)

    def drop(self, resource: Any) -> None:
        """Drop a resource that the plugin handed out.

        Raises:
            TypeError: it is none.
            ValueError: it is another instance's.
            GuestError: its destructor trapped.
        """
        if not isinstance(resource, GuestResource):
            raise TypeError(f"expected a resource of the plugin, got {type(resource).__name__}")
        instance = self._instance
        if not instance.alive:  # when it closes, its resources are gone
            return
        way = instance.way_to_drop(resource)
        if LOCAL.here.room < 1:
            run_elsewhere(self._workers, lambda t: self._run(way, None, t))
        else:
            record = instance.record(way.action)
            instance.enter(LOCAL.here, record, way.run, None, way.tally)

    def close(self) -> None:
        """Give the instance up.  Called again, does what an interrupt left undone."""
        try:
            self._instance.close("its session has ended")
        finally:
            self._on_close()

    @guarded
    def __enter__(self) -> Self:
        try:
            return self
        except BaseException:
            # A signal's handler raised: `with` has not begun, and so won't end it.
            self.close()
            raise

    @guarded
    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BaseException:
            self.close()
            raise
