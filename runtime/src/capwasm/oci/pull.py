"""A capsule out of a registry, byte for byte as it was pushed.

What comes is exactly what the manifest's digest stands for; that it is signed by anybody is not
said, and whoever uses it MUST verify it.
"""

from __future__ import annotations

from dataclasses import dataclass

from capwasm.capsule.attest import Statement
from capwasm.capsule.container import split
from capwasm.capsule.envelope import Envelope
from capwasm.capsule.identity import Identity
from capwasm.capsule.members import COMPONENT
from capwasm.errors import RepositoryError, VerificationError

from .client import Client
from .layout import digest_of, read_component
from .reference import Reference

__all__ = ["Pulled", "pull"]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A capsule that is still to be verified.

    Attributes:
        reference: what was asked for, with the digest that it was.
        identity: whose capsule it says it is.
        capsule: the bytes.
    """

    reference: Reference
    identity: Identity
    capsule: bytes


def pull(reference: Reference, client: Client) -> Pulled:
    """Pull a capsule.

    Args:
        reference: by its digest if it has one, else by its tag.
        client: of the reference's repository.

    Raises:
        RepositoryError: `oci.layout`: it is no capsule, or the layer that other tools run is not the
            code in it; as `layout.read_component` and `Client`.
    """
    manifest = client.manifest(reference.target)
    found = reference.at(digest_of(manifest))
    try:
        said = read_component(manifest)
    except RepositoryError as exc:
        exc.context = exc.context or str(found)
        raise
    try:
        capsule = client.blob(said.capsule)
    except RepositoryError as exc:
        if exc.code != "oci.not-found":
            raise
        raise RepositoryError(
            "the component is here without its capsule, which a copy must take along: a referrer",
            code="oci.no-capsule",
            context=str(found),
        ) from exc
    try:
        statement = Statement.parse(Envelope.parse(bytes(split(capsule).envelope)).payload)
    except VerificationError as exc:
        raise RepositoryError(
            f"what it names is no capsule: {exc.message}", code="oci.layout", context=str(found)
        ) from exc
    code = {f"sha256:{m.sha256}" for m in statement.members if m.name == COMPONENT}
    if code != {said.code}:
        raise RepositoryError(
            "the layer that others run is not the code in the capsule",
            code="oci.layout",
            context=str(found),
        )
    return Pulled(found, statement.identity, capsule)
