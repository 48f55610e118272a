"""`capwasm vault`: the operator's side of secrets.  A value is read from stdin or typed, never argv."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from capwasm.caps.secrets import Vault, VaultKey
from capwasm.errors import CapabilityError
from capwasm.home import Home

from ._output import epilog, home_option, json_option, say_json, shown

__all__ = ["commands"]


@dataclass(frozen=True, slots=True)
class _Options:
    """Where the vault is, what opens it, and how to answer."""

    path: Path
    key_file: Path
    passphrase: bool
    as_json: bool

    def key(self, *, new: bool = False) -> VaultKey:
        if self.passphrase:
            return VaultKey.from_passphrase(_typed("Passphrase", confirm=new))
        if new and not self.key_file.exists():
            _make_directory(self.key_file.parent)
            return VaultKey.generate(self.key_file)
        return VaultKey.load(self.key_file)

    def open(self) -> Vault:
        return Vault.open(self.path, self.key())

    def say(self, text: str, **facts: Any) -> None:
        if self.as_json:
            say_json(facts)
        else:
            click.echo("\n".join(shown(line) for line in text.split("\n")))


def _vault_options(function: Callable[..., None]) -> Callable[..., None]:
    """`--home`, `--vault`, `--key-file`, `--passphrase` and `--json`, as one `_Options`."""

    @functools.wraps(function)
    def run(
        *,
        home_path: Path,
        path: Path | None,
        key_file: Path | None,
        passphrase: bool,
        as_json: bool,
        **words: Any,
    ) -> None:
        home = Home(home_path)
        function(
            _Options(path or home.vault_file, key_file or home.vault_key, passphrase, as_json),
            **words,
        )

    file = click.Path(dir_okay=False, path_type=Path)
    for option in (
        json_option,
        click.option("--passphrase", is_flag=True, help="A passphrase locks it, not a key file."),
        click.option("--key-file", type=file, help="Its key, if not vault.key of --home."),
        click.option("--vault", "path", type=file, help="Its file, if not vault of --home."),
        home_option,
    ):
        run = option(run)
    return run


@click.group(
    epilog="""\b
Example:
  capwasm vault init
  capwasm vault set acme-token < token.txt
  capwasm vault list --json"""
)
def vault() -> None:
    """Keep secrets for plugins in an encrypted file."""


@vault.command(epilog=epilog("capwasm vault init"))
@_vault_options
def init(options: _Options) -> None:
    """Make an empty vault, and a key file if there is none."""
    Vault.create(options.path, options.key(new=True))
    facts = {"vault": str(options.path)}
    text = f"made {options.path}"
    if not options.passphrase:
        facts["key-file"] = str(options.key_file)
        text += f", locked with {options.key_file}: whoever has both has the secrets"
    options.say(text, **facts)


@vault.command("set", epilog=epilog("capwasm vault set acme-token < token.txt"))
@click.argument("name")
@click.option("--keep-newline", is_flag=True, help="Keep the newline at the end of the input.")
@_vault_options
def set_(options: _Options, name: str, *, keep_newline: bool) -> None:
    """Store a secret, read from stdin, or typed at a terminal."""
    if sys.stdin.isatty():
        opened = options.open()  # a wrong key is told before the secret is typed
        value = _typed("Secret", confirm=True).encode()
    else:
        if options.passphrase:
            raise click.UsageError("a passphrase is typed: run this in a terminal")
        opened = options.open()
        value = sys.stdin.buffer.read(1024 * 1024)
        if not keep_newline:
            value = value.removesuffix(b"\n").removesuffix(b"\r")
    opened.set(name, value)
    options.say(f"stored {name}", stored=name)


@vault.command("list", epilog=epilog("capwasm vault list --json"))
@_vault_options
def list_(options: _Options) -> None:
    """Show the names of the secrets; never a value."""
    opened = options.open()
    names, revoked = opened.names(), opened.revoked()
    lines = [*names, *(f"{name}  revoked: {reason}" for name, reason in revoked.items())]
    if lines or options.as_json:
        options.say("\n".join(lines), secrets=names, revoked=revoked)


@vault.command(epilog=epilog("capwasm vault remove acme-token"))
@click.argument("name")
@_vault_options
def remove(options: _Options, name: str) -> None:
    """Forget a secret and its name."""
    options.open().delete(name)
    options.say(f"removed {name}", removed=name)


@vault.command(epilog=epilog('capwasm vault revoke acme-token --reason "leaked in a log"'))
@click.argument("name")
@click.option("--reason", required=True, help="For the record; at most 200 characters of ASCII.")
@_vault_options
def revoke(options: _Options, name: str, reason: str) -> None:
    """Destroy a secret; running plugins lose it at their next use.  `set` gives it a new value."""
    options.open().revoke(name, reason)
    options.say(f"revoked {name}", revoked=name)


@vault.command(epilog=epilog("capwasm vault rotate --new-key-file /etc/capwasm/vault-2.key"))
@click.option(
    "--new-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Make this file with a new random key.",
)
@click.option("--new-passphrase", is_flag=True, help="Ask for a new passphrase.")
@_vault_options
def rotate(options: _Options, new_key_file: Path | None, *, new_passphrase: bool) -> None:
    """Encrypt the vault anew under a new key.  The old key opens it no more."""
    if (new_key_file is not None) == new_passphrase:
        raise click.UsageError("give either --new-key-file or --new-passphrase")
    opened = options.open()
    if new_key_file is not None:
        _make_directory(new_key_file.parent)
        key = VaultKey.generate(new_key_file)
    else:
        key = VaultKey.from_passphrase(_typed("New passphrase", confirm=True))
    opened.rotate_key(key)
    place = "the new passphrase" if new_key_file is None else str(new_key_file)
    options.say(f"locked {options.path} with {place}", vault=str(options.path), key=place)


def _typed(prompt: str, *, confirm: bool) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{prompt.lower()}: must be typed in a terminal")
    return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True))


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise CapabilityError(
            f"its directory can't be made: {exc.strerror}",
            code="capability.vault-key",
            context=ascii(str(directory))[1:-1],
        ) from None


commands: tuple[click.Command, ...] = (vault,)
