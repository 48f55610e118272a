"""`capwasm grants explain` and `capwasm consent give | list | withdraw`."""

from __future__ import annotations

import contextlib
import getpass
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capwasm.capability import Risk
from capwasm.errors import ConsentError

from ._output import console, epilog, json_option, say_json, shown
from ._plugin import PATH, Plugin, capabilities, home_options, read_plugin

if TYPE_CHECKING:
    from capwasm.grants.consent import ConsentEntry
    from capwasm.grants.consent_store import ConsentStore
    from capwasm.grants.policy import Policy
    from capwasm.home import Home
    from capwasm.lattice import ClauseSet

__all__ = ["commands"]

_STYLES = {Risk.LOW: "green", Risk.MEDIUM: "yellow", Risk.HIGH: "bold red"}

plugin_argument = click.argument("plugin", type=PATH, metavar="CAPSULE|PLUGIN.TOML")
code_option = click.option("--code", type=PATH, help="The code that goes with a plugin.toml.")
by_option = click.option("--by", help="Who decides; the user of this system if left out.")
audit_option = click.option(
    "--audit", type=PATH, help="Record it in this audit log, which no runtime may have open."
)


@click.group(epilog="\b\nExample:\n  capwasm grants explain acme.weather-1.2.0.capsule")
def grants() -> None:
    """Explain what a plugin is granted, and why."""


@grants.command(
    epilog="""\b
Example:
  capwasm grants explain acme.weather-1.2.0.capsule --home /etc/capwasm
  capwasm grants explain plugin.toml --policy policy.toml --json

Exit codes: 0 it would be granted, 1 it would be denied, 2 wrong usage."""
)
@plugin_argument
@home_options("policy", "trust", "consents")
@code_option
@click.option("--core", help="The version of the core; left out, requires-core is not looked at.")
@click.option("--all-limits", is_flag=True, help="Show the limits that are as by default, too.")
@json_option
def explain(
    plugin: Path,
    home_path: Path,
    policy: Path | None,
    trust: Path | None,
    consents: Path | None,
    code: Path | None,
    core: str | None,
    all_limits: bool,
    as_json: bool,
) -> None:
    """Show each permission of a plugin: asked, allowed by which rule, consented to, granted."""
    from capwasm.capsule.identity import check_version
    from capwasm.grants.decide import decide
    from capwasm.grants.explain import render, to_dict

    if core is not None:
        with _usage("--core"):
            check_version(core)
    home = _home(home_path)
    rules = _policy(home, policy)
    found = read_plugin(plugin, home, trust, rules, code)
    consent = _store(home, consents).find(found.subject)
    resolution = decide(found.manifest, rules, consent, capabilities(), core=core)
    if as_json:
        say_json({**to_dict(resolution), "verified": found.verified}, indent=2)
    else:
        out = console()
        if not found.verified:
            out.print("A draft: nobody has verified these bytes.", style="yellow")
        render(resolution, out, all_limits=all_limits)
    raise click.exceptions.Exit(1 if resolution.faults else 0)


@click.group(
    epilog="""\b
Example:
  capwasm consent give acme.weather-1.2.0.capsule
  capwasm consent list
  capwasm consent withdraw acme.weather"""
)
def consent() -> None:
    """Give, list and withdraw consents to what plugins ask for."""


