"""`capwasm osv`: the mirror of the OSV database that scans look advisories up in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from capwasm.home import Home, make_private

from ._output import epilog, home_option, json_option, say_json, shown

__all__ = ["commands"]

DIRECTORY: Final = "osv"


@click.group(epilog=epilog("capwasm osv import PyPI/all.zip npm/all.zip", "capwasm osv show"))
def osv() -> None:
    """Keep the mirror of the OSV database.

    Nothing is downloaded: the zips are those of the database's public bucket, one an ecosystem, and come
    here as the operator brings files to this machine.
    """


@osv.command(
    "import", epilog=epilog("capwasm osv import PyPI/all.zip npm/all.zip crates.io/all.zip")
)
@home_option
@json_option
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
def import_(home_path: Path, as_json: bool, sources: tuple[Path, ...]) -> None:
    """Make the home's index of SOURCES: zips, or directories of them.

    It holds these and no others afterwards; if one can't be read, it stays as it was.
    """
    from capwasm.scan.mirror import INDEX, Index

    home = Home(home_path)
    make_private(home.root)
    place = home.root / DIRECTORY
    make_private(place)
    index = Index(place / INDEX)
    count = index.fill(sources)
    if as_json:
        say_json({"rows": count, "odd": index.odd, "ecosystems": _dates(index.newest)}, indent=2)
        return
    _list(index.newest)
    click.echo(f"{count} advisories, in {shown(place / INDEX)}")
    if index.odd:
        click.echo(f"{index.odd} records can't be read, and are left out", err=True)
    if home.policy_file.exists() and b"[scan]" in home.policy_file.read_bytes():
        return
    click.echo(f'Scans use it with this in policy.toml:\n\n[scan]\nosv = "{DIRECTORY}"')


@osv.command(epilog=epilog("capwasm osv show", "capwasm osv show --json | jq .ecosystems"))
@home_option
@json_option
def show(home_path: Path, as_json: bool) -> None:
    """Show what the home's index holds, and how old it is."""
    from capwasm.scan.mirror import INDEX, open_mirror

    place = Home(home_path).root / DIRECTORY
    mirror = open_mirror(place / INDEX if not place.exists() else place)
    mirror.find(())
    if as_json:
        say_json({"ecosystems": _dates(mirror.newest)}, indent=2)
    else:
        _list(mirror.newest)


def _dates(newest: Mapping[str, datetime]) -> dict[str, str]:
    return {name: when.isoformat() for name, when in sorted(newest.items())}


def _list(newest: Mapping[str, datetime]) -> None:
    for name, when in sorted(newest.items()):
        click.echo(f"{shown(name):20} newest record {when:%Y-%m-%d}")


commands: list[click.Command] = [osv]
