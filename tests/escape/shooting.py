"""Lets the hostile plugin loose in a sandbox of given layers, and looks at it from outside."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capwasm.engine.sealed import Sealed
from capwasm.isolation.server import ShimServer, Started
from capwasm_shim.frames import Lane, PeerClosed, make_down, make_up, pair
from capwasm_shim.layers import File, Layer, Limits, Report, Spec
from capwasm_shim.protocol import Kind as Word

_TRIPLE = f"{os.uname().machine}-linux-gnu"
HOSTILE = Path(__file__).parents[1] / f"native/{_TRIPLE}/hostile.so"
EARLY = b"EARLY-CALLS:"
EARLY_ROOM = 1024
WINDOW = 256 * 1024
SECONDS = 20.0


@dataclass(frozen=True)
class Shot:
    """What came of an attempt.

    Attributes:
        answer: what the plugin says, or `killed:SIGNAL`, `exited:STATUS`, `unloaded:…`, or `silent`.
        before, after: the process seen from outside; empty once it is gone.
        report: of its sandbox.
    """

    answer: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    report: Report = field(default_factory=lambda: Report((), {}))

    @property
    def evidence(self) -> bytes:
        """What was read, if the answer holds any."""
        found = re.fullmatch(r"ok:-?\d+:((?:[0-9a-f]{2})*)", self.answer)
        return bytes.fromhex(found[1]) if found else b""

    @property
    def changed(self) -> set[str]:
        """What is not as it was before, if the process still runs."""
        both = self.before.keys() & self.after.keys()
        return {name for name in both if self.before[name] != self.after[name]}


def seen(pid: int) -> dict[str, Any]:
    """A process as the kernel shows it to the host: who it is, what it may do, and what it has."""
    place = Path(f"/proc/{pid}")
    found: dict[str, Any] = {"pid": pid}
    with contextlib.suppress(OSError):
        status = (place / "status").read_text()
        for name in ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"):
            line = re.search(rf"^{name}:[ \t]*(.*)$", status, re.MULTILINE)
            found[name] = line[1] if line else ""
        tracer = re.search(r"^TracerPid:\s*(\d+)$", status, re.MULTILINE)
        found["tracer"] = tracer[1] if tracer else ""
        found["limits"] = (place / "limits").read_text()
        found["nice"] = os.getpriority(os.PRIO_PROCESS, pid)
        found["policy"] = os.sched_getscheduler(pid)
        found["owner"] = (place / "environ").stat().st_uid
        found["children"] = (place / f"task/{pid}/children").read_text()
        found["session"] = (place / "stat").read_text().rpartition(")")[2].split()[2:4]
    with contextlib.suppress(OSError):  # an ordinary user may not look into who is not dumpable
        found["ns"] = {n.name: _target(n) for n in (place / "ns").iterdir()}
        found["root"] = (place / "root").stat().st_ino, str((place / "root").readlink())
        maps = (place / "maps").read_text()
        mapped = re.findall(r" (/.*)$", maps, re.MULTILINE)
        found["mapped"] = sorted({m for m in mapped if not m.endswith(" (deleted)")})
        found["fds"] = {fd.name: str(fd.readlink()) for fd in (place / "fd").iterdir()}
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError as exc:  # a pid namespace without a process in it
        return str(exc.errno)


class Range:
    """A fork server, and hostile plugins one after the other."""

    def __init__(self) -> None:
        self.server = ShimServer()
        self._code = HOSTILE.read_bytes()

    def code(self, early: bytes = b"") -> bytes:
        """The plugin, with calls for its constructor."""
        assert self._code.count(EARLY + bytes(EARLY_ROOM - len(EARLY))) == 1
        assert len(early) < EARLY_ROOM - len(EARLY)
        return self._code.replace(EARLY + bytes(len(early)), EARLY + early, 1)

    def shoot(
        self,
        topic: str,
        message: bytes = b"",
        *,
        without: frozenset[Layer] = frozenset(),
        limits: Limits | None = None,
        early: bytes = b"",
        seconds: float = SECONDS,
    ) -> Shot:
        """Start the plugin in all layers but those, call it once, and end it."""
        with self._start(without, limits or Limits(), early) as (started, lane):
            return _Round(started, lane, seconds).play(topic, message)

    @contextlib.contextmanager
    def let_loose(self, topic: str, *, without: frozenset[Layer] = frozenset()) -> Iterator[int]:
        """Start it, and call it without an eye on what it does; a pidfd of it."""
        with self._start(without, Limits(), b"") as (started, lane):
            lane.recv()
            lane.send((Word.CALL, 1, "handle", (topic, b"")))
            yield started.pidfd

    @contextlib.contextmanager
    def _start(
        self, without: frozenset[Layer], limits: Limits, early: bytes
    ) -> Iterator[tuple[Started, Lane]]:
        spec = Spec(
            kind="native",
            layers=tuple(layer for layer in Layer if layer not in without),
            required=frozenset(),
            limits=limits,
            files=(File("plugin.so"),),
        )
        up, theirs_up = make_up(WINDOW)
        down, theirs_down = make_down(WINDOW)
        ours, theirs = pair()
        code = Sealed.holding(self.code(early))
        given = [("file", code.fd), ("lane", theirs.fileno()), ("up", theirs_up)]
        given.append(("down", theirs_down))
        with contextlib.ExitStack() as stack:
            stack.callback(up.close)
            stack.callback(down.close)
            lane = Lane(ours, down, up)
            stack.callback(lane.close)
            try:
                started = self.server.start(spec, given, {"limit": WINDOW})
            finally:
                theirs.close()
                os.close(theirs_up)
                os.close(theirs_down)
                code.close()
            stack.callback(started.close)
            yield started, lane

    def close(self) -> None:
        self.server.close()


class _Silent(Exception):
    pass


class _Round:
    def __init__(self, started: Started, lane: Lane, seconds: float) -> None:
        self._started = started
        self._lane = lane
        self._until = time.monotonic() + seconds

    def _tick(self) -> None:
        if time.monotonic() > self._until:
            raise _Silent

    def play(self, topic: str, message: bytes) -> Shot:
        before: dict[str, Any] = {}
        try:
            hello = self._lane.recv(self._tick)
            if hello[0] != Word.HELLO:
                return Shot(f"unloaded:{hello[-1]}", report=self._started.report)
            before = seen(self._started.pid)
            self._lane.begin()
            self._lane.send((Word.CALL, 1, "handle", (topic, self._lane.put(message))))
            answer = self._answer(self._lane.recv(self._tick))
            return Shot(answer, before, seen(self._started.pid), self._started.report)
        except PeerClosed:
            return Shot(self._end(), before, {}, self._started.report)
        except _Silent:
            return Shot("silent", before, seen(self._started.pid), self._started.report)

    @staticmethod
    def _answer(frame: list[Any]) -> str:
        match frame:
            case [Word.RETURN, 1, 0, [0, bytes(value)], *_]:
                return value.decode(errors="replace")
            case _:
                return f"frame:{frame!r}"

    def _end(self) -> str:
        ended = self._started.ended(10)
        if ended is None:
            return "silent"
        if ended.how == "signalled":
            return f"killed:{signal.Signals(ended.number).name}"
        return f"{ended.how}:{ended.number}"
