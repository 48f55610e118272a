"""`capwasm audit head | anchor | export | prune`: what is kept of the audit log, and where."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, DENIED, FAILED, KINDS
from capwasm.home import Home

from ._output import epilog, home_option, json_option, say_json

if TYPE_CHECKING:
    from capwasm.capsule.keys import PrivateKey
    from capwasm.grants.audit import AuditRule
    from capwasm.record.search import Query

__all__ = ["commands", "directory_of", "filter_options", "log_options", "query_of"]

F = TypeVar("F", bound=Callable[..., None])

MEGABYTE: Final = 2**20


def log_options(function: F) -> F:
    """Which log: the runtime's, the commands', or one that lies elsewhere."""
    log = click.option(
        "--log",
        "log_path",
        type=click.Path(path_type=Path),
        help="The log's directory, if not audit in that of --home.",
    )
    commands = click.option(
        "--commands", "of_commands", is_flag=True, help="The log of operators' commands."
    )
    return home_option(log(commands(function)))


def directory_of(home_path: Path, log_path: Path | None, *, of_commands: bool) -> Path:
    """The directory of the log that was asked for."""
    if log_path is not None and of_commands:
        raise click.UsageError("--log and --commands name two logs")
    home = Home(home_path)
    return log_path or (home.audit_commands if of_commands else home.audit)


def filter_options(function: F) -> F:
    """Which records."""
    options = [
        click.option("--plugin", default="", help="Only this plugin: an id, or id@version."),
        click.option(
            "--verdict",
            "verdicts",
            multiple=True,
            type=click.Choice([ALLOWED, DENIED, FAILED]),
            help="Only this verdict.  Repeatable.",
        ),
        click.option(
            "--kind",
            "kinds",
            multiple=True,
            type=click.Choice(sorted(KINDS)),
            metavar="KIND",
            help=f"Only this kind: {', '.join(sorted(KINDS))}.  Repeatable.",
        ),
        click.option("--text", default="", help="Only what holds this text, in any case."),
        click.option("--since", default="", help="From then on: 2026-01-31T12:00 (UTC), or 2h."),
        click.option("--until", default="", help="Before then."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def query_of(
    plugin: str,
    verdicts: tuple[str, ...],
    kinds: tuple[str, ...],
    text: str,
    since: str,
    until: str,
) -> Query:
    """What `filter_options` asked for."""
    from capwasm.record.search import Query, moment

    try:
        return Query(
            plugin,
            frozenset(kinds),
            frozenset(verdicts),
            moment(since) if since else "",
            moment(until) if until else "",
            text,
        )
    except ValueError as exc:
        raise click.UsageError(f"--since, --until: {exc}") from None


@click.command(
    epilog=epilog(
        "capwasm audit head", "capwasm audit head --json", codes="0 done, 1 no log, 2 wrong usage"
    )
)
@log_options
@json_option
def head(home_path: Path, log_path: Path | None, of_commands: bool, as_json: bool) -> None:
    """Print where the log is now, for `audit verify --head`.  Also while it is written to."""
    from capwasm.record.heads import newest

    kept = newest(directory_of(home_path, log_path, of_commands=of_commands))
    if as_json:
        say_json(kept.to_dict())
    else:
        click.echo(f"{kept.head.seq}:{kept.head.hash}")


@click.command(
    epilog=epilog(
        "capwasm audit anchor --append /mnt/other/heads.jsonl",
        "capwasm audit anchor | ssh log@other 'cat >> heads.jsonl'",
        "capwasm audit verify --key audit.pub --head heads.jsonl",
        codes="0 done, 1 there is no log, or no key, 2 wrong usage",
    )
)
@log_options
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    help="Private key that signs, if not audit.key in --home.",
)
@click.option(
    "--append",
    "append_to",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Add the line to this file, on another machine's disk.",
)
@json_option
def anchor(
    home_path: Path,
    log_path: Path | None,
    of_commands: bool,
    key_file: Path | None,
    append_to: Path | None,
    as_json: bool,  # noqa: ARG001  it is JSON in any case; errors are asked here
) -> None:
    """Sign where the log is now, in one line of JSON that is to be kept on another machine."""
    from capwasm.capsule.keys import PrivateKey
    from capwasm.record.heads import newest, signed

    key = PrivateKey.load(key_file or Home(home_path).audit_key)
    kept = signed(newest(directory_of(home_path, log_path, of_commands=of_commands)), key)
    if append_to is None:
        say_json(kept.to_dict())
        return
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(append_to, flags, 0o644)
        with os.fdopen(fd, "wb", buffering=0) as file:
            file.write(json.dumps(kept.to_dict()).encode() + b"\n")
            os.fsync(fd)
    except OSError as exc:
        raise AuditError(
            f"can't be written: {exc.strerror}", code="audit.head", context=str(append_to)
        ) from exc


@click.command(
    name="export",
    epilog=epilog(
        "capwasm audit export --since 7d -o week.jsonl",
        "capwasm audit verify week.jsonl --key audit.pub",
        "capwasm audit export --verdict denied --format csv -o denials.csv",
        codes="0 done, 1 refused: the log is damaged, or the file can't be written, 2 wrong usage",
    ),
)
@log_options
@filter_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="Lines of JSON, to be verified; or a table, to be looked at.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file, written whole or not at all; standard output if none.",
)
@json_option
def export(
    home_path: Path,
    log_path: Path | None,
    of_commands: bool,
    form: str,
    output: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Take records out of the log.  A span of time can be verified elsewhere; filtered ones can't."""
    from capwasm._files import writing
    from capwasm.record.export import export_csv, export_jsonl

    directory = directory_of(home_path, log_path, of_commands=of_commands)
    query, key = query_of(**filters), _key_of(home_path)

    def write(out: Any) -> Any:
        if form == "csv":
            return export_csv(directory, query, out)
        return export_jsonl(directory, query, out, key=key)

    if output is None:
        done = write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        with writing(output, AuditError, code="audit.export", mode=0o600) as file:
            done = write(file)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)), err=output is None)
        return
    what = "can be verified" if done.complete else "filtered: no chain, can't be verified"
    if form == "csv":
        what = "a table, can't be verified"
    count = "1 record" if done.records == 1 else f"{done.records} records"
    click.echo(f"{count}, {done.first} to {done.last}: {what}", err=True)


