"""The handles of one instance as its process knows them: numbers, each of one kind of resource.

A process may say any number.  What it gets for one is what `HandleTable` has there for this instance,
of the very resource that the number was given out for, as long as the process has it; so no number
stands for more than was handed over (LIFE-06, LIFE-07, TYP-09).  What was only lent for a call can
neither be kept nor closed by the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from capwasm.engine.crossing import BadValue, Boundary, GuestResource, HostKind
from capwasm.engine.types import ResourceId
from capwasm.errors import CapError, InternalError
from capwasm.handles import Handle
from capwasm_shim.frames import ProtocolFault

__all__ = ["Ledger", "Passing"]

# A message may bring the end of as many handles as there can be, and of those it was given since.
_SPARE_DROPS = 64


class Ledger:
    """The numbers that one instance's process has.  For one thread at a time."""

    def __init__(self, boundary: Boundary, limit: int, end: Callable[[int], None]) -> None:
        """None yet.

        Args:
            boundary: of the instance.
            limit: how many handles it may have.
            end: ends a resource of the guest's own, by its number.
        """
        self.boundary = boundary
        self.end = end
        self._most_drops = limit + _SPARE_DROPS
        self._of: dict[int, ResourceId] = {}
        self._lent: set[int] = set()

    def passing(self) -> Passing:
        """For the handles of one crossing."""
        return Passing(self)

    def kind(self, resource: ResourceId) -> HostKind:
        """The host's side of a resource.

        Raises:
            InternalError: it has none.
        """
        kind = self.boundary.kinds.get(resource)
        if kind is None:
            raise InternalError(f"{resource} has no host side")
        return kind

    def add(self, resource: ResourceId, handle: Handle, *, lend: bool) -> int:
        """Give the process a number for a handle.

        Raises:
            HandleLimitExceeded, CapError: the table takes no more; the handle is closed.
        """
        number = self.boundary.handles.add(handle)
        self._of[number] = resource
        if lend:
            self._lent.add(number)
        return number

    def find(self, resource: ResourceId, number: int, *, take: bool) -> Handle:
        """The handle of a number; taken, it is the host's again.

        Raises:
            CapError: `closed`: there is none of that kind.
            ProtocolFault: it was only lent, and can't be taken.
        """
        if self._of.get(number) != resource:
            raise CapError("closed", f"no {resource} at this handle")
        kind = self.kind(resource)
        if not take:
            return self.boundary.handles.get(number, kind.handle)
        if number in self._lent:
            raise ProtocolFault("it gave away what it was lent")
        handle = self.boundary.handles.take(number, kind.handle)
        del self._of[number]
        return handle

    def drop(self, numbers: Sequence[Any]) -> None:
        """The process gave these up; one that it doesn't have any more is no matter.

        Raises:
            ProtocolFault: they are none, too many, or were only lent.
            Exception: a handle could not be closed.
        """
        if len(numbers) > self._most_drops:
            raise ProtocolFault("it gave up more handles than it can have")
        for number in numbers:
            if type(number) is not int or number in self._lent:
                raise ProtocolFault("it gave up what it does not have")
            if self._of.pop(number, None) is not None:
                self.boundary.handles.drop(number)

    def back(self, number: int) -> None:
        """What was lent is the host's again."""
        self._lent.discard(number)
        self._of.pop(number, None)
        with contextlib.suppress(CapError):
            self.boundary.handles.take(number, Handle)


class Passing:
    """The handles of one crossing; see `wire.Handles`.  What crosses is settled at its end."""

    __slots__ = ("_given", "_ledger", "_lent", "_moved", "_taken")

    def __init__(self, ledger: Ledger) -> None:
        """None yet; `Ledger.passing` made it."""
        self._ledger = ledger
        self._given: list[int] = []  # own, to the process
        self._lent: list[int] = []  # borrowed by the process
        self._taken: list[Handle] = []  # own, from the process
        self._moved: list[GuestResource] = []  # the guest's own, which go back to it

    def number(self, resource: ResourceId, value: Any, *, lend: bool) -> int:
        """See `wire.Handles.number`."""
        if not resource.imported:
            return self._guest_number(resource, value, lend=lend)
        kind = self._ledger.kind(resource)
        if not isinstance(value, Handle) or not isinstance(value, kind.handle):
            raise BadValue.expected(f"{resource.name} ({kind.handle.__name__})", value)
        number = self._ledger.add(resource, value, lend=lend)
        (self._lent if lend else self._given).append(number)
        return number

    def _guest_number(self, resource: ResourceId, value: Any, *, lend: bool) -> int:
        if not isinstance(value, GuestResource) or value.resource != resource:
            raise BadValue.expected(resource.name, value)
        if not value.belongs_to(self._ledger.boundary):
            raise BadValue.value(f"this {resource.name} belongs to another instance")
        try:
            number: int = value.pointer()
        except ValueError as exc:
            raise BadValue.value(str(exc)) from None
        if not lend:
            if any(r is value for r in self._moved):
                raise BadValue.value("one resource can't be given back twice in a call")
            self._moved.append(value)
        return number

    def handle(self, resource: ResourceId, number: int, *, owned: bool) -> Any:
        """See `wire.Handles.handle`."""
        ledger = self._ledger
        if not resource.imported:
            return GuestResource(resource, ledger.boundary, number, ledger.end, _nothing)
        handle = ledger.find(resource, number, take=owned)
        if owned:
            self._taken.append(handle)
        return handle

    def settle(self, *, crossed: bool) -> None:
        """The crossing is over: if it failed, what was given is closed, and what was taken too.

        What was lent is not touched; see `take_back`.
        """
        given, taken, moved = self._given, self._taken, self._moved
        self._given, self._taken, self._moved = [], [], []
        if crossed:
            for resource in moved:
                resource.mark_moved()
            return
        for handle in taken:
            handle.close()
        self._ledger.drop(given)

    def take_back(self) -> None:
        """The call is over for which handles were lent."""
        while self._lent:
            self._ledger.back(self._lent.pop())


def _nothing(_number: int) -> None:
    """Nothing of a process's is freed here."""
