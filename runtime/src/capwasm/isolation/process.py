"""One process of a plugin: started in its sandbox, spoken to on its lanes, killed when it has to be.

What may be asked of a process is asked of its pidfd and its sockets, never of a number that could be
another process's by now.  It has ended when its sockets have; the fork server then knows how.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from capwasm.errors import LinkError, ShimError
from capwasm.record.redact import printable
from capwasm_shim.frames import (
    DownWriter,
    Lane,
    PeerClosed,
    ProtocolFault,
    UpReader,
    make_down,
    make_up,
    pair,
)
from capwasm_shim.layers import Spec
from capwasm_shim.protocol import VERSION, Kind

from .exchange import Exchange
from .server import ShimServer
from .started import Started

__all__ = ["Line", "Recipe", "ShimProcess"]

_ENDED_SECONDS: Final = 2.0
"""For the fork server to tell how a process ended."""
_CLOSED_MS: Final = 500
"""Between the end of a process's sockets and its own; one that lives longer has only closed them."""
_SLACK: Final = 64 * 1024
_MESSAGE_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class Recipe:
    """What each process of one plugin is made from.

    Attributes:
        plugin: `id@version`.   spec: its sandbox.   load: for its loader.
        fds: what it gets beside its lanes, each with a name; they stay the recipe's.
        lanes: how many.   value_bytes: `limits.value_bytes`, which decides on the windows.
        describes: whether what it says of itself, once loaded, is acceptable; raises if not.
        holds: to whom `fds` belong: they are open as long as that is there.
    """

    plugin: str
    spec: Spec
    load: Mapping[str, Any]
    fds: Sequence[tuple[str, int]]
    lanes: int
    value_bytes: int
    describes: Callable[[Any], None] = field(default=lambda _said: None)
    holds: object = None

    @property
    def shared(self) -> bool:
        """Whether a process serves several instances, and so can be told to end one call."""
        return self.spec.kind == "component"


class Line:
    """One lane of a process, with its windows, for one instance at a time.

    Attributes:
        exchange: the calls on it.   holder: who has it, or None.
        owner: the instance that lives there.
    """

    def __init__(
        self,
        process: ShimProcess,
        number: int,
        sock: socket.socket,
        out: DownWriter,
        into: UpReader,
    ) -> None:
        """Made by `ShimProcess.start`."""
        self.process = process
        self.lane = Lane(sock, out, into)
        self.holder: object = None
        self.owner: Any = None
        self._out, self._into = out, into
        me = weakref.proxy(process)
        self.exchange = Exchange(self.lane, lambda call: bool(me.interrupt(number, call)))

    def trim(self) -> None:
        """Give back the memory of large values."""
        self._out.trim()
        self._into.trim()

    def close(self) -> None:
        """Close the socket and the windows."""
        self.lane.close()
        self._out.close()
        self._into.close()


