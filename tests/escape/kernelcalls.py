"""Kernel calls as text, for the interpreter in tests/native/hostile_calls.c.

    calls(call("openat", -100, "/etc/shadow", 0), call("read", result(0), out(64), 64))

is a program of two calls; the second uses the first one's result.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass

import pyseccomp

AT_FDCWD = -100
MACHINE = platform.machine()

# Younger than the library's table; since 424, a call has the same number everywhere.
_YOUNG = {
    "memfd_secret": 447,
    "process_mrelease": 448,
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "statmount": 457,
    "listmount": 458,
    "lsm_list_modules": 461,
}


@dataclass(frozen=True)
class Word:
    """An argument that is already as the interpreter wants it."""

    text: str


LANE = Word("L")
"""The descriptor of the plugin's lane."""


def out(size: int) -> Word:
    """So many zero bytes to be written to; the last of these is the evidence."""
    return Word(f"z{size}")


def result(line: int) -> Word:
    """What that line returned."""
    return Word(f"${line}")


def stored(line: int, index: int = 0) -> Word:
    """An int32 of what that line wrote: one end of a pipe, say."""
    return Word(f"@{line}.{index}")


def repeated(byte: int, size: int) -> Word:
    """So many bytes of that value."""
    return Word(f"r{byte:02x}.{size}")


Argument = int | str | bytes | Word | Sequence["Argument"]


def _word(argument: Argument) -> str:
    match argument:
        case Word():
            return argument.text
        case int():
            return str(argument)
        case str():
            return "x" + argument.encode().hex()
        case bytes():
            return "x" + argument.hex()
        case _:
            return "(" + " ".join(_word(a) for a in argument) + ")"


def number(name: str) -> int:
    """The call's number on this machine; -1 where it hasn't got it."""
    if name in _YOUNG:
        return _YOUNG[name]
    found: int = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    return found


def call(name: str | int, *arguments: Argument, times: int = 0, lenient: bool = False) -> str:
    """One line.

    Args:
        name: of the call, or its number.
        arguments: up to six.
        times: make it so often, until it fails; the result is how often it succeeded.
        lenient: go on where it fails.
    """
    words = [str(name if isinstance(name, int) else number(name)), *map(_word, arguments)]
    return f"{'?' if lenient else ''}{f'*{times} ' if times else ''}{' '.join(words)}"


def calls(*lines: str) -> bytes:
    """The program."""
    return "\n".join(lines).encode()
