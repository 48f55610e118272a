"""What stands in a component's own process for the host: functions that ask, handles that are numbers.

A function here holds no power.  It tells the host what the guest asked for, waits, and hands on what
came back; whether that may be, and what it costs, is decided by the host alone.  A handle is the number
under which the host has the real one; that it was dropped is told with the next message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from capwasm.call import current_call
from capwasm.capability import HostFunc, Interface
from capwasm.engine import types as t
from capwasm.engine.abi import canonical, split_version
from capwasm.engine.crossing import BadValue, GuestResource, over_limit
from capwasm.errors import GuestError, InternalError
from capwasm.handles import Handle, Lease
from capwasm_shim.frames import Lane, ProtocolFault
from capwasm_shim.protocol import Answer, Kind

from .codec import Codec
from .wire import Crossing

__all__ = ["Aborted", "Line", "RemoteHandle", "Served", "offers"]

_LEASE = Lease()  # what is revoked, is revoked by the host


class Aborted(GuestError):
    """The host ended the call; it knows why, and nobody here does."""

    default_code = "guest.interrupted"


class RemoteHandle(Handle):
    """A handle that the host holds.  Each kind of resource has a class of its own.

    Attributes:
        number: by which the host knows it.
    """

    __slots__ = ("_dropped", "number")

    def __init__(self, number: int, dropped: list[int]) -> None:
        """Stand for that one; its end is noted in `dropped`."""
        super().__init__(_LEASE)
        self.number = number
        self._dropped = dropped

    def move(self) -> None:
        """It is the host's again, and so not dropped."""
        self._open = False

    def release(self) -> None:
        """Have the host told."""
        self._dropped.append(self.number)


class Line:
    """One instance's side of its lane: numbers for handles, and questions.  For one thread."""

    def __init__(
        self, lane: Lane, kinds: dict[tuple[str, str], type[RemoteHandle]], limit: int
    ) -> None:
        """Speak for one instance.

        Args:
            lane: the lane, which is this instance's until it ends.
            kinds: of the host's resources; see `offers`.
            limit: `limits.value_bytes`.
        """
        self.lane = lane
        self.resources: dict[int, GuestResource] = {}
        self._kinds = kinds
        self._limit = limit
        self._numbers = count(1)
        self.dropped: list[int] = []
        self._moving: list[RemoteHandle] = []
        self._seq = 0

    # -- the handles of a crossing --------------------------------------------------------------

    def number(self, resource: t.ResourceId, value: Any, *, lend: bool) -> int:
        """See `wire.Handles`."""
        if isinstance(value, RemoteHandle):
            if not lend:
                self._moving.append(value)
            return value.number
        if not isinstance(value, GuestResource):
            raise BadValue.expected(resource.name, value)
        number = next(self._numbers)
        self.resources[number] = value
        return number

    def forget_given(self) -> None:
        """Forget resources that the guest has back."""
        for number in [n for n, resource in self.resources.items() if not resource.alive]:
            del self.resources[number]

    def handle(self, resource: t.ResourceId, number: int, *, owned: bool) -> Any:
        """See `wire.Handles`."""
        del owned
        if resource.imported:
            return self._kinds[kind_of(resource)](number, self.dropped)
        found = self.resources.get(number)
        if found is None:
            raise ProtocolFault("a resource that there is not")
        return found

    # -- messages -------------------------------------------------------------------------------

    def send(self, head: list[Any], values: Callable[[Crossing], Any], *tail: Any) -> None:
        """Send a message, and with it which handles were dropped since the last one.

        Args:
            head: what stands before the values.
            values: gives them.
            tail: what stands after the handles.

        Raises:
            ValueLimitExceeded: they are too large.  Owned handles among them are still here.
            ProtocolFault, PeerClosed: there is no host any more that could be talked to.
        """
        lane, dropped = self.lane, self.dropped[:]
        lane.begin()
        self._moving.clear()
        try:
            lane.send([*head, values(self.crossing(lane.put)), dropped, *tail])
        except ValueError:  # no room in the window
            raise over_limit(self._limit) from None
        for handle in self._moving:
            handle.move()
        self._moving.clear()
        del self.dropped[: len(dropped)]

    def close_unsent(self) -> None:
        """Close the owned handles of a message that could not be sent: nobody has them any more."""
        for handle in self._moving:
            handle.close()
        self._moving.clear()

    def crossing(self, put: Callable[[Any], Any] = lambda data: data) -> Crossing:
        """For the values of one message."""
        return Crossing(self._limit, self, put)

    def begin_call(self) -> None:
        """The next question is the first of a call."""
        self._seq = 0

    def ask(self, number: int, codec: Codec, args: tuple[Any, ...]) -> Any:
        """Have the host run one of its functions.

        Raises:
            Aborted: the host ended the call.
            ValueLimitExceeded: the values are too large to cross.
            ProtocolFault, PeerClosed: there is no host any more that could be talked to.
        """
        seq = self._seq
        self._seq += 1
        self.send([Kind.ASK, seq, number], lambda c: codec.encode_args(args, c))
        match self.lane.recv():
            case [Kind.ANSWER, said, Answer.VALUE, value, int(cost)] if said == seq and cost >= 0:
                current_call().charge_host_work(cost)
                return codec.decode_result(value, self.crossing())
            case [Kind.ANSWER, said, Answer.ABORT, None, int()] if said == seq:
                raise Aborted("the host has ended the call")
        raise ProtocolFault("not an answer to what was asked")


