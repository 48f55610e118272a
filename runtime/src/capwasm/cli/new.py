"""`capwasm new`: a project that builds, tests and runs as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ._output import console, epilog, json_option, say_json, shown

__all__ = ["commands"]


@click.command(
    "new",
    epilog=epilog(
        "capwasm new greeter --lang python",
        "capwasm new rain-gauge --lang rust --id acme.rain-gauge --dir plugins/rain-gauge",
        codes="0 done, 1 refused, 2 wrong usage",
    ),
)
@json_option
@click.argument("name")
@click.option("--lang", "language", required=True, help="python, js, rust, go or c.")
@click.option("--id", "plugin_id", default="", help="The plugin's id; example.NAME if none.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="NAME if none.")
def new(as_json: bool, name: str, language: str, plugin_id: str, directory: Path | None) -> None:
    """Make a project named NAME, in a directory of its own, that builds as it is."""
    from capwasm.authoring.builders import builder
    from capwasm.authoring.scaffold import New, new_project

    wanted = New(name, language, plugin_id, directory)
    files = new_project(wanted)
    missing = [tool for tool in builder(language).tools() if tool.found is None]
    if as_json:
        say_json(
            {
                "directory": str(wanted.target),
                "id": wanted.plugin_id,
                "language": language,
                "files": files,
                "missing-tools": [{"name": t.name, "install": t.install} for t in missing],
            },
            indent=2,
        )
        return
    out = console()
    out.print(f"{shown(wanted.target)}/", markup=False)
    for file in files:
        out.print(f"  {shown(file)}", markup=False)
    where = shlex.quote(str(wanted.target))
    out.print(f"\nNext: cd {shown(where)} && capwasm build", markup=False)
    for tool in missing:
        click.echo(f"{tool.name} is not here, and the build needs it: {tool.install}", err=True)


commands = [new]
