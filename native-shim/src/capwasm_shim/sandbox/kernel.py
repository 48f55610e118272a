"""The system calls that Python has no words for, each an `OSError` when the kernel refuses it."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any, Final

__all__ = ["Lacks", "call", "close_all_but", "prctl", "syscall"]

# Where the numbers differ; from 424 on they are the same everywhere.
_NUMBERS: Final = {
    "x86_64": {"pivot_root": 155, "capset": 126, "capget": 125, "seccomp": 317},
    "aarch64": {"pivot_root": 41, "capset": 91, "capget": 90, "seccomp": 277},
}.get(platform.machine(), {}) | {
    "close_range": 436,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_MAX_FD: Final = 2**32 - 1

_libc = ctypes.CDLL(None, use_errno=True)

# What ctypes makes of a reference has no public type.
Argument = Any


class Lacks(Exception):
    """This machine hasn't got it; the text says what is missing."""


def call(name: str, *args: Argument) -> int:
    """A function of libc by its name; its result.

    Raises:
        OSError: it returned -1; the text names the function.
    """
    return _checked(name, getattr(_libc, name)(*map(_argument, args)))


def syscall(name: str, *args: Argument) -> int:
    """A system call by its name; its result.

    Raises:
        OSError: it returned -1; the text names the call.
        Lacks: its number is not known for this processor.
    """
    number = _NUMBERS.get(name)
    if number is None:
        raise Lacks(f"{name} is not known for {platform.machine()}")
    return _checked(name, _libc.syscall(ctypes.c_long(number), *map(_argument, args)))


def prctl(option: int, *args: int) -> int:
    """The system call prctl, which wants all five arguments.

    Raises:
        OSError: as `call`.
    """
    return call("prctl", option, *args, *[0] * (4 - len(args)))


def close_all_but(keep: frozenset[int]) -> None:
    """Close every descriptor from 3 on that isn't in `keep`.

    Raises:
        OSError: as `call`; without close_range (Linux 5.9) nothing was closed.
    """
    first = 3
    for fd in sorted(fd for fd in keep if fd >= first):
        if fd > first:
            syscall("close_range", first, fd - 1, 0)
        first = fd + 1
    syscall("close_range", first, _MAX_FD, 0)


def _argument(value: Argument) -> object:
    # A Python int would go as 32 bits.
    return ctypes.c_long(value) if isinstance(value, int) else value


def _checked(name: str, result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
