"""`capwasm revocations …`: make and accept revocation feeds; `capwasm revoke`: end a version here."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from capwasm.errors import CapwasmError, RevocationError

from ._output import colour, epilog, home_option, json_option, say_json, shown
from .registry import change_options, opened, say_outcome, user

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey
    from capwasm.events import Recorder
    from capwasm.registry.registry import Registry
    from capwasm.revocation.feed import Feed
    from capwasm.revocation.guard import Guard, Status
    from capwasm.revocation.index import Subject

__all__ = ["commands"]

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_out = click.option("-o", "--output", type=_FILE, required=True, help="The feed's file.")
_keys = click.option(
    "--key", "key_files", type=_FILE, multiple=True, help="NAME.key; may be given again."
)
_passphrase = click.option("--passphrase-file", type=_FILE, help="Asked for if none.")


@click.group(
    epilog=epilog(
        "capwasm revocations make list.toml --sequence 12 --key revoker.key -o feed.json",
        "capwasm revocations add feed.json",
    )
)
def revocations() -> None:
    """Make revocation feeds (make, sign), or use them (add, fetch, show, check)."""


# -- the issuer's side ---------------------------------------------------------------------------------


@revocations.command(
    epilog=epilog(
        "capwasm revocations make list.toml --sequence 12 --key revoker.key -o feed.json",
        "capwasm revocations make list.toml --after feed.json --days 2 -o next.json",
    )
)
@click.argument("source", metavar="LIST", type=_FILE)
@click.option("--sequence", type=click.IntRange(1), help="Its number: above all before it.")
@click.option("--after", type=_FILE, help="The feed before it: the number is the next.")
@click.option(
    "--days",
    type=click.FloatRange(0, 3650, min_open=True),
    default=7.0,
    show_default=True,
    help="For how long it is good.",
)
@_keys
@_passphrase
@_out
@json_option
def make(
    source: Path,
    sequence: int | None,
    after: Path | None,
    days: float,
    key_files: tuple[Path, ...],
    passphrase_file: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Make a feed of LIST, a file of TOML (or .json) with the tables deny and allow."""
    from capwasm.capsule.trust import utc_now
    from capwasm.registry.model import utc_text
    from capwasm.revocation import feed
    from capwasm.revocation.watch import read_feed

    if (sequence is None) == (after is None):
        raise click.UsageError("write one of --sequence and --after")
    doc = _read_list(source)
    if after is not None:
        sequence = feed.parse(read_feed(after)).sequence + 1
    now = utc_now()
    times = {"issued": utc_text(now), "expires": utc_text(now + timedelta(days=days))}
    data = feed.make({**doc, "schema": 1, "sequence": sequence, **times})
    for key in [_key(file, passphrase_file) for file in key_files]:
        data = feed.add_signature(data, key)
    _write(output, data, as_json=as_json)


