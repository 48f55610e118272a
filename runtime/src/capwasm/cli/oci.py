"""`capwasm push | pull`: capsules to and from OCI registries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._output import epilog, home_option, json_option, say_json, shown
from ._progress import BytesLine
from ._source import BriefRecorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from capwasm.oci.registries import Registries
    from capwasm.oci.settings import Credentials

__all__ = ["commands"]

_FILE = click.Path(path_type=Path, dir_okay=False)


def _login_options(function: Callable[..., None]) -> Callable[..., None]:
    options = [
        click.option(
            "--credentials",
            "credentials_file",
            type=_FILE,
            help="File in the form of docker's config.json, in place of that of registries.toml.",
        ),
        click.option("--user", help="Log in by this name; the password is asked for."),
        home_option,
        json_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command(
    epilog=epilog(
        "capwasm push acme.weather-1.2.0.capsule oci://ghcr.example/acme/weather:1.2.0",
        "capwasm push acme.weather-1.2.0.capsule oci://localhost:5000/weather:1.2.0 --user bot",
    )
)
@click.argument("capsule", type=_FILE)
@click.argument("reference", metavar="REF")
@click.option("--move", is_flag=True, help="Take the tag from what it names now.")
@_login_options
def push(
    capsule: Path,
    reference: str,
    move: bool,
    credentials_file: Path | None,
    user: str | None,
    home_path: Path,
    as_json: bool,
) -> None:
    """Push a signed capsule to an OCI registry: REF is oci://HOST[:PORT]/NAME:TAG.

    It becomes a component that other tools can pull as well, with the capsule and its attestation
    attached.  Pushed again, nothing is sent.
    """
    from capwasm.capsule.artifact import read_artifact
    from capwasm.oci.reference import Reference

    where = Reference.parse(reference)
    data = read_artifact(capsule).data
    sent = _registries(home_path, credentials_file, user).push(data, where, move=move)
    if as_json:
        say_json(
            {
                "reference": str(sent.reference),
                "digest": sent.reference.digest,
                "before": sent.before,
                "uploaded": sent.uploaded,
                "referrers": list(sent.referrers),
            },
            indent=2,
        )
        return
    click.echo(f"pushed: {sent.reference}")
    if sent.before == sent.reference.digest:
        click.echo("  it was there already")
    elif sent.before is not None:
        click.echo(f"  the tag named before: {sent.before}")


@click.command(
    epilog=epilog(
        "capwasm pull oci://ghcr.example/acme/weather:1.2.0",
        "capwasm pull oci://ghcr.example/acme/weather@sha256:... -o weather.capsule",
    )
)
@click.argument("reference", metavar="REF")
@click.option("-o", "--output", type=_FILE, help="The file; by default named by id and version.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@_login_options
def pull(
    reference: str,
    output: Path | None,
    force: bool,
    credentials_file: Path | None,
    user: str | None,
    home_path: Path,
    as_json: bool,
) -> None:
    """Pull a capsule from an OCI registry: REF is oci://HOST[:PORT]/NAME[:TAG][@sha256:...].

    If the home directory says whom to trust, the capsule is verified before it is written.
    """
    from capwasm._files import write_file
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.verify import verify
    from capwasm.errors import ArtifactError
    from capwasm.home import Home
    from capwasm.oci.reference import Reference

    where = Reference.parse(reference)
    trust = Home(home_path).trust()
    pulled = _registries(home_path, credentials_file, user).pull(where)
    artifact = read_artifact(pulled.capsule)
    signers = [s.name for s in verify(artifact, trust).signers] if trust.keys else []
    path = output or Path(pulled.identity.file_name)
    write_file(path, pulled.capsule, ArtifactError, code="artifact.unreadable", overwrite=force)
    if as_json:
        say_json(
            {
                "reference": str(pulled.reference),
                "digest": pulled.reference.digest,
                "plugin": pulled.identity.id,
                "version": pulled.identity.version,
                "file": str(path),
                "sha256": artifact.sha256,
                "verified": bool(signers),
                "signers": signers,
            },
            indent=2,
        )
        return
    click.echo(f"pulled: {shown(path)} from {pulled.reference}")
    if signers:
        click.echo(f"  signed by {', '.join(map(shown, signers))}")
    else:
        click.echo("  not verified: the home directory says of nobody that he is trusted")


def _registries(home_path: Path, credentials_file: Path | None, user: str | None) -> Registries:
    from capwasm.home import Home

    if user is not None and credentials_file is not None:
        raise click.UsageError("--user and --credentials: only one of them")
    home = Home(home_path)
    return home.registries(
        BriefRecorder(home),
        credentials_file=credentials_file,
        credentials=None if user is None else _asked(user),
        progress=BytesLine(),
    )


def _asked(user: str) -> Credentials:
    from capwasm.oci.settings import Credentials

    password: str = click.prompt(f"Password of {shown(user)}", hide_input=True, err=True)
    return Credentials(user, password)


commands: list[click.Command] = [push, pull]