class ShimProcess:
    """A process that runs, or has ended.  Safe from many threads, but for its lines.

    Attributes:
        lines: its lanes.   why: why it was killed, or None.   mourned: whether its end was counted.
        layers: what holds it, as its sandbox reports.
    """

    def __init__(self, recipe: Recipe, started: Started, side: socket.socket | None) -> None:
        """Made by `start`."""
        self.lines: list[Line] = []
        self.why: str | None = None
        self.mourned = False
        self.layers = started.report.applied
        self._plugin, self._describes = recipe.plugin, recipe.describes
        self._started = started
        self._side = Lane(side, None, None) if side is not None else None
        # Re-entrant, for a signal's handler may interrupt a call.
        self._speaking = threading.RLock()
        self._owner = os.getpid()
        self._dead = False
        _PROCESSES.add(self)

    @classmethod
    def start(cls, server: ShimServer, recipe: Recipe) -> ShimProcess:
        """Start one; what it loads, it begins to load now, and `greet` waits for that.

        Raises:
            ShimError: it can't be started, or not confined as it must be.
            RuntimeError: the runtime was closed, or made before a fork.
        """
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as theirs:
            fds = list(recipe.fds)
            ends: list[tuple[socket.socket, DownWriter, UpReader]] = []
            try:
                # Native code can't be told to end a call; so it gets nothing to be told by (NAT-01).
                side: socket.socket | None = None
                if recipe.shared:
                    side = undo.enter_context(_end_of(pair(), theirs, "side", fds))
                for _ in range(recipe.lanes):
                    sock = undo.enter_context(_end_of(pair(), theirs, "lane", fds))
                    # Some bytes more for each large value, since they are aligned.
                    size = recipe.value_bytes + recipe.value_bytes // 256 + _SLACK
                    up, up_fd = make_up(size)
                    undo.callback(up.close)
                    theirs.callback(os.close, up_fd)
                    # What a call is given stays there while the answers to its questions come and go.
                    down, down_fd = make_down(2 * size)
                    undo.callback(down.close)
                    theirs.callback(os.close, down_fd)
                    fds += [("up", up_fd), ("down", down_fd)]
                    ends.append((sock, down, up))
            except OSError as exc:
                raise ShimError(
                    f"no room for the lanes of its process: {exc.strerror}", context=recipe.plugin
                ) from exc
            started = server.start(recipe.spec, fds, recipe.load)
            process = cls(recipe, started, side)
            process.lines = [Line(process, i, *each) for i, each in enumerate(ends)]
            undo.pop_all()
            return process

    def greet(self, tick: Callable[[], None]) -> None:
        """Wait until it has loaded its code.

        Args:
            tick: raises when that takes too long.

        Raises:
            LinkError: its code can't be loaded.
            ProtocolFault, PeerClosed: as of `Lane`.
        """
        lane = self.lines[0].lane
        match lane.recv(tick):
            case [Kind.HELLO, version, said] if type(version) is int and version == VERSION:
                self._describes(said)
            case [Kind.LOADFAIL, str(), str() as text]:
                raise LinkError(
                    f"its code can't be loaded: {printable(text[:_MESSAGE_CHARS])}",
                    code="link.instantiate",
                    context=self._plugin,
                )
            case _:
                raise ProtocolFault("it did not greet as it should")

    # -- ending ---------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it may still be used."""
        return not self._dead and self._started.ended() is None

    def peak_bytes(self) -> int:
        """The most memory that it had at once; 0 where that can't be told any more."""
        return self._started.peak_kib() * 1024

    def interrupt(self, lane: int, call: int) -> bool:
        """Ask a call to end; whether that could be asked.  Any thread."""
        if self._side is None:
            return False
        try:
            with self._speaking:
                self._side.send((Kind.INTERRUPT, lane, call))
        except (PeerClosed, ProtocolFault, OSError):
            return False
        return True

    def kill(self, why: str | None = None) -> None:
        """Kill it, and all that it has started, now.  Any thread.

        Args:
            why: for the obituary; None where it has ended by itself.
        """
        if self.why is None and not self._dead:
            self.why = why
        self._dead = True
        self._started.kill()

    def obituary(self) -> str:
        """How it ended, for an error's message; waits for it a little."""
        if self.why is not None:
            return self.why
        ended = self._started.ended(_ENDED_SECONDS) if self._is_over() else None
        return "it has closed its end" if ended is None else str(ended)

    def _is_over(self) -> bool:
        poll = select.poll()
        poll.register(self._started.pidfd, select.POLLIN)
        return bool(poll.poll(_CLOSED_MS))

    def close(self) -> None:
        """Kill it and let go of all that led to it; nobody may use a line of it any more."""
        self._dead = True
        try:
            self._started.close()
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Close all that leads to it."""
        if self._side is not None:
            self._side.close()
        while self.lines:
            self.lines.pop().close()

    def forked(self) -> None:
        """In the child of a fork: it is not ours, and must see when its host is gone."""
        self._dead = True
        self.let_go()


def _end_of(
    ends: tuple[socket.socket, socket.socket],
    theirs: contextlib.ExitStack,
    name: str,
    fds: list[tuple[str, int]],
) -> socket.socket:
    """Our end of two; the other is theirs."""
    ours, other = ends
    theirs.enter_context(other)
    fds.append((name, other.fileno()))
    return ours


_PROCESSES: weakref.WeakSet[ShimProcess] = weakref.WeakSet()


def _forked() -> None:
    for process in list(_PROCESSES):
        process.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
