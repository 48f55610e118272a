"""Fork servers under test: plugins to start in them, and what the kernel shows of their processes."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from capwasm.engine.sealed import Sealed
from capwasm.isolation import launch
from capwasm.isolation.server import ShimServer
from capwasm.isolation.started import Started
from capwasm_shim.frames import Lane, make_down, make_up, pair
from capwasm_shim.layers import File, Limits, Spec
from capwasm_shim.native_table import SERVED
from capwasm_shim.protocol import Kind

NATIVE = Path(__file__).parents[1] / "native/x86_64-linux-gnu"
HOSTILE = NATIVE / "hostile.so"
MISFIT = NATIVE / "misfit.so"
WINDOW = 1 << 20


def native(**changes: Any) -> Spec:
    return Spec(**{"kind": "native", "files": (File("plugin.so"),), **changes})


class Plugin:
    """A native plugin in its process, and the lane to it."""

    def __init__(self, server: ShimServer, spec: Spec | None = None, code: bytes = b"") -> None:
        up, up_fd = make_up(WINDOW)
        down, down_fd = make_down(WINDOW)
        ours, theirs = pair()
        self._ends = contextlib.ExitStack()
        self._ends.callback(up.close)
        self._ends.callback(down.close)
        self.lane = Lane(ours, down, up)
        self._ends.callback(self.lane.close)
        try:
            with Sealed.holding(code or HOSTILE.read_bytes()) as file:
                fds = [("file", file.fd), ("lane", theirs.fileno())]
                fds += [("up", up_fd), ("down", down_fd)]
                self.started: Started = server.start(
                    spec or native(), fds, {"limit": WINDOW, "served": SERVED}
                )
        except BaseException:
            self._ends.close()
            raise
        finally:
            theirs.close()
            os.close(up_fd)
            os.close(down_fd)
        self._ends.callback(self.started.close)
        self.pid = self.started.pid

    def hello(self) -> list[Any]:
        return self.lane.recv()

    def begin(self, topic: str, message: bytes = b"") -> None:
        self.lane.send((Kind.CALL, 1, "handle", (topic, message)))

    def ask(self, topic: str, message: bytes = b"") -> str:
        self.begin(topic, message)
        match self.lane.recv():
            case [Kind.RETURN, 1, 0, [0, bytes(value)], *_]:
                return value.decode()
            case frame:
                raise AssertionError(frame)

    def close(self) -> None:
        self._ends.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def misfit(way: str) -> bytes:
    """The code of a plugin that is wrong in that way."""
    return MISFIT.read_bytes().replace(b"MISFIT:-", b"MISFIT:" + way.encode())


# -- what the kernel shows ------------------------------------------------------------------------


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def there(pid: int) -> bool:
    """Whether there is anything left of it, and be it a zombie."""
    return Path(f"/proc/{pid}").exists()


def soon(what: Callable[[], bool], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.01)
    return what()


def descriptors(pid: int | str = "self") -> dict[int, str]:
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the directory which is just being read
            found[int(link.name)] = str(link.readlink())
    return found


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_of(pid: int) -> int:
    """Resident bytes that are its own, and not of files."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def holds(pid: int, needle: bytes) -> bool:
    """Whether these bytes are anywhere in the memory of that process."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(n, 16) for n in line.split()[0].split("-"))
            if "rw" in line.split()[1] and last - first < 1 << 30:
                with contextlib.suppress(OSError, ValueError):  # the kernel's own pages
                    memory.seek(first)
                    if needle in memory.read(last - first):
                        return True
    return False


# -- servers that are not as they should be -----------------------------------------------------------


def bootstrapped(monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    """Servers that are started now run this first; their own modules can be imported there."""
    begin, _, rest = launch._BOOTSTRAP.partition("try:\n")
    monkeypatch.setattr(launch, "_BOOTSTRAP", f"{begin}{before}\ntry:\n{rest}")


HANG = 4242
HANGING = f"""
import time
from capwasm_shim import sandbox, server
enter = sandbox.enter
def hang(spec, *args):
    if spec.limits.cpu_seconds == {HANG}:
        time.sleep(100)
    return enter(spec, *args)
sandbox.enter = hang
server.SETUP_SECONDS = %s
"""


def hanging(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Spec:
    """A spec whose set-up hangs, in servers that are started now and wait so long for one."""
    bootstrapped(monkeypatch, HANGING % seconds)
    return native(limits=Limits(cpu_seconds=HANG))
