"""Faults at any system call that changes a file, as strace injects them, but without strace.

Run in a process with one thread.  The child runs a function; the parent watches each of its system
calls.  When it enters the n-th that changes something, it is killed, so that this one never happens;
or from there on, such calls fail with an error number of our choice, as on a full or broken disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

TRACEME, SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
SYSGOOD, EXITKILL = 1, 0x100000
POKEUSER, ORIG_RAX, RAX = 6, 15 * 8, 10 * 8  # x86-64 alone
ENTRY = 1
# By machine: name -> (number, which argument is a path or a descriptor, kind of that argument).
CALLS: dict[str, dict[int, tuple[str, int, str]]] = {
    "x86_64": {
        1: ("write", 0, "fd"), 18: ("pwrite64", 0, "fd"), 20: ("writev", 0, "fd"),
        257: ("openat", 1, "path"), 2: ("open", 0, "path"), 77: ("ftruncate", 0, "fd"),
        74: ("fsync", 0, "fd"), 75: ("fdatasync", 0, "fd"), 82: ("rename", 1, "path"),
        264: ("rename", 3, "path"), 316: ("rename", 3, "path"), 86: ("link", 1, "path"),
        265: ("link", 3, "path"), 87: ("unlink", 0, "path"), 263: ("unlink", 1, "path"),
        83: ("mkdir", 0, "path"), 258: ("mkdir", 1, "path"), 285: ("fallocate", 0, "fd"),
        90: ("chmod", 0, "path"), 91: ("fchmod", 0, "fd"), 268: ("chmod", 1, "path"),
    },
    "aarch64": {
        64: ("write", 0, "fd"), 68: ("pwrite64", 0, "fd"), 66: ("writev", 0, "fd"),
        56: ("openat", 1, "path"), 46: ("ftruncate", 0, "fd"), 82: ("fsync", 0, "fd"),
        83: ("fdatasync", 0, "fd"), 38: ("rename", 3, "path"), 276: ("rename", 3, "path"),
        37: ("link", 3, "path"), 35: ("unlink", 1, "path"), 34: ("mkdir", 1, "path"),
        47: ("fallocate", 0, "fd"), 52: ("fchmod", 0, "fd"), 53: ("chmod", 1, "path"),
    },
}  # fmt: skip
OPEN_FLAGS = {"open": 1, "openat": 2}


class _Info(ctypes.Structure):
    _fields_ = [
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
        ("more", ctypes.c_uint64 * 2),
    ]


@dataclass
class Trace:
    """What a child did.

    Attributes:
        calls: the name and target of each call that changes something, in order.
        failed: how many of them were made to fail.
        killed: whether it was killed at the last of them.
        status: its exit status, if it was not.
    """

    calls: list[tuple[str, str]] = field(default_factory=list)
    failed: int = 0
    killed: bool = False
    status: int = 0


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def why_not(*, failing: bool = False) -> str | None:
    """Why nothing can be traced here, or made to fail; or None."""
    if platform.machine() not in CALLS or sys.platform != "linux":
        return f"no table of system calls for {platform.machine()}"
    if failing and platform.machine() != "x86_64":
        return "calls can be made to fail on x86-64 alone"
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _libc.ptrace(TRACEME, 0, None, None) == 0 else 1)
    _, status = os.waitpid(pid, 0)
    return None if status == 0 else "ptrace is not allowed"


def run(
    work: Callable[[], object],
    *,
    kill_at: int | None = None,
    fail_at: int | None = None,
    error: int = 0,
    only: Collection[str] = (),
) -> Trace:
    """Do `work` in a child.

    Args:
        work: what to do; its exit status is 0, or 1 when it raises.
        kill_at: the change, counted from 1, at whose entry it is killed.
        fail_at: the change from which on they fail, with
        error: this error number,
        only: if they have one of these names; all, if it is empty.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _ptrace(TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            code = int(work() or 0)  # type: ignore[call-overload]
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    trace = Trace()
    os.waitpid(pid, 0)
    _ptrace(SETOPTIONS, pid, data=SYSGOOD | EXITKILL)
    send, refuse = 0, False
    while True:
        _ptrace(SYSCALL, pid, data=send)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            trace.status = os.waitstatus_to_exitcode(status)
            return trace
        send = os.WSTOPSIG(status)
        if send != signal.SIGTRAP | 0x80:
            continue
        send = 0
        if refuse:  # the call was turned into one that there is not; this is what it came to
            _ptrace(POKEUSER, pid, RAX, -error)
            refuse = False
            continue
        call = _entered(pid)
        if call is None:
            continue
        trace.calls.append(call)
        if len(trace.calls) == kill_at:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            trace.killed = True
            return trace
        if fail_at is not None and len(trace.calls) >= fail_at and (not only or call[0] in only):
            _ptrace(POKEUSER, pid, ORIG_RAX, -1)
            trace.failed += 1
            refuse = True


def _entered(pid: int) -> tuple[str, str] | None:
    info = _Info()
    size = ctypes.sizeof(info)
    _ptrace(GET_SYSCALL_INFO, pid, addr=size, data=ctypes.addressof(info))
    found = CALLS[platform.machine()].get(info.nr) if info.op == ENTRY else None
    if found is None:
        return None
    name, at, kind = found
    if name in OPEN_FLAGS:
        if not info.args[OPEN_FLAGS[name]] & (os.O_CREAT | os.O_TRUNC):
            return None
        name = "create"
    if kind == "path":
        return name, _text(pid, info.args[at])
    try:
        return name, str(Path(f"/proc/{pid}/fd/{info.args[at]}").readlink())
    except OSError:
        return name, "?"


def _text(pid: int, address: int) -> str:
    with contextlib.suppress(OSError), Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(256).partition(b"\0")[0].decode(errors="replace")
    return "?"


def _ptrace(request: int, pid: int, addr: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, addr, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