def _key_of(home_path: Path) -> PrivateKey | None:
    from capwasm.capsule.keys import PrivateKey

    home = Home(home_path)
    return PrivateKey.load(home.audit_key) if home.audit_key.exists() else None


@click.command(
    epilog=epilog(
        "capwasm audit prune --dry-run",
        "capwasm audit prune --keep-days 400",
        codes="0 done, 1 refused: the log is damaged or in use, 2 wrong usage",
    )
)
@log_options
@click.option("--keep-days", type=click.IntRange(1, 36_500), help="In place of policy's.")
@click.option("--max-megabytes", type=click.IntRange(1), help="In place of policy's.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go; also while it is in use.")
@json_option
def prune(
    home_path: Path,
    log_path: Path | None,
    of_commands: bool,
    keep_days: int | None,
    max_megabytes: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove the oldest segments that policy no longer wants kept.  A running core does by itself."""
    from capwasm.record.audit import Keeping
    from capwasm.record.retention import plan

    home = Home(home_path)
    rule = _rule_of(home)
    directory = directory_of(home_path, log_path, of_commands=of_commands)
    keep = Keeping(rule.keep_days, rule.max_megabytes * MEGABYTE)
    if keep_days is not None or max_megabytes is not None:
        keep = Keeping(keep_days or 0, (max_megabytes or 0) * MEGABYTE)
    try:
        found = plan(directory, keep)
    except (OSError, ValueError) as exc:
        raise AuditError(f"nothing is pruned: {exc}", code="audit.retention") from exc
    if found is not None and not dry_run:
        with home.open_audit(directory) as log:
            found = log.prune(keep)
    if as_json:
        pruned = None
        if found is not None:
            pruned = {
                "segments": len(found.segments),
                "bytes": found.bytes,
                "first": found.first,
                "last": found.upto.seq,
                "hash": found.upto.hash,
                "why": found.why,
            }
        say_json({"dry_run": dry_run, "pruned": pruned})
    elif found is None:
        click.echo("nothing to prune")
    else:
        what = f"records {found.first} to {found.upto.seq}, {len(found.segments)} segments"
        verb = "would go" if dry_run else "removed"
        click.echo(f"{verb}: {what}, {found.bytes / 1e6:.1f} MB, by {found.why}")


def _rule_of(home: Home) -> AuditRule:
    from ._plugin import capabilities

    return home.policy(capabilities()).audit


commands = [head, anchor, export, prune]
