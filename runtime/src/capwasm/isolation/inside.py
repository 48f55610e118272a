"""What runs in the process of a component that has one of its own, in the sandbox.

The same instances as in the host's process, with the same limits, run here; in the place of the host's
functions there are proxies (see `proxies`).  Each lane has a thread that does as the host says on it.
The host believes nothing that this process says: it is the sandbox's prisoner, whatever it becomes.

`before` runs in the forked process before its sandbox is entered, since the engine finds its code by a
path below /proc; it touches only what the host made, and starts no thread.  `Component.run` is all
the rest.  Nothing is imported after `before`: there are no files any more.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import wasmtime

from capwasm.call import CallRecord
from capwasm.engine.capi import layout_faults
from capwasm.engine.compiled import Compiled, load
from capwasm.engine.engine import PluginEngine
from capwasm.engine.exports import Export
from capwasm.engine.lane.codec import module
from capwasm.engine.lane.plan import LaneExportPlan
from capwasm.engine.link import Linked, link
from capwasm.engine.pool import Capacity, Made, make_engine
from capwasm.engine.sealed import Sealed
from capwasm.engine.wheel import WheelExportPlan
from capwasm.errors import CapwasmError, InternalError
from capwasm.instance import Instance, Way
from capwasm.limits import CEILING
from capwasm.threads import LOCAL, stack_for
from capwasm_shim.frames import Lane, PeerClosed, ProtocolFault
from capwasm_shim.protocol import VERSION, Kind, Outcome

from .codec import Codec
from .parcel import CODE, Parcel
from .proxies import Aborted, Line, Served, offers

__all__ = ["BROKEN", "Component", "before"]

BROKEN: Final = 70
"""The status of a process that our own code has failed in (`EX_SOFTWARE`)."""

_MESSAGE_CHARS: Final = 4_000
_INTERRUPTED: Final = "interrupted by the host"
# What is imported, compiled or read from a file when it is first needed: here, later is too late.
# Made in the fork server, so each process has a copy of it and makes none.
_NEEDED = (LaneExportPlan, WheelExportPlan, layout_faults(), module())
# Nothing is set aside: a process is made for one plugin, and what it maps counts to its limits.
_CAPACITY = Capacity(pooled=False, ready=0)


def before(load_: Mapping[str, Any], fds: dict[str, list[int]]) -> Component:
    """Map the compiled code, before the sandbox is entered.

    Args:
        load_: of `Parcel.to_load`; not looked at here, for the plugin has named what is in it.
        fds: by name; in the place of `CODE` is put what the engine keeps open of it.
    """
    made = make_engine(_CAPACITY)
    try:
        with Sealed.given(fds.pop(CODE)[0]) as code:
            # The engine opens it once more, which takes the lowest number that is free; memories
            # are later mapped from that one, so it must stay.
            free = os.dup(code.fd)
            os.close(free)
            component = load(made.wasm, code)
            with contextlib.suppress(OSError):
                if os.path.sameopenfile(free, code.fd):
                    fds[CODE] = [free]
        return Component(load_, made, component)
    except (wasmtime.WasmtimeError, OSError, LookupError) as exc:
        return Component(load_, made, exc)


class Component:
    """The component that this process is for."""

    def __init__(
        self,
        load_: Mapping[str, Any],
        made: Made,
        component: wasmtime.component.Component | Exception,
    ) -> None:
        """Made by `before`."""
        self._load, self._made, self._component = load_, made, component

    def run(self, lanes: Sequence[Lane], side: socket.socket) -> int:
        """Serve the lanes until the host is gone; to be called in the sandbox, on the main thread.

        Args:
            lanes: each serves one instance at a time.
            side: where interrupts come from; its end is this process's.

        Returns:
            The status to exit with.
        """
        try:
            workers = self._start(lanes)
        except Exception as exc:  # noqa: BLE001  whatever it is, the host is told
            code = exc.code if isinstance(exc, CapwasmError) else "internal"
            text = exc.message if isinstance(exc, CapwasmError) else f"{type(exc).__name__}: {exc}"
            lanes[0].send([Kind.LOADFAIL, code, text[:_MESSAGE_CHARS]])
            return BROKEN
        lanes[0].send([Kind.HELLO, VERSION, None])
        for worker in workers:
            worker.begin()
        heard = Lane(side, None, None)
        try:
            while True:
                match heard.recv():
                    case [Kind.INTERRUPT, int(lane), int(call)] if 0 <= lane < len(workers):
                        workers[lane].interrupt(call)
                    case _:
                        return BROKEN
        except PeerClosed:
            return 0

    def _start(self, lanes: Sequence[Lane]) -> list[_Worker]:
        if isinstance(self._component, Exception):
            raise InternalError(f"the compiled code can't be mapped: {self._component}")
        # Of the threads to come.  A guest can't call another one from here; one share is to spare.
        threading.stack_size(stack_for(2))
        plugin = _Plugin(Parcel.from_load(self._load), self._made, self._component)
        return [_Worker(plugin, lane) for lane in lanes]


class _Plugin:
    """What all its instances share."""

    def __init__(self, parcel: Parcel, made: Made, component: wasmtime.component.Component) -> None:
        """Link it.

        Raises:
            InternalError: not as the host has.
        """
        self.name = parcel.plugin
        # Time and questions are counted by the host, which has to know why a call had to end.
        self.limits = replace(parcel.limits, wall_ms=CEILING.wall_ms, host_calls=CEILING.host_calls)
        self.engine = PluginEngine(_CAPACITY, made)
        compiled = Compiled(component, parcel.types, parcel.laned)
        offered, self.kinds = offers(parcel.types, parcel.served)
        self.linked: Linked = link(
            self.engine, compiled, offered, owners={}, unserved=lambda _name: None
        )
        if self.linked.slots != parcel.served:
            raise InternalError("the component was linked in another way than by the host")
        classes = self.linked.plans.classes
        self.exports: list[tuple[Export, Codec]] = [
            (export, Codec(export.name, export.type, classes)) for export in self.linked.exports
        ]
        self.functions: dict[tuple[str, str], tuple[int, Codec]] = {}
        types = iter([f for wanted in self.linked.types.imports for f in wanted.functions])
        for number, place in enumerate(self.linked.slots):
            name, type_ = next(types)
            self.functions.setdefault(place, (number, Codec(name, type_, classes)))


class _Worker:
    """The thread of one lane."""

    def __init__(self, plugin: _Plugin, lane: Lane) -> None:
        """Not started yet."""
        self._plugin, self._lane = plugin, lane
        self._instance: Instance | None = None
        self._line: Line
        # For the main thread, which interrupts: it writes the one and reads the other, and this
        # thread the other way round; so whoever comes second sees it.
        self._record: CallRecord | None = None
        self._call = self._interrupted = -1

    def begin(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._serve, name="capwasm-lane", daemon=True).start()

    def interrupt(self, call: int) -> None:
        """Ask that call to end; any thread."""
        self._interrupted = call
        record = self._record
        if record is not None and self._call == call:
            record.interrupt(_INTERRUPTED)

    def _serve(self) -> None:
        # Nobody would see how a thread has ended, so the process ends with it.
        status = BROKEN
        try:
            while True:
                self._obey(self._lane.recv())
        except PeerClosed:
            status = 0
        finally:
            os._exit(status)

    def _obey(self, frame: list[Any]) -> None:
        instance = self._instance
        match frame:
            case [Kind.CALL, int(call), int(number), args] if instance is not None:
                self._call_export(instance, call, number, args)
            case [Kind.OPEN, int(call)] if instance is None or not instance.alive:
                self._open(call)
            case [Kind.DROP, int(call), int(number)] if instance is not None:
                way = instance.way_to_drop(self._line.resources.pop(number))
                self._run(call, instance, way.action, lambda r: _enter(instance, r, way, None))
            case [Kind.CLOSE]:
                if instance is not None:
                    instance.close()
                self._instance = None
            case _:
                raise ProtocolFault("not what may be said now")

    def _open(self, call: int) -> None:
        plugin = self._plugin
        self._line = line = Line(self._lane, plugin.kinds, plugin.limits.value_bytes)
        instance = self._instance = Instance(
            plugin.engine, plugin.linked, plugin.name, plugin.limits, Served(line, plugin.functions)
        )
        self._run(call, instance, "(start)", lambda record: _start(instance, record))

    def _call_export(self, instance: Instance, call: int, number: int, raw: Any) -> None:
        export, codec = self._plugin.exports[number]
        args = codec.decode_args(raw, self._line.crossing())
        way = instance.way(export)
        self._run(call, instance, export.short, lambda r: _enter(instance, r, way, args), codec)
        self._line.forget_given()

    def _run(
        self,
        call: int,
        instance: Instance,
        function: str,
        run: Callable[[CallRecord], Any],
        codec: Codec | None = None,
    ) -> None:
        """Run one call, and tell the host how it ended."""
        line, record = self._line, instance.record(function)
        line.begin_call()
        self._call = call
        self._record = record
        if self._interrupted == call:
            record.interrupt(_INTERRUPTED)
        try:
            value = run(record)
            if codec is not None:
                line.send(
                    [Kind.RETURN, call, Outcome.VALUE],
                    lambda c: codec.encode_result(value, c),
                    _stats(instance, record),
                )
                return
            outcome, said = Outcome.VALUE, None
        except (ProtocolFault, PeerClosed):
            raise
        except Exception as exc:  # noqa: BLE001  told to the host, which knows what it means
            # Of a question: there is no host any more that could be told.
            if isinstance(exc.__cause__, ProtocolFault | PeerClosed):
                raise exc.__cause__ from None
            line.close_unsent()
            outcome, said = _failure(exc)
        finally:
            self._record = None
        if not instance.alive:
            line.dropped.clear()  # the host lets go of all
        line.send([Kind.RETURN, call, outcome], lambda _: said, _stats(instance, record))


def _start(instance: Instance, record: CallRecord) -> None:
    instance.start(record)


def _enter(instance: Instance, record: CallRecord, way: Way, args: Any) -> Any:
    return instance.enter(LOCAL.here, record, way.run, args, None)


def _failure(exc: Exception) -> tuple[Outcome, list[str] | None]:
    match exc:
        case Aborted():
            return Outcome.ABORTED, None
        case CapwasmError():
            return Outcome.FAILED, [exc.code, exc.message[:_MESSAGE_CHARS]]
        case TypeError():
            return Outcome.MISUSED, ["type", str(exc)[:_MESSAGE_CHARS]]
        case ValueError():
            return Outcome.MISUSED, ["value", str(exc)[:_MESSAGE_CHARS]]
        case _:
            return Outcome.FAILED, ["internal", f"{type(exc).__name__} in its process"]


def _stats(instance: Instance, record: CallRecord) -> list[int]:
    """What the call used, and the most memory that this process had; 0 if the instance is closed."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if instance.alive else 0
    return [record.fuel, memory]
