"""`capwasm serve`: the admin page, for reviewers and operators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ._output import epilog, home_option, json_option, say_json

if TYPE_CHECKING:
    from capwasm.admin.server import Place

__all__ = ["commands"]

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.command(
    epilog=epilog(
        "capwasm serve",
        "capwasm serve --key ann.key --port 8790",
        "capwasm serve --key ann.key --token-file page.url",
        "capwasm serve --host 10.0.0.5 --expose --name admin.example --tls-cert c.pem --tls-key k.pem",
        codes="0 it was stopped, 1 it can't be served so, 2 wrong usage",
    )
)
@click.option(
    "--key",
    "key_file",
    type=_FILE,
    help="NAME.key of a reviewer: what is approved or rejected by the page is signed with it.",
)
@click.option("--passphrase-file", type=_FILE, help="Of the key; asked for if none.")
@click.option("--port", type=click.IntRange(0, 65535), default=8790, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="The IP address to listen at.")
@click.option(
    "--expose",
    is_flag=True,
    help="Other machines are meant to reach it: whoever has the token there acts as you.  Needs TLS.",
)
@click.option("--name", "names", multiple=True, help="By which browsers call it.  Repeatable.")
@click.option("--tls-cert", type=_FILE, help="Its certificate, in PEM.")
@click.option("--tls-key", type=_FILE, help="The key of that, in PEM.")
@click.option(
    "--token-file",
    type=_FILE,
    help="Write the address with the token there (0600) in place of showing it.",
)
@home_option
@json_option
def serve(
    key_file: Path | None,
    passphrase_file: Path | None,
    port: int,
    host: str,
    expose: bool,
    names: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
    home_path: Path,
    as_json: bool,
) -> None:
    """Serve the admin page: reviews, plugins, the audit, the policy.

    On this machine alone, unless told otherwise.  It shows an address with a token that is new each
    time; who opens it acts under your name until the page is stopped (Ctrl-C).
    """
    from capwasm import admin

    admin.require_extra()
    from capwasm.admin.server import serve as run
    from capwasm.admin.server import settle, write_token
    from capwasm.capsule.keys import PrivateKey

    from .capsule import ask_passphrase, read_passphrase

    key = None
    if key_file is not None:
        passphrase = read_passphrase(passphrase_file)
        key = PrivateKey.load(key_file, ask_passphrase if passphrase is None else passphrase)
    place = settle(host, port, expose=expose, names=names, certificate=tls_cert, key=tls_key)
    token = admin.new_token()
    page = admin.app(home_path, token=token, hosts=place.hosts, key=key, secure=place.secure)
    address = f"{place.url}login#{token}"
    if token_file is not None:
        write_token(token_file, address + "\n")
    run(
        page,
        place,
        ready=lambda: _say(place, address, page.office.me, token_file, as_json=as_json),
    )


def _say(place: Place, address: str, me: object, token_file: Path | None, *, as_json: bool) -> None:
    from capwasm.admin.office import Identity

    assert isinstance(me, Identity)
    if as_json:
        about = {"url": place.url, "name": me.name, "key-id": me.key_id or None}
        say_json(about | ({"login": address} if token_file is None else {}))
        return
    signs = (
        f"signs as {me.name}"
        if me.key_id and not me.remark
        else f"acts as {me.name}, signs nothing"
    )
    click.echo(f"The admin page is at {place.url} and {signs}.")
    if me.remark:
        click.echo(f"warning: the key does not count: {me.remark}", err=True)
    if token_file is None:
        click.echo(f"\nOpen it with its token, which is good until this ends:\n\n{address}\n")
        if place.other:
            token = address.partition("#")[2]
            click.echo(f"If your browser can't: {place.other}login#{token}\n")
    click.echo("Ctrl-C stops it.")


commands: list[click.Command] = [serve]
