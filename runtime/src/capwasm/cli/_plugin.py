"""What the commands on grants read: a plugin, as a capsule that verifies or as a draft manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capwasm.errors import ArtifactError

from ._output import home_option

if TYPE_CHECKING:
    from capwasm.grants.consent import Subject
    from capwasm.grants.manifest import Manifest
    from capwasm.home import Home

__all__ = ["Plugin", "capabilities", "home_options", "read_manifest", "read_plugin"]

PATH = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A manifest, and which bytes it is about."""

    manifest: Manifest
    subject: Subject
    verified: bool


def capabilities() -> tuple[Any, ...]:
    """All that there are, fit to parse and to narrow."""
    from capwasm.caps import standard_capabilities

    return standard_capabilities()


def home_options(*words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`--home`, and an option for each of its parts that may lie elsewhere."""
    texts = {
        "policy": "policy.toml, if not the one of --home.",
        "trust": "trust.toml or a directory of such, if not the one of --home.",
        "consents": "The directory of consents, if not the one of --home.",
    }

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for word in reversed(words):
            function = click.option(f"--{word}", type=PATH, help=texts[word])(function)
        return home_option(function)

    return add


def read_manifest(path: Path) -> Manifest:
    """As `authoring.project.read_manifest`."""
    from capwasm.authoring import project

    return project.read_manifest(path)


def read_plugin(
    path: Path, home: Home, trust: Path | None, policy: Any, code: Path | None
) -> Plugin:
    """A capsule, verified as a load would; or a draft manifest, with its code if that is given.

    Raises:
        ArtifactError, VerificationError, ManifestError, PolicyError: as a load would.
    """
    from capwasm.capsule.artifact import read_artifact
    from capwasm.capsule.attest import sha256
    from capwasm.capsule.trust import TrustStore
    from capwasm.capsule.verify import verify
    from capwasm.grants.consent import Subject
    from capwasm.grants.manifest import parse_manifest

    if path.suffix == ".toml":
        manifest = read_manifest(path)
        digest = sha256(_read_code(code)) if code else "0" * 64
        return Plugin(manifest, Subject.of(manifest, digest), verified=False)
    if code is not None:
        raise click.UsageError("--code goes with a plugin.toml; a capsule holds its own code")
    store = home.trust() if trust is None else TrustStore.load(trust)
    artifact = verify(read_artifact(path, beside=True), store, requirement=policy.requirement)
    manifest = parse_manifest(artifact.manifest_bytes, capabilities(), context=artifact.id)
    artifact.check_identity(manifest.id, manifest.version, manifest.plugin.kind)
    digest = artifact.code_digest if artifact.kind == "component" else artifact.digest
    return Plugin(manifest, Subject.of(manifest, digest), verified=True)


def _read_code(path: Path) -> bytes:
    from capwasm._files import read_file
    from capwasm.capsule.artifact import MAX_CAPSULE_BYTES

    return read_file(
        path,
        MAX_CAPSULE_BYTES,
        ArtifactError,
        code="artifact.unreadable",
        too_large="artifact.too-large",
    )
