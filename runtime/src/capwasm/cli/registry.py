"""`capwasm install | activate | suspend | rollback | remove | permit | store`: what is installed.

Each change is recorded in the home's `audit-commands/` before it happens, and in the registry's
own history.
"""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ._output import colour, epilog, home_option, json_option, say_json, shown
from .installed import mark

if TYPE_CHECKING:
    from capwasm.registry.model import Outcome
    from capwasm.registry.registry import Registry

__all__ = ["change_options", "commands", "opened", "say_missing", "say_outcome", "user"]

# Records of an audit log that are looked through for what it tells of the registry.
TOLD: Final = 20_000


# -- shared by the commands on what is installed ---------------------------------------------------


@contextlib.contextmanager
def opened(home_path: Path) -> Iterator[Registry]:
    """The registry of that home, to change it."""
    from capwasm.home import Home

    from ._plugin import capabilities

    home = Home(home_path)
    known = capabilities()
    policy, trust = home.policy(known), home.trust()
    with (
        home.commands_recorder(rule=policy.audit) as recorder,
        home.registry(recorder, trust=trust, policy=policy, capabilities=known) as registry,
    ):
        yield registry


def change_options(function: Callable[..., None]) -> Callable[..., None]:
    """Who and why, `--home` and `--json`: what every command has that changes something."""
    options = [
        click.option("--by", "who", help="Who decides; the user who runs this, if none."),
        click.option("--reason", "why", default="", help="Why, for the history and the audit."),
        home_option,
        json_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


def say_outcome(outcome: Outcome, *, as_json: bool) -> None:
    """Tell what a command came to."""
    plugin = outcome.plugin
    if as_json:
        say_json(
            {
                "action": outcome.action,
                "plugin": plugin.id,
                "version": outcome.version or None,
                "before": outcome.before,
                "serving": plugin.serving,
                "state": plugin.state,
                "waiting": plugin.waiting,
                "reasons": list(outcome.reasons),
            },
            indent=2,
        )
        return
    name = f"{plugin.id} {outcome.version}".strip()
    moved = outcome.version and outcome.before not in (None, outcome.version)
    was = f" (before: {outcome.before})" if moved else ""
    click.echo(f"{outcome.action}: {name}{was}")
    for reason in outcome.reasons:
        click.echo(f"  {shown(reason)}")
    if outcome.action == "pending":
        serves = f"{plugin.serving} serves on" if plugin.serving else "nothing serves"
        record = plugin.version(outcome.version)
        if record is not None and record.state == "submitted":
            name = f"{plugin.id}@{outcome.version}"
            click.echo(
                f"\n{serves}.  It needs a review:\n\ncapwasm scan {name}\ncapwasm review {name}"
            )
            return
        click.echo(
            f"\n{serves}.  See what differs, and let it serve:"
            f"\n\ncapwasm diff {plugin.id}\ncapwasm activate {plugin.id}"
        )


# -- changing ----------------------------------------------------------------------------------------


@click.command(
    epilog=epilog(
        "capwasm install acme.weather-1.2.0.capsule",
        'capwasm install acme.weather-1.3.0.capsule --reason "ticket 12"',
        "capwasm install acme.weather@1.3.0",
        "capwasm install oci://ghcr.example/acme/weather:1.3.0",
        codes="0 it is installed, or waits for a person, 1 refused, 2 wrong usage",
    )
)
@click.argument("source")
@change_options
def install(source: str, who: str | None, why: str, home_path: Path, as_json: bool) -> None:
    """Verify a capsule, keep it, and have it serve: the first of its id, or a new version.

    SOURCE is a file, or ID or ID@VERSION to be had from the plugin's repository, or oci://... in an
    OCI registry.  What a person should see first is parked as pending, and the old version serves on.
    """
    from capwasm.home import Home

    from ._source import bundle_of

    bundle = bundle_of(source, Home(home_path))
    with opened(home_path) as registry:
        outcome = registry.install(
            bundle.capsule,
            who=user(who),
            why=why,
            source_name=bundle.source,
            published=bundle.published,
        )
    say_outcome(outcome, as_json=as_json)
    if not as_json and outcome.action in ("installed", "updated"):
        say_missing(home_path, registry.store.path(_bundle(outcome)))


def _bundle(outcome: Outcome) -> str:
    record = outcome.plugin.version(outcome.version)
    assert record is not None
    return record.bundle


def say_missing(home_path: Path, capsule: Path) -> None:
    """Tell what a load would still be denied: to be installed is not to be granted anything."""
    from capwasm.grants.consent_store import ConsentStore
    from capwasm.grants.decide import decide
    from capwasm.home import Home

    from ._plugin import capabilities, read_plugin

    home, known = Home(home_path), capabilities()
    policy = home.policy(known)
    found = read_plugin(capsule, home, None, policy, None)
    consent = ConsentStore(home.consents).find(found.subject)
    missing = decide(found.manifest, policy, consent, known, core=None)
    if missing.faults:
        count = len(missing.faults)
        click.echo(
            f"\nA load would be denied: {count} thing{'s' * (count > 1)} missing.  See, and agree:"
            f"\n\ncapwasm grants explain {capsule}\ncapwasm consent give {capsule}"
        )


@click.command(
    epilog=epilog(
        "capwasm activate acme.weather",
        "capwasm activate acme.weather 1.3.0 --reason 'fixed by the new policy'",
    )
)
@click.argument("plugin_id", metavar="ID")
@click.argument("version", required=False)
@change_options
def activate(
    plugin_id: str, version: str | None, who: str | None, why: str, home_path: Path, as_json: bool
) -> None:
    """Have the version serve that waits, or that was suspended; it is verified again."""
    with opened(home_path) as registry:
        outcome = registry.activate(plugin_id, version, who=user(who), why=why)
    say_outcome(outcome, as_json=as_json)
    if not as_json:
        say_missing(home_path, registry.store.path(_bundle(outcome)))


@click.command(epilog=epilog('capwasm suspend acme.weather --reason "sends too much"'))
@click.argument("plugin_id", metavar="ID")
@change_options
def suspend(plugin_id: str, who: str | None, why: str, home_path: Path, as_json: bool) -> None:
    """Take a plugin out of service, until `activate`."""
    with opened(home_path) as registry:
        outcome = registry.suspend(plugin_id, who=user(who), why=why)
    say_outcome(outcome, as_json=as_json)


@click.command(
    epilog=epilog(
        "capwasm rollback acme.weather", "capwasm rollback acme.weather --to 1.1.0 --reason slow"
    )
)
@click.argument("plugin_id", metavar="ID")
@click.option("--to", help="The version to go back to; the one that served before, if none.")
@change_options
def rollback(
    plugin_id: str, to: str | None, who: str | None, why: str, home_path: Path, as_json: bool
) -> None:
    """Go back to the version that served before; the one that is left is suspended.

    The exception from "never an older version" holds for that version alone.
    """
    with opened(home_path) as registry:
        outcome = registry.rollback(plugin_id, to, who=user(who), why=why)
    say_outcome(outcome, as_json=as_json)


@click.command(epilog=epilog('capwasm remove acme.weather --reason "nobody uses it"'))
@click.argument("plugin_id", metavar="ID")
@change_options
def remove(plugin_id: str, who: str | None, why: str, home_path: Path, as_json: bool) -> None:
    """Remove a plugin.

    Its id stays its publisher's, and the highest version that was accepted is remembered.
    """
    with opened(home_path) as registry:
        outcome = registry.remove(plugin_id, who=user(who), why=why)
        registry.collect()
    say_outcome(outcome, as_json=as_json)


@click.command(
    epilog=epilog(
        'capwasm permit acme.weather downgrade 1.1.0 --reason "1.2 loses data"',
        'capwasm permit acme.weather signer KEY-ID --reason "sold to globex"',
    )
)
@click.argument("plugin_id", metavar="ID")
@click.argument("kind", type=click.Choice(["downgrade", "signer", "min-age"]))
@click.argument("subject", metavar="VERSION|KEY-ID")
@change_options
def permit(
    plugin_id: str,
    kind: str,
    subject: str,
    who: str | None,
    why: str,
    home_path: Path,
    as_json: bool,
) -> None:
    """Make an exception: an older version, another signer's key, a version that is too new."""
    from capwasm.registry.model import PermitKind

    if not why:
        raise click.UsageError("an exception needs a --reason")
    try:
        with opened(home_path) as registry:
            made = registry.permit(plugin_id, PermitKind(kind), subject, who=user(who), why=why)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    if as_json:
        say_json({"plugin": made.plugin, "kind": kind, "subject": subject, **mark(made.mark)})
    else:
        click.echo(f"permitted: {made.plugin} {kind} {subject}")


# -- the store ---------------------------------------------------------------------------------------


@click.group(epilog="\b\nExample:\n  capwasm store verify\n  capwasm store gc")
def store() -> None:
    """Check the store of installed capsules, and clean it."""


@store.command(
    epilog=epilog("capwasm store verify", codes="0 nothing is wrong, 1 something is, 2 wrong usage")
)
@home_option
@json_option
def verify(home_path: Path, as_json: bool) -> None:
    """Hash every capsule again, and check every row of the registry and its whole history.

    A damaged capsule is moved aside, to store/quarantine; installing it again puts it back.
    """
    from capwasm.events import NullRecorder
    from capwasm.home import Home

    from ._plugin import capabilities

    home, known = Home(home_path), capabilities()
    with home.registry(
        NullRecorder(), trust=home.trust(), policy=home.policy(known), capabilities=known
    ) as registry:
        report = registry.verify(max(map(_told, (home.audit, home.audit_commands))))
    if as_json:
        say_json(
            {
                "ok": not report.problems,
                "plugins": report.plugins,
                "capsules": report.capsules,
                "bytes": report.size,
                "changes": report.sequence,
                "orphans": list(report.orphans),
                "problems": list(report.problems),
            },
            indent=2,
        )
    else:
        for problem in report.problems:
            click.secho(shown(problem), fg="red", color=colour())
        orphans = f", {len(report.orphans)} of them unused" if report.orphans else ""
        word = "intact" if not report.problems else f"{len(report.problems)} problem(s)"
        click.echo(
            f"{click.style(word, bold=True)}: {report.plugins} plugins, {report.capsules} capsules"
            f" ({report.size:,} bytes){orphans}, {report.sequence} changes",
            color=colour(),
        )
    raise click.exceptions.Exit(1 if report.problems else 0)


def _told(directory: Path) -> int:
    """How many changes of the registry an audit log tells of."""
    from capwasm.errors import AuditError
    from capwasm.record.audit import tail

    most = 0
    with contextlib.suppress(AuditError):  # there is none, or `audit verify` tells what is wrong
        for record in tail(directory, TOLD):
            details = record.get("details")
            if record.get("kind") in ("install", "review") and isinstance(details, dict):
                sequence = details.get("sequence")
                most = max(most, sequence if type(sequence) is int else 0)
    return most


@store.command(epilog=epilog("capwasm store gc"))
@home_option
@json_option
def gc(home_path: Path, as_json: bool) -> None:
    """Remove capsules that no installed version refers to, and what killed writers left."""
    with opened(home_path) as registry:
        count, size = registry.collect()
    if as_json:
        say_json({"removed": count, "bytes": size})
    else:
        click.echo(f"removed: {count} capsules, {size:,} bytes")


def user(who: str | None) -> str:
    """Who decides: as told, or whoever runs this."""
    return who or getpass.getuser()


commands: list[click.Command] = [
    install,
    activate,
    suspend,
    rollback,
    remove,
    permit,
    store,
]
