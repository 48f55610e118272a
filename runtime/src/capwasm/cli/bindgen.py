"""`capwasm bindgen`: a typed Python module for the core, made of a plugin's exports."""

from __future__ import annotations

from pathlib import Path

import click

from capwasm.errors import ArtifactError

from ._output import epilog, json_option, say_json, shown

__all__ = ["commands"]

PATH = click.Path(path_type=Path)


@click.command(
    "bindgen",
    epilog=epilog(
        "capwasm bindgen acme.weather-1.2.0.capsule -o weather.py",
        "capwasm bindgen plugin.wasm --wit wit/ --class Weather -o weather.py",
        codes="0 done, 1 can't be made, 2 wrong usage",
    ),
)
@json_option
@click.argument("plugin", type=PATH)
@click.option("-o", "--out", type=PATH, help="The module's file; printed if none.")
@click.option("--class", "name", help="The class for all of the plugin; made of its id if none.")
@click.option("--wit", type=PATH, help="Directory of the WIT files whose docs to take.")
def bindgen(
    as_json: bool, plugin: Path, out: Path | None, name: str | None, wit: Path | None
) -> None:
    """Write a typed Python module for the functions of PLUGIN, a capsule or a bare component.

    Nothing of the plugin is run, and nobody is asked to have signed it: a loaded plugin is held against
    the module when it is bound.
    """
    from capwasm._files import write_file
    from capwasm.authoring.bindgen import generate, read_source

    source = read_source(plugin, wit)
    text = generate(source, name)
    if out is not None:
        write_file(out, text.encode(), ArtifactError, code="artifact.unreadable")
    if as_json:
        functions = [f"{i.name}#{n}" for i in source.types.exports for n, _ in i.functions]
        where = {"module": str(out)} if out else {"text": text}
        say_json({"plugin": source.title, "functions": functions, **where}, indent=2)
    elif out is not None:
        click.echo(f"{shown(out)}: {len(text.splitlines())} lines for {shown(source.title)}")
    else:
        click.echo(text, nl=False)


commands = [bindgen]
