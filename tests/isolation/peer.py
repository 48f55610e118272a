"""A process that is none: a test says what it says, datagram by datagram, to the real host.

All is real but the process: the sockets, the windows, the supervisor, the instance and its door.  What the
peer will say is in the socket before the host asks, since a socket keeps what was sent.
"""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import msgpack

from capwasm.engine import types as t
from capwasm.engine.abi_types import parse
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import HostKind
from capwasm.engine.engine import PluginEngine
from capwasm.engine.exports import Export, ExportTable
from capwasm.engine.pool import Capacity
from capwasm.errors import CapError
from capwasm.events import NullRecorder
from capwasm.handles import Handle, Lease
from capwasm.isolation.codec import Codec
from capwasm.isolation.instance import ProcessInstance
from capwasm.isolation.process import Recipe
from capwasm.isolation.started import Ended
from capwasm.isolation.supervisor import Supervisor
from capwasm.limits import Limits
from capwasm_shim.frames import Lane, UpWriter
from capwasm_shim.layers import Report, Spec
from capwasm_shim.protocol import Kind, Outcome
from tests.kit import ListServed

HELLO = (Kind.HELLO, 1, None)
VALUE, FAILED = Outcome.VALUE, Outcome.FAILED


def returns(
    value: Any, call: int = 1, outcome: int = VALUE, drops: Any = (), stats: Any = (0, 0)
) -> Any:
    return (Kind.RETURN, call, outcome, value, drops, stats)


def asks(seq: int, function: int, args: Any, drops: Any = ()) -> Any:
    return (Kind.ASK, seq, function, args, drops)


class Peer:
    """In the place of the fork server: starts the peer, which says `says`, each once."""

    def __init__(self, *says: Any, hello: Any = HELLO) -> None:
        self.says: list[Any] = [hello, *says] if hello is not None else list(says)
        self.sock: socket.socket | None = None
        self.up: UpWriter | None = None
        self.side: socket.socket | None = None
        self.killed = 0
        self.starts = 0

    # -- as the fork server ---------------------------------------------------------------------

    def start(
        self, _spec: Spec, fds: Sequence[tuple[str, int]], _load: Mapping[str, Any]
    ) -> Process:
        named = dict(fds)
        self.starts += 1
        self.sock = socket.socket(fileno=os.dup(named["lane"]))
        self.side = socket.socket(fileno=os.dup(named["side"])) if "side" in named else None
        self.up = UpWriter(named["up"], os.fstat(named["up"]).st_size)
        for each in self.says:
            self.say(each)
        return Process(self)

    # -- as the process -------------------------------------------------------------------------

    def say(self, frame: Any) -> None:
        """Send bytes as they are, run a function, or send a frame."""
        assert self.sock is not None
        if callable(frame):
            frame(self.sock)
        elif isinstance(frame, bytes):
            self.sock.send(frame)
        else:
            Lane(self.sock, self.up, None).send(frame)

    def heard(self) -> list[Any]:
        """All that the host has said and nobody has read yet."""
        assert self.sock is not None
        found = []
        self.sock.setblocking(False)
        while True:
            try:
                data = self.sock.recv(1 << 17)
            except BlockingIOError:
                return found
            if not data:
                return found
            found.append(msgpack.unpackb(data))

    def end(self) -> None:
        if self.sock is not None and self.up is not None:
            self.sock.close()
            self.up._map.close()
            if self.side is not None:
                self.side.close()


class Process:
    """As `started.Started`."""

    report = Report((), {})
    pid = 0

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.how: Ended | None = None
        self.pidfd = os.open(os.devnull, os.O_RDONLY)  # as readable as that of a process that ended

    def kill(self) -> None:
        self.peer.killed += 1
        self.how = self.how or Ended("signalled", 9)
        self.peer.end()

    def ended(self, _seconds: float = 0.0) -> Ended | None:
        return self.how

    def peak_kib(self) -> int:
        return 0

    def close(self) -> None:
        self.kill()
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)


class Thing(Handle):
    """A resource of the host's."""

    __slots__ = ("closed", "name")

    def __init__(self, name: str = "thing") -> None:
        super().__init__(Lease())
        self.name = name
        self.closed = 0

    def release(self) -> None:
        self.closed += 1


class Other(Thing):
    """Another resource, of a class that is a subclass: kinds are told apart all the same."""

    __slots__ = ()


