"""`capwasm cache`: what is kept of compiled code, and making room."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capwasm.errors import ArtifactError
from capwasm.home import Home

from ._output import epilog, home_option, json_option, say_json, shown

if TYPE_CHECKING:
    from capwasm.engine.cache import Entry

__all__ = ["commands"]


def _size(_ctx: click.Context, _parameter: click.Parameter, value: str) -> int:
    from capwasm.caps._tables import read_size

    try:
        return int(str(read_size(value)))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.group(
    epilog=epilog("capwasm cache list", "capwasm cache prune --to 500MiB", "capwasm cache clear")
)
def cache() -> None:
    """See and prune the compiled code that the runtime keeps.

    Everything here can be made anew: what is removed is compiled again when its plugin is loaded
    next.  A runtime that is running keeps what it has loaded.
    """


@cache.command(
    "list",
    epilog=epilog("capwasm cache list", "capwasm cache list --json | jq .bytes"),
)
@home_option
@json_option
def list_(home_path: Path, as_json: bool) -> None:
    """List the entries, least recently used first."""
    from capwasm.engine.cache import entries

    place = Home(home_path).cache
    found = _tried(place, lambda: entries(place))
    total = sum(entry.size for entry in found)
    if as_json:
        say_json({"entries": [_data(e) for e in found], "bytes": total}, indent=2)
        return
    for entry in found:
        used = datetime.fromtimestamp(entry.used, UTC).strftime("%Y-%m-%d %H:%M")
        click.echo(f"{used}  {entry.size / 1e6:9.2f} MB  {shown(entry.name)}")
    click.echo(f"{len(found)} entries, {total / 1e6:.2f} MB, in {shown(place)}")


@cache.command(epilog=epilog("capwasm cache prune --to 500MiB"))
@click.option("--to", "size", callback=_size, required=True, help="Bytes that may stay, or 500MiB.")
@home_option
@json_option
def prune(size: int, home_path: Path, as_json: bool) -> None:
    """Remove entries, the least recently used first, until the rest fits."""
    _remove(home_path, size, as_json=as_json)


@cache.command(epilog=epilog("capwasm cache clear"))
@home_option
@json_option
def clear(home_path: Path, as_json: bool) -> None:
    """Remove every entry; the machine key stays."""
    _remove(home_path, 0, as_json=as_json)


def _remove(home_path: Path, size: int, *, as_json: bool) -> None:
    from capwasm.engine.cache import prune

    place = Home(home_path).cache
    gone = _tried(place, lambda: prune(place, size))
    total = sum(entry.size for entry in gone)
    if as_json:
        say_json({"removed": [_data(e) for e in gone], "bytes": total}, indent=2)
    else:
        click.echo(f"removed {len(gone)} entries, {total / 1e6:.2f} MB")


def _tried(place: Path, work: Any) -> list[Entry]:
    try:
        found: list[Entry] = work()
    except FileNotFoundError:
        return []  # nothing was compiled yet
    except OSError as exc:
        raise ArtifactError(
            f"the cache can't be used: {exc.strerror}", context=ascii(str(place))[1:-1]
        ) from None
    return found


def _data(entry: Entry) -> dict[str, Any]:
    used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
    return {"name": entry.name, "size": entry.size, "used": used}


commands = [cache]
