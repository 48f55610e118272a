"""The host's side of a native plugin, played by a test: it says what each question is answered with."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from capwasm_shim import native_table
from capwasm_shim.frames import DownWriter, Lane, PeerClosed, UpReader, make_down, make_up, pair
from capwasm_shim.protocol import Answer, Kind, Outcome

WINDOW = 4 << 20
NATIVE = Path(__file__).parents[1] / "native"
TRIPLE = f"{platform.machine()}-linux-gnu"

# The same as the shim's child does with its lane, without the sandbox: any plugin of ours may do so.
CHILD = """
import socket, sys
from capwasm_shim.frames import DownReader, Lane, UpWriter
from capwasm_shim.native import Native
lane, up, down, size = map(int, sys.argv[2:])
native = Native()
lane = Lane(socket.socket(fileno=lane), UpWriter(up, size), DownReader(down, size), descriptors=True)
sys.exit(native.run(lane, sys.argv[1], size))
"""

# What a function is answered with: a value, an `Answer.ABORT`, or a value with descriptors.
Script = Callable[[str, str, list[Any]], Any]


class Abort:
    """The answer that ends the call."""


class WithDescriptor:
    """An answer with a descriptor, which is the child's then."""

    def __init__(self, fd: int) -> None:
        self.fd = fd


def nothing(interface: str, name: str, args: list[Any]) -> Any:
    raise AssertionError(f"{interface}#{name} was not to be asked: {args}")


class NativePeer:
    """One plugin in a process, and the lane to it.

    Attributes:
        hello: the first frame.   asked: `(interface, name, args)` of all calls; `drops`: of all frames.
    """

    def __init__(self, library: Path, window: int = WINDOW) -> None:
        ours, theirs = pair()
        up, up_fd = make_up(window)
        down, down_fd = make_down(window)
        fds = (theirs.fileno(), up_fd, down_fd)
        argv = [sys.executable, "-c", CHILD, str(library), *map(str, fds), str(window)]
        self.process = subprocess.Popen(argv, pass_fds=fds)
        theirs.close()
        os.close(up_fd)
        os.close(down_fd)
        self.up: UpReader = up
        self.down: DownWriter = down
        self.lane = Lane(ours, down, up)
        self.asked: list[tuple[str, str, list[Any]]] = []
        self.drops: list[int] = []
        self._calls = 0
        try:
            self.hello = self.lane.recv()
        except PeerClosed:
            self.hello = []

    def call(self, topic: str, message: bytes = b"", script: Script = nothing) -> tuple[Any, Any]:
        """Call it; `(Outcome, value)`."""
        self._calls += 1
        call, asked = self._calls, 0
        self.lane.begin()
        self.lane.send((Kind.CALL, call, "handle", (topic, self.lane.put(message))))
        room = self.lane.used
        while True:
            frame = self.lane.recv()
            if frame[0] == Kind.RETURN:
                kind, number, outcome, value, drops, stats = frame
                assert (number, stats[0]) == (call, 0)
                assert stats[1] > 0
                self.drops += drops
                return Outcome(outcome), value
            kind, seq, function, args, drops = frame
            assert (kind, seq) == (Kind.ASK, asked)
            self.drops += drops
            question = (*native_table.SERVED[function], args)
            self.asked.append(question)
            answer, fds = script(*question), []
            if isinstance(answer, Abort):
                frame = [Kind.ANSWER, seq, Answer.ABORT, None, 0]
            else:
                if isinstance(answer, WithDescriptor):
                    fds = [answer.fd]
                    answer = [0, None]
                self.lane.begin(room)
                frame = [Kind.ANSWER, seq, Answer.VALUE, self._put(answer), 0]
            self.lane.send(frame, fds)
            for fd in fds:
                os.close(fd)
            asked += 1

    def ask(self, operation: str, *arguments: str | bytes, script: Script = nothing) -> Any:
        """Call the prober: its text, or `Refused` with the word."""
        outcome, value = self.call(operation, message_of(*arguments), script)
        assert outcome == Outcome.VALUE, (outcome, value)
        case, data = value
        if case:
            raise Refused(data)
        return bytes(data)

    def _put(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return self.lane.put(value)
        return [self._put(v) for v in value] if isinstance(value, list) else value

    def close(self) -> int:
        """Close the lane; how the process ended."""
        self.lane.close()
        try:
            return self.process.wait(10)
        finally:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
            self.up.close()
            self.down.close()


class Refused(Exception):
    """The plugin's own error, or the word that it was refused with."""


def message_of(*arguments: str | bytes) -> bytes:
    """The arguments of an operation, as the native prober reads them."""
    parts = [a.encode() if isinstance(a, str) else a for a in arguments]
    return b"".join(len(p).to_bytes(4, "little") + p for p in parts)


def answers(**by_name: Any) -> Script:
    """A script: name of the function (`_` for `-`, without its resource) → what it is answered with.

    A callable is called with the arguments; a list of type `Turns` is used up, one a question.
    """

    def script(_interface: str, name: str, args: Sequence[Any]) -> Any:
        answer = by_name[name.rpartition(".")[2].replace("-", "_")]
        if isinstance(answer, Turns):
            return answer.pop(0)
        return answer(*args) if callable(answer) else answer

    return script


class Turns(list[Any]):
    """Answers, one after the other."""


def library(name: str) -> Path:
    """The committed plugin of that name; skips where there is none for this machine."""
    path = NATIVE / TRIPLE / f"{name}.so"
    if not path.exists():
        pytest.skip(f"no {name}.so for {TRIPLE}: python native-shim/build.py makes it")
    return path
