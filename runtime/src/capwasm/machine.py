"""What this machine can enforce, found out by trying it."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .errors import CapabilityError

__all__ = ["Check", "Status", "check_machine"]

Status = Literal["ok", "lacks", "note"]

_LANDLOCK_CREATE_RULESET: Final = 444  # the same number on every architecture
_LANDLOCK_VERSION: Final = 1  # flag: tell the version, make nothing
_CLONE_NEWUSER: Final = 0x10000000
_OWN_PROCESS: Final = "for plugins in a process of their own"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: a word for programs.   status: `lacks` is worse than `note`.
        value: what was found.   why: what it is for.
        required: whether nothing runs safely without it.
    """

    name: str
    status: Status
    value: str
    why: str
    required: bool = False

    @property
    def failed(self) -> bool:
        """Whether it is required and not there."""
        return self.required and self.status == "lacks"


def check_machine() -> list[Check]:
    """Try everything; takes some tens of milliseconds, and changes nothing."""
    return [check() for check in _CHECKS]


def _platform() -> Check:
    found = f"{platform.system()} {platform.machine()}"
    good = sys.platform.startswith("linux")
    why = "files and processes can be confined on Linux alone"
    return Check("platform", "ok" if good else "lacks", found, why, required=True)


def _kernel() -> Check:
    return Check("kernel", "ok", platform.release(), "decides on what follows")


def _python() -> Check:
    good = sys.version_info >= (3, 11)
    why = "3.11 or newer runs it; see below for its advisories"
    return Check("python", "ok" if good else "lacks", platform.python_version(), why, required=True)


def _engine() -> Check:
    why = "runs the plugins"
    try:
        from importlib.metadata import version

        import wasmtime

        from .engine.config import make_config

        wasmtime.Engine(make_config())
        found = f"wasmtime {version('wasmtime')}"
    except Exception as exc:  # noqa: BLE001  whatever it is, it says that the engine can't be had
        return Check("engine", "lacks", f"{type(exc).__name__}: {exc}", why, required=True)
    return Check("engine", "ok", found, why, required=True)


def _calls() -> Check:
    from .engine.capi import layout_faults

    why = "values cross the boundary by the layout of a wheel that was checked"
    faults = layout_faults()
    if faults:
        return Check("calls", "note", f"the slow way: {faults[0]}", why)
    return Check("calls", "ok", "the fast way", why)


def _instances() -> Check:
    from .engine.pool import Capacity, make_engine

    why = "room for instances is set aside, so that one starts in microseconds"
    try:
        made = make_engine(Capacity())
    except Exception as exc:  # noqa: BLE001  as `_engine`, which tells of it
        return Check("instances", "note", type(exc).__name__, why)
    if made.pooled:
        return Check("instances", "ok", f"a pool for {made.instances}", why)
    return Check("instances", "note", f"no pool: {made.why_not}", why)


def _files() -> Check:
    why = "a file grant can't be left through .., links or renames"
    try:
        from .caps.fs.beneath import best, by_openat2

        way = best()
    except CapabilityError as exc:
        return Check("files", "lacks", exc.message, why, required=True)
    if way is by_openat2:
        return Check("files", "ok", "openat2: the kernel confines each open", why, required=True)
    return Check("files", "note", "no openat2: a walk that follows no link", why, required=True)


def _landlock() -> Check:
    abi = _syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if abi >= 1:
        return Check("landlock", "ok", f"ABI {abi}", _OWN_PROCESS)
    return Check("landlock", "lacks", errno.errorcode.get(-abi, str(abi)), _OWN_PROCESS)


def _syscall(number: int, *args: object) -> int:
    """Its result, or minus the error number."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        result = int(libc.syscall(ctypes.c_long(number), *args))
    except (AttributeError, OSError):  # not Linux
        return -errno.ENOSYS
    return result if result >= 0 else -ctypes.get_errno()


def _seccomp() -> Check:
    actions = _read("/proc/sys/kernel/seccomp/actions_avail").split()
    good = {"kill_process", "errno"} <= set(actions)
    value = "filters" if good else "no filters"
    return Check("seccomp", "ok" if good else "lacks", value, _OWN_PROCESS)


def _namespaces() -> Check:
    # Only trying tells: half a dozen settings and security modules can forbid it.
    script = (
        "import ctypes,sys;c=ctypes.CDLL(None,use_errno=True);"
        f"sys.exit(ctypes.get_errno() if c.unshare({_CLONE_NEWUSER}) else 0)"
    )
    try:
        code = subprocess.run(  # noqa: S603  this interpreter and a fixed text
            [sys.executable, "-I", "-S", "-c", script],
            check=False,
            timeout=10,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ).returncode
    except (OSError, subprocess.SubprocessError) as exc:
        return Check("user-namespaces", "lacks", type(exc).__name__, _OWN_PROCESS)
    value = "allowed" if code == 0 else errno.errorcode.get(code, "refused")
    return Check("user-namespaces", "lacks" if code else "ok", value, _OWN_PROCESS)


def _cgroup() -> Check:
    controllers = _read("/sys/fs/cgroup/cgroup.controllers").split()
    if not controllers:
        value = "version 1" if Path("/sys/fs/cgroup").is_dir() else "none"
        return Check("cgroup", "lacks", value, _OWN_PROCESS)
    own = _read("/proc/self/cgroup").strip().partition("::")[2]
    writable = os.access(f"/sys/fs/cgroup{own}/cgroup.procs", os.W_OK)
    missing = {"memory", "pids", "cpu"} - set(controllers)
    value = f"version 2{', writable' if writable else ', not writable'}"
    if missing:
        value += f", without {', '.join(sorted(missing))}"
    return Check("cgroup", "ok" if writable and not missing else "note", value, _OWN_PROCESS)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


_CHECKS: Final[tuple[Callable[[], Check], ...]] = (
    _platform,
    _kernel,
    _python,
    _engine,
    _calls,
    _instances,
    _files,
    _landlock,
    _seccomp,
    _namespaces,
    _cgroup,
)
