"""The author's side: files become an unsigned capsule, and signers add their signatures.

What `pack` writes is what `verify` accepts: both use the same rules of `members`, the same writer
of `capsule` and the same `Statement`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Protocol

from capwasm._files import read_file
from capwasm._model import parse_toml
from capwasm.errors import ArtifactError, Fault, ManifestError, VerificationError

from .artifact import MAX_CAPSULE_BYTES, Artifact
from .attest import Statement
from .container import join, split, write_archive
from .envelope import MAX_SIGNATURES, PAYLOAD_TYPE, Envelope, Signature
from .identity import Identity
from .keys import PublicKey
from .members import MANIFEST, MAX_MEMBERS, check_members
from .verify import check_content

__all__ = ["SigningKey", "collect", "identity_of", "pack", "sign_capsule"]


class SigningKey(Protocol):
    """Anything that signs: a `PrivateKey`, or a device that keeps one."""

    @property
    def public(self) -> PublicKey:
        """The key that verifies."""

    def sign(self, message: bytes) -> bytes:
        """A signature over exactly `message`."""


def pack(members: Mapping[str, bytes]) -> bytes:
    """Make the one unsigned capsule of these files; `plugin.toml` says whose it is.

    Args:
        members: contents by name.

    Raises:
        ArtifactError: `artifact.pack`, with every name that may not be there, and what is missing;
            `artifact.too-large`.
        ManifestError: if the manifest does not say who the plugin is.
    """
    identity = identity_of(members.get(MANIFEST, b""))
    faults = [fault for _, fault in check_members(sorted(members), identity.kind)]
    if faults:
        raise ArtifactError(
            "these files do not make a capsule",
            code="artifact.pack",
            context=str(identity),
            faults=faults,
        )
    if sum(len(data) for data in members.values()) > MAX_CAPSULE_BYTES:
        raise ArtifactError(
            f"the files have more than {MAX_CAPSULE_BYTES} bytes", code="artifact.too-large"
        )
    archive = write_archive(members)
    return _join(Envelope(Statement.describe(identity, archive, members)), archive)


def sign_capsule(capsule: Artifact, key: SigningKey) -> bytes:
    """Add a signature; those that are there stay.  Signing twice with one key changes nothing.

    A signer vouches for the content, so it is checked first as `verify` checks it, save that
    nobody's signature is required.

    Raises:
        VerificationError: the capsule is malformed, or its statement is not true of its content.
        ManifestError: the manifest does not say who the plugin is.
        ArtifactError: `artifact.pack` if it has no room for one more signature.
    """
    envelope = honest_envelope(capsule)
    message, public = envelope.signed_bytes(), key.public
    if any(
        public.verify(s.value, message) and s.key_id == public.key_id for s in envelope.signatures
    ):
        return capsule.data
    others = tuple(s for s in envelope.signatures if s.key_id != public.key_id)
    if len(others) >= MAX_SIGNATURES:
        raise ArtifactError(
            f"a capsule has at most {MAX_SIGNATURES} signatures", code="artifact.pack"
        )
    signature = Signature(public.key_id, key.sign(message))
    signed = Envelope(envelope.payload, envelope.payload_type, (*others, signature))
    return _join(signed, split(capsule.data).archive)


def honest_envelope(capsule: Artifact) -> Envelope:
    """The envelope of a capsule, whoever signed it, once its statement is known to be true.

    Raises:
        VerificationError: the capsule is malformed, or its statement is not true of its content.
        ManifestError: the manifest does not say who the plugin is.
    """
    parts = split(capsule.data)
    envelope = Envelope.parse(bytes(parts.envelope))
    if envelope.payload_type != PAYLOAD_TYPE:
        raise VerificationError(
            f"the envelope signs {envelope.payload_type!a}", code="verify.payload-type"
        )
    statement = Statement.parse(envelope.payload)
    members = check_content(statement, parts.archive)
    if identity_of(bytes(members[MANIFEST])) != statement.identity:
        raise VerificationError(
            f"the manifest is not that of {statement.identity}", code="verify.identity"
        )
    return envelope


def collect(directory: str | PathLike[str]) -> dict[str, bytes]:
    """Read all the files below a directory, by name.

    Raises:
        ArtifactError: `artifact.pack` with every link, special file and unreadable directory;
            `artifact.unreadable`, `artifact.too-large`.
    """
    root = Path(directory)
    faults: list[Fault] = []
    paths: dict[str, Path] = {}
    todo = [root]
    while todo:
        where = todo.pop()
        try:
            with os.scandir(where) as listing:
                entries = [(e, e.stat(follow_symlinks=False).st_mode) for e in listing]
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            faults.append(Fault(ascii(str(where)), f"can't be listed: {why}"))
            continue
        for entry, mode in entries:
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            if stat.S_ISDIR(mode):
                todo.append(path)
            elif stat.S_ISREG(mode):
                paths[name] = path
            else:
                what = "a link" if stat.S_ISLNK(mode) else "a special file"
                faults.append(Fault(ascii(name), f"{what}; a capsule holds plain files only"))
        # Far above what a capsule may hold, so that the message can still list the strangers.
        if len(paths) + len(todo) > 16 * MAX_MEMBERS:
            faults.append(Fault("", f"more than {16 * MAX_MEMBERS} files"))
            break
    if faults:
        raise ArtifactError(
            "the directory can't be packed",
            code="artifact.pack",
            context=ascii(str(root))[1:-1],
            faults=sorted(faults, key=lambda f: f.path),
        )
    members: dict[str, bytes] = {}
    room = MAX_CAPSULE_BYTES
    for name, path in sorted(paths.items()):
        members[name] = read_file(
            path,
            room,
            ArtifactError,
            code="artifact.unreadable",
            too_large="artifact.too-large",
            follow=False,
        )
        room -= len(members[name])
    return members


def identity_of(manifest: bytes) -> Identity:
    """Who the plugin is, from `plugin.toml`; the rest of the manifest is not looked at.

    Raises:
        ManifestError: `manifest.toml`, or `manifest.invalid` with all faults.
    """
    doc = parse_toml(manifest, ManifestError, code="manifest.toml", context=MANIFEST)
    table = doc.get("plugin")
    words = table if isinstance(table, dict) else {}
    try:
        return Identity.parse(words.get("id"), words.get("version"), words.get("kind"))
    except ValueError as exc:
        raise ManifestError(
            "the manifest does not say who the plugin is",
            context=MANIFEST,
            faults=[Fault("plugin", line) for line in str(exc).splitlines()],
        ) from None


def _join(envelope: Envelope, archive: bytes | memoryview) -> bytes:
    try:
        return join(envelope.encode(), archive)
    except ValueError as exc:
        raise ArtifactError(
            f"{exc}: pack fewer files, or shorter names", code="artifact.pack"
        ) from None
