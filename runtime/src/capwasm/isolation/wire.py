"""Values as they stand in frames: from Python to plain objects by WIT type, and strictly back.

Everything is positional; the type says what stands where, so nothing names itself:

=================  =============================================================================
WIT                in a frame
=================  =============================================================================
bool, ints, f64    as they are; an f32 rounded to what it can hold
char, string       text
list<u8>           bytes, large ones in the lane's window
list of numbers    bytes, packed in the machine's order
list, tuple        an array
record             an array of its fields, in order
variant            `[case, payload or nil]`
enum, flags        the place of the word; a bit a word
option             nil, or `[value]`
result             `[0, value or nil]`, `[1, error or nil]`
own, borrow        the number of a handle, from 1 up
=================  =============================================================================

What a Python value must be is decided in `engine.checks`, as for every other way across, and with the
same words.  What comes back may be anything: whatever is not exactly of its type is a `ProtocolFault`,
and is never looked at deeper than the type goes (IPC-03, IPC-05).  Both directions are charged as
if the value had crossed in process (IPC-04, RES-16..18).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from capwasm.engine import types as t
from capwasm.engine.crossing import Budget

__all__ = ["Crossing", "Handles"]


class Handles(Protocol):
    """How one side names its handles, for one crossing."""

    def number(self, resource: t.ResourceId, value: Any, *, lend: bool) -> int:
        """The number for a handle that goes out.

        Raises:
            BadValue: it is no handle of that kind.
            CapError, HandleLimitExceeded: it can't go.
        """

    def handle(self, resource: t.ResourceId, number: int, *, owned: bool) -> Any:
        """The handle of a number that came in.

        Raises:
            CapError: there is none of that kind.
            ProtocolFault: no peer that keeps to the rules could have said it.
        """


class Crossing(Budget):
    """One crossing: its budget, its handles, its place for large bytes.

    Attributes:
        left: bytes that may still cross, of `limit`.
        put: what stands for bytes in a frame; see `Lane.put`.
    """

    __slots__ = ("handles", "put")

    def __init__(
        self, limit: int, handles: Handles, put: Callable[[Any], Any] = lambda data: data
    ) -> None:
        """Begin with the whole budget."""
        self.left = self.limit = limit
        self.handles = handles
        self.put = put
