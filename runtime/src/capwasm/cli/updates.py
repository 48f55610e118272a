"""`capwasm update | outdated | pending | pin | unpin`: newer versions, and what waits."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import epilog, home_option, json_option, say_json, shown, table
from .installed import mark
from .registry import change_options, opened, say_missing, say_outcome, user

if TYPE_CHECKING:
    from capwasm.errors import CapwasmError
    from capwasm.home import Home
    from capwasm.registry.model import Listed, Outcome, Release
    from capwasm.registry.registry import Registry

__all__ = ["best", "commands"]

COLOURS: Final = {
    "updated": "green", "would be updated": "green", "pending": "yellow", "would wait": "yellow",
    "refused": "red", "failed": "red", "would be refused": "red",
}  # fmt: skip
BAD: Final = frozenset({"refused", "failed", "would be refused"})


@dataclass(slots=True)
class Row:
    """What became of one plugin."""

    plugin: str
    before: str | None
    version: str | None = None
    result: str = "up to date"
    reasons: tuple[str, ...] = ()
    code: str | None = None


def best(
    offered: Sequence[Release], highest: str | None, hours: int, now: datetime
) -> Release | None:
    """The release to update to: newer than all that was accepted, and of age if one is.

    A pre-release is for those who have one already.

    Args:
        offered: newest last.
        highest: the highest version that was accepted, or None.
        hours: `[updates] min-age-hours`.
        now: with a time zone.
    """
    from capwasm.registry.model import is_older

    newer = [
        r
        for r in offered
        if (highest is None or is_older(highest, r.version))
        and (not _is_early(r.version) or (highest is not None and _is_early(highest)))
    ]
    born = now - timedelta(hours=hours)
    ripe = [r for r in newer if r.published is not None and r.published <= born]
    return next(reversed(ripe or newer), None)


def _is_early(version: str) -> bool:
    return "-" in version.partition("+")[0]


# -- asking ------------------------------------------------------------------------------------------


def _installed(home_path: Path, ids: Sequence[str], *, everything: bool) -> list[Listed]:
    from capwasm.errors import RegistryError
    from capwasm.registry.books import Books

    if bool(ids) == everything:
        raise click.UsageError("name plugins, or say --all")
    with contextlib.closing(Books(home_path)) as books:
        found = {p.id: p for p in books.list()}
    for plugin_id in ids:
        if plugin_id not in found:
            raise RegistryError(
                "no such plugin is installed",
                code="registry.unknown",
                context=ascii(plugin_id)[1:-1],
            )
    return [found[i] for i in dict.fromkeys(ids)] if ids else list(found.values())


def _say_progress(text: str) -> None:
    """One line on a terminal that the next one replaces."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


