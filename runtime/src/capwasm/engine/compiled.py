"""What the compiler hands on."""

from __future__ import annotations

from dataclasses import dataclass

import wasmtime.component

__all__ = ["Compiled"]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Compiled:
    """A compiled component.

    Attributes:
        component: the engine's.
        laned: whether the plugin stands in it between our adapters (see `lane/compose.py`).  The
            compiler alone knows: a plugin may give its imports and exports any name.
    """

    component: wasmtime.component.Component
    laned: bool = False
