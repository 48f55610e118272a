"""`capwasm audit tail | verify`: read the audit log, and hold it to its chain."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from capwasm.events import ALLOWED, DENIED, FAILED, KINDS
from capwasm.home import Home

from ._output import console, home_option, json_option, say_json, shown

if TYPE_CHECKING:
    from rich.text import Text

    from capwasm.record.audit import Report

__all__ = ["commands"]

COLOURS: Final = {ALLOWED: "green", DENIED: "red", FAILED: "yellow"}
# Records that are looked through for each one that a filter is to let pass, and at most.
MORE: Final = 1_000
MOST: Final = 200_000


def log_options(function: Callable[..., None]) -> Callable[..., None]:
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
    return log(commands(function))


def directory_of(home_path: Path, log_path: Path | None, *, of_commands: bool) -> Path:
    """The directory of the log that was asked for."""
    if log_path is not None and of_commands:
        raise click.UsageError("--log and --commands name two logs")
    home = Home(home_path)
    return log_path or (home.audit_commands if of_commands else home.audit)


@click.group(epilog="\b\nExample:\n  capwasm audit tail --verdict denied\n  capwasm audit verify")
def audit() -> None:
    """Read the audit log, and check that nobody changed it."""


@audit.command(
    epilog="""\b
Example:
  capwasm audit tail -n 50 --plugin acme.weather
  capwasm audit tail --follow --json | jq .target

Exit codes: 0 done, 1 there is no log to read, 2 wrong usage."""
)
@home_option
@log_options
@click.option(
    "-n",
    "count",
    type=click.IntRange(0, 100_000),
    default=20,
    show_default=True,
    help="How many records; with --follow, how many are looked at before the new ones.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on showing new records.")
@click.option("--plugin", help="Only this plugin: an id, or id@version.")
@click.option("--verdict", type=click.Choice([ALLOWED, DENIED, FAILED]), help="Only this verdict.")
@click.option(
    "--kind",
    type=click.Choice(sorted(KINDS)),
    metavar="KIND",
    help=f"Only this kind: {', '.join(sorted(KINDS))}.",
)
@json_option
def tail(
    home_path: Path,
    log_path: Path | None,
    of_commands: bool,
    count: int,
    follow: bool,
    plugin: str | None,
    verdict: str | None,
    kind: str | None,
    as_json: bool,
) -> None:
    """Show the last records, the newest at the end.  A broken one is shown as such."""
    from capwasm.record.audit import tail as read

    directory = directory_of(home_path, log_path, of_commands=of_commands)

    def wanted(record: dict[str, Any]) -> bool:
        if "broken" in record:
            return True
        name = str(record.get("plugin"))
        return (
            (plugin is None or plugin in (name, name.partition("@")[0]))
            and (verdict is None or record.get("verdict") == verdict)
            and (kind is None or record.get("kind") == kind)
        )

    out = console()

    def show(record: dict[str, Any]) -> None:
        if as_json:
            say_json(record)
        else:
            out.print(_line(record))

    if follow:
        for record in read(directory, count, follow=True):
            if wanted(record):
                show(record)
        return
    filtered = any((plugin, verdict, kind))
    looked = read(directory, min(count * MORE, MOST) if filtered else count)
    for record in collections.deque(filter(wanted, looked), maxlen=count):
        show(record)


@audit.command(
    epilog="""\b
Example:
  capwasm audit verify --key audit.pub
  capwasm audit verify --json

Exit codes: 0 nothing is wrong, 1 something is, 2 wrong usage."""
)
@home_option
@log_options
@click.option(
    "--key",
    "key_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Public key that signs the anchors; every anchor must then be signed.  Repeatable.",
)
@click.option("--head", help="SEQ:HASH kept elsewhere; that record must still be there.")
@json_option
def verify(
    home_path: Path,
    log_path: Path | None,
    of_commands: bool,
    key_files: tuple[Path, ...],
    head: str | None,
    as_json: bool,
) -> None:
    """Check the whole chain, and name each record that was changed, removed, put in or moved."""
    from capwasm.capsule.keys import PublicKey
    from capwasm.record.audit import verify_log

    keys = [PublicKey.load(path) for path in key_files]
    directory = directory_of(home_path, log_path, of_commands=of_commands)
    report = verify_log(directory, keys=keys, head=None if head is None else _head(head))
    if as_json:
        say_json(report.to_dict(), indent=2)
    else:
        _show(report)
    raise click.exceptions.Exit(0 if report.ok else 1)


def _head(text: str) -> Any:
    from capwasm.record.audit import Head

    seq, _, digest = text.partition(":")
    digits = set("0123456789abcdef")
    if not (seq.isascii() and seq.isdecimal() and len(digest) == 64 and set(digest) <= digits):
        raise click.BadParameter("write SEQ:HASH, a number and 64 hex digits", param_hint="--head")
    return Head(int(seq), digest)


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
    if report.ok:
        out.print(Text.assemble(("intact", "bold green"), f": {what}; {head}"))
    else:
        count = "1 problem" if report.count == 1 else f"{report.count} problems"
        out.print(Text.assemble((count, "bold red"), f": {what}; {head}"))


commands = [audit]
