"""`capwasm keygen | pack | sign | statement | verify | inspect`: from files to a signed capsule, and back.

Exit codes: 0 done, 1 refused or not verified, 2 wrong usage.  With `--json`, one object on stdout.
Modules that need cryptography are loaded when a command runs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from capwasm.errors import ArtifactError, PolicyError

from ._anatomy import add_permissions, is_component, of_component
from ._capsule_text import inspect_text
from ._output import epilog, home_option, json_option, say_json, shown

if TYPE_CHECKING:
    from capwasm.capsule.trust import Requirement, TrustStore

__all__ = ["commands"]

MAX_PASSPHRASE: Final = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did: as data, as text, and as an exit code."""

    data: dict[str, Any]
    text: str
    exit_code: int = 0


def _command(name: str, example: str) -> Callable[[Callable[..., Outcome]], click.Command]:
    """Make a command of a function: `--json`, escaped output, exit code."""

    def make(function: Callable[..., Outcome]) -> click.Command:
        @functools.wraps(function)
        def run(*, as_json: bool, **words: Any) -> None:
            outcome = function(**words)
            if as_json:
                say_json(outcome.data, indent=2)
            else:
                click.echo("\n".join(shown(line) for line in outcome.text.split("\n")))
            raise click.exceptions.Exit(outcome.exit_code)

        return click.command(name, epilog=epilog(example))(json_option(run))

    return make


@_command("keygen", "capwasm keygen acme-release")
@click.argument("name", type=click.Path(path_type=Path))
@click.option(
    "--algorithm",
    type=click.Choice(["ed25519", "ecdsa-p256"]),
    default="ed25519",
    show_default=True,
    help="Kind of key.",
)
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase and encrypt the private key.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="Take it from a file.")
@click.option("--force", is_flag=True, help="Overwrite a key that is there.")
def keygen(
    name: Path, algorithm: Any, encrypt: bool, passphrase_file: Path | None, force: bool
) -> Outcome:
    """Make a signing key: NAME.key, private, and NAME.pub."""
    from capwasm._files import write_file
    from capwasm.capsule.keys import PrivateKey

    private, public = (name.with_name(name.name + end) for end in (".key", ".pub"))
    if public.exists() and not force:
        raise PolicyError(
            "exists already; --force overwrites it", code="trust.unreadable", context=str(public)
        )
    passphrase = read_passphrase(passphrase_file)
    if encrypt and passphrase is None:
        passphrase = ask_passphrase(confirm=True)
    key = PrivateKey.generate(algorithm)
    key.save(private, passphrase, overwrite=force)
    write_file(public, key.public.pem(), PolicyError, code="trust.unreadable")
    entry = (
        f'[[key]]\nname = {json.dumps(name.name)}\npublic = "{key.public.base64()}"\n'
        'roles = ["publisher"]\nids = ["acme.*"]'
    )
    data = {
        "key-id": key.public.key_id,
        "algorithm": key.public.algorithm,
        "private": str(private),
        "public": str(public),
        "encrypted": passphrase is not None,
        "trust": entry,
    }
    text = (
        f"{private} (keep it secret{'' if passphrase else '; it is not encrypted'})\n{public}\n"
        f"key id {key.public.key_id}\n\nTo trust it, write in trust.toml, with your own ids:\n\n"
        f"schema = 1\n\n{entry}"
    )
    return Outcome(data, text)


@_command("pack", "capwasm pack weather/ -o weather.capsule")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="ID-VERSION.capsule if none.")
def pack(directory: Path, output: Path | None) -> Outcome:
    """Make an unsigned capsule of DIRECTORY, which holds plugin.toml and the code."""
    from capwasm._files import write_file
    from capwasm.capsule.attest import sha256
    from capwasm.capsule.container import split
    from capwasm.capsule.members import MANIFEST, triple_of
    from capwasm.capsule.pack import collect, identity_of
    from capwasm.capsule.pack import pack as make
    from capwasm.capsule.target import this_triple

    members = collect(directory)
    capsule = make(members)
    identity = identity_of(members[MANIFEST])
    targets = sorted(filter(None, map(triple_of, members)))
    target = output or Path(identity.file_name)
    write_file(target, capsule, ArtifactError, code="artifact.unreadable")
    data = {
        "capsule": str(target),
        "id": identity.id,
        "version": identity.version,
        "kind": identity.kind,
        "size": len(capsule),
        "digest": sha256(split(capsule).archive),
        "members": sorted(members),
        "targets": targets,
    }
    text = f"{target}: {identity}, {len(members)} files, {len(capsule)} bytes, not signed yet"
    if targets:
        text += f"\nIts code is for {', '.join(targets)}."
        if this_triple() not in targets:
            text += f"  There is none for this machine, {this_triple()}."
    return Outcome(data, text)


