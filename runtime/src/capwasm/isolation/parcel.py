"""What a component's own process is given: its compiled code, and on which terms it runs.

The code is the sealed memory that the host's own component is mapped from, handed over as it is: a
start copies none of it, and costs the same for a component of any size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from capwasm.engine.compiled import Compiled
from capwasm.engine.link import Linked
from capwasm.engine.typedoc import decode, encode
from capwasm.engine.types import ComponentTypes
from capwasm.errors import InternalError
from capwasm.limits import Limits
from capwasm.threads import stack_for
from capwasm_shim import layers

__all__ = ["CODE", "Parcel", "budget", "code_of"]

CODE: Final = "code"
"""What the descriptor of the code is called."""

# What the interpreter and the engine need for themselves, and for each lane beside its instance.
_BASE_BYTES: Final = 96 << 20
_LANE_BYTES: Final = 16 << 20
# A value of a list of bytes is so many times as large while it crosses without the lane.
_VALUE_FACTOR: Final = 2 * 32
_THREADS: Final = 2  # the first one, and the engine's clock
_FILES: Final = 16


@dataclass(frozen=True, slots=True)
class Parcel:
    """All that a process has to know of the plugin that it runs, beside its code.

    Attributes:
        plugin: `id@version`.
        limits: of each instance and of each call.
        served: the host's functions; a place in it is the number by which one is asked for.
        laned: whether the code has the bulk lane.
        types: what the code imports and exports, the lane and all.
    """

    plugin: str
    limits: Limits
    served: tuple[tuple[str, str], ...]
    laned: bool
    types: ComponentTypes

    @classmethod
    def of(cls, linked: Linked, plugin: str, limits: Limits) -> Self:
        """For a component that the host has linked, and thereby checked.

        Raises:
            InternalError: its types are not known.
        """
        types = linked.compiled.types
        if types is None:
            raise InternalError("a component was linked whose types are not known")
        return cls(plugin, limits, linked.slots, linked.compiled.laned, types)

    def to_load(self) -> dict[str, Any]:
        """As plain data, for `ShimServer.start`; the descriptor that goes with it is of `code_of`."""
        return {
            "plugin": self.plugin,
            "limits": self.limits.to_table(),
            "served": self.served,
            "laned": self.laned,
            "types": encode(self.types),
        }

    @classmethod
    def from_load(cls, load: Mapping[str, Any]) -> Self:
        """What `to_load` gave.

        Raises:
            ValueError: it is none of ours.
        """
        try:
            return cls(
                load["plugin"],
                Limits(**{n.replace("-", "_"): value for n, value in load["limits"].items()}),
                tuple([(interface, name) for interface, name in load["served"]]),
                load["laned"],
                decode(load["types"]),
            )
        except (TypeError, AttributeError, LookupError) as exc:
            raise ValueError(f"not a parcel: {exc}") from exc


def code_of(compiled: Compiled) -> int:
    """The descriptor of its sealed code, open as long as `compiled` is there.

    Raises:
        InternalError: it was compiled without `keep`.
    """
    if compiled.sealed is None or compiled.sealed.closed:
        raise InternalError("a component for a process of its own was compiled without its code")
    return compiled.sealed.fd


def budget(limits: Limits, lanes: int) -> layers.Limits:
    """What the process may use: room for all that its instances may take by their own limits.

    Those are the ones that a guest meets, with the errors that say so; these are for the case that the
    engine no longer keeps them.  Both memories count, the plugin's own and the lane's.
    """
    each = 2 * limits.memory + _VALUE_FACTOR * limits.value_bytes + _LANE_BYTES + stack_for(2)
    each += 8 * limits.table_elements * limits.tables
    return layers.Limits(
        memory=_BASE_BYTES + lanes * each,
        threads=lanes + _THREADS,
        files=2 * lanes + _FILES,
        cpu_percent=100 * lanes,  # as much as so many calls in process can take
    )
