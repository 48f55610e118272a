"""`capwasm build`: from a project's directory to a capsule, signed if a key is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capwasm.errors import ArtifactError

from ._asks import say_line, show_permissions, status
from ._output import console, epilog, home_option, json_option, say_json, shown

if TYPE_CHECKING:
    from capwasm.authoring.project import Built

__all__ = ["commands"]

PATH = click.Path(path_type=Path)


@click.command(
    "build",
    epilog=epilog(
        "capwasm build weather/ --key acme-release.key",
        "capwasm build --json -o weather.capsule",
        codes="0 done, 1 can't be built, 2 wrong usage",
    ),
)
@home_option
@json_option
@click.argument("directory", type=PATH, default=".")
@click.option("-o", "--out", type=PATH, help="ID-VERSION.capsule if none.")
@click.option("--key", "key_file", type=PATH, help="Sign it with this key (capwasm keygen).")
@click.option("--passphrase-file", type=PATH, help="The key's passphrase; asked for if none.")
@click.option(
    "--module", default="plugin", show_default=True, help="The Python module with the class."
)
def build(
    home_path: Path,
    as_json: bool,
    directory: Path,
    out: Path | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    module: str,
) -> None:
    """Make a component of the project in DIRECTORY, and a capsule of it.

    DIRECTORY holds plugin.toml, and either sources in one language (plugin.py, package.json,
    Cargo.toml, go.mod or plugin.c) with wit/world.wit, or a ready plugin.wasm.  Nothing in it is
    written.  `capwasm doctor` tells which languages can be built here.
    """
    from capwasm._files import write_file
    from capwasm.authoring.project import build_project
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.attest import sha256
    from capwasm.capsule.keys import PrivateKey
    from capwasm.capsule.pack import sign_capsule

    from .capsule import ask_passphrase, read_passphrase

    key = None
    if key_file is not None:  # first, so that a wrong passphrase does not cost a build
        passphrase = read_passphrase(passphrase_file)
        key = PrivateKey.load(key_file, ask_passphrase if passphrase is None else passphrase)
    built = build_project(
        directory,
        module=module,
        cache=home_path / "cache" if home_path.is_dir() else None,
        tell=None if as_json else status,
        say=(lambda _line: None) if as_json else say_line,
    )
    capsule = built.capsule
    if key is not None:
        capsule = sign_capsule(read_artifact(capsule), key)
    target = out or Path(built.manifest.identity.file_name)
    write_file(target, capsule, ArtifactError, code="artifact.unreadable")
    data = {
        "capsule": str(target),
        "id": built.manifest.id,
        "version": built.manifest.version,
        "size": len(capsule),
        "sha256": sha256(capsule),
        "component-size": built.code_bytes,
        "tool": built.tool,
        "members": built.members,
        "signed-by": key.public.key_id if key else None,
        "imports": built.imports,
        "permissions": built.permissions,
        "warnings": built.warnings,
        "seconds": {name: round(value, 3) for name, value in built.seconds.items()},
    }
    say_json(data, indent=2) if as_json else _print(built, data)


def _print(built: Built, data: dict[str, Any]) -> None:
    from rich.text import Text

    from capwasm.authoring.project import size_of

    out = console()
    head = f"{shown(built.manifest.id)} {shown(built.manifest.version)}"
    took = ", ".join(f"{name} {value:.1f} s" for name, value in built.seconds.items())
    out.print(Text.assemble((head, "bold"), f"  component {size_of(built.code_bytes)} ({took})"))
    show_permissions(built.permissions)
    for warning in built.warnings:
        out.print(Text.assemble(("warning ", "yellow"), warning))
    signed = f"signed by {data['signed-by']}" if data["signed-by"] else "not signed yet"
    out.print(f"{shown(data['capsule'])}: {data['size']} bytes, {signed}")


commands = [build]
