"""Lets the hostile plugin loose in a sandbox of given layers, and looks at it from outside."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capwasm.errors import GuestError
from capwasm.isolation.server import ShimServer, Started
from capwasm.plugin import Plugin
from capwasm_shim.layers import Layer, Limits, Report, Spec
from tests.isolation.ways import library, load_native
from tests.kit import World

EARLY = b"EARLY-CALLS:"
EARLY_ROOM = 1024


@dataclass(frozen=True)
class Shot:
    """What came of an attempt.

    Attributes:
        answer: what the plugin says, or `killed:SIGNAL`, `killed:memory`, `exited:STATUS`, or the error's code and
            message.
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
        found["listens"] = _listened(place / "net" / "tcp")
    return found


def _listened(table: Path) -> list[int]:
    """The ports that somebody listens on in that network namespace."""
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return sorted(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A")


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError as exc:  # a pid namespace without a process in it
        return str(exc.errno)


class TornServer(ShimServer):
    """Starts processes with fewer layers, or other limits, than it was told: in tests alone.

    Attributes:
        without: the layers that are left out.   limits: those of the process, or None for its own.
        started: the last process.
    """

    without: frozenset[Layer] = frozenset()
    limits: Limits | None = None
    started: Started

    def start(
        self,
        spec: Spec,
        fds: Sequence[tuple[str, int]] = (),
        load: Mapping[str, Any] | None = None,
    ) -> Started:
        layers = tuple(layer for layer in Layer if layer not in self.without)
        spec = replace(
            spec,
            layers=layers,
            # Some can't be had without others.
            required=frozenset() if self.without else spec.required,
            limits=self.limits or spec.limits,
        )
        self.started = super().start(spec, fds, load)
        return self.started


class Range:
    """A core with hostile plugins, one instance after the other: signed, consented to, and loaded."""

    def __init__(self, manifest: str = "", policy: str = "", instance: str = "single") -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="capwasm-range-")
        self.world = World(Path(self._scratch.name))
        # It is let loose hundreds of times; a core would have suspended it long before.
        strikes = "[strikes]\nsuspend = 0\n"
        self.world.policy('[isolation]\nnative = ["test.*"]\n' + strikes + policy)
        self.server = TornServer()
        self.world.runtime._shim = self.server
        self._code = library("hostile")
        self._manifest = manifest
        self._instance = instance
        self._plugin: Plugin | None = None
        self._crashed = False

    @property
    def plugin(self) -> Plugin:
        """The plugin, loaded once."""
        if self._plugin is None:
            self._plugin = load_native(
                self.world, self._code, self._manifest, id="test.hostile", instance=self._instance
            )
        return self._plugin

    def _early(self, lines: bytes) -> Plugin:
        """Another one, whose constructor makes these calls."""
        assert self._code.count(EARLY + bytes(EARLY_ROOM - len(EARLY))) == 1
        assert len(lines) < EARLY_ROOM - len(EARLY)
        code = self._code.replace(EARLY + bytes(len(lines)), EARLY + lines, 1)
        return load_native(self.world, code, self._manifest, id="test.early")

    def shoot(
        self,
        topic: str,
        message: bytes = b"",
        *,
        without: frozenset[Layer] = frozenset(),
        limits: Limits | None = None,
        early: bytes = b"",
    ) -> Shot:
        """Start an instance in all layers but those, call it once, and end it."""
        if self._crashed and not early:
            # After one good call, crashes are counted anew.
            self._crashed = False
            self.shoot("environment")
        with self.torn(without, limits):
            before: dict[str, Any] = {}
            try:
                plugin = self._early(early) if early else self.plugin
                with plugin.session() as session:
                    started = self.server.started
                    before = seen(started.pid)
                    result = session.call("handle", topic, message)
                    answer = bytes(result.value).decode(errors="replace")
                    return Shot(answer, before, seen(started.pid), started.report)
            except GuestError as exc:
                self._crashed = not early
                return Shot(_end(exc), before, {}, self.server.started.report)

    @contextlib.contextmanager
    def torn(
        self, without: frozenset[Layer] = frozenset(), limits: Limits | None = None
    ) -> Iterator[None]:
        """What is started meanwhile, is started so."""
        self.server.without, self.server.limits = without, limits
        try:
            yield
        finally:
            self.server.without, self.server.limits = frozenset(), None

    def close(self) -> None:
        self.world.close()
        self.server.close()
        self._scratch.cleanup()


def _end(error: GuestError) -> str:
    """How the process ended, as the caller is told."""
    if error.code == "guest.crashed" and "ran out of memory" in error.message:
        return "killed:memory"
    killed = re.search(r"it was killed by (\w+)$", error.message)
    exited = re.search(r"it exited with status (\d+)$", error.message)
    if error.code == "guest.crashed" and killed:
        return f"killed:{killed[1]}"
    if error.code == "guest.crashed" and exited:
        return f"exited:{exited[1]}"
    return f"{error.code}:{error.message}"