@consent.command(
    epilog="""\b
Example:
  capwasm consent give acme.weather-1.2.0.capsule
  capwasm consent give acme.weather-1.2.0.capsule --yes --reason "reviewed, see SEC-12"

Exit codes: 0 consent was recorded, 1 it was not, 2 wrong usage."""
)
@plugin_argument
@home_options("policy", "trust", "consents")
@code_option
@by_option
@click.option("--reason", default="", help="Why; needed where a permission is a high risk.")
@click.option(
    "--without", multiple=True, help="Leave out an optional permission: net[1].  Repeatable."
)
@click.option("--yes", is_flag=True, help="Do not ask.  For scripts.")
@audit_option
@json_option
def give(
    plugin: Path,
    home_path: Path,
    policy: Path | None,
    trust: Path | None,
    consents: Path | None,
    code: Path | None,
    by: str | None,
    reason: str,
    without: tuple[str, ...],
    yes: bool,
    audit: Path | None,
    as_json: bool,
) -> None:
    """Show what a plugin asks for, and record that a person agrees.

    The consent counts for exactly these bytes.  It allows nothing that the policy does not.
    """
    from capwasm.grants.consent import ConsentRecord

    home = _home(home_path)
    found = read_plugin(plugin, home, trust, _policy(home, policy), code)
    if not found.verified and code is None:
        raise click.UsageError("a plugin.toml needs --code: a consent is for exactly these bytes")
    agreed, high = _ask(found, _store(home, consents), without, quiet=as_json)
    if high and not reason:
        if yes or as_json or not sys.stdin.isatty():
            raise click.UsageError(f"--reason is needed: {', '.join(high)} is a high risk")
        reason = click.prompt("Why do you agree to the high risks", err=True)
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise click.UsageError("nobody to ask: give --yes")
        if not click.confirm(f"Agree to this for {found.manifest.identity}?", err=True):
            raise ConsentError("not agreed to", code="consent.missing", context=found.manifest.id)
    record = ConsentRecord.of(
        found.subject,
        agreed,
        found.manifest.limits,
        who=by or getpass.getuser(),
        when=datetime.now(UTC),
        reason=reason,
    )
    with _recorded(home, consents, audit) as store:
        entry = store.give(record)
    if as_json:
        say_json(_entry(entry), indent=2)
    else:
        text = f"recorded: consent {entry.number} for {record.plugin} {record.version}"
        console().print(f"{text}, by {shown(record.who)}", markup=False)


@consent.command("list", epilog=epilog("capwasm consent list acme.weather --json"))
@click.argument("plugin_id", required=False)
@home_options("consents")
@json_option
def list_(plugin_id: str | None, home_path: Path, consents: Path | None, as_json: bool) -> None:
    """List the consents that were given, also those that were withdrawn."""
    entries = _store(_home(home_path), consents).entries(_id(plugin_id))
    if as_json:
        say_json([_entry(e) for e in entries], indent=2)
        return
    out = console()
    for entry in entries:
        record = entry.record
        state = "in force"
        if record.withdrawn is not None:
            state = f"withdrawn by {record.withdrawn.who} at {record.withdrawn.when}"
        permissions = ", ".join(record.permissions) or "no permission"
        line = (
            f"{record.plugin} {record.version}  {entry.number}  {permissions}"
            f"  by {record.who} at {record.when}  {state}"
        )
        out.print(shown(line), markup=False)
    if not entries:
        out.print("no consents")


@consent.command(
    epilog="""\b
Example:
  capwasm consent withdraw acme.weather --version 1.2.0 --reason "SEC-40"

Exit codes: 0 withdrawn, 1 there was none, 2 wrong usage.
A plugin that is loaded keeps its grants until it is loaded again or evicted."""
)
@click.argument("plugin_id")
@click.option("--version", help="Only the consents for this version.")
@home_options("consents")
@by_option
@click.option("--reason", default="", help="Why.")
@audit_option
@json_option
def withdraw(
    plugin_id: str,
    version: str | None,
    home_path: Path,
    consents: Path | None,
    by: str | None,
    reason: str,
    audit: Path | None,
    as_json: bool,
) -> None:
    """Take back the consents for a plugin.  The next load is denied."""
    from capwasm.grants.consent import withdrawal

    _id(plugin_id)
    taken_back = withdrawal(who=by or getpass.getuser(), when=datetime.now(UTC), reason=reason)
    with _recorded(_home(home_path), consents, audit) as store:
        entries = store.withdraw(plugin_id, taken_back, version=version)
    if as_json:
        say_json([_entry(e) for e in entries], indent=2)
    else:
        console().print(f"withdrawn: {len(entries)} consent(s) for {plugin_id}", markup=False)


