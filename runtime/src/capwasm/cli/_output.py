"""What the commands share: a console, `--json`, and errors as one clean line or one object."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from capwasm.errors import CapwasmError
from capwasm.redact import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "guarded", "json_option", "say_json", "shown"]

P = ParamSpec("P")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def console(*, error: bool = False) -> Console:
    """Where people read: in colour on a terminal, plain in a pipe.  Give it `Text`, not markup."""
    from rich.console import Console

    return Console(stderr=error, highlight=False, soft_wrap=True)


def shown(value: object) -> str:
    """A value from elsewhere, fit for a terminal: one line, nothing invisible."""
    return printable(str(value))


def say_json(data: Any, *, indent: int | None = None) -> None:
    """Print one JSON document, in ASCII."""
    click.echo(json.dumps(data, indent=indent, default=str))


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Turn our errors into a line or an object and exit code 1; a closed pipe ends quietly."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except CapwasmError as exc:
            if kwargs.get("as_json"):
                say_json(exc.to_dict(), indent=2)
            else:
                lines = "\n".join(printable(line) for line in str(exc).split("\n"))
                click.echo(f"error [{exc.code}] {lines}", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    return run
