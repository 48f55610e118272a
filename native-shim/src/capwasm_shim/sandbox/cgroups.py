"""Layers by control groups: what a process uses is counted with all its children, by the kernel.

They are built by the server, from outside, before the process goes on: cgroups(7).  Only directories
that this server made are ever written to or removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capwasm_shim.layers import Layer, Limits

from .kernel import Lacks

__all__ = ["Groups"]

_NAME: Final = "capwasm-"
_HEADROOM: Final = 32 * 2**20  # bytes: what the interpreter and the kernel need beside the plugin
_PERIOD: Final = 100_000  # microseconds; the kernel's own default

# What each controller is told, for version 2 and version 1: file, value, and whether a kernel may
# be without it.
Setting = tuple[str, str, bool]


def _memory(limits: Limits, version: int) -> list[Setting]:
    most = str(limits.memory + _HEADROOM)
    if version == 2:
        return [
            ("memory.max", most, False),
            ("memory.swap.max", "0", True),
            ("memory.oom.group", "1", True),
        ]
    return [("memory.limit_in_bytes", most, False), ("memory.memsw.limit_in_bytes", most, True)]


def _pids(limits: Limits, _: int) -> list[Setting]:
    return [("pids.max", str(limits.threads), False)]


def _cpu(limits: Limits, version: int) -> list[Setting]:
    quota = limits.cpu_percent * _PERIOD // 100
    if version == 2:
        bound = [("cpu.max", f"{quota} {_PERIOD}", False)] if quota else []
        return [("cpu.weight", "50", False), *bound]
    bound = [("cpu.cfs_quota_us", str(quota), False)] if quota else []
    return [("cpu.shares", "512", False), *bound]  # half of what others have


_CONTROLLERS: Final[Mapping[Layer, tuple[str, Callable[[Limits, int], list[Setting]]]]] = {
    Layer.CGROUP_MEMORY: ("memory", _memory),
    Layer.CGROUP_PIDS: ("pids", _pids),
    Layer.CGROUP_CPU: ("cpu", _cpu),
}


@dataclass(frozen=True, slots=True)
class _Home:
    """The directory of this server in one hierarchy; held by a lock while the server lives."""

    path: Path
    version: int
    lock: int


class Groups:
    """The cgroups of one server's processes."""

    def __init__(self) -> None:
        """Find where groups can be made, and clear away what a dead server left there."""
        self._homes: dict[Layer, _Home | Lacks] = {}
        name = _NAME + os.urandom(8).hex()
        for layer, (controller, _) in _CONTROLLERS.items():
            self._homes[layer] = _make_home(controller, name)

    def put(self, pid: int, layer: Layer, limits: Limits) -> None:
        """Put the process in a group of its own with these limits.

        Raises:
            Lacks, OSError: it can't be had.
        """
        home = self._homes[layer]
        if isinstance(home, Lacks):
            raise home
        group = home.path / str(pid)
        group.mkdir(exist_ok=True)
        for file, value, optional in _CONTROLLERS[layer][1](limits, home.version):
            if not optional or (group / file).exists():
                (group / file).write_text(value)
        (group / "cgroup.procs").write_text(str(pid))

    def remove(self, pid: int) -> bool:
        """Remove the groups of a process that was reaped; whether one of it was killed for memory."""
        starved = False
        for layer, home in self._homes.items():
            if isinstance(home, _Home):
                group = home.path / str(pid)
                with contextlib.suppress(OSError):
                    starved |= layer is Layer.CGROUP_MEMORY and _starved(group)
                    group.rmdir()
        return starved

    def close(self) -> None:
        """Remove the groups of the server; those that still hold a process stay."""
        for home in self._homes.values():
            if isinstance(home, _Home):
                _clear(home.path)


def _starved(group: Path) -> bool:
    for name in ("memory.events", "memory.oom_control"):  # version 2, version 1
        for line in _read(str(group / name)).splitlines():
            if line.startswith("oom_kill "):
                return line != "oom_kill 0"
    return False


def _make_home(controller: str, name: str) -> _Home | Lacks:
    why = f"no cgroup hierarchy has the controller {controller}"
    for version, base in _bases(controller):
        try:
            if version == 2:
                _delegate(base, controller)
            _sweep(base)
            path = base / name
            lock = _hold(path)
            if version == 2:
                _delegate(path, controller)
            return _Home(path, version, lock)
        except OSError as exc:
            why = f"cgroup {controller} can't be divided here: {exc.strerror}"
    return Lacks(why)


def _hold(path: Path) -> int:
    """Make the directory, and hold it; version 2 has one for all controllers."""
    while True:
        path.mkdir(0o755, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)
            if path.exists():
                return fd
            os.close(fd)  # a server that sweeps was quicker


def _bases(controller: str) -> Iterator[tuple[int, Path]]:
    """The directories that this process's groups could be made in, best first."""
    own = dict(_memberships())
    for kind, root, point, options in _mounts():
        if kind == "cgroup" and controller in options.split(","):
            version, path = 1, own.get(controller)
        elif kind == "cgroup2":
            version, path = 2, own.get("")
        else:
            continue
        # In a container the mount shows a part of the hierarchy only.
        if path is None or not (path + "/").startswith(root.rstrip("/") + "/"):
            continue
        base = Path(point) / path[len(root.rstrip("/")) :].lstrip("/")
        if version == 1:
            yield 1, base
        elif controller in _words(base / "cgroup.controllers"):
            yield 2, base
            if base != Path(point):
                # A group that holds processes can't be divided; then beside it, where its parent
                # is delegated to this user.
                yield 2, base.parent


def _delegate(group: Path, controller: str) -> None:
    control = group / "cgroup.subtree_control"
    if controller not in _words(control):
        control.write_text(f"+{controller}")


def _sweep(base: Path) -> None:
    """Remove the homes of servers that are dead: nobody holds their lock."""
    for home in base.glob(f"{_NAME}*"):
        with contextlib.suppress(OSError):
            fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(home)
            finally:
                os.close(fd)


def _clear(home: Path) -> None:
    for group in home.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            group.rmdir()
    with contextlib.suppress(OSError):
        home.rmdir()


def _memberships() -> Iterator[tuple[str, str]]:
    # hierarchy:controllers:path; version 2 is the line without controllers.
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _mounts() -> Iterator[tuple[str, str, str, str]]:
    # proc_pid_mountinfo(5): id parent dev root point options... - type source super-options
    for line in _read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if rest[0] in {"cgroup", "cgroup2"}:
            yield rest[0], fields[3], fields[4], rest[2]


def _words(path: Path) -> list[str]:
    return _read(str(path)).split()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as exc:
        if exc.errno in {errno.ENOENT, errno.EACCES, errno.ENODEV}:
            return ""
        raise
