"""`capwasm audit`: read the audit log, hold it to its chain, export and prune it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, DENIED, FAILED

from ._audit_keep import commands as KEEPING  # noqa: N812  a constant
from ._audit_keep import directory_of, filter_options, log_options, query_of
from ._output import console, epilog, json_option, say_json, shown
from ._progress import BytesLine

if TYPE_CHECKING:
    from rich.text import Text

    from capwasm.capsule.keys import PublicKey
    from capwasm.record.audit import Head, Report
    from capwasm.record.search import Query

__all__ = ["commands"]

COLOURS: Final = {ALLOWED: "green", DENIED: "red", FAILED: "yellow"}
MAX_PAGE: Final = 10_000
MOST_PAGES: Final = 50  # of 64 MiB each
MAX_HEADS_BYTES: Final = 32 * 2**20
POLL_SECONDS: Final = 0.2


@click.group(epilog="\b\nExample:\n  capwasm audit tail --verdict denied\n  capwasm audit verify")
def audit() -> None:
    """Read, export and prune the audit log, and check that nobody changed it."""


@audit.command(
    epilog=epilog(
        "capwasm audit tail -n 50 --plugin acme.weather",
        "capwasm audit tail --since 2h --verdict denied --verdict failed",
        "capwasm audit tail --follow --json | jq .target",
        codes="0 done, 1 there is no log to read, 2 wrong usage",
    )
)
@log_options
@filter_options
@click.option(
    "-n",
    "count",
    type=click.IntRange(0, MAX_PAGE),
    default=20,
    show_default=True,
    help="How many records.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on showing new records.")
@json_option
def tail(
    home_path: Path,
    log_path: Path | None,
    of_commands: bool,
    count: int,
    follow: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Show the last records, the newest at the end.  A broken one is shown as such."""
    from capwasm.record.search import Follow

    directory = directory_of(home_path, log_path, of_commands=of_commands)
    query = query_of(**filters)
    out = console()

    def show(records: Iterable[dict[str, Any]]) -> None:
        for record in records:
            if as_json:
                say_json(record)
            else:
                out.print(_line(record))

    new = Follow(directory)
    show(_last(directory, query, count))
    while follow:
        records = new.new()
        show(r for r in records if "broken" in r or query.matches(r))
        if not records:
            time.sleep(POLL_SECONDS)


def _last(directory: Path, query: Query, count: int) -> list[dict[str, Any]]:
    """The newest records that are wanted, oldest first."""
    from capwasm.record.search import search

    found: list[dict[str, Any]] = []
    before: str | None = None
    for _ in range(MOST_PAGES):
        if len(found) >= count:
            break
        page = search(directory, query, limit=count - len(found), before=before)
        found += page.records
        before = page.next
        if before is None:
            break
    else:
        click.echo("older records were not looked at; narrow it with --since", err=True)
    return found[::-1]


@audit.command(
    epilog=epilog(
        "capwasm audit verify --key audit.pub",
        "capwasm audit verify --key audit.pub --head heads.jsonl",
        "capwasm audit verify week.jsonl --key audit.pub --json",
        codes="0 nothing is wrong, 1 something is, 2 wrong usage",
    )
)
@click.argument("export", required=False, type=click.Path(path_type=Path))
@log_options
@click.option(
    "--key",
    "key_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Public key that signs the anchors; every anchor must then be signed.  Repeatable.",
)
@click.option(
    "--head",
    "kept",
    multiple=True,
    help="What was kept elsewhere: SEQ:HASH, or a file of `audit anchor`'s lines; those records"
    " must still be there.  Repeatable.",
)
@json_option
def verify(
    export: Path | None,
    home_path: Path,
    log_path: Path | None,
    of_commands: bool,
    key_files: tuple[Path, ...],
    kept: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check the whole chain, of the log or an export; name what was changed, removed or put in."""
    from capwasm.capsule.keys import PublicKey
    from capwasm.record.audit import verify_log
    from capwasm.record.export import verify_export

    keys = [PublicKey.load(path) for path in key_files]
    heads = [head for text in kept for head in _heads(text, keys)]
    line = BytesLine()

    def progress(done: int, total: int) -> None:
        line("verifying", done, total)

    if export is not None and (log_path is not None or of_commands):
        raise click.UsageError("an export and --log or --commands name two logs")
    if export is not None:
        report = verify_export(export, keys=keys, heads=heads, progress=progress)
    else:
        directory = directory_of(home_path, log_path, of_commands=of_commands)
        report = verify_log(directory, keys=keys, heads=heads, progress=progress)
    if as_json:
        say_json(report.to_dict(), indent=2)
    else:
        _show(report)
    raise click.exceptions.Exit(0 if report.ok else 1)


def _heads(text: str, keys: list[PublicKey]) -> list[Head]:
    from capwasm._files import read_file
    from capwasm.record.heads import parse_heads

    try:
        is_file = Path(text).is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file:
        data = read_file(text, MAX_HEADS_BYTES, AuditError, code="audit.head")
        return parse_heads(data.decode("utf-8", "replace"), keys)
    try:
        return parse_heads(text)
    except AuditError as exc:
        raise click.BadParameter(
            f"neither a file nor SEQ:HASH: {exc.message}", param_hint="--head"
        ) from None


def _line(record: dict[str, Any]) -> Text:
    from rich.text import Text

    if "broken" in record:
        return Text(f"broken record: {shown(record['broken'])}", style="bold white on red")
    verdict = str(record.get("verdict"))
    text = Text.assemble(
        (shown(record.get("time"))[:23].replace("T", " "), "dim"),
        f" {shown(record.get('seq')):>7} ",
        (f"{shown(verdict):<7} ", COLOURS.get(verdict, "")),
        (f"{shown(record.get('kind')):<9}", "bold"),
    )
    for name, style in (("plugin", "cyan"), ("action", ""), ("target", "magenta"), ("reason", "")):
        if value := record.get(name):
            label = "because " if name == "reason" else ""
            text.append(f" {label}{shown(value)}", style=style)
    details = record.get("details")
    if isinstance(details, dict) and details:
        words = " ".join(f"{shown(k)}={shown(v)}" for k, v in details.items())
        text.append(f"  {words}", style="dim")
    return text


def _show(report: Report) -> None:
    from rich.text import Text

    out = console()
    for problem in report.problems:
        out.print(Text(shown(problem), style="red"))
    if report.count > len(report.problems):
        out.print(Text(f"… and {report.count - len(report.problems)} more", style="red"))
    for gap in report.gaps:
        out.print(Text(f"gap, told by the log itself: {shown(gap)}", style="yellow"))
    signed = f", {report.signed} of {report.anchors} anchors signed" if report.signed else ""
    what = f"{report.records} records in {report.segments} segments{signed}"
    head = f"head {report.head.seq}:{report.head.hash}"
    if report.pruned_to:
        out.print(Text(f"pruned, told by the log itself: up to record {report.pruned_to}"))
    if report.old_heads:
        out.print(Text(f"{report.old_heads} heads speak of records that are not here"))
    if report.ok:
        out.print(Text.assemble(("intact", "bold green"), f": {what}; {head}"))
    else:
        count = "1 problem" if report.count == 1 else f"{report.count} problems"
        out.print(Text.assemble((count, "bold red"), f": {what}; {head}"))


for command in KEEPING:
    audit.add_command(command)

commands = [audit]
