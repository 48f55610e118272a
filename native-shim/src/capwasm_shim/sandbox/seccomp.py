"""The last layer: which system calls there are, seccomp(2)."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from .kernel import Lacks, syscall
from .profiles import ABSENT, FORKING, HOSTILE, PROFILES, Rule

if TYPE_CHECKING:
    from .place import Place

__all__ = ["export_filters", "seccomp"]

_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1
_INSTRUCTION: Final = 8  # bytes: struct sock_filter

Filters = Mapping[str, bytes] | Lacks


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def seccomp(place: Place) -> None:
    """The kernel answers what the kind's profile names, and refuses or kills for all else.

    Refused is what is unknown (EPERM) or must look absent (ENOSYS); killed is who enters by another
    architecture's door, x32 and `int 0x80` included, or asks for what only an attack asks for.
    It can't be taken off, and a second one can't be put on.
    Stops: NAT-05 to NAT-12.  Needs: seccomp filters, libseccomp, and no_new_privs.
    """
    if isinstance(place.filters, Lacks):
        raise place.filters
    code = place.filters[FORKING if place.spec.limits.processes > 1 else place.spec.kind]
    program = _Program(len(code) // _INSTRUCTION, code)
    if thread := syscall("seccomp", _SET_MODE_FILTER, _TSYNC, ctypes.byref(program)):
        raise OSError(errno.EBUSY, f"seccomp: thread {thread} has a filter of its own")


def export_filters() -> Filters:
    """The filter of each profile as the kernel takes it; made once, as that takes milliseconds."""
    try:
        import pyseccomp  # only the server needs it, and it can be missing
    except (ImportError, RuntimeError, OSError) as exc:
        return Lacks(f"no libseccomp: {exc}")
    return {name: _export(pyseccomp, rules) for name, rules in PROFILES.items()}


def _export(library: Any, rules: tuple[Rule, ...]) -> bytes:
    made = library.SyscallFilter(library.ERRNO(errno.EPERM))
    made.set_attr(library.Attr.ACT_BADARCH, library.KILL_PROCESS)
    made.set_attr(library.Attr.CTL_OPTIMIZE, 2)  # a binary tree: a call takes few steps
    for rule in rules:
        tests = [library.Arg(n, library.MASKED_EQ, mask, value) for n, mask, value in rule.tests]
        _add(library, made, library.ALLOW, rule.name, tests)
    for name in ABSENT:
        _add(library, made, library.ERRNO(errno.ENOSYS), name, [])
    for name in HOSTILE:
        _add(library, made, library.KILL_PROCESS, name, [])
    with open(os.memfd_create("filter"), "r+b", buffering=0) as file:  # noqa: PTH123
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def _add(library: Any, made: Any, action: int, name: str, tests: list[Any]) -> None:
    number = library.resolve_syscall(library.Arch.NATIVE, name)
    if number >= 0:  # negative: not on this architecture, or newer than the library
        made.add_rule_exactly(action, number, *tests)