@click.command(
    epilog=epilog(
        "capwasm update acme.weather",
        'capwasm update --all --by nightly --reason "nightly run"',
        "capwasm update --all --dry-run --json",
        codes="0 each is updated, up to date, or waits for a person; 1 one was refused or can't be"
        " had; 2 wrong usage",
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that is installed.")
@click.option("--dry-run", is_flag=True, help="Fetch and verify, tell what would become of each.")
@click.option("--offline", is_flag=True, help="Ask no server; only what is cached.")
@change_options
def update(
    ids: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    offline: bool,
    who: str | None,
    why: str,
    home_path: Path,
    as_json: bool,
) -> None:
    """Take newer versions from the plugins' repositories; each is verified as the first was.

    What asks for more than before, is signed by others or is too young waits for a person, and the
    version before serves on.  One that fails does not keep the others.
    """
    from capwasm.errors import CapwasmError
    from capwasm.home import Home

    home = Home(home_path)
    listed = _installed(home_path, ids, everything=everything)
    rows, served = [], []
    offers, hours = _offers(home, listed, offline=offline)
    for number, plugin in enumerate(listed, start=1):
        _say_progress(f"{number} of {len(listed)}: {plugin.id}")
        row = Row(plugin.id, plugin.serving)
        rows.append(row)
        try:
            capsule = _wanted(row, plugin, offers, hours, everything=everything)
            if capsule is None:
                continue
            data, release = capsule
            if dry_run:
                _weigh(row, home, data, release)
            else:
                with opened(home_path) as registry:
                    outcome = _take(row, registry, data, release, who, why)
                    if outcome.action == "updated":
                        served.append(registry.store.path(_bundle(outcome)))
        except CapwasmError as exc:
            _fail(row, exc)
    _say_progress("")
    _say(rows, as_json=as_json)
    for path in served if not as_json else ():
        say_missing(home_path, path)
    raise click.exceptions.Exit(1 if any(r.result in BAD for r in rows) else 0)


class _Offers:
    """What the repositories offer, each asked once; and capsules that wait here already."""

    def __init__(self, home: Home, ids: Sequence[str], *, offline: bool) -> None:
        from ._source import BriefRecorder

        self.home = home
        self.sources = home.sources(BriefRecorder(home), offline=offline)
        self.found = self.sources.offers(ids)

    def capsule(self, release: Release) -> bytes:
        """Its bytes, from the store if they are there."""
        from capwasm.errors import RegistryError

        with _reading(self.home) as registry, contextlib.suppress(RegistryError):
            return registry.store.get(release.digest)
        _say_progress(f"fetching {release.id} {release.version} ({release.size / 1e6:.1f} MB)")
        return self.sources.fetch(release)


def _offers(home: Home, listed: Sequence[Listed], *, offline: bool) -> tuple[_Offers, int]:
    from ._plugin import capabilities

    _say_progress("asking the repositories")
    hours = home.policy(capabilities()).updates.min_age_hours
    return _Offers(home, [p.id for p in listed], offline=offline), hours


@contextlib.contextmanager
def _reading(home: Home) -> Iterator[Registry]:
    """The registry, to look at."""
    from capwasm.events import NullRecorder

    from ._plugin import capabilities

    known = capabilities()
    policy, trust = home.policy(known), home.trust()
    with home.registry(NullRecorder(), trust=trust, policy=policy, capabilities=known) as registry:
        yield registry


def _wanted(
    row: Row, plugin: Listed, offers: _Offers, hours: int, *, everything: bool
) -> tuple[bytes, Release] | None:
    """The capsule to take, or None; the row says why."""
    from capwasm.errors import CapwasmError

    offered = offers.found[plugin.id]
    if isinstance(offered, CapwasmError):
        if everything and offered.code == "repository.unknown":
            row.result = "no repository"
            return None
        raise offered
    release = best(offered, plugin.highest, hours, datetime.now(UTC))
    if release is None:
        return None
    row.version = release.version
    if plugin.pinned not in (None, release.version):
        row.result = f"pinned to {plugin.pinned}"
        return None
    return offers.capsule(release), release


def _weigh(row: Row, home: Home, data: bytes, release: Release) -> None:
    with _reading(home) as registry:
        decision = registry.weigh(registry.examine(data, published=release.published))
    words = {"accept": "would be updated", "pending": "would wait", "refuse": "would be refused"}
    row.result, row.reasons = words[decision.verdict], decision.reasons
    row.code = decision.code or None


def _take(
    row: Row, registry: Registry, data: bytes, release: Release, who: str | None, why: str
) -> Outcome:
    outcome = registry.install(
        data,
        who=user(who),
        why=why,
        source_name=release.source,
        published=release.published,
    )
    waits = outcome.action == "unchanged" and outcome.plugin.waiting == outcome.version
    row.result = "pending" if waits else outcome.action
    row.reasons = outcome.reasons
    return outcome


def _bundle(outcome: Outcome) -> str:
    record = outcome.plugin.version(outcome.version)
    assert record is not None
    return record.bundle


def _fail(row: Row, exc: CapwasmError) -> None:
    refused = exc.code.startswith(("verify.", "registry.", "manifest."))
    row.result, row.code = "refused" if refused else "failed", exc.code
    row.reasons = (exc.message, *(str(f).replace("\n", " ") for f in exc.faults))


def _say(rows: Sequence[Row], *, as_json: bool) -> None:
    if as_json:
        say_json([asdict(r) | {"reasons": list(r.reasons)} for r in rows], indent=2)
        return
    if not rows:
        click.echo("nothing is installed")
        return
    cells = [(r.plugin, r.before or "-", r.version or "-", r.result) for r in rows]
    table(("plugin", "serves", "offered", "what became of it"), cells, colours={3: COLOURS})
    for row in rows:
        if row.reasons:
            code = f" [{row.code}]" if row.code else ""
            click.echo(f"\n{row.plugin} {row.version or ''}{code}")
            for reason in row.reasons:
                click.echo(f"  {shown(reason)}")
    if any(r.result == "pending" for r in rows):
        click.echo("\nSee what waits:\n\ncapwasm pending")


@click.command(
    epilog=epilog(
        "capwasm outdated",
        "capwasm outdated --offline --json",
        codes="0 each repository answered, 1 one can't be asked or believed, 2 wrong usage",
    )
)
@click.option("--offline", is_flag=True, help="Ask no server; only what is cached.")
@home_option
@json_option
def outdated(offline: bool, home_path: Path, as_json: bool) -> None:
    """List what the repositories have newer versions of."""
    from capwasm.errors import CapwasmError
    from capwasm.home import Home

    home = Home(home_path)
    listed = _installed(home_path, (), everything=True)
    offers, hours = _offers(home, listed, offline=offline)
    _say_progress("")
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    alone = []
    for plugin in listed:
        offered = offers.found[plugin.id]
        if isinstance(offered, CapwasmError):
            if offered.code == "repository.unknown":
                alone.append(plugin.id)
            else:
                failed[plugin.id] = f"[{offered.code}] {offered.message}"
            continue
        release = best(offered, plugin.highest, hours, now)
        if release is not None:
            rows.append(_outdated(plugin, release, hours, now))
    if as_json:
        say_json({"outdated": rows, "failed": failed, "no-repository": alone}, indent=2)
    else:
        cells = [
            (r["plugin"], r["serving"] or "-", r["offered"], (r["published"] or "-")[:10],
             r["source"], r["note"])
            for r in rows
        ]  # fmt: skip
        table(("plugin", "serves", "offered", "published", "from", ""), cells)
        if not rows and not failed:
            click.echo("nothing newer is offered")
        if alone:
            click.echo(f"no repository speaks for: {', '.join(alone)}")
        for plugin_id, text in failed.items():
            click.echo(f"{plugin_id}: {shown(text)}", err=True)
    raise click.exceptions.Exit(1 if failed else 0)


def _outdated(plugin: Listed, release: Release, hours: int, now: datetime) -> dict[str, Any]:
    notes = []
    if plugin.pinned is not None:
        notes.append(f"pinned to {plugin.pinned}")
    if plugin.waiting == release.version:
        notes.append("waits for a person")
    born = release.published
    if hours and (born is None or born + timedelta(hours=hours) > now):
        notes.append(f"younger than {hours} hours")
    return {
        "plugin": plugin.id,
        "serving": plugin.serving,
        "offered": release.version,
        "published": None if born is None else born.isoformat(),
        "source": release.source,
        "note": ", ".join(notes),
    }


# -- what waits ----------------------------------------------------------------------------------------


@click.command(
    epilog=epilog(
        "capwasm pending",
        "capwasm pending --json",
        codes="0 done, 1 it can't be read or believed, 2 wrong usage",
    )
)
@home_option
@json_option
def pending(home_path: Path, as_json: bool) -> None:
    """List the versions that wait for a person, and why."""
    from capwasm.registry.books import Books

    with contextlib.closing(Books(home_path)) as books:
        plugins = [books.show(p.id) for p in books.list() if p.waiting]
    found = [(p, record) for p in plugins if (record := p.version(p.waiting or "")) is not None]
    if as_json:
        say_json(
            [
                {
                    "plugin": plugin.id,
                    "version": record.version,
                    "serving": plugin.serving,
                    "source": record.source,
                    "reasons": list(record.pending),
                    "since": mark(record.installed),
                }
                for plugin, record in found
            ],
            indent=2,
        )
        return
    if not found:
        click.echo("nothing waits")
    for number, (plugin, record) in enumerate(found):
        serves = f"{plugin.serving} serves on" if plugin.serving else "nothing serves"
        gap = "\n" if number else ""
        click.echo(gap + click.style(f"{plugin.id} {record.version}", bold=True) + f"  ({serves})")
        click.echo(f"  since {record.installed.when}, by {shown(record.installed.who)}")
        for reason in record.pending:
            click.echo(f"  {shown(reason)}")
        first = ("review",) if record.state == "submitted" else ()
        for command in (*first, "diff", "activate", "reject"):
            click.echo(f"    capwasm {command} {plugin.id}")


@click.command(
    epilog=epilog("capwasm pin acme.weather", 'capwasm pin acme.weather@1.2.0 --reason "ticket 9"')
)
@click.argument("plugin", metavar="ID[@VERSION]")
@change_options
def pin(plugin: str, who: str | None, why: str, home_path: Path, as_json: bool) -> None:
    """Have a plugin take no other version: the one that serves, if none is named."""
    from capwasm.errors import RegistryError

    plugin_id, at, version = plugin.partition("@")
    try:
        with opened(home_path) as registry:
            chosen = version if at else registry.show(plugin_id).serving
            if chosen is None:
                raise RegistryError(
                    "no version of it serves", code="registry.unknown", context=plugin_id
                )
            outcome = registry.pin(plugin_id, chosen, who=user(who), why=why)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    say_outcome(outcome, as_json=as_json)


@click.command(epilog=epilog("capwasm unpin acme.weather"))
@click.argument("plugin_id", metavar="ID")
@change_options
def unpin(plugin_id: str, who: str | None, why: str, home_path: Path, as_json: bool) -> None:
    """Have a plugin take new versions again."""
    with opened(home_path) as registry:
        outcome = registry.pin(plugin_id, None, who=user(who), why=why)
    say_outcome(outcome, as_json=as_json)


commands: list[click.Command] = [update, outdated, pending, pin, unpin]
