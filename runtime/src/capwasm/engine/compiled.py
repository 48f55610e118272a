"""What the compiler hands on."""

from __future__ import annotations

from dataclasses import dataclass

import wasmtime.component

from .types import ComponentTypes

__all__ = ["Compiled"]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Compiled:
    """A compiled component.

    Attributes:
        component: the engine's.
        types: what it imports and exports, the lane and all, if that is known already.
        laned: whether it has the bulk lane (see `lane/append.py`).  The compiler alone knows: a plugin
            may give its imports and exports any name.
    """

    component: wasmtime.component.Component
    types: ComponentTypes | None = None
    laned: bool = False
