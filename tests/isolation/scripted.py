"""A component's process in its sandbox, and a host that says to it whatever a test wants said.

The process is real, and so are the server that forks it and the walls around it; the host's side is
spelled out frame by frame, so that tests see what stands on the wire and can say what no host says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from itertools import count
from typing import Any, Self

from capwasm.call import CallRecord, entered
from capwasm.engine import types as t
from capwasm.engine.abi import split_version
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import BadValue
from capwasm.engine.host import error_value
from capwasm.engine.link import Linked
from capwasm.errors import CapError, CapwasmError
from capwasm.handles import Handle, HandleTable
from capwasm.instance import Served
from capwasm.isolation.codec import Codec
from capwasm.isolation.parcel import CODE, Parcel, budget, code_of
from capwasm.isolation.server import Ended, ShimServer
from capwasm.isolation.wire import Crossing
from capwasm.limits import Limits
from capwasm_shim.frames import Lane, make_down, make_up, pair
from capwasm_shim.layers import Spec
from capwasm_shim.protocol import Answer, Kind, Outcome


class Failed(Exception):
    """A call that did not end with a value: `outcome`, and what was said."""

    def __init__(self, outcome: Outcome, said: Any) -> None:
        self.outcome, self.said = outcome, said
        super().__init__(outcome.name, said)

    @property
    def code(self) -> str:
        return str(self.said[0])


class Scripted:
    """The process of one component, and what a host says to it."""

    def __init__(
        self,
        server: ShimServer,
        linked: Linked,
        limits: Limits,
        served: Served | None = None,
        lanes: int = 1,
    ) -> None:
        self.linked, self.limits, self.served = linked, limits, served
        self.stats = [0, 0]
        self.asked: list[tuple[str, str]] = []
        self.handles = [HandleTable(limits.handles) for _ in range(lanes)]
        self.dropped: list[int] = []
        self._calls = count(1)
        self._kinds = {
            (split_version(r.interface)[0], r.name): k.handle for r, k in linked.kinds.items()
        }
        classes = Classes()
        self.exports = {e.index: Codec(e.name, e.type, classes) for e in linked.exports}
        functions = [f for i in linked.types.imports for f in i.functions]
        self.functions = [Codec(n, x, classes) for n, x in functions]
        size = limits.value_bytes + (64 << 10)
        self.lanes: list[Lane] = []
        fds = [(CODE, code_of(linked.compiled))]
        with contextlib.ExitStack() as theirs:
            for _ in range(lanes):
                ours, other = pair()
                (up, up_fd), (down, down_fd) = make_up(size), make_down(size)
                self.lanes.append(Lane(ours, down, up))
                theirs.enter_context(other)
                theirs.callback(os.close, up_fd)
                theirs.callback(os.close, down_fd)
                fds += [("lane", other.fileno()), ("up", up_fd), ("down", down_fd)]
            self.side, side = pair()
            theirs.enter_context(side)
            fds.append(("side", side.fileno()))
            spec = Spec("component", limits=budget(limits, lanes))
            load = Parcel.of(linked, "test.guest@1.0.0", limits).to_load()
            self.process = server.start(spec, fds, load)

    def hello(self) -> list[Any]:
        return self.lanes[0].recv()

    def started(self) -> Self:
        assert self.hello() == [Kind.HELLO, 1, None]
        self.open()
        return self

    # -- calls ----------------------------------------------------------------------------------

    def open(self, lane: int = 0) -> None:
        call = next(self._calls)
        self.lanes[lane].send([Kind.OPEN, call])
        self._finish(lane, call)

    def close_instance(self, lane: int = 0) -> None:
        self.lanes[lane].send([Kind.CLOSE])
        self.handles[lane].close_all()
        self.handles[lane] = HandleTable(self.limits.handles)

    def begin(self, name: str, *args: Any, lane: int = 0) -> tuple[int, Codec]:
        export = self.linked.exports.find(name)
        call, codec, out = next(self._calls), self.exports[export.index], self.lanes[lane]
        out.begin()
        values = codec.encode_args(args, self._crossing(lane, put=True))
        out.send([Kind.CALL, call, export.index, values])
        return call, codec

    def call(self, name: str, *args: Any, lane: int = 0) -> Any:
        call, codec = self.begin(name, *args, lane=lane)
        raw = self._finish(lane, call)
        return codec.decode_result(raw, self._crossing(lane))

    def drop(self, resource: int, lane: int = 0) -> None:
        call = next(self._calls)
        self.lanes[lane].send([Kind.DROP, call, resource])
        self._finish(lane, call)

    def interrupt(self, call: int, lane: int = 0) -> None:
        Lane(self.side, None, None).send([Kind.INTERRUPT, lane, call])

    def finish(self, call: int, lane: int = 0) -> Any:
        return self._finish(lane, call)

    def _finish(self, lane: int, call: int) -> Any:
        seq = 0
        record = CallRecord("test.guest@1.0.0", "run", self.limits)
        with entered(record):
            while True:
                match self.lanes[lane].recv():
                    case [Kind.ASK, said, number, args, dropped]:
                        assert said == seq
                        seq += 1
                        self._gone(lane, dropped)
                        self._answer(lane, said, number, args, record)
                    case [Kind.RETURN, said, outcome, value, dropped, stats]:
                        assert said == call
                        self._gone(lane, dropped)
                        self.stats = stats
                        if outcome != Outcome.VALUE:
                            raise Failed(Outcome(outcome), value)
                        return value
                    case frame:
                        raise AssertionError(frame)

    def _answer(self, lane: int, seq: int, number: int, args: Any, record: CallRecord) -> None:
        codec, place = self.functions[number], self.linked.slots[number]
        self.asked.append(place)
        out = self.lanes[lane]
        out.begin(out.used)
        record.host_fuel = 0
        try:
            assert self.served is not None
            values = codec.decode_args(args, self._crossing(lane))
            try:
                value = self.served.function(*place)(*values)
            except CapError as refusal:
                value = error_value(codec.type.result, refusal)
            said = codec.encode_result(value, self._crossing(lane, put=True))
        except CapwasmError:
            out.send([Kind.ANSWER, seq, Answer.ABORT, None, 0])
        else:
            out.send([Kind.ANSWER, seq, Answer.VALUE, said, record.host_fuel])

    # -- handles --------------------------------------------------------------------------------

    def _crossing(self, lane: int, *, put: bool = False) -> Crossing:
        named = _Named(self, lane)
        limit = self.limits.value_bytes
        return Crossing(limit, named, self.lanes[lane].put) if put else Crossing(limit, named)

    def _gone(self, lane: int, dropped: Sequence[int]) -> None:
        self.dropped += dropped
        for number in dropped:
            self.handles[lane].drop(number)

    def kind(self, resource: t.ResourceId) -> type[Handle]:
        return self._kinds[split_version(resource.interface)[0], resource.name]

    # -- the end --------------------------------------------------------------------------------

    def hang_up(self) -> Ended:
        """Close all, and how it ends then."""
        for lane in self.lanes:
            lane.close()
        self.side.close()
        return self.ended()

    def ended(self) -> Ended:
        """How it ended."""
        ended = self.process.ended(10)
        assert ended is not None
        return ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()
        for lane in self.lanes:
            lane.close()
        self.side.close()
        for table in self.handles:
            table.close_all()


class _Named:
    """The host's side of handles; a resource of the guest's own is its number."""

    def __init__(self, host: Scripted, lane: int) -> None:
        self.host, self.table = host, host.handles[lane]

    def number(self, resource: t.ResourceId, value: Any, *, lend: bool) -> int:
        del lend
        if not resource.imported:
            return int(value)
        if not isinstance(value, self.host.kind(resource)):
            raise BadValue.expected(resource.name, value)
        return self.table.add(value)

    def handle(self, resource: t.ResourceId, number: int, *, owned: bool) -> Any:
        if not resource.imported:
            return number
        find = self.table.take if owned else self.table.get
        return find(number, self.host.kind(resource))
