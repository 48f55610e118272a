"""From a linked component to a running one: what is the same each time is looked up once.

An instance of the engine is two numbers, and so is a function of it.  Names are looked up once a
component, not once an instance; the rest is one C call to start, and one for each function that is
called.
"""

from __future__ import annotations

import ctypes
from typing import Any

import wasmtime
from wasmtime import _bindings as ffi

from capwasm.errors import InternalError

from . import capi
from .crossing import EngineFault
from .store import Func, Store

__all__ = ["Startable", "Started"]


class Startable:
    """A component and all that it imports.  Safe from threads."""

    def __init__(
        self, component: wasmtime.component.Component, linker: wasmtime.component.Linker
    ) -> None:
        """Keep both; nothing more may be defined in `linker`."""
        self._keep = (component, linker)
        self._component = capi.address(component.ptr())
        self._linker = capi.address(linker.ptr())
        self._indices: dict[tuple[str, str], int] = {}

    def start(self, store: Store) -> Started:
        """Instantiate in that store: the guest's start functions run.

        Raises:
            EngineFault: it does not fit, or its start failed.
        """
        raw = ffi.wasmtime_component_instance_t()
        error = capi.instantiate(
            self._linker, store.context, self._component, ctypes.addressof(raw)
        )
        if error:
            raise EngineFault(str(capi.take_error(error)))
        return Started(self, store, raw)

    def index(self, where: tuple[str, str]) -> int:
        """The engine's address of an export, looked up when first asked for.

        Args:
            where: its interface, or "", and its name there.

        Raises:
            InternalError: there is none.
        """
        index = self._indices.get(where)
        if index is not None:
            return index
        interface, name = where
        parent: int | None = None
        if interface:
            parent = self._find(None, interface)
        try:
            index = self._find(parent, name) if parent or not interface else None
        finally:
            if parent:
                capi.export_index_delete(parent)
        if not index:
            raise InternalError(f"the component lost its export {interface}#{name}")
        kept = self._indices.setdefault(where, index)
        if kept != index:  # another thread was first
            capi.export_index_delete(index)
        return kept

    def _find(self, parent: int | None, name: str) -> int | None:
        raw = name.encode()
        found: int | None = capi.export_index(self._component, parent, raw, len(raw))
        return found

    def __del__(self) -> None:
        for index in getattr(self, "_indices", {}).values():
            capi.export_index_delete(index)


class Started:
    """A running component.  Whoever uses it answers for the store: open, and entered by no other."""

    __slots__ = ("_at", "_raw", "_startable", "_store")

    def __init__(self, startable: Startable, store: Store, raw: Any) -> None:
        """Made by `Startable.start`."""
        self._startable = startable
        self._store = store
        self._raw = raw
        self._at = ctypes.addressof(raw)

    def func(self, where: tuple[str, str]) -> Func:
        """An exported function, to be bound by its call plan, which knows `where` it is.

        Raises:
            InternalError: the component has no such export.
        """
        func = Func()
        index = self._startable.index(where)
        if not capi.instance_func(self._at, self._store.context, index, func.at):
            raise InternalError(f"the component lost its export {'#'.join(where)}")
        return func
