"""What all commands share: `--home`, `--json`, a console, and text that is fit for a terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "JSON",
    "colour",
    "console",
    "epilog",
    "home_option",
    "json_option",
    "say_json",
    "shown",
    "table",
]

JSON: Final = "capwasm.json"
"""Key of `Context.meta`, which a command shares with the door: whether `--json` was given."""


def _remember(ctx: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    ctx.meta[JSON] = value
    return value


json_option = click.option(
    "--json", "as_json", is_flag=True, callback=_remember, help="Print JSON, errors too."
)

home_option = click.option(
    "--home",
    "home_path",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(click.get_app_dir("capwasm")),
    envvar="CAPWASM_HOME",
    show_envvar=True,
    show_default="the application's directory",
    help="The runtime's directory: policy.toml, trust.toml, consents/, vault, audit/.",
)


def epilog(*examples: str, codes: str = "0 done, 1 refused, 2 wrong usage") -> str:
    """What every command's help ends with: how to call it, and its exit codes."""
    lines = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExample:\n{lines}\n\nExit codes: {codes}."


def console(*, error: bool = False, plain: bool = False, columns: int | None = None) -> Console:
    """Where people read: in colour on a terminal, plain in a pipe.  Give it `Text`, not markup.

    Args:
        error: stderr, not stdout.
        plain: no colour, whatever it is.
        columns: wrap at this one at most; by default nothing is wrapped but by the terminal.
    """
    from rich.console import Console

    # rich takes NO_COLOR to the letter, and leaves bold and dim.
    colours: Any = None if plain or os.environ.get("NO_COLOR") else "auto"
    made = Console(stderr=error, highlight=False, soft_wrap=columns is None, color_system=colours)
    if columns is not None:
        made.width = min(columns, made.width) if made.is_terminal else columns
    return made


def shown(value: object) -> str:
    """A value from elsewhere, fit for a terminal: one line, nothing invisible."""
    from capwasm.record.redact import printable

    return printable(str(value))


def colour() -> bool | None:
    """For `click.echo`: whether to colour; None is on a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    colours: Mapping[int, Mapping[str, str]] | None = None,
    indent: int = 0,
) -> None:
    """Print rows in aligned columns, ten thousand of them in a few hundredths of a second.

    Args:
        head: the columns' names.
        rows: their cells; nothing in them may be a control character, see `shown`.
        colours: by column, what colour a cell of that text has.
        indent: columns to the left.
    """
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    line = " " * indent + "  ".join(f"{{:<{width}}}" for width in widths)
    lines = [click.style(line.format(*head).rstrip(), bold=True)]
    if colours and colour() is None and sys.stdout.isatty():
        paint = {
            column: {t: click.style(f"{t:<{widths[column]}}", fg=name) for t, name in names.items()}
            for column, names in colours.items()
        }
        rows = [[paint.get(i, {}).get(cell, cell) for i, cell in enumerate(row)] for row in rows]
    lines += [line.format(*row).rstrip() for row in rows]
    click.echo("\n".join(lines), color=colour())


def say_json(data: Any, *, indent: int | None = None) -> None:
    """Print one JSON document, in ASCII."""
    click.echo(json.dumps(data, indent=indent, default=str))
