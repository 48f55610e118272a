"""An opened exec capability, and a Python in its sandbox that does as it is told: the attacker."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps.exec import Exec, ExecClause, Spawner
from capwasm.caps.exec.handle import Output
from capwasm.errors import CapError
from capwasm.limits import Limits
from tests.helpers import grant_of, in_call, open_context

__all__ = ["ATTACKER", "CAT", "SLEEP", "Desk", "gone", "python"]

PYTHON = os.path.realpath(sys.executable)
LIBRARY = {sysconfig.get_path("stdlib"), str(sysconfig.get_config_var("LIBDIR"))}
READS = frozenset(path for path in LIBRARY if Path(path).is_dir())


def real(name: str) -> str:
    return next(f"{d}/{name}" for d in ("/usr/bin", "/bin") if Path(f"{d}/{name}").exists())


CAT = ExecClause("cat", real("cat"))
SLEEP = ExecClause("sleep", real("sleep"), (("60",),), timeout_ms=60_000)
ATTACKER = ExecClause(
    "attacker", PYTHON, (("-I", "-S", "-B", "-"),), READS, timeout_ms=60_000, runs=1000
)


def python(**words: Any) -> ExecClause:
    """The attacker with other words."""
    found = {f: getattr(ATTACKER, f) for f in ("command", "program", "arguments", "reads")}
    return ExecClause(**found | {"timeout_ms": 60_000} | words)


class Desk:
    """One plugin's instance with commands."""

    def __init__(
        self, spawner: Spawner | None, directory: Path, *clauses: ExecClause, **about: Any
    ) -> None:
        self.exec = about.pop("exec", None) or Exec(spawner, about.pop("protected", ()))
        self.grant = grant_of(*clauses, deny=about.pop("deny", ()))
        self.ctx = open_context(directory, **about)
        self.state = self.exec.open(self.grant, self.ctx)
        [interface] = self.exec.serve(self.state)
        assert interface.name in Exec.interfaces
        self.functions = interface.functions

    def __call__(
        self, command: str, *arguments: str, data: bytes = b"", limits: Limits | None = None
    ) -> Output:
        with in_call(limits or Limits(wall_ms=60_000, host_call_ms=60_000)):
            output: Output = self.functions["run"](command, list(arguments), data)
            return output

    def attack(self, code: str) -> str:
        """What the attacker prints; it ends well, or the test fails."""
        out = self("attacker", data=code.encode())
        assert out.code == 0, (out, code)
        return out.stdout.decode()

    def word(self, command: str, *arguments: str, **more: Any) -> str:
        with pytest.raises(CapError) as caught:
            self(command, *arguments, **more)
        return caught.value.word

    def events(self, action: str) -> list[Any]:
        recorder: Any = self.ctx.recorder
        return [e for e in recorder.events if e.kind == "exec" and e.action == action]

    @contextlib.contextmanager
    def under_way(self, command: str, **more: Any) -> Iterator[Running]:
        """The command runs on a thread of its own, and has begun."""
        running = Running(self, command, more)
        try:
            yield running
        finally:
            running.thread.join(30)
            assert not running.thread.is_alive()


class Running:
    """A run on another thread."""

    def __init__(self, desk: Desk, command: str, more: dict[str, Any]) -> None:
        self.call: Any = None
        self.error: BaseException | None = None
        self.output: Output | None = None
        before = descendants()

        def work() -> None:
            try:
                with in_call(
                    more.get("limits") or Limits(wall_ms=60_000, host_call_ms=60_000)
                ) as c:
                    self.call = c
                    self.output = desk.functions["run"](command, [], more.get("data", b""))
            except BaseException as exc:
                self.error = exc

        self.thread = threading.Thread(target=work)
        self.thread.start()
        until = time.monotonic() + 30
        while not (new := executing(before)):
            assert self.thread.is_alive(), self.error
            assert time.monotonic() < until
            time.sleep(0.005)
        self.pids = new


def executing(before: set[int]) -> set[int]:
    """Descendants that are new, and are a program other than the fork server's."""
    return {
        pid
        for pid in descendants() - before
        if b"capwasm_shim" not in _read(f"/proc/{pid}/cmdline") and _read(f"/proc/{pid}/cmdline")
    }


def descendants() -> set[int]:
    """All processes below this one."""
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
            children = {int(pid) for pid in _read(str(task)).split()} - found
            found |= children
            todo += children
    return found


def gone(pids: set[int]) -> bool:
    """Whether these processes end, soon."""
    until = time.monotonic() + 10
    while alive := {pid for pid in pids if Path(f"/proc/{pid}").exists()}:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return not alive


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
