"""`capwasm call`: load a capsule as an embedding application would, and call one of its functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._calling import list_functions, make_call
from ._output import epilog, home_option, json_option
from ._progress import CompileLine

if TYPE_CHECKING:
    from capwasm.events import Event
    from capwasm.limits import Limits
    from capwasm.plugin import Plugin

__all__ = ["commands", "core_version"]

_POSITIVE = click.IntRange(1)


@click.command(
    # What stands after the capsule is data, whatever it looks like: -5, or a city named --home.
    context_settings={"allow_interspersed_args": False},
    epilog=epilog(
        "capwasm call demo.weather-1.0.0.capsule",
        "capwasm call demo.weather-1.0.0.capsule forecast Oslo",
        "capwasm call demo.weather forecast Oslo",
        "capwasm call --json --fuel 1000000 x.capsule api.add 2 '[1, 2]'",
        codes="0 done, 1 refused or the function returned an err, 2 wrong usage",
    ),
)
@home_option
@json_option
@click.option("-v", "--verbose", is_flag=True, help="Tell what the call used.")
@click.option("--core", help="The version of the core, for requires-core; capwasm's own if none.")
@click.option("--fuel", type=_POSITIVE, help="Lower limits.fuel to this.")
@click.option("--memory", type=_POSITIVE, help="Lower limits.memory to this, in bytes.")
@click.option("--wall-ms", type=_POSITIVE, help="Lower limits.wall-ms to this.")
@click.option(
    "--isolation",
    type=click.Choice(["process"]),
    help="Run it in a process of its own, also where policy does not want one.",
)
@click.argument("source")
@click.argument("function", required=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def call(
    home_path: Path,
    as_json: bool,
    verbose: bool,
    core: str | None,
    fuel: int | None,
    memory: int | None,
    wall_ms: int | None,
    isolation: str | None,
    source: str,
    function: str | None,
    args: tuple[str, ...],
) -> None:
    """Load SOURCE and call FUNCTION; without FUNCTION, list its functions.

    SOURCE is the file of a capsule, or the id of an installed plugin.  Options stand before SOURCE.  ARGS are JSON values; where a parameter is a string, plain text will do.
    What the plugin may do is what policy.toml and the consents of --home allow.
    """
    from capwasm.runtime import Runtime

    from ._source import is_id

    lowered = {"fuel": fuel, "memory": memory, "wall-ms": wall_ms}
    wanted = {name: value for name, value in lowered.items() if value is not None}
    at_most = _limits(wanted)
    events: list[Event] = []
    with Runtime.open(
        home_path,
        core_version=core_version(core),
        hook=events.append,
        on_slow=lambda text: click.echo(text, err=True),
        on_compile=CompileLine(),
    ) as runtime:
        load = runtime.load_installed if is_id(source) else runtime.load
        plugin = load(source, at_most=at_most, isolation="process" if isolation else "in-process")
        _check_lowered(plugin, wanted)
        if function is None:
            list_functions(plugin, as_json=as_json)
            return
        called = make_call(plugin, events, function, args, as_json=as_json)
    called.show(events, as_json=as_json, verbose=verbose)
    raise click.exceptions.Exit(int(not called.good))


def _limits(wanted: dict[str, int]) -> Limits:
    from capwasm.limits import CEILING, Limits

    try:
        return Limits.from_table(wanted, CEILING)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None


def _check_lowered(plugin: Plugin, wanted: dict[str, int]) -> None:
    """Refuse an override that the grant cut: whoever wrote it thinks that it is in force."""
    granted = plugin.limits.to_table()
    for name, value in wanted.items():
        if value > granted[name]:
            raise click.UsageError(
                f"--{name} {value} is above what is granted, {granted[name]}: it can only lower it"
            )


def core_version(version: str | None) -> str:
    """The version that was given, or capwasm's own."""
    from capwasm.capsule.identity import check_version

    if version is None:
        from importlib.metadata import version as installed

        return installed("capwasm")
    try:
        check_version(version)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--core") from None
    return version


commands: list[click.Command] = [call]
