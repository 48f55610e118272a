"""What a plugin asks for, as its author sees it: the gravest first."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click

from ._output import console, shown

__all__ = ["say_line", "show_permissions", "status"]

STYLES: Final = {"low": "green", "medium": "yellow", "high": "bold red"}
# Why an author's own home does not give it.
_NOT_GIVEN: Final = {
    "secret": "it is optional, and there is no --secret",
    "fs": "it is a directory of this machine, which only a policy gives",
    "exec": "which program that is, only a policy says",
}


def show_permissions(
    rows: Sequence[Mapping[str, Any]],
    *,
    error: bool = False,
    given: Mapping[str, str | None] | None = None,
) -> None:
    """Print them with their risk.

    Args:
        rows: as `review.permissions` makes them.
        error: on stderr.
        given: by path, what a permission stands for here; None if it is not given.
    """
    from rich.text import Text

    out = console(error=error)
    out.print("It asks:" if rows else "It asks for no permission.")
    for row in rows:
        notes = shown(row["risk-why"]) + ("  optional" if row["optional"] else "")
        risk = (f"  {row['risk']:<7}", STYLES[row["risk"]])
        out.print(Text.assemble(risk, shown(row["text"]), (f"  {notes}", "dim")))
        if given is not None and row["path"] in given:
            place = given[row["path"]]
            told = f"not given: {_NOT_GIVEN[row['capability']]}" if place is None else place
            out.print(Text(f"         = {shown(told)}", "yellow" if place is None else "dim"))


@contextmanager
def status(text: str) -> Iterator[None]:
    """On a terminal a spinner; elsewhere one line, so that a log tells what took so long."""
    if sys.stderr.isatty():
        with console(error=True).status(text):
            yield
    else:
        click.echo(text, err=True)
        yield


def say_line(line: str) -> None:
    """What a builder does, on stderr."""
    console(error=True).print(shown(line), style="dim", markup=False)