@_command("sign", "capwasm sign acme.weather-1.2.0.capsule --key acme-release.key")
@click.argument("capsule", type=click.Path(path_type=Path))
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="NAME.key.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="Asked for if none.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="CAPSULE itself if none.")
def sign(
    capsule: Path, key_file: Path, passphrase_file: Path | None, output: Path | None
) -> Outcome:
    """Add a signature to CAPSULE, after checking that its statement is true of its content."""
    from capwasm._files import write_file
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.container import split
    from capwasm.capsule.envelope import Envelope
    from capwasm.capsule.keys import PrivateKey
    from capwasm.capsule.pack import sign_capsule

    passphrase = read_passphrase(passphrase_file)
    artifact = read_artifact(capsule)
    key = PrivateKey.load(key_file, ask_passphrase if passphrase is None else passphrase)
    signed = sign_capsule(artifact, key)
    target = output or capsule
    write_file(target, signed, ArtifactError, code="artifact.unreadable")
    signers = [s.key_id for s in Envelope.parse(bytes(split(signed).envelope)).signatures]
    data = {"capsule": str(target), "key-id": key.public.key_id, "signatures": signers}
    return Outcome(data, f"{target}: signed by {key.public.key_id}, {len(signers)} signature(s)")


@_command("statement", "capwasm statement x.capsule -o x.statement")
@click.argument("capsule", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="CAPSULE.statement if none.")
def statement(capsule: Path, output: Path | None) -> Outcome:
    """Write the bytes that every signature of CAPSULE covers, for a signer outside.

    They bind its id, version and each of its bytes, and are the same whoever signed it before.
    Sign them with `sigstore sign` or `cosign sign-blob`, and put the bundle beside the capsule.
    """
    from capwasm._files import write_file
    from capwasm.capsule.artifact import BUNDLE_END, read_artifact
    from capwasm.capsule.pack import honest_envelope

    message = honest_envelope(read_artifact(capsule)).signed_bytes()
    target = output or capsule.with_name(capsule.name + ".statement")
    bundle = capsule.with_name(capsule.name + BUNDLE_END)
    write_file(target, message, ArtifactError, code="artifact.unreadable")
    data = {"capsule": str(capsule), "statement": str(target), "bundle": str(bundle)}
    text = (
        f"{target}\n\nSign it with one of these:\n\n"
        f"sigstore sign --bundle {bundle} {target}\ncosign sign-blob --bundle {bundle} {target}"
    )
    return Outcome(data, text)


