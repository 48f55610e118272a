"""What the host does for a plugin in a process of its own: the same as for one in its own process.

A question is turned into a call of the very function that the instance is served with in process, with
the same handles, the same budgets and the same refusals; nothing else is decided here (IPC-10).  What a
process is told of a failure is a word of the function's own error type, or that its call is over; why,
only the host knows (IPC-11).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from capwasm.call import CallRecord
from capwasm.engine.host import error_value, failure_of
from capwasm.engine.types import Result
from capwasm.errors import CapError, FuelExhausted, GuestTrap
from capwasm.instance import HOST_CALL_FUEL
from capwasm_shim.frames import ProtocolFault

from .codec import Codec
from .exchange import Answered
from .ledger import Ledger
from .wire import Crossing

__all__ = ["Broker", "Descriptor"]


class Host(Protocol):
    """The instance, as the broker needs it."""

    def host_call(self, slot: int, args: tuple[Any, ...]) -> Any:
        """Run the host function of that slot, for the call under way."""


class Descriptor(int):
    """A result that is a descriptor: it goes along with the answer, and is closed once that is sent."""


class Broker:
    """The `Desk` of one call."""

    __slots__ = ("_codecs", "_host", "_ledger", "_put", "_record", "_still", "spent")

    def __init__(
        self,
        host: Host,
        codecs: Sequence[Codec],
        ledger: Ledger,
        record: CallRecord,
        put: Callable[[Any], Any],
        still: Callable[[], None],
    ) -> None:
        """Answer for one call.

        Args:
            host: the instance.
            codecs: of its slots.
            ledger: its handles.
            record: of the call.
            put: see `Lane.put`.
            still: raises what must end the call, besides what the record knows.
        """
        self._host = host
        self._codecs = codecs
        self._ledger = ledger
        self._record = record
        self._put = put
        self._still = still
        self.spent = 0

    def check(self) -> None:
        """Pass if the call may go on."""
        self._record.check()
        self._still()

    def drop(self, numbers: Sequence[Any]) -> None:
        """Let go of handles that the process gave up.

        Raises:
            ProtocolFault: it doesn't have them.
        """
        try:
            self._ledger.drop(numbers)
        except ProtocolFault:
            raise
        except BaseException as exc:  # noqa: BLE001 - on record; the call ends by it
            self._record.fail(failure_of(exc))

    def answer(self, function: int, args: Any) -> Answered:
        """Answer one question.

        Raises:
            ProtocolFault: there is no such function, or the arguments are not of its types.
        """
        if not 0 <= function < len(self._codecs):
            raise ProtocolFault("it asked for a function that there is not")
        record = self._record
        value: Any = None
        fds: list[int] = []
        try:
            if record.failure is None:
                value = self._run(function, args, fds)
        except ProtocolFault:
            raise
        except BaseException as exc:  # noqa: BLE001 - on record; the call ends by it
            record.fail(failure_of(exc))
        cost, record.host_fuel = record.host_fuel, 0
        self.spent += cost
        if self.spent > record.limits.fuel:
            # Its own instructions are not counted here, or not believed; what the host did for it is.
            record.fail(FuelExhausted("all fuel used (limits.fuel)", context=record.plugin))
        if record.failure is not None:
            for fd in fds:
                os.close(fd)
            return Answered(None, abort=True)
        return Answered(value, cost=cost, fds=fds)

    def _run(self, function: int, args: Any, fds: list[int]) -> Any:
        codec, record = self._codecs[function], self._record
        limit = record.limits.value_bytes
        passing = self._ledger.passing()
        crossed = False
        try:
            try:
                try:
                    values = codec.decode_args(args, Crossing(limit, passing))
                except CapError:
                    # It was asked for all the same.
                    record.charge_host_call()
                    record.host_fuel += HOST_CALL_FUEL
                    if not isinstance(codec.type.result, Result):
                        raise GuestTrap(
                            f"it passed {codec.name} a handle that it does not have",
                            context=record.plugin,
                        ) from None
                    raise
                value = self._host.host_call(function, values)
            except CapError as refusal:
                value = error_value(codec.type.result, refusal)
                passing.settle(crossed=False)
            if isinstance(value, Descriptor):
                fds.append(value)
                value = None
            raw = codec.encode_result(value, Crossing(limit, passing, self._put))
            crossed = True
            return raw
        finally:
            passing.settle(crossed=crossed)
