"""An instance whose guest runs in another process, behind the same door as one of this process.

Its record, deadlines, switches, handles and host functions are those of `Instance`; only where the guest
is entered, a question is sent and an answer waited for.  Host functions run here, on the caller's thread,
so a plugin's process holds no power of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from capwasm.call import CallRecord
from capwasm.engine.crossing import HostKind
from capwasm.engine.engine import PluginEngine, Seat
from capwasm.engine.exports import Export
from capwasm.engine.store import Meter
from capwasm.engine.types import ResourceId
from capwasm.errors import (
    CallInterrupted,
    CapError,
    CapwasmError,
    InternalError,
    ValueLimitExceeded,
)
from capwasm.handles import Lease
from capwasm.instance import Instance, Served
from capwasm.keeping import NOBODY, Keeper
from capwasm.limits import Limits
from capwasm_shim.frames import PeerClosed, ProtocolFault
from capwasm_shim.protocol import Kind, Outcome

from .broker import Broker
from .codec import Codec
from .exchange import Hung, Returned
from .ledger import Ledger
from .process import Line
from .reported import reported
from .supervisor import Supervisor
from .wire import Crossing

__all__ = ["Code", "ProcessInstance"]

_NEVER: Final = 2**62
_REVOKED: Final = "a grant was revoked of which it had more than a handle"


class Code(Protocol):
    """What runs in the process, as the host knows it.

    Attributes:
        slots: the host functions that it may ask for, by number.   codecs: theirs, in that order.
        kinds: the resources of the host.
        opens: whether an instance has to be made in the process, or is the process.
    """

    @property
    def slots(self) -> Sequence[tuple[str, str]]: ...  # noqa: D102
    @property
    def codecs(self) -> Sequence[Codec]: ...  # noqa: D102
    @property
    def kinds(self) -> Mapping[ResourceId, HostKind]: ...  # noqa: D102
    @property
    def opens(self) -> bool: ...  # noqa: D102

    def export(self, export: Export) -> tuple[Any, Codec]:
        """What a CALL names it, and how its values cross."""


class _Left:
    """What is left of the fuel, as the process tells; see `Meter`."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


class _Lodging:
    """Where the instance lives: a line, once it has one, and a seat among all instances."""

    def __init__(self, supervisor: Supervisor, seat: Seat) -> None:
        self.line: Line | None = None
        self._supervisor = supervisor
        self._seat = seat

    def close(self) -> None:
        """Give both back, once."""
        self._supervisor.give_back(self)
        self.line = None
        self._seat.close()