def _trust_options(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
    options = [
        click.option(
            "--trust",
            type=click.Path(path_type=Path),
            help="trust.toml or a directory of such, if not that of --home.",
        ),
        click.option(
            "--require",
            type=click.Choice(["official", "marketplace", "publisher"]),
            multiple=True,
            help="Role that must have signed; may be given again; any one of them if none.",
        ),
        click.option("--reviewed", is_flag=True, help="A reviewer must have signed as well."),
        home_option,
    ]
    for option in options:
        function = option(function)
    return function


@_command("verify", "capwasm verify acme.weather-1.2.0.capsule --trust trust.toml")
@click.argument("capsule", type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    "bundles",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Sigstore bundle; may be given again; CAPSULE.sigstore.json, if it is there, if none.",
)
@_trust_options
def verify(
    capsule: Path,
    bundles: tuple[Path, ...],
    trust: Path | None,
    require: tuple[Any, ...],
    reviewed: bool,
    home_path: Path,
) -> Outcome:
    """Prove that trusted keys or identities signed every byte of CAPSULE, or refuse."""
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.verify import verify as prove

    store = _store(trust, home_path)
    verified = prove(
        read_artifact(capsule, beside=True, bundles=bundles),
        store,
        requirement=_requirement(require, reviewed=reviewed),
    )
    signers = [
        {"name": s.name, "key-id": s.key_id, "roles": sorted(s.roles)} for s in verified.signers
    ]
    data = {
        "verified": True,
        "id": verified.id,
        "version": verified.version,
        "kind": verified.kind,
        "digest": verified.digest,
        "signers": signers,
    }
    names = ", ".join(f"{s.name} ({', '.join(sorted(s.roles))})" for s in verified.signers)
    text = f"verified: {verified.identity}\ndigest    {verified.digest}\nsigned by {names}"
    return Outcome(data, text)


@_command("inspect", "capwasm inspect acme.weather-1.2.0.capsule --trust trust.toml")
@click.argument("capsule", type=click.Path(path_type=Path))
@click.option("-v", "--verbose", is_flag=True, help="Tell each imported function and type.")
@_trust_options
def inspect(
    capsule: Path,
    verbose: bool,
    trust: Path | None,
    require: tuple[Any, ...],
    reviewed: bool,
    home_path: Path,
) -> Outcome:
    """Show what CAPSULE says of itself, whether that is proven, and what its code really wants.

    Without a trust store nothing is.  Exit code 1 if it is malformed, or does not verify with one.
    CAPSULE may also be a bare component: then there is only its code, with its imports and exports.
    """
    from capwasm.authoring.anatomy import anatomy
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.describe import describe

    artifact = read_artifact(capsule, beside=True)
    if is_component(artifact.data):
        report = of_component(artifact.name, bytes(artifact.data), artifact.sha256)
        return Outcome(
            report, inspect_text(report, verbose=verbose), int("fault" in report["code"])
        )
    store = _store(trust, home_path)
    report = describe(
        artifact,
        store if store.keys or store.identities else None,
        requirement=_requirement(require, reviewed=reviewed),
        read_code=anatomy,
    )
    _add_isolation(report, home_path)
    add_permissions(report, artifact.data)
    bad = "fault" in report or "refusal" in report
    return Outcome(report, inspect_text(report, verbose=verbose), 1 if bad else 0)


commands: list[click.Command] = [keygen, pack, sign, statement, verify, inspect]


def _add_isolation(report: dict[str, Any], home_path: Path) -> None:
    """Say where it would run, by its signed kind and the policy of the home.

    Its manifest may want more, and is not read here: `grants explain` does.
    """
    from capwasm.home import Home

    from ._plugin import capabilities

    if "statement" not in report:
        return
    who = report["statement"]["predicate"]
    try:
        policy = Home(home_path).policy(capabilities())
    except PolicyError:
        return  # it is the capsule that was asked about
    isolation = policy.isolation.for_plugin(who["id"], who["kind"])
    report["isolation"] = {"text": isolation.describe()} | isolation.to_dict()


def _store(trust: Path | None, home_path: Path) -> TrustStore:
    from capwasm.capsule.trust import TrustStore
    from capwasm.home import Home

    return Home(home_path).trust() if trust is None else TrustStore.load(trust)


def _requirement(roles: tuple[Any, ...], *, reviewed: bool) -> Requirement:
    from capwasm.capsule.trust import ORIGINS, Requirement

    return Requirement(frozenset(roles) or ORIGINS, reviewed=reviewed)


def read_passphrase(path: Path | None) -> bytes | None:
    """The passphrase of a file that only its owner can read; its line end is not part of it."""
    if path is None:
        return None
    from capwasm._files import read_file

    data = read_file(
        path,
        MAX_PASSPHRASE,
        PolicyError,
        code="trust.unreadable",
        refuse_mode=0o077,
        mode_code="trust.permissions",
    )
    passphrase = data.rstrip(b"\r\n")
    if not passphrase:
        raise PolicyError("the passphrase is empty", code="trust.key", context=str(path))
    return passphrase


def ask_passphrase(*, confirm: bool = False) -> bytes:
    """Ask at the terminal, without an echo."""
    answer: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return answer.encode()
