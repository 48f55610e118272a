"""What the compiler hands on, and how compiled code becomes a component."""

from __future__ import annotations

from dataclasses import dataclass

import wasmtime
import wasmtime.component

from .sealed import Sealed
from .types import ComponentTypes

__all__ = ["Compiled", "load"]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Compiled:
    """A compiled component.

    Attributes:
        component: the engine's.
        types: what it imports and exports, the lane and all, if that is known already.
        laned: whether it has the bulk lane (see `lane/append.py`).  The compiler alone knows: a plugin
            may give its imports and exports any name.
        sealed: the very bytes that `component` is mapped from, for a process apart that is to run the
            same; closed unless `Compiler.compile` was told to keep them.
    """

    component: wasmtime.component.Component
    types: ComponentTypes | None = None
    laned: bool = False
    sealed: Sealed | None = None


def load(engine: wasmtime.Engine, code: Sealed) -> wasmtime.component.Component:
    """The component of compiled code, which *runs what it is given*: only what we made comes here.

    Its pages are those of `code`: nothing is copied.

    Raises:
        wasmtime.WasmtimeError: it was compiled for another engine.
    """
    try:
        return wasmtime.component.Component.deserialize_file(engine, code.path)
    except wasmtime.WasmtimeError as exc:
        first = exc
    try:
        # Where /proc is not mounted: a copy of the same sealed bytes.
        with code.view() as view:
            return wasmtime.component.Component.deserialize(engine, bytes(view))
    except wasmtime.WasmtimeError:
        raise first from None
