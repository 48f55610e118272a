"""One instance for several calls, with its state and its resources."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .engine.crossing import GuestResource
from .engine.exports import Namespace
from .instance import Instance

if TYPE_CHECKING:
    from .plugin import Plugin

__all__ = ["Session"]


class Session:
    """One instance for several calls.  A context manager; a trap ends it."""

    def __init__(self, plugin: Plugin, instance: Instance) -> None:
        """Hold the instance; `Plugin.session` made it."""
        self._plugin = plugin
        self._instance = instance
        self._lock = threading.Lock()
        self._open = True

    @property
    def exports(self) -> Namespace:
        """The plugin's functions as attributes, called on this instance."""
        return Namespace(self._plugin.functions, self.call)

    def call(self, function: str, *args: Any) -> Any:
        """As `Plugin.call`, on this instance.

        Raises:
            GuestError, InstanceClosedError, TypeError, ValueError: as `Plugin.call`.
        """
        plugin = self._plugin
        export = plugin.functions.find(function)
        instance = self._instance
        return plugin.run_on(instance, export.short, lambda r: instance.call(export, args, r))

    def drop(self, resource: Any) -> None:
        """Drop a resource that the plugin handed out.

        Raises:
            TypeError: it is none.
            ValueError: it is another instance's.
            GuestError: its destructor trapped.
        """
        instance = self._instance
        if not isinstance(resource, GuestResource):
            raise TypeError(f"expected a resource of the plugin, got {type(resource).__name__}")
        if instance.alive:  # when it closes, its resources are gone
            action = f"drop {resource.resource.name}"
            self._plugin.run_on(instance, action, lambda r: (None, instance.drop(resource, r)))

    def close(self) -> None:
        """Give the instance up."""
        with self._lock:
            mine, self._open = self._open, False
        if mine:
            self._plugin.end_session(self._instance)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _t: type[BaseException] | None, _v: BaseException | None, _b: TracebackType | None
    ) -> None:
        self.close()