HOST = "toy:host/api@1.0.0"
PLUGIN = "toy:plugin/api@1.0.0"
_ERROR = "enum{denied, closed}"
FUNCTIONS = {
    "words": f"func(n: u32) -> result<list<string>, {_ERROR}>",
    "open": f"func() -> result<own<toy:host/api.thing>, {_ERROR}>",
    "open-other": "func() -> own<toy:host/api.other>",
    "[method]thing.name": f"func(self: borrow<toy:host/api.thing>) -> result<string, {_ERROR}>",
    "give": f"func(thing: own<toy:host/api.thing>, then: u32) -> result<_, {_ERROR}>",
    "silent": "func() -> u32",
    "size": "func(data: list<u8>) -> u64",
    "mute": "func(thing: borrow<toy:host/api.thing>) -> u32",
}
EXPORTS = {
    "run": "func(text: string) -> string",
    "data": "func(data: list<u8>) -> list<u8>",
    "lend": "func(thing: borrow<toy:host/api.thing>) -> u32",
    "make": "func() -> own<toy:host/api.thing>",
    "nest": "func() -> list<list<list<string>>>",
}
NUMBER = {name: i for i, name in enumerate(FUNCTIONS)}


class Toy:
    """Host functions and exports of every shape that matters here; see `instance.Code`."""

    opens = False
    slots: ClassVar = [(HOST, name) for name in FUNCTIONS]

    def __init__(self) -> None:
        classes = Classes()
        self.codecs = [Codec(n, parse(x), classes) for n, x in FUNCTIONS.items()]
        self.kinds = {
            t.ResourceId("toy:host/api", n, imported=True): HostKind(i, c)
            for i, (n, c) in enumerate([("thing", Thing), ("other", Other)])
        }
        functions = tuple((n, parse(x)) for n, x in EXPORTS.items())
        self.exports = ExportTable(t.ComponentTypes((), (t.InterfaceType(PLUGIN, functions),)))
        self._codecs = [Codec(n, x, classes) for n, x in functions]
        self.things: list[Thing] = []
        self.seen: list[Any] = []

    def export(self, export: Export) -> tuple[Any, Codec]:
        return export.index, self._codecs[export.index]

    def functions(self) -> dict[str, Callable[..., Any]]:
        def words(n: int) -> list[str]:
            self.seen.append(n)
            if n > 100:
                raise CapError("denied", "the operator is told this")
            if n == 99:
                raise KeyError("/etc/passwd")
            return ["word"] * n

        def make(cls: type[Thing]) -> Thing:
            self.things.append(cls())
            return self.things[-1]

        def give(thing: Thing, then: int) -> None:
            if then:
                raise CapError("denied")
            self.seen.append(thing)
            thing.close()

        def silent() -> int:
            raise CapError("denied")

        return {
            "words": words,
            "open": lambda: make(Thing),
            "open-other": lambda: make(Other),
            "[method]thing.name": lambda thing: thing.name,
            "give": give,
            "silent": silent,
            "size": len,
            "mute": lambda _thing: 0,
        }


class Held:
    """To whom the descriptors of a recipe belong."""


class Rig:
    """An instance whose process is a `Peer`, started.  A context manager."""

    def __init__(
        self,
        *says: Any,
        limits: Limits | None = None,
        start: bool = True,
        kind: Literal["native", "component"] = "native",
        **peer: Any,
    ) -> None:
        self.peer = Peer(*says, **peer)
        self.toy = Toy()
        self.limits = limits or Limits(wall_ms=3_000)
        self.engine = PluginEngine(Capacity(pooled=False))
        held = Held()
        self.held = weakref.ref(held)
        limit = self.limits.value_bytes
        recipe = Recipe("toy.plugin@1.0.0", Spec(kind), {}, (), 1, limit, holds=held)
        self.supervisor = Supervisor(
            self.peer,  # type: ignore[arg-type]
            recipe,
            lambda layer: f"without {layer}",
            NullRecorder(),
        )
        self.instance = self.new()
        if start:
            self.instance.start()

    def new(self) -> ProcessInstance:
        from capwasm.capability import Interface

        served = ListServed([Interface(HOST, self.toy.functions())])
        return ProcessInstance(
            self.engine,
            self.toy,
            "toy.plugin@1.0.0",
            self.limits,
            served,
            supervisor=self.supervisor,
        )

    def call(self, name: str, *args: Any) -> Any:
        return self.instance.call(self.toy.exports.find(name), args)[0]

    def answers(self) -> list[Any]:
        """The answers of the host, without what else it said."""
        return [f for f in self.peer.heard() if f[0] == Kind.ANSWER]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.instance.close()
        self.supervisor.close()
        self.engine.close()
        self.peer.end()


def flood(frames: Iterable[Any]) -> Callable[[socket.socket], None]:
    """Say as many of these as the socket takes."""

    def send(sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            for frame in frames:
                sock.send(msgpack.packb(frame))
        except BlockingIOError:
            pass

    return send
