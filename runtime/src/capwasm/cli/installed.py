"""`capwasm list | show`: what is installed.

They read the database alone; `list` imports next to nothing, for it is called often.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import colour, epilog, home_option, json_option, say_json, shown, table

if TYPE_CHECKING:
    from capwasm.registry.model import Listed, Mark, PluginRecord, Step, VersionRecord

__all__ = ["commands", "mark"]

COLOURS: Final = {"active": "green", "suspended": "yellow", "revoked": "red", "removed": "red"}


@click.command(
    "list",
    epilog=epilog(
        "capwasm list",
        "capwasm list --all --json",
        codes="0 done, 1 it can't be read or believed, 2 wrong usage",
    ),
)
@click.option("--all", "everything", is_flag=True, help="Also what was removed.")
@home_option
@json_option
def list_(everything: bool, home_path: Path, as_json: bool) -> None:
    """List what is installed, and its state."""
    from capwasm.registry.books import Books

    with contextlib.closing(Books(home_path)) as books:
        found = books.list(removed=everything)
    if as_json:
        say_json([_listed(p) for p in found])
        return
    if not found:
        click.echo("nothing is installed")
        return
    rows = [(p.id, p.serving or "-", _state(p), p.when[:10], _notes(p)) for p in found]
    table(("plugin", "version", "state", "changed", ""), rows, colours={2: COLOURS})


def _state(plugin: Listed) -> str:
    return "removed" if plugin.removed else plugin.state or "waiting"


def _notes(plugin: Listed) -> str:
    notes = []
    if plugin.waiting:
        notes.append(f"{plugin.waiting} waits")
    if plugin.pinned:
        notes.append(f"pinned to {plugin.pinned}")
    if plugin.highest and plugin.highest != plugin.serving:
        notes.append(f"highest was {plugin.highest}")
    return ", ".join(notes)


def _listed(plugin: Listed) -> dict[str, Any]:
    return {
        "id": plugin.id,
        "serving": plugin.serving,
        "state": plugin.state,
        "waiting": plugin.waiting,
        "pinned": plugin.pinned,
        "highest": plugin.highest,
        "removed": plugin.removed,
        "changed": plugin.when,
    }


@click.command(
    epilog=epilog(
        "capwasm show acme.weather",
        "capwasm show acme.weather --history --json",
        codes="0 done, 1 it is unknown, or can't be read or believed, 2 wrong usage",
    )
)
@click.argument("plugin_id", metavar="ID")
@click.option("--history", is_flag=True, help="Also every step: who, when and why.")
@home_option
@json_option
def show(plugin_id: str, history: bool, home_path: Path, as_json: bool) -> None:
    """Show a plugin: its versions, whom its id belongs to, exceptions, and its history."""
    from capwasm.registry.books import Books

    with contextlib.closing(Books(home_path)) as books:
        plugin = books.show(plugin_id)
        steps = books.history(plugin_id) if history else ()
    if as_json:
        data = _described(plugin)
        say_json(data | ({"history": [_step(s) for s in steps]} if history else {}), indent=2)
        return
    _show(plugin)
    if history:
        click.echo("\nhistory")
        rows = [
            (str(s.number), s.mark.when, s.version, _moved(s), s.action, s.mark.who, s.mark.why)
            for s in steps
        ]
        table(("", "when", "version", "state", "command", "who", "why"), rows, indent=2)


def _show(plugin: PluginRecord) -> None:
    state = "removed" if plugin.removed else plugin.state or "waiting"
    style = COLOURS.get(state)
    name = f"{plugin.id} {plugin.serving or ''}".strip()
    click.echo(f"{click.style(name, bold=True)}  {click.style(state, fg=style)}", color=colour())
    facts = [
        ("highest", plugin.highest or "none was accepted"),
        *(("owner", key) for key in sorted(plugin.owners)),
        ("pinned", plugin.pinned or ""),
        ("removed", plugin.removed or ""),
        *(
            ("permit", f"{p.kind} {p.subject} ({p.mark.who}, {p.mark.when})")
            for p in plugin.permits
        ),
    ]
    for word, text in facts:
        if text:
            click.echo(f"  {word:<9} {shown(text)}")
    for record in reversed(plugin.versions):
        click.echo(
            f"\n  {record.version}  {click.style(record.state, fg=COLOURS.get(record.state))}",
            color=colour(),
        )
        for word, text in _facts(record):
            click.echo(f"    {word:<9} {shown(text)}")


def _facts(record: VersionRecord) -> Iterator[tuple[str, str]]:
    yield "content", record.archive
    yield "bundle", f"{record.bundle} ({record.size:,} bytes)"
    for signer in record.signers:
        yield "signed", f"{signer.name} ({', '.join(sorted(signer.roles))}) {signer.key_id}"
    for word, mark in (("installed", record.installed), ("changed", record.changed)):
        if word == "installed" or mark != record.installed:
            yield (
                word,
                " ".join(filter(None, (mark.when, "by", mark.who, mark.why and f"({mark.why})"))),
            )
    if record.source:
        yield "from", record.source
    for reason in record.pending:
        yield "waits", reason


def _moved(step: Step) -> str:
    before, after = step.before or "", step.after or ""
    if before == after:
        return after
    return f"{before or 'new'} → {after or 'gone'}"


def _described(plugin: PluginRecord) -> dict[str, Any]:
    return {
        "id": plugin.id,
        "serving": plugin.serving,
        "state": plugin.state,
        "waiting": plugin.waiting,
        "pinned": plugin.pinned,
        "highest": plugin.highest,
        "owners": sorted(plugin.owners),
        "removed": plugin.removed,
        "permits": [{"kind": p.kind, "subject": p.subject, **mark(p.mark)} for p in plugin.permits],
        "versions": [
            {
                "version": v.version,
                "kind": v.kind,
                "state": v.state,
                "bundle": v.bundle,
                "size": v.size,
                "digest": v.archive,
                "code": v.code,
                "manifest": v.manifest,
                "signers": [
                    {"name": s.name, "key-id": s.key_id, "roles": sorted(s.roles)}
                    for s in v.signers
                ],
                "source": v.source,
                "published": v.published and v.published.isoformat(),
                "pending": list(v.pending),
                "installed": mark(v.installed),
                "changed": mark(v.changed),
            }
            for v in plugin.versions
        ],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "number": step.number,
        "version": step.version or None,
        "before": step.before,
        "after": step.after,
        "command": step.action,
        **mark(step.mark),
    }


def mark(made: Mark) -> dict[str, str]:
    """Who, when and why, for `--json`."""
    return {"who": made.who, "when": made.when, "why": made.why}


commands: list[click.Command] = [list_, show]
