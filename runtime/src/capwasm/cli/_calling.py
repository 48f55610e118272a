"""One call from the command line: its words as values, and what came back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import console, say_json, shown

if TYPE_CHECKING:
    from capwasm.engine.exports import Export
    from capwasm.errors import Fault
    from capwasm.events import Event
    from capwasm.plugin import Plugin

__all__ = ["Called", "arguments", "list_functions", "make_call"]

ENDS: Final = {"kill", "limit"}
MOST_DENIED: Final = 20
# What componentize-py starts Python with, while it builds; nobody is to call it.
PYTHONS_OWN: Final = "exports#init"


@dataclass(frozen=True, slots=True)
class Called:
    """A call that came back.

    Attributes:
        export: what was called.   value: what it gave.
        good: whether that is no err.
        denied: what the host refused meanwhile, which the plugin only knows as `denied`.
    """

    export: Export
    value: Any
    denied: list[Event]

    @property
    def good(self) -> bool:
        """Whether the function did not return an err."""
        from capwasm.values import Err

        return not isinstance(self.value, Err)

    def show(self, events: list[Event], *, as_json: bool, verbose: bool = False) -> None:
        """Print it.

        Args:
            events: what the runtime's hook was given, once the runtime is closed.
            as_json: as one object.
            verbose: tell what the call used.
        """
        stats = next(dict(e.details) for e in reversed(events) if e.kind == "call")
        if as_json:
            say_json(_answer(self.export, self.value, stats, self.denied), indent=2)
        else:
            _show(self.export, self.value, stats, verbose=verbose)


def make_call(
    plugin: Plugin, events: list[Event], function: str, args: tuple[str, ...], *, as_json: bool
) -> Called:
    """Call a function; what the host refuses it is told at once, unless as JSON.

    Args:
        plugin: loaded.
        events: what the runtime's hook appends to; what is there is dropped.
        function: its name, whole or short.
        args: as on the command line.
        as_json: whether the result will be printed as JSON, which then holds what was refused.

    Raises:
        click.UsageError: the arguments do not fit.
        GuestError: as `Plugin.call`.
    """
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
    return Called(export, value, denied)


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


def list_functions(plugin: Plugin, *, as_json: bool) -> None:
    """Print what can be called."""
    functions = plugin.functions
    if as_json:
        say_json([_described(e) | {"lane": e.whole in plugin.laned} for e in functions], indent=2)
        return
    from rich.text import Text

    out = console()
    for export in functions:
        if export.whole == PYTHONS_OWN:
            continue
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
