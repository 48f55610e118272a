"""A capsule into a registry: blobs first, the tag last, so that a tag never names half of one.

The same capsule is pushed the same way, byte for byte; what is there already is not sent again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from capwasm.errors import RepositoryError

from .client import Client, referrers_tag
from .layout import Layout, digest_of, lay_out
from .reference import Reference

__all__ = ["Sent", "push"]

_WORDS: Final = ("capsule", "att")  # in the order of `Layout.referrers`


@dataclass(frozen=True, slots=True)
class Sent:
    """What a push came to.

    Attributes:
        reference: what was pushed, with its digest.
        before: the digest that the tag named before, or None.
        uploaded: how many blobs were not there yet.
        referrers: digests of the manifests of the capsule and of the attestation.
    """

    reference: Reference
    before: str | None
    uploaded: int
    referrers: tuple[str, ...]


def push(capsule: bytes, reference: Reference, client: Client, *, move: bool = False) -> Sent:
    """Push a capsule under a tag.

    Args:
        capsule: signed; whose the signatures are is for those who install it to ask.
        reference: with a tag; with a digest too, it must be that of what is pushed.
        client: of the reference's repository, to push.
        move: whether a tag that names something else is taken from it.

    Raises:
        VerificationError: it is no well-formed, signed capsule.
        RepositoryError: `oci.reference`: no tag, or another digest; `oci.tag-taken`; `oci.layout`;
            `oci.referrers`: the registry does not list what was attached; as `Client`.
    """
    layout = lay_out(capsule)
    digest = layout.component.descriptor.digest
    if reference.tag is None or reference.digest not in (None, digest):
        raise RepositoryError(
            f"a push needs a tag, and no other digest than {digest}",
            code="oci.reference",
            context=str(reference),
        )
    there = client.find_manifest(reference.tag)
    before = None if there is None else digest_of(there)
    if before not in (None, digest) and not move:
        raise RepositoryError(
            f"the tag names something else already, {before}; --move takes it from that",
            code="oci.tag-taken",
            context=str(reference),
        )
    uploaded = sum(client.put_blob(blob) for blob in layout.blobs)
    client.put_manifest(digest, layout.component)
    _attach(layout, client)
    if before != digest:
        client.put_manifest(reference.tag, layout.component)
    return Sent(
        reference.at(digest),
        before,
        uploaded,
        tuple(r.descriptor.digest for r in layout.referrers),
    )


def _attach(layout: Layout, client: Client) -> None:
    """Put the referrers there, and see that the registry lists them."""
    subject = layout.component.descriptor.digest
    added = tuple(r.descriptor for r in layout.referrers)
    noted = [client.put_manifest(r.descriptor.digest, r) for r in layout.referrers]
    if not all(noted):
        # Such a registry may collect what only an index names, so each has a tag of its own too.
        for word, referrer in zip(_WORDS, layout.referrers, strict=True):
            client.put_manifest(f"{referrers_tag(subject)}.{word}", referrer)
        client.add_referrers(subject, added)
    listed = {d.digest for d in client.referrers(subject)}
    if any(d.digest not in listed for d in added):
        raise RepositoryError(
            "the registry does not list what was attached to the capsule", code="oci.referrers"
        )
