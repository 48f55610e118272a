"""`capwasm submit | review | approve | reject | except`: reviews, from a capsule to a decision.

What a person says is signed with that person's key, which the trust store names; what it is worth
is asked again at each load.  See docs/review.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._output import epilog, home_option, json_option, say_json
from .registry import change_options, opened, say_outcome, user

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey
    from capwasm.registry.case import Case
    from capwasm.registry.desk import Desk
    from capwasm.registry.registry import Registry

__all__ = ["commands"]

_PLUGIN = click.argument("plugin", metavar="ID[@VERSION]")
_CODES = "0 done, 1 refused, 2 wrong usage"


@contextmanager
def _desk(home_path: Path) -> Iterator[tuple[Desk, Registry]]:
    """The desk of that home, to have a say at."""
    from capwasm.registry.desk import Desk

    with opened(home_path) as registry:
        yield Desk(registry), registry


def _named(text: str) -> tuple[str, str | None]:
    plugin_id, _, version = text.partition("@")
    return plugin_id, version or None


def _key_options(*, required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Whose word it is."""
    path = click.Path(path_type=Path, dir_okay=False)

    def add(function: Callable[..., None]) -> Callable[..., None]:
        function = click.option(
            "--passphrase-file", type=path, help="Opens the key; asked for if none."
        )(function)
        return click.option(
            "--key",
            "key_file",
            type=path,
            required=required,
            help="Your private key; the trust store says what its word is worth.",
        )(function)

    return add


def _load(key_file: Path, passphrase_file: Path | None) -> PrivateKey:
    from capwasm.capsule.keys import PrivateKey

    from .capsule import ask_passphrase, read_passphrase

    given = read_passphrase(passphrase_file)
    return PrivateKey.load(key_file, ask_passphrase if given is None else given)


def _say(case: Case, told: str, *, as_json: bool) -> None:
    """What a word came to."""
    from ._review_text import case_data, standing_lines

    if as_json:
        say_json(case_data(case), indent=2)
        return
    record = case.record
    click.echo(f"{told}: {record.plugin} {record.version} ({record.state})")
    for line in standing_lines(case):
        click.echo(line)


# -- submitting, and looking ---------------------------------------------------------------------------


@click.command(
    epilog=epilog(
        "capwasm submit acme.weather-1.2.0.capsule",
        "capwasm submit acme.weather@1.3.0 --reason 'ticket 12'",
        codes="0 it is kept, 1 refused, 2 wrong usage",
    )
)
@click.argument("source")
@change_options
def submit(source: str, who: str | None, why: str, home_path: Path, as_json: bool) -> None:
    """Verify a capsule and keep it to be reviewed; it does not serve by that.

    SOURCE is as for `install`.  What serves, serves on.
    """
    from capwasm.home import Home

    from ._source import bundle_of

    bundle = bundle_of(source, Home(home_path))
    with _desk(home_path) as (desk, _):
        outcome = desk.submit(
            bundle.capsule,
            who=user(who),
            why=why,
            source_name=bundle.source,
            published=bundle.published,
        )
    say_outcome(outcome, as_json=as_json)
    if not as_json and outcome.action == "submitted":
        name = f"{outcome.plugin.id}@{outcome.version}"
        click.echo(f"\nNext:\n\ncapwasm scan {name}\ncapwasm review {name}")


@click.command(
    epilog=epilog(
        "capwasm review",
        "capwasm review acme.weather@1.3.0",
        "capwasm review --exceptions --json",
        codes="0 shown, 1 it is unknown, or can't be read or believed, 2 wrong usage",
    )
)
@click.argument("plugin", metavar="[ID[@VERSION]]", required=False)
@click.option(
    "--exceptions", is_flag=True, help="List the security exceptions, and how they stand."
)
@home_option
@json_option
def review(plugin: str | None, exceptions: bool, home_path: Path, as_json: bool) -> None:
    """Show what waits for a review; of one version, all that a reviewer wants to know.

    Permissions with their risk, what differs from what serves, findings, what was said, what it is
    worth today, and what is missing.
    """
    from capwasm.events import NullRecorder
    from capwasm.home import Home
    from capwasm.registry.desk import Desk

    from . import _review_text as text
    from ._plugin import capabilities

    home, known = Home(home_path), capabilities()
    policy, trust = home.policy(known), home.trust()
    with home.registry(NullRecorder(), trust=trust, policy=policy, capabilities=known) as registry:
        desk = Desk(registry)
        if exceptions:
            found = [
                e
                for e in desk.exceptions()
                if plugin in (None, e.plugin, f"{e.plugin}@{e.version}")
            ]
            _print(
                [text.exception_data(e) for e in found],
                text.exception_lines(found),
                as_json=as_json,
            )
        elif plugin is None:
            queue = desk.queue()
            _print([text.case_data(c) for c in queue], text.queue_lines(queue), as_json=as_json)
        else:
            case = desk.case(*_named(plugin))
            _print(text.case_data(case), text.case_lines(case), as_json=as_json)


