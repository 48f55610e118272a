"""`capwasm call`: load a capsule as an embedding application would, and call one of its functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import console, epilog, home_option, json_option, say_json, shown
from ._progress import CompileLine

if TYPE_CHECKING:
    from capwasm.engine.exports import Export
    from capwasm.errors import Fault
    from capwasm.events import Event
    from capwasm.limits import Limits
    from capwasm.plugin import Plugin

__all__ = ["arguments", "commands", "core_version"]

ENDS: Final = {"kill", "limit"}
MOST_DENIED: Final = 20
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
    from capwasm.values import Err

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
            _list(plugin, as_json=as_json)
            return
        export = plugin.functions.find(function)
        words = arguments(export, args)
        del events[:]  # what the load recorded
        try:
            value = plugin.call(export.whole, *words)
        finally:
            # A limit and an interrupt end the call, and are told as its error.
            denied = [e for e in events if e.verdict == "denied" and e.kind not in ENDS]
            if not as_json:
                _show_denied(denied)
    stats = next(dict(e.details) for e in reversed(events) if e.kind == "call")
    if as_json:
        say_json(_answer(export, value, stats, denied), indent=2)
    else:
        _show(export, value, stats, verbose=verbose)
    raise click.exceptions.Exit(int(isinstance(value, Err)))


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


def arguments(export: Export, words: tuple[str, ...]) -> list[Any]:
    """The words of the command line as values, by the parameters' types; or every fault."""
    from capwasm.jsonvalues import JsonValueError, from_text

    params = export.type.params
    if len(words) != len(params):
        hint = "; options stand before SOURCE" if any(w.startswith("--") for w in words) else ""
        count = f"{len(params)} argument{'s' * (len(params) != 1)}"
        raise click.UsageError(f"{shown(export.signature)} takes {count}, got {len(words)}{hint}")
    values: list[Any] = []
    faults: list[Fault] = []
    for (name, type_), word in zip(params, words, strict=True):
        try:
            values.append(from_text(type_, word, name))
        except JsonValueError as exc:
            faults += exc.faults
    if faults:
        raise click.UsageError("\n  ".join(["the arguments do not fit", *map(shown, faults)]))
    return values


def _list(plugin: Plugin, *, as_json: bool) -> None:
    functions = plugin.functions
    if as_json:
        say_json([_described(e) | {"lane": e.whole in plugin.laned} for e in functions], indent=2)
        return
    from rich.text import Text

    out = console()
    for export in functions:
        signature = shown(export.signature)
        name, _, rest = signature.partition("(")
        out.print(Text.assemble((name, "bold cyan"), f"({rest}"))


def _described(export: Export) -> dict[str, Any]:
    return {
        "name": export.short,
        "whole": export.whole,
        "signature": export.signature,
        "params": [{"name": name, "type": str(type_)} for name, type_ in export.type.params],
        "result": None if export.type.result is None else str(export.type.result),
    }


def _answer(
    export: Export, value: Any, stats: dict[str, Any], denied: list[Event]
) -> dict[str, Any]:
    from capwasm.jsonvalues import to_json

    return {
        "function": export.whole,
        "value": to_json(export.type.result, value),
        "stats": stats,
        "denied": [
            {"kind": e.kind, "action": e.action, "target": e.target, "reason": e.reason}
            for e in denied
        ],
    }


def _show_denied(denied: list[Event]) -> None:
    """What the host refused during the call, which the plugin only knows as `denied`."""
    out = console(error=True)
    for event in denied[:MOST_DENIED]:
        what = f"denied: {event.kind} {event.action} {event.target} ({event.reason})"
        out.print(shown(what), style="yellow", markup=False)
    if len(denied) > MOST_DENIED:
        out.print(f"… and {len(denied) - MOST_DENIED} more, in the audit log", style="yellow")


def _show(export: Export, value: Any, stats: dict[str, Any], *, verbose: bool) -> None:
    from rich.text import Text

    from capwasm.jsonvalues import to_json
    from capwasm.values import Err

    if export.type.result is not None:
        data = to_json(export.type.result, value)
        text = data if isinstance(data, str) else _pretty(data)
        lines = "\n".join(shown(line) for line in text.split("\n"))
        console().print(Text(lines, style="red" if isinstance(value, Err) else ""))
    if verbose:
        click.echo(
            f"{stats['ms']:,} ms, {stats['fuel']:,} fuel, {stats['host-calls']:,} host calls,"
            f" {stats['output-bytes']:,} bytes of output, {stats['net-bytes']:,} over the network",
            err=True,
        )


def _pretty(data: Any) -> str:
    import json

    return json.dumps(data, indent=2, ensure_ascii=False)


commands: list[click.Command] = [call]