class ProcessInstance(Instance):
    """A running plugin in a process of its own.  See `Instance`."""

    def __init__(
        self,
        engine: PluginEngine,
        code: Code,
        plugin: str,
        limits: Limits,
        served: Served,
        keeper: Keeper = NOBODY,
        *,
        supervisor: Supervisor,
    ) -> None:
        """Prepare; no process is asked for until `start`.

        Args:
            engine: whose clock and whose switches the calls obey, and among whose instances it counts.
            code: what runs there.
            plugin: as for `Instance`, like the limits.
            limits: of the instance and of each call.
            served: its host functions; if it has `leases`, these must stay in force.
            keeper: as for `Instance`.
            supervisor: of the plugin's processes.

        Raises:
            InstancesExceeded: the runtime holds as many instances as it may.
        """
        self._code = code
        self._supervisor = supervisor
        self._left = left = _Left(limits.fuel)
        self._pay_at = _NEVER  # the process is told with each answer what it cost
        self._leases: Sequence[Lease] = getattr(served, "leases", ())
        self._lodging = lodging = _Lodging(supervisor, engine.seat())
        self._furnish(engine, plugin, limits, served, keeper, code.kinds, code.slots)
        self._ledger = Ledger(self.boundary, limits.handles, self._end_resource)
        self._move_in(lodging, Meter(_idle, _idle, None, None, None, left))

    # -- the guest ------------------------------------------------------------------------------

    def _begin(self, store: Any) -> None:
        record = self._call
        line = self._supervisor.take(store, record, lambda: self._check(record))
        store.line = line
        line.owner = self
        if self._code.opens:
            record.restart()  # what came before was its compiled code, and nothing of it ran
            self._run(line, Kind.OPEN, (), _nothing)
        self._started = line

    def _bind(self, export: Export) -> Callable[[Any], Any]:
        name, codec = self._code.export(export)
        limit, ledger = self.limits.value_bytes, self._ledger

        def decode(raw: Any) -> Any:
            passing = ledger.passing()
            crossed = False
            try:
                value = codec.decode_result(raw, Crossing(limit, passing))
                crossed = True
                return value
            except CapError:
                raise ProtocolFault("it returned a handle that it does not have") from None
            finally:
                passing.settle(crossed=crossed)

        def run(args: tuple[Any, ...]) -> Any:
            line = self._line()
            passing = ledger.passing()
            entered = False
            line.lane.begin()
            try:
                raw = codec.encode_args(args, Crossing(limit, passing, line.lane.put))
                entered = True
                return self._run(line, Kind.CALL, (name, raw), decode)
            finally:
                passing.settle(crossed=entered)
                passing.take_back()

        return run

    def _end_resource(self, number: int) -> None:
        self._run(self._line(), Kind.DROP, (number,), _nothing)

    def _line(self) -> Line:
        line = self._lodging.line
        if line is None or self._started is None:
            raise InternalError("the instance was never started")
        return line

    def _run(
        self, line: Line, kind: Kind, rest: Sequence[Any], decode: Callable[[Any], Any]
    ) -> Any:
        """Have the process run something; what it returned."""
        record = self._call
        broker = Broker(
            self, self._code.codecs, self._ledger, record, line.lane.put, self._check_leases
        )
        try:
            returned = line.exchange.run(kind, rest, record, broker)
            value = self._value(returned, record, decode)
        except (ProtocolFault, PeerClosed, Hung) as exc:
            error = self._supervisor.ended(line.process, record, exc)
            self._spread(line)
            raise error from None
        finally:
            self._left.value = self.limits.fuel - broker.spent
        fuel = min(max(returned.fuel, broker.spent), self.limits.fuel)
        self._left.value = self.limits.fuel - fuel
        line.trim()
        if kind == Kind.CALL:  # that it starts is not enough
            self._supervisor.backoff.went_well()
        return value

    def _value(self, returned: Returned, record: CallRecord, decode: Callable[[Any], Any]) -> Any:
        if record.failure is not None:
            raise record.failure
        if returned.outcome == Outcome.VALUE:
            return decode(returned.value)
        # A call that is the caller's fault is not on record; so nothing may have come of it.
        unspent = self._code.opens and not record.host_calls
        error = reported(returned, record.plugin, starting=self._started is None, converts=unspent)
        # Found when the guest had returned as it should, and it lives on: as in process.
        sound = self._code.opens and returned.memory and isinstance(error, ValueLimitExceeded)
        if isinstance(error, CapwasmError) and not sound:
            record.fail(error)
        raise error

    # -- switches -------------------------------------------------------------------------------

    def _check(self, record: CallRecord) -> None:
        record.check()
        self._check_leases()

    def _check_leases(self) -> None:
        if any(not lease.alive for lease in self._leases):
            raise CallInterrupted(_REVOKED, context=self.plugin)

    def revoked(self) -> None:
        """A grant was revoked: end, if the process has something that can't be taken back."""
        if any(not lease.alive for lease in self._leases):
            self.close(_REVOKED)

    def _spread(self, line: Line) -> None:
        """The process is dead: so are the instances on its other lines that run no call."""
        for other in [each.owner for each in line.process.lines]:
            if other is not None and other is not self and other.running is None:
                other.close("its process has ended")

    def _went_wrong(self, record: CallRecord, error: BaseException) -> bool:
        sound = super()._went_wrong(record, error)
        line = self._lodging.line
        return sound and (line is None or not line.exchange.busy)


def _idle(_where: Any, _what: Any) -> None:
    """In the place of an engine's meter."""


def _nothing(raw: Any) -> None:
    if raw is not None:
        raise ProtocolFault("a value where there is none")
