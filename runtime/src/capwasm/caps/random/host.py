"""The random capability: `capwasm:random/random`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from capwasm.capability import Grant, Interface, OpenContext, Risk
from capwasm.caps._tables import ByTables

from .handle import RandomState, system_bytes
from .model import RandomClause, RandomTable

__all__ = ["Random"]

INTERFACE = "capwasm:random/random@0.1.0"


class Random(ByTables[RandomClause, RandomState]):
    """Random bytes, from the system unless another source is given."""

    name: ClassVar = "random"
    title: ClassVar = "Random"
    repeated: ClassVar = False
    interfaces: ClassVar = (INTERFACE,)
    clause: ClassVar = RandomClause
    asked: ClassVar = RandomTable
    given: ClassVar = RandomTable

    def __init__(self, source: Callable[[int], bytes] = system_bytes) -> None:
        """Draw from `source`: a `SeededBytes` in replays and tests."""
        self._source = source

    def risk(self, clause: RandomClause) -> tuple[Risk, str]:  # noqa: ARG002  all alike
        """Low."""
        return Risk.LOW, "Random bytes give no power over anything."

    def open(self, grant: Grant[RandomClause], ctx: OpenContext) -> RandomState:
        """Draw under that grant."""
        return RandomState(grant, ctx, self._source)

    def serve(self, state: RandomState) -> Sequence[Interface]:
        """The one interface."""
        return [Interface(INTERFACE, {"bytes": state.bytes, "next-u64": state.next_u64})]