class Served:
    """The host functions of one instance, as `Instance` wants them."""

    def __init__(self, line: Line, functions: dict[tuple[str, str], tuple[int, Codec]]) -> None:
        """Ask on that line.

        Args:
            line: the instance's.
            functions: the number of each, and how its values cross.
        """
        self._line = line
        self._functions = functions

    def function(self, interface: str, name: str) -> HostFunc:
        """The function that asks for that one."""
        number, codec = self._functions[interface, name]
        ask = self._line.ask
        return lambda *args: ask(number, codec, args)

    def close(self) -> None:
        """Nothing is held here."""


def kind_of(resource: t.ResourceId) -> tuple[str, str]:
    """The same for all versions of an interface, as the host has one class for all of them."""
    return split_version(resource.interface)[0], resource.name


def offers(
    types: t.ComponentTypes, served: Sequence[tuple[str, str]]
) -> tuple[list[Interface], dict[tuple[str, str], type[RemoteHandle]]]:
    """What the component is linked with here, and the classes of its handles.

    The host has linked it before, and held each import against what it serves; so here each is just
    what the component says that it is, under the name by which the host serves it.

    Args:
        types: of the component, without the lane's.
        served: the host's functions.
    """
    names = {split_version(interface)[0]: interface for interface, _ in served}
    kinds: dict[tuple[str, str], type[RemoteHandle]] = {}
    found: dict[str, Interface] = {}
    for wanted in types.imports:
        own = split_version(wanted.name)[0]
        name = names.get(own, wanted.name)
        resources: dict[str, type[Handle]] = {}
        for word, identity in wanted.resources:
            if kind_of(identity)[0] == own:
                made = type("RemoteHandle", (RemoteHandle,), {"__slots__": ()})
                resources[word] = kinds.setdefault(kind_of(identity), made)
        before = found.get(own)
        if before is not None:  # another version of the same
            name = max(name, before.name, key=lambda n: split_version(n)[1])
            resources |= before.resources
        signatures = {n: canonical(type_) for n, type_ in wanted.functions}
        signatures |= before.signatures if before is not None else {}
        found[own] = Interface(name, dict.fromkeys(signatures, _never), resources, signatures)
    return list(found.values()), kinds


def _never(*_args: Any) -> Any:
    raise InternalError("a function was called past its line")
