"""What `capwasm doctor` tells authors: which languages can be built here, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ._output import console, shown

if TYPE_CHECKING:
    from capwasm.authoring.builders import Tool

__all__ = ["Toolchain", "show_toolchains", "toolchains"]

Toolchain = dict[str, Any]


def toolchains(languages: Sequence[str] = ()) -> list[Toolchain]:
    """Each language that there is a builder for, with its tools.

    Args:
        languages: only these; all if empty.
    """
    from capwasm.authoring.builders import builders

    found = []
    for builder in builders():
        if not languages or builder.name in languages:
            tools = builder.tools()
            found.append(
                {
                    "language": builder.name,
                    "title": builder.title,
                    "ready": all(tool.found is not None for tool in tools),
                    "tools": [_data(tool) for tool in tools],
                }
            )
    return found


def _data(tool: Tool) -> dict[str, Any]:
    data = asdict(tool)
    return data if tool.found is None else data | {"install": None}


def show_toolchains(found: Sequence[Toolchain]) -> None:
    """Print them; for each tool that is missing, the command that brings it."""
    from rich.table import Table
    from rich.text import Text

    out = console(columns=100)
    out.print(Text("What builds plugins here, by language; what is missing is no failure", "bold"))
    for language in found:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=9)
        grid.add_column(width=19)
        grid.add_column()
        ready = Text("ok", "green") if language["ready"] else Text("not here", "yellow")
        title = Text(shown(language["title"]), "bold")
        for tool in language["tools"]:
            version = tool["found"]
            here = Text("missing", "yellow") if version is None else Text(shown(version))
            needs = (
                f"\n{shown(tool['name'])}, {shown(tool['needed'])}: {shown(tool['why'])}",
                "dim",
            )
            grid.add_row(ready, title, Text.assemble(here, needs))
            ready, title = Text(), Text()
        out.print(grid)
        for tool in language["tools"]:
            if tool["found"] is None:  # one line, however long: it is to be copied
                out.print(Text(f"{'':10}{shown(tool['install'])}", "green"), soft_wrap=True)