@revocations.command(
    epilog=epilog("capwasm revocations sign feed.json --key second.key -o feed.json")
)
@click.argument("source", metavar="FEED", type=_FILE)
@_keys
@_passphrase
@_out
@json_option
def sign(
    source: Path,
    key_files: tuple[Path, ...],
    passphrase_file: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Add signatures to FEED, where a threshold wants more than one key's."""
    from capwasm.revocation.feed import add_signature
    from capwasm.revocation.watch import read_feed

    if not key_files:
        raise click.UsageError("name a --key")
    data = read_feed(source)
    for file in key_files:
        data = add_signature(data, _key(file, passphrase_file))
    _write(output, data, as_json=as_json)


def _read_list(source: Path) -> dict[str, Any]:
    from capwasm._files import read_file
    from capwasm._model import parse_json, parse_toml
    from capwasm.revocation.feed import MAX_FEED_BYTES

    data = read_file(source, MAX_FEED_BYTES, RevocationError, code="revocation.unreadable")
    parse = parse_json if source.suffix == ".json" else parse_toml
    doc = parse(
        data,
        RevocationError,
        code="revocation.list",
        context=ascii(str(source))[1:-1],
        limit=MAX_FEED_BYTES,
    )
    if not isinstance(doc, dict) or not doc.keys() <= {"deny", "allow"}:
        raise RevocationError(
            "a list has the tables deny and allow, and no other word", code="revocation.list"
        )
    return doc


def _key(file: Path, passphrase_file: Path | None) -> PrivateKey:
    from capwasm.capsule.keys import PrivateKey

    from .capsule import ask_passphrase, read_passphrase

    passphrase = read_passphrase(passphrase_file)
    return PrivateKey.load(file, ask_passphrase if passphrase is None else passphrase)


def _write(output: Path, data: bytes, *, as_json: bool) -> None:
    from capwasm._files import write_file
    from capwasm.capsule.envelope import Envelope
    from capwasm.revocation.feed import MAX_FEED_BYTES, parse

    feed = parse(data)
    write_file(output, data, RevocationError, code="revocation.unreadable")
    signers = [s.key_id for s in Envelope.parse(data, MAX_FEED_BYTES).signatures]
    if as_json:
        say_json({"feed": str(output), **_about(feed), "signatures": signers}, indent=2)
    else:
        click.echo(
            f"{shown(output)}: feed {feed.sequence}, {feed.content.deny.count} entries, good until"
            f" {feed.content.expires}, {len(signers)} signature(s)"
        )


def _about(feed: Feed) -> dict[str, Any]:
    content = feed.content
    return {
        "sequence": content.sequence,
        "issued": content.issued,
        "expires": content.expires,
        "entries": content.deny.count,
        "digest": feed.digest,
    }


# -- the operator's side -------------------------------------------------------------------------------


@revocations.command(epilog=epilog("capwasm revocations add feed.json"))
@click.argument("source", metavar="FEED", type=_FILE)
@home_option
@json_option
def add(source: Path, home_path: Path, as_json: bool) -> None:
    """Accept FEED, if it is signed, in time and newer.  Running cores follow within a second."""
    from capwasm.revocation.watch import read_feed

    _accept(read_feed(source), str(source), home_path, as_json=as_json)


@revocations.command(
    epilog=epilog(
        "capwasm revocations fetch",
        "capwasm revocations fetch https://plugins.example/revocations.json",
    )
)
@click.argument("url", required=False)
@click.option("--ca-file", type=_FILE, help="The only authorities to trust, if not the system's.")
@home_option
@json_option
def fetch(url: str | None, ca_file: Path | None, home_path: Path, as_json: bool) -> None:
    """Fetch a feed from URL (the policy's, if none), and accept it."""
    from capwasm.home import Home
    from capwasm.revocation.watch import fetch as get
    from capwasm.web import Web

    from ._plugin import capabilities

    url = url or Home(home_path).policy(capabilities()).revocation.url
    if not url:
        raise click.UsageError("the policy names no URL: write one")
    _accept(get(Web(ca_file=ca_file), url), url, home_path, as_json=as_json)


def _accept(data: bytes, source: str, home_path: Path, *, as_json: bool) -> None:
    from capwasm.home import Home
    from capwasm.revocation.settle import settle_once

    home = Home(home_path)
    with home.commands_recorder() as recorder:
        guard, registry = _opened(home_path, recorder)
        with registry:
            fresh = guard.take(data, source)
            ended = settle_once(registry, guard)
    status = guard.status()
    assert status.feed is not None
    if as_json:
        say_json(
            {
                "accepted": fresh,
                **_data(status),
                "ended": [f"{o.plugin.id}@{o.version} {o.action}" for o in ended],
            },
            indent=2,
        )
        return
    word = "accepted" if fresh else "unchanged"
    click.echo(f"{word}: feed {status.feed.sequence}, {status.feed.entries} entries")
    for outcome in ended:
        why = shown(outcome.plugin.changed.why)
        click.echo(f"  {outcome.action}: {outcome.plugin.id} {outcome.version} ({why})")


@revocations.command(
    epilog=epilog(
        "capwasm revocations show",
        codes="0 all is well, 1 it is stale or can't be believed, 2 wrong usage",
    )
)
@home_option
@json_option
def show(home_path: Path, as_json: bool) -> None:
    """Show the feed in force, its age, and what is wrong with it."""
    from capwasm.events import NullRecorder

    guard, _ = _opened(home_path, NullRecorder())
    status = guard.status()
    wrong = [w for w in (_problem(status), status.stale, status.clock) if w is not None]
    if as_json:
        say_json(_data(status), indent=2)
    else:
        if (feed := status.feed) is not None and status.age is not None:
            click.echo(
                f"feed {feed.sequence}: {feed.entries} entries\n"
                f"issued   {feed.issued:%Y-%m-%d %H:%M} UTC,"
                f" {status.age / timedelta(hours=1):.1f} hours ago\n"
                f"expires  {feed.expires:%Y-%m-%d %H:%M} UTC\n"
                f"accepted {feed.accepted:%Y-%m-%d %H:%M} UTC"
            )
        for what in wrong:
            click.secho(shown(what), fg="red", color=colour())
        if status.problem is not None or (status.stale and status.refuses):
            click.echo("Loads are refused.")
    raise click.exceptions.Exit(1 if wrong else 0)


@revocations.command(
    epilog=epilog(
        "capwasm revocations check acme.weather-1.2.0.capsule",
        "capwasm revocations check acme.weather@1.2.0",
        codes="0 it is not revoked, 1 it is, 2 wrong usage",
    )
)
@click.argument("what", metavar="CAPSULE|ID@VERSION")
@home_option
@json_option
def check(what: str, home_path: Path, as_json: bool) -> None:
    """Tell whether the feed in force denies a capsule, or a version of a plugin, and why.

    Of a version that is not installed only its id and number are known, not its content or signers.
    """
    from capwasm.events import NullRecorder

    guard, registry = _opened(home_path, NullRecorder())
    with registry:
        subject = _subject(what, guard, registry)
        why: str | None = None
        code = ""
        try:
            guard.admit(subject)
        except CapwasmError as exc:
            why, code = exc.message, exc.code
    name = f"{subject.id}@{subject.version}"
    if as_json:
        say_json({"plugin": name, "allowed": why is None, "code": code, "reason": why}, indent=2)
    else:
        click.echo(f"{name}: {'not revoked' if why is None else shown(why)}")
    raise click.exceptions.Exit(0 if why is None else 1)


def _subject(what: str, guard: Guard, registry: Registry) -> Subject:
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.identity import check_id, check_version
    from capwasm.capsule.verify import verify
    from capwasm.revocation.guard import subject_of
    from capwasm.revocation.index import Subject
    from capwasm.revocation.settle import subject_of_record

    plugin_id, at, version = what.partition("@")
    try:
        if at and check_id(plugin_id) and check_version(version):
            plugin = registry.find(plugin_id)
            record = None if plugin is None else plugin.version(version)
            if record is not None:
                return subject_of_record(record)
            return Subject(plugin_id, version, frozenset(), frozenset())
    except ValueError:
        pass
    return subject_of(verify(read_artifact(Path(what), beside=True), guard.trust))


def _opened(home_path: Path, recorder: Recorder) -> tuple[Guard, Registry]:
    from capwasm.home import Home

    from ._plugin import capabilities

    home, known = Home(home_path), capabilities()
    policy, trust = home.policy(known), home.trust()
    words: dict[str, Any] = {"trust": trust, "policy": policy, "capabilities": known}
    guard = home.guard(recorder, **words)
    return guard, home.registry(recorder, guard=guard, **words)


def _problem(status: Status) -> str | None:
    problem = status.problem
    return None if problem is None else f"{problem.context}: {problem.message}"


def _data(status: Status) -> dict[str, Any]:
    feed = status.feed
    return {
        "sequence": feed and feed.sequence,
        "issued": feed and feed.issued.isoformat(),
        "expires": feed and feed.expires.isoformat(),
        "accepted-at": feed and feed.accepted.isoformat(),
        "entries": feed and feed.entries,
        "digest": feed and feed.digest,
        "age-hours": None if status.age is None else round(status.age / timedelta(hours=1), 2),
        "stale": status.stale,
        "clock": status.clock,
        "problem": _problem(status),
        "loads-refused": status.problem is not None
        or (status.stale is not None and status.refuses),
    }


@click.command(epilog=epilog('capwasm revoke acme.weather 1.2.0 --reason "leaks keys"'))
@click.argument("plugin_id", metavar="ID")
@click.argument("version")
@change_options
def revoke(
    plugin_id: str, version: str, who: str | None, why: str, home_path: Path, as_json: bool
) -> None:
    """End an installed version for good, on this machine.  A core that runs it stops it."""
    if not why:
        raise click.UsageError("a revocation needs a --reason")
    with opened(home_path) as registry:
        outcome = registry.revoke(plugin_id, version, who=user(who), why=why)
    say_outcome(outcome, as_json=as_json)


commands: list[click.Command] = [revocations, revoke]