def _ask(
    found: Plugin, store: ConsentStore, without: tuple[str, ...], *, quiet: bool
) -> tuple[dict[str, ClauseSet[Any]], list[str]]:
    """Show the permissions; what is to be agreed to, and the paths of the high risks in it."""
    from rich.text import Text

    from capwasm.lattice import ClauseSet
    from capwasm.limits import DEFAULTS

    manifest, out = found.manifest, console()
    known = {c.name: c for c in capabilities()}
    optional = {a.path for r in manifest.requests.values() for a in r.asked if a.optional}
    for path in without:
        if path not in optional:
            valid = ", ".join(sorted(optional)) or "none"
            raise click.UsageError(f"--without {path}: not optional; those that are: {valid}")
    news = _news(found, store)
    agreed: dict[str, ClauseSet[Any]] = {}
    high: list[str] = []
    raised = [
        f"{w} {n:,} (default {DEFAULTS.to_table()[w]:,})"
        for w, n in manifest.limits.to_table().items()
        if n > DEFAULTS.to_table()[w]
    ]
    if not manifest.requests and not raised:
        raise ConsentError(
            "it asks for nothing that needs consent", code="consent.missing", context=manifest.id
        )
    if not quiet:
        out.print(f"{manifest.identity}, “{shown(manifest.plugin.name)}”, asks to:", markup=False)
    for name, request in manifest.requests.items():
        chosen = [a for a in request.asked if a.path not in without]
        agreed[name] = ClauseSet.of(c for a in chosen for c in a.clauses)
        for asked, clause in ((a, c) for a in chosen for c in a.clauses):
            risk, why = known[name].risk(clause)
            if risk is Risk.HIGH and asked.path not in high:
                high.append(asked.path)
            if quiet:
                continue
            new = " NEW" if (asked.path, clause) in news else ""
            out.print(
                Text.assemble(
                    f"  {asked.path}: {shown(clause.describe())}  ",
                    (f"{risk.value} risk{new}", _STYLES[risk]),
                )
            )
            out.print(f"      {shown(why)}", markup=False)
            if asked.why:
                out.print(f"      the plugin says: “{shown(asked.why)}”", markup=False)
    if raised and not quiet:
        out.print(f"  limits above the defaults: {', '.join(raised)}", markup=False)
    return {name: clauses for name, clauses in agreed.items() if clauses}, high


def _news(found: Plugin, store: ConsentStore) -> set[tuple[str, Any]]:
    """What no consent for an earlier version covers; nothing if there was none."""
    from capwasm.grants.consent import compare

    before = [e for e in store.find(found.subject).others if e.record.withdrawn is None]
    if not before:
        return set()
    widening = compare(before[-1].record, found.manifest, capabilities())
    return {(a.path, a.clause) for a in widening.added}


def _entry(entry: ConsentEntry) -> dict[str, Any]:
    return {
        "number": entry.number,
        **entry.record.model_dump(by_alias=True, exclude_none=True, mode="json"),
    }


def _id(plugin_id: str | None) -> str | None:
    from capwasm.capsule.identity import check_id

    if plugin_id is not None:
        with _usage("PLUGIN_ID"):
            check_id(plugin_id)
    return plugin_id


@contextlib.contextmanager
def _usage(hint: str) -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint=hint) from None


def _home(path: Path) -> Home:
    from capwasm.home import Home

    return Home(path)


def _policy(home: Home, path: Path | None) -> Policy:
    from capwasm.grants.policy import Policy

    return home.policy(capabilities()) if path is None else Policy.load(path, capabilities())


def _store(home: Home, path: Path | None, recorder: Any = None) -> ConsentStore:
    from capwasm.grants.consent_store import ConsentStore

    return ConsentStore(path or home.consents, recorder=recorder)


@contextlib.contextmanager
def _recorded(home: Home, consents: Path | None, audit: Path | None) -> Iterator[ConsentStore]:
    if audit is None:
        yield _store(home, consents)
        return
    from capwasm.record.audit import AuditLog
    from capwasm.record.redact import Redactor

    with AuditLog.open(audit, Redactor()) as log:
        yield _store(home, consents, log)


commands: list[click.Command] = [grants, consent]
