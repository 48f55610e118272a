"""`capwasm repo init | add | withdraw | publish | refresh | rotate | keys`: the release side."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ._output import epilog, home_option, json_option, say_json, shown, table

if TYPE_CHECKING:
    from capwasm.capsule.trust import TrustStore
    from capwasm.repository.publish import Publisher, Summary
    from capwasm.repository.signers import KeyPlace

__all__ = ["commands"]

ROLES: Final = ("root", "targets", "snapshot", "timestamp")
_FILE = click.Path(path_type=Path, dir_okay=False)
_ROLE = click.Choice(ROLES)


@dataclass(frozen=True, slots=True)
class _Desk:
    """The directory that a command works on, and how keys are opened and answers given."""

    directory: Path
    passphrase_file: Path | None
    as_json: bool

    @property
    def publisher(self) -> Publisher:
        from capwasm.repository.publish import Publisher

        return Publisher(self.directory, self.passphrase)

    def passphrase(self, name: str) -> bytes:
        from .capsule import read_passphrase

        given = read_passphrase(self.passphrase_file)
        if given is not None:
            return given
        answer: str = click.prompt(f"Passphrase of {shown(name)}", hide_input=True, err=True)
        return answer.encode()

    def place(self, key_file: Path) -> KeyPlace:
        """Where a private key is, by its file."""
        from capwasm.capsule.keys import PrivateKey
        from capwasm.repository.signers import KeyPlace

        key = PrivateKey.load(key_file, lambda: self.passphrase(str(key_file)))
        where = key_file.absolute()
        if where.is_relative_to(self.directory.absolute()):
            where = where.relative_to(self.directory.absolute())
        return KeyPlace(key.public, f"file:{where}")

    def say(self, summary: Summary, text: str) -> None:
        if self.as_json:
            data = {
                "versions": summary.versions,
                "expires": {r: e.isoformat() for r, e in summary.expires.items()},
                "added": summary.added,
                "withdrawn": summary.withdrawn,
            }
            say_json(data, indent=2)
            return
        for word, names in (("added", summary.added), ("withdrawn", summary.withdrawn)):
            for name in names:
                click.echo(f"{word}: {shown(name)}")
        roles = ", ".join(f"{role} {summary.versions[role]}" for role in ROLES)
        first = min(summary.expires, key=lambda role: summary.expires[role])
        click.echo(f"{text}: {roles}")
        click.echo(f"the {first} expires first, {summary.expires[first]:%Y-%m-%d %H:%M} UTC")


def _command(name: str, *examples: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes a `_Desk` first."""

    def make(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def run(directory: Path, passphrase_file: Path | None, as_json: bool, **words: Any) -> None:
            function(_Desk(directory, passphrase_file, as_json), **words)

        run = json_option(run)
        run = click.option(
            "--passphrase-file", type=_FILE, help="Opens encrypted keys; asked for if none."
        )(run)
        run = click.argument(
            "directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False)
        )(run)
        return click.command(name, epilog=epilog(*examples))(run)

    return make


def _signer_option(name: str, text: str, *, role: bool) -> Callable[[Any], Any]:
    kinds: list[Any] = [str, _FILE]
    return click.option(
        name, type=(_ROLE, *kinds) if role else tuple(kinds), multiple=True, help=text
    )


def _trust_options(function: Callable[..., None]) -> Callable[..., None]:
    return home_option(
        click.option("--trust", type=click.Path(path_type=Path), help="If not that of --home.")(
            function
        )
    )


def _store(trust: Path | None, home_path: Path) -> TrustStore:
    from capwasm.capsule.trust import TrustStore
    from capwasm.home import Home

    return Home(home_path).trust() if trust is None else TrustStore.load(trust)


def _remote(uri: str, public: Path) -> KeyPlace:
    from capwasm.capsule.keys import PublicKey
    from capwasm.repository.signers import KeyPlace

    return KeyPlace(PublicKey.load(public), uri)


@_command(
    "init",
    "capwasm repo init plugins/",
    "capwasm repo init plugins/ --key root a.key --key root b.key --threshold root 2",
)
@click.option("--key", type=(_ROLE, _FILE), multiple=True, help="Who signs a role: a private key.")
@_signer_option("--signer", "Who signs a role: a token or service, and its public key.", role=True)
@click.option(
    "--threshold",
    type=(_ROLE, click.IntRange(1, 64)),
    multiple=True,
    help="How many must; 1 if none.",
)
@click.option(
    "--days", type=(_ROLE, click.IntRange(1, 3650)), multiple=True, help="For how long it is good."
)
def init(
    desk: _Desk,
    key: tuple[tuple[str, Path], ...],
    signer: tuple[tuple[str, str, Path], ...],
    threshold: tuple[tuple[str, int], ...],
    days: tuple[tuple[str, int], ...],
) -> None:
    """Begin a repository in DIR.

    A role for which no key is named gets a new one, in DIR/keys/.
    """
    from capwasm.home import make_private
    from capwasm.repository.signers import Days

    keys: dict[str, list[KeyPlace]] = {role: [] for role in ROLES}
    for role, file in key:
        keys[role].append(desk.place(file))
    for role, uri, public in signer:
        keys[role].append(_remote(uri, public))
    desk.publisher.check_new()
    made = [role for role in ROLES if not keys[role]]
    for role in made:
        make_private(desk.directory / "keys")
        keys[role].append(desk.place(_new_key(desk.directory / "keys" / f"{role}.key")))
    summary = desk.publisher.init(keys, dict(threshold), Days(**dict(days)))
    desk.say(summary, "made")
    if desk.as_json:
        return
    if "root" in made:
        click.echo(
            f"\n{shown(desk.directory / 'keys/root.key')} can change everything here, also what"
            "\nconsumers trust.  Keep it offline, and bring it back to rotate keys."
        )
    click.echo(
        f"\nServe {shown(desk.directory / 'public')} over https.  Give consumers"
        f" {shown(desk.directory / 'root.json')}\nby another way; they run:\n"
        f"\ncapwasm repo trust NAME URL --root root.json --ids 'acme.*'"
    )


def _new_key(path: Path) -> Path:
    from capwasm.capsule.keys import PrivateKey

    if not path.exists():  # else it is of an `init` that did not end
        PrivateKey.generate().save(path)
    return path


@_command("add", "capwasm repo add plugins/ acme.weather-1.2.0.capsule")
@click.argument("capsules", nargs=-1, required=True, type=_FILE, metavar="CAPSULE...")
@_trust_options
def add(desk: _Desk, capsules: tuple[Path, ...], trust: Path | None, home_path: Path) -> None:
    """Verify each CAPSULE, and stage it for the next publish."""
    store = _store(trust, home_path)
    names = [desk.publisher.add(capsule, store) for capsule in capsules]
    if desk.as_json:
        say_json({"staged": names})
        return
    for name in names:
        click.echo(f"staged: {shown(name)}")
    click.echo(f"\nTo offer it:\n\ncapwasm repo publish {shown(desk.directory)}")


@_command("withdraw", "capwasm repo withdraw plugins/ acme.weather@1.2.0")
@click.argument("release", metavar="ID@VERSION")
def withdraw(desk: _Desk, release: str) -> None:
    """Stage that a version is offered no more.

    It is no revocation: who has it, keeps it.
    """
    plugin_id, at, version = release.partition("@")
    if not at:
        raise click.UsageError("write ID@VERSION, such as acme.weather@1.2.0")
    desk.publisher.withdraw(plugin_id, version)
    if desk.as_json:
        say_json({"staged": [release]})
        return
    click.echo(f"staged: {shown(release)} goes\n\ncapwasm repo publish {shown(desk.directory)}")


@_command("publish", "capwasm repo publish plugins/")
@_trust_options
def publish(desk: _Desk, trust: Path | None, home_path: Path) -> None:
    """Verify all that is staged once more, and offer it."""
    desk.say(desk.publisher.publish(_store(trust, home_path)), "published")


@_command("refresh", "capwasm repo refresh plugins/")
def refresh(desk: _Desk) -> None:
    """Sign a new timestamp: for a timer, each hour or day.

    What else is past half of its time is signed anew as well, as far as its keys are here.
    """
    desk.say(desk.publisher.refresh(), "refreshed")


@_command(
    "rotate",
    "capwasm repo rotate plugins/ timestamp --add new.key --remove 3fe0c1d2",
    "capwasm repo rotate plugins/ root",
)
@click.argument("role", type=_ROLE)
@click.option("--add", "files", type=_FILE, multiple=True, help="A private key that signs too.")
@_signer_option(
    "--add-signer", "A token or service that signs too, and its public key.", role=False
)
@click.option("--remove", multiple=True, help="The id of a key that signs no more, or its start.")
@click.option(
    "--threshold", type=click.IntRange(1, 64), help="How many must sign; as before if none."
)
def rotate(
    desk: _Desk,
    role: str,
    files: tuple[Path, ...],
    add_signer: tuple[tuple[str, Path], ...],
    remove: tuple[str, ...],
    threshold: int | None,
) -> None:
    """Change who signs ROLE, by a new root.

    With no change named, the root itself is renewed, which must be done before it expires.
    """
    places = [*map(desk.place, files), *(_remote(uri, public) for uri, public in add_signer)]
    summary = desk.publisher.rotate(role, add=places, remove=remove, threshold=threshold)
    desk.say(summary, "rotated")


@_command("keys", "capwasm repo keys plugins/")
def keys(desk: _Desk) -> None:
    """Show who signs what, until when it is good, and which keys are here."""
    status = desk.publisher.status()
    if desk.as_json:
        data = [
            {
                "role": s.role,
                "version": s.version,
                "expires": s.expires.isoformat(),
                "threshold": s.threshold,
                "keys": [
                    {"key-id": k.key_id, "algorithm": k.algorithm, "place": k.place} for k in s.keys
                ],
            }
            for s in status
        ]
        say_json(data, indent=2)
        return
    rows = [
        (
            s.role if i == 0 else "",
            str(s.version) if i == 0 else "",
            f"{s.expires:%Y-%m-%d %H:%M}" if i == 0 else "",
            f"{s.threshold} of {len(s.keys)}" if i == 0 else "",
            k.key_id[:16],
            k.algorithm,
            k.place or "not here",
        )
        for s in status
        for i, k in enumerate(s.keys)
    ]
    table(("role", "version", "expires", "need", "key", "algorithm", "private half"), rows)


commands: list[click.Command] = [init, add, withdraw, publish, refresh, rotate, keys]
