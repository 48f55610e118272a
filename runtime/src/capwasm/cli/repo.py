"""`capwasm repo`: the repositories that plugins come from, and (`_repo_owner`) how one is made."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capwasm.errors import CapwasmError, RepositoryError

from . import _repo_owner
from ._output import epilog, home_option, json_option, say_json, shown, table
from ._source import BriefRecorder

if TYPE_CHECKING:
    from capwasm.repository.client import Repository, Standing

__all__ = ["commands"]

_FILE = click.Path(path_type=Path, dir_okay=False)
_COLOURS = {"good": "green", "from the cache": "yellow", "never heard": "yellow"}


@click.group(
    epilog=epilog(
        "capwasm repo trust main https://plugins.example/ --root root.json --ids 'acme.*'",
        "capwasm repo init plugins/",
    )
)
def repo() -> None:
    """Use plugin repositories (trust, list, sync, releases), or make one (all the others)."""


@repo.command(
    epilog=epilog(
        "capwasm repo trust main https://plugins.example/ --root root.json --ids 'acme.*'",
    )
)
@click.argument("name")
@click.argument("url")
@click.option("--root", required=True, type=_FILE, help="Its root.json, as its owner gave it you.")
@click.option(
    "--ids", multiple=True, required=True, help="Plugins for which it may speak; may be repeated."
)
@click.option("--plain-http", is_flag=True, help="Allow http:// to another machine.")
@click.option("--ca-file", type=_FILE, help="The only authorities to trust for its TLS.")
@home_option
@json_option
def trust(
    name: str,
    url: str,
    root: Path,
    ids: tuple[str, ...],
    plain_http: bool,
    ca_file: Path | None,
    home_path: Path,
    as_json: bool,
) -> None:
    """Take plugins from a repository: that at URL, to be called NAME.

    All trust in it begins with its root.json: get that another way than from URL.
    """
    from capwasm._files import write_file
    from capwasm._model import validate
    from capwasm.events import ALLOWED, Event
    from capwasm.home import Home, make_private
    from capwasm.repository import config

    home = Home(home_path)
    words: dict[str, Any] = {"name": name, "url": url, "root": f"roots/{name}.json", "ids": ids}
    if plain_http:
        words["plain-http"] = True
    if ca_file is not None:
        words["ca-file"] = str(ca_file.absolute())
    settings = validate(config.RepositorySettings, words, RepositoryError, code="repository.config")
    data = config.read_root(root)
    version, keys = config.check_root(data)
    config.check_addition(home.repositories_file, settings)
    with home.commands_recorder() as recorder:
        recorder.record(
            Event(
                "repository",
                ALLOWED,
                action="trust",
                target=name,
                details={"url": url, "ids": ",".join(ids), "root-keys": ",".join(keys)},
            )
        )
        make_private(home.repository_roots)
        write_file(
            home.root / settings.root, data, RepositoryError, code="repository.root", mode=0o600
        )
        config.append(home.repositories_file, settings)
    if as_json:
        say_json({"name": name, "url": url, "root-version": version, "root-keys": keys}, indent=2)
        return
    click.echo(f"{name}: plugins {', '.join(ids)} come from {shown(url)}")
    click.echo(f"All trust in it begins with these keys of root version {version}:")
    for key in keys:
        click.echo(f"  {shown(key)}")
    click.echo(f"\nSee whether it answers:\n\ncapwasm repo sync {name}")


@repo.command("list", epilog=epilog("capwasm repo list", "capwasm repo list --json"))
@home_option
@json_option
def list_(home_path: Path, as_json: bool) -> None:
    """List the repositories, and how each last stood.  Nothing is asked."""
    _tell(home_path, None, offline=True, as_json=as_json)


@repo.command(epilog=epilog("capwasm repo sync", "capwasm repo sync main --json"))
@click.argument("name", required=False)
@home_option
@json_option
def sync(name: str | None, home_path: Path, as_json: bool) -> None:
    """Ask the repositories (or just NAME) what is new."""
    worst = _tell(home_path, name, offline=False, as_json=as_json)
    if worst is not None:
        raise click.exceptions.Exit(1)


@repo.command(epilog=epilog("capwasm repo releases acme.weather"))
@click.argument("plugin_id", metavar="ID")
@click.option("--offline", is_flag=True, help="Only from the cache.")
@home_option
@json_option
def releases(plugin_id: str, offline: bool, home_path: Path, as_json: bool) -> None:
    """List the versions of a plugin that are offered, oldest first."""
    from capwasm.home import Home

    home = Home(home_path)
    repository = home.sources(BriefRecorder(home), offline=offline).of(plugin_id)
    found = repository.releases(plugin_id)
    if as_json:
        data = [
            {
                "id": r.id,
                "version": r.version,
                "published": _iso(r.published),
                "size": r.size,
                "sha256": r.digest,
            }
            for r in found
        ]
        say_json({"repository": repository.name, "releases": data}, indent=2)
        return
    if not found:
        click.echo(f"{repository.name} offers nothing of {shown(plugin_id)}")
        return
    rows = [(r.version, _day(r.published), f"{r.size:,}", r.digest[:16]) for r in found]
    table(("version", "published", "bytes", "sha256"), rows)


for _command in _repo_owner.commands:
    repo.add_command(_command)

commands: list[click.Command] = [repo]


# -- how they stand --------------------------------------------------------------------------------


def _tell(
    home_path: Path, name: str | None, *, offline: bool, as_json: bool
) -> RepositoryError | None:
    """Look at the repositories, say how they stand, and give the first that is refused."""
    from capwasm.home import Home

    home = Home(home_path)
    sources = home.sources(BriefRecorder(home), offline=offline)
    chosen = [r for r in sources.repositories if name in (None, r.name)]
    if name is not None and not chosen:
        raise RepositoryError(
            f"there is no repository {name!a}", code="repository.unknown", context=str(home.root)
        )
    found: list[tuple[Repository, Standing | RepositoryError]] = []
    for repository in chosen:
        try:
            found.append((repository, repository.refresh()))
        except RepositoryError as exc:
            found.append((repository, exc))
    if as_json:
        say_json([_described(r, how) for r, how in found], indent=2)
    elif not found:
        click.echo("no repository is trusted; see capwasm repo trust --help")
    else:
        rows = [_row(r, how, offline=offline) for r, how in found]
        table(("name", "url", "ids", "heard", "expires", "state"), rows, colours={5: _COLOURS})
    errors = [how for _, how in found if isinstance(how, RepositoryError)]
    for error in errors:
        if not as_json and not (offline and error.code == "repository.unreachable"):
            _say_error(error)
    return errors[0] if errors else None


def _say_error(error: CapwasmError) -> None:
    from ._door import tell

    click.echo("", err=True)
    tell(error, as_json=False)


def _row(
    repository: Repository, how: Standing | RepositoryError, *, offline: bool
) -> tuple[str, ...]:
    ids = ", ".join(repository.ids)
    if isinstance(how, RepositoryError):
        never = offline and how.code == "repository.unreachable"
        return (
            repository.name,
            repository.url,
            ids,
            "-",
            "-",
            "never heard" if never else how.code,
        )
    state = "from the cache" if how.offline and not offline else "good"
    return (repository.name, repository.url, ids, _day(how.refreshed), _day(how.expires), state)


def _described(repository: Repository, how: Standing | RepositoryError) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": repository.name,
        "url": repository.url,
        "ids": list(repository.ids),
    }
    if isinstance(how, RepositoryError):
        return {**data, **how.to_dict()}
    return {
        **data,
        "heard": _iso(how.refreshed),
        "expires": _iso(how.expires),
        "offline": how.offline,
        "versions": how.versions,
    }


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat().replace("+00:00", "Z")


def _day(when: datetime | None) -> str:
    return "-" if when is None else when.strftime("%Y-%m-%d %H:%M")
