"""How far a compilation or a transfer is, for whoever waits for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from capwasm.engine.compile import Compiling

__all__ = ["BytesLine", "CompileLine"]

_WORTH_A_LINE = 2.0  # seconds: a line in a log stays
_LARGE = 1_000_000  # bytes


class CompileLine:
    """Tells on stderr: on a terminal in one line that moves, elsewhere at the start and the end.

    What is quick is never told here at all (see `Compiler`).
    """

    def __init__(self) -> None:
        """Nothing was told yet."""
        self._told = False
        self._width = 0

    def __call__(self, how: Compiling) -> None:
        """Tell of it."""
        what = f"compiling {how.code_bytes / 1e6:.1f} MB of WebAssembly, once"
        if how.elsewhere:
            what = "waiting for another process, which compiles the same"
        if not sys.stderr.isatty():
            if self._told and how.done:
                click.echo(f"compiled in {how.seconds:.1f} s", err=True)
            elif not self._told and not how.done and how.seconds >= _WORTH_A_LINE:
                click.echo(what, err=True)
            else:
                return
        elif how.done:
            click.echo("\r" + " " * self._width + "\r", nl=False, err=True)
        else:
            line = f"{what}: {how.seconds:.1f} s"
            self._width = max(self._width, len(line))
            click.echo(f"\r{line:<{self._width}}", nl=False, err=True)
        self._told = not how.done


class BytesLine:
    """Tells on stderr how much of a large blob was moved, in one line that moves; only to a terminal."""

    def __init__(self) -> None:
        """Nothing was told yet."""
        self._told = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Tell of it."""
        if total < _LARGE or not sys.stderr.isatty():
            return
        line = f"{what} {done / 1e6:.1f} of {total / 1e6:.1f} MB" if done < total else ""
        if line != self._told:
            click.echo(f"\r{line:<{len(self._told)}}" + ("" if line else "\r"), nl=False, err=True)
            self._told = line
