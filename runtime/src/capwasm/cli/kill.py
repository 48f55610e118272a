"""`capwasm kill | strikes`: end what runs of a plugin, and see or forgive what it did."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

from ._output import epilog, home_option, json_option, say_json, shown, table
from .registry import change_options, opened, say_outcome, user

__all__ = ["commands"]


@click.command(
    epilog=epilog(
        'capwasm kill acme.weather --reason "hangs"',
        codes="0 it is told to every core of this home, 1 refused, 2 wrong usage",
    )
)
@click.argument("plugin_id", metavar="ID")
@change_options
def kill(plugin_id: str, who: str | None, why: str, home_path: Path, as_json: bool) -> None:
    """End every call, instance and process of a plugin, in every core of this home.

    Within a second.  Its state stays what it is and it may be called again; to keep it out of
    service, suspend it.  What was loaded from a file is ended too.
    """
    with opened(home_path) as registry:
        if registry.find(plugin_id) is None and not _was_seen(home_path, plugin_id):
            from capwasm.errors import RegistryError

            raise RegistryError(
                "nothing of that id is installed, nor in the newest records of the audit log",
                code="registry.unknown",
                context=ascii(plugin_id)[1:-1],
            )
        outcome = registry.kill(plugin_id, who=user(who), why=why)
    say_outcome(outcome, as_json=as_json)


def _was_seen(home_path: Path, plugin_id: str) -> bool:
    """Whether the end of the core's audit log speaks of it."""
    from capwasm.errors import AuditError
    from capwasm.home import Home
    from capwasm.record.audit import tail

    from .top import READ_RECORDS

    with contextlib.suppress(AuditError):
        for record in tail(Home(home_path).audit, READ_RECORDS):
            if str(record.get("plugin")).partition("@")[0] == plugin_id:
                return True
    return False


@click.group(
    epilog="\b\nExample:\n  capwasm strikes list\n  capwasm strikes forgive acme.weather --reason fixed"
)
def strikes() -> None:
    """See which plugins have strikes or are held for them, and let one run again."""


@strikes.command("list", epilog=epilog("capwasm strikes list --json"))
@home_option
@json_option
def list_(home_path: Path, as_json: bool) -> None:
    """List strikes, and each time that a plugin was stopped for them."""
    from capwasm.home import Home
    from capwasm.monitor.docket import Docket
    from capwasm.registry.model import utc_text

    from ._plugin import capabilities

    rule = Home(home_path).policy(capabilities()).strikes
    with contextlib.closing(Docket(home_path.absolute())) as docket:
        points = docket.points(int(time.time()), 60 * rule.minutes)
        ends = docket.ends()

    def at(seconds: int) -> str:
        from datetime import UTC, datetime

        return utc_text(datetime.fromtimestamp(seconds, UTC))

    if as_json:
        say_json(
            {
                "suspend": rule.suspend,
                "minutes": rule.minutes,
                "strikes": points,
                "stopped": [
                    {
                        "plugin": e.plugin,
                        "version": e.version,
                        "kind": e.kind,
                        "when": at(e.at),
                        "why": e.why,
                        "held": e.held,
                    }
                    for e in ends
                ],
            },
            indent=2,
        )
        return
    if not points and not ends:
        click.echo("no plugin has strikes")
        return
    bound = f"{rule.suspend:,}" if rule.suspend else "never stopped"
    table(
        ("plugin", f"strikes in {rule.minutes} min", "of"),
        [(shown(p), f"{n:,}", bound) for p, n in points.items()],
    )
    if points and ends:
        click.echo()
    table(
        ("plugin", "version", "stopped", "when", "now", "why"),
        [
            (
                shown(e.plugin),
                shown(e.version),
                e.kind,
                at(e.at),
                "held" if e.held else "-",
                shown(e.why),
            )
            for e in ends
        ],
    )


@strikes.command(epilog=epilog('capwasm strikes forgive acme.weather --reason "fixed in 1.3"'))
@click.argument("plugin_id", metavar="ID")
@change_options
def forgive(plugin_id: str, who: str | None, why: str, home_path: Path, as_json: bool) -> None:
    """Let a plugin run again that is held for its strikes, and forget those.

    One that is installed is suspended in the registry: `capwasm activate` has it serve again.
    """
    from capwasm.errors import RegistryError
    from capwasm.events import ALLOWED, Event
    from capwasm.home import Home
    from capwasm.monitor.docket import Docket

    name = user(who)
    home = Home(home_path)
    with (
        contextlib.closing(Docket(home.root)) as docket,
        home.commands_recorder() as recorder,
    ):
        points = docket.points(int(time.time()), 2**31)
        if plugin_id not in points and not docket.ends(plugin_id):
            raise RegistryError(
                "it has no strikes", code="registry.unknown", context=ascii(plugin_id)[1:-1]
            )
        details = {"who": name}
        recorder.record(Event("kill", ALLOWED, plugin_id, "forgive", reason=why, details=details))
        docket.forgive(plugin_id)
    if as_json:
        say_json({"action": "forgiven", "plugin": plugin_id, "who": name, "why": why})
    else:
        click.echo(f"forgiven: {plugin_id}")


commands: list[click.Command] = [kill, strikes]