def _print(data: Any, lines: Iterator[str], *, as_json: bool) -> None:
    from ._output import colour

    if as_json:
        say_json(data, indent=2)
        return
    for line in lines:
        click.echo(line, color=colour())


# -- having a say ----------------------------------------------------------------------------------------


@click.command(
    epilog=epilog(
        "capwasm approve acme.weather@1.3.0 --key ann.key --reason 'read the code'",
        "capwasm approve acme.weather@1.3.0 --key ann.key --seen 0123456789abcdef",
        codes=_CODES,
    )
)
@_PLUGIN
@_key_options(required=True)
@click.option("--reason", "why", default="", help="Why, for the record.")
@click.option("--seen", help="What `review` showed, so that you say it of that and nothing newer.")
@home_option
@json_option
def approve(
    plugin: str,
    key_file: Path,
    passphrase_file: Path | None,
    why: str,
    seen: str | None,
    home_path: Path,
    as_json: bool,
) -> None:
    """Say as a reviewer that a version may serve.

    It is bound to the very code, manifest and permissions, and counts as long as the trust store
    names the key as a reviewer's.
    """
    key = _load(key_file, passphrase_file)
    with _desk(home_path) as (desk, _):
        case = desk.approve(*_named(plugin), key=key, why=why, seen=seen)
    _say(case, "approved", as_json=as_json)


@click.command(
    epilog=epilog(
        'capwasm reject acme.weather --reason "asks for too much"',
        "capwasm reject acme.weather@1.3.0 --key ann.key --reason 'sends names home'",
        codes=_CODES,
    )
)
@_PLUGIN
@_key_options(required=False)
@change_options
def reject(
    plugin: str,
    key_file: Path | None,
    passphrase_file: Path | None,
    who: str | None,
    why: str,
    home_path: Path,
    as_json: bool,
) -> None:
    """Forget the version that waits; with --key, say for good that a version may not serve.

    A signed rejection beats every approval and exception of that version, also of one that serves
    already.  Only a new version can be approved after it.
    """
    if key_file is not None and not why.strip():
        raise click.UsageError("a rejection that is signed needs a --reason")
    if key_file is not None and who is not None:
        raise click.UsageError("--by and --key exclude each other: the key says who")
    key = None if key_file is None else _load(key_file, passphrase_file)
    with _desk(home_path) as (desk, registry):
        outcome = desk.reject(*_named(plugin), who=user(who), why=why, key=key)
        registry.collect()
    say_outcome(outcome, as_json=as_json)


@click.command(
    "except",
    epilog=epilog(
        "capwasm except acme.weather --finding 0123456789abcdef \\\n      --expires 2027-03-01"
        " --key sue.key --reason 'a test key'",
        "capwasm except acme.weather --unreviewed \\\n      --expires 2027-02-01 --key eve.key"
        " --reason 'outage 7'",
        codes=_CODES,
    ),
)
@_PLUGIN
@click.option("--finding", metavar="RULE|FINGERPRINT", help="The finding that is answered for.")
@click.option("--unreviewed", is_flag=True, help="Serve before scan and approvals are there.")
@click.option("--expires", required=True, help="Its last day, in UTC, or a time.")
@_key_options(required=True)
@click.option("--reason", "why", required=True, help="Why, for the record.")
@home_option
@json_option
def except_(
    plugin: str,
    finding: str | None,
    unreviewed: bool,
    expires: str,
    key_file: Path,
    passphrase_file: Path | None,
    why: str,
    home_path: Path,
    as_json: bool,
) -> None:
    """Sign one half of a security exception: in spite of a finding, or before the review is done.

    It is in force once two different people have signed it, one with the role security and one
    with the role engineering, and ends by itself with the earlier of their two dates.
    """
    from capwasm.review.record import UNREVIEWED

    if (finding is None) is not unreviewed:
        raise click.UsageError("either --finding or --unreviewed")
    if not why.strip():
        raise click.UsageError("an exception needs a --reason")
    until = _moment(expires)
    key = _load(key_file, passphrase_file)
    with _desk(home_path) as (desk, _):
        case = desk.except_(
            *_named(plugin), key=key, what=finding or UNREVIEWED, expires=until, why=why
        )
    _say(case, "signed", as_json=as_json)


def _moment(text: str) -> datetime:
    """The end of a day in UTC, or a time."""
    from capwasm.capsule.trusted import parse_time

    try:
        if len(text) == len("2027-01-31"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        return parse_time(text)
    except (ValueError, OverflowError):
        raise click.UsageError(
            "--expires needs a day or a time: 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from None


commands: list[click.Command] = [submit, review, approve, reject, except_]
