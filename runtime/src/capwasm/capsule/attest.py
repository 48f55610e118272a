"""What is signed: an in-toto Statement (v1) about the whole archive and each file in it.

The subject is the archive, by name and SHA-256.  The predicate says who the plugin is and repeats
the digest and size of each member, so a signature can't be moved to another plugin, version or set
of files (SIG-02, SIG-06), and no part of the archive is left unsigned (SIG-20).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from capwasm._model import Model, parse_json, validate
from capwasm.errors import Fault, VerificationError

from .container import MAX_ENVELOPE_BYTES
from .identity import Identity, Kind, PluginId, Version
from .members import MAX_MEMBERS

__all__ = ["PREDICATE_TYPE", "SCHEMA", "SignedMember", "Statement", "sha256", "sha256_beside"]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
# A name, never fetched.
PREDICATE_TYPE: Final = "https://capwasm.dev/attestation/capsule/v1"
SCHEMA: Final = 1
MAX_SIZE: Final = 2**32 - 1
_WORTH_A_THREAD: Final = 2**20

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=MAX_SIZE)]


class _DigestSet(Model):
    sha256: Digest


class _Subject(Model):
    name: Annotated[str, Field(max_length=256)]
    digest: _DigestSet


class SignedMember(Model):
    """One file of the archive, as signed."""

    name: Annotated[str, Field(max_length=256)]
    sha256: Digest
    size: Size


class _Predicate(Model):
    schema_number: Annotated[int, Field(alias="schema", ge=1, le=SCHEMA)]
    id: PluginId
    version: Version
    kind: Kind
    size: Size
    members: Annotated[tuple[SignedMember, ...], Field(min_length=1, max_length=MAX_MEMBERS)]

    @model_validator(mode="after")
    def _sorted(self) -> Self:
        names = [m.name for m in self.members]
        if any(a >= b for a, b in itertools.pairwise(names)):
            raise ValueError("the members are not sorted by name, or one stands twice")
        return self


class Statement(Model):
    """The statement about one archive."""

    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Annotated[
        Literal["https://capwasm.dev/attestation/capsule/v1"], Field(alias="predicateType")
    ]
    predicate: _Predicate

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.subject[0].name != self.identity.file_name:
            raise ValueError("the subject's name is not that of the plugin's id and version")
        return self

    @property
    def identity(self) -> Identity:
        """Who the plugin is, as signed."""
        return Identity(self.predicate.id, self.predicate.version, self.predicate.kind)

    @property
    def archive_sha256(self) -> str:
        """Digest of the whole archive, in hex."""
        return self.subject[0].digest.sha256

    @property
    def members(self) -> tuple[SignedMember, ...]:
        """The files, sorted by name."""
        return self.predicate.members

    @classmethod
    def parse(cls, payload: bytes) -> Statement:
        """Read a statement from the very bytes that were signed.

        Raises:
            VerificationError: `verify.predicate-type`, `verify.schema`, else `verify.statement`
                with all faults (MAN-03 to MAN-05, MAN-08).
        """
        doc = parse_json(
            payload, VerificationError, code="verify.statement", limit=MAX_ENVELOPE_BYTES
        )
        _refuse_other_types(doc)
        return validate(cls, doc, VerificationError, code="verify.statement", context="statement")

    @staticmethod
    def describe(
        identity: Identity, archive: bytes | memoryview, members: Mapping[str, bytes | memoryview]
    ) -> bytes:
        """The payload that says what an archive is: canonical JSON, the same for the same files."""
        doc = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": identity.file_name, "digest": {"sha256": sha256(archive)}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "schema": SCHEMA,
                "id": identity.id,
                "version": identity.version,
                "kind": identity.kind,
                "size": len(archive),
                "members": [
                    {"name": name, "sha256": sha256(members[name]), "size": len(members[name])}
                    for name in sorted(members)
                ],
            },
        }
        return json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()


def sha256(data: bytes | memoryview) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_beside(whole: memoryview, parts: Sequence[memoryview]) -> tuple[str, list[str]]:
    """SHA-256 of the whole, and of each of the parts, on two processors if it is large."""
    if len(whole) < _WORTH_A_THREAD:
        return sha256(whole), [sha256(part) for part in parts]
    # Hashing gives up the GIL.
    found: list[list[str]] = []
    thread = threading.Thread(target=lambda: found.append([sha256(part) for part in parts]))
    try:
        thread.start()
    except RuntimeError:  # there may be no more threads
        return sha256(whole), [sha256(part) for part in parts]
    try:
        digest = sha256(whole)
    finally:
        thread.join()
    return digest, found[0]


def _refuse_other_types(doc: Any) -> None:
    """Tell another kind of statement, and one from the future, from a malformed one."""
    if not isinstance(doc, dict):
        return
    predicate_type = doc.get("predicateType")
    if isinstance(predicate_type, str) and predicate_type != PREDICATE_TYPE:
        raise VerificationError(
            "the statement is about something else than a capsule",
            code="verify.predicate-type",
            faults=[Fault("predicateType", f"{predicate_type[:256]!a}; valid: {PREDICATE_TYPE}")],
        )
    predicate = doc.get("predicate")
    schema = predicate.get("schema") if isinstance(predicate, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise VerificationError(
            f"schema {schema}; this runtime knows up to {SCHEMA}",
            code="verify.schema",
            faults=[Fault("predicate.schema", "made by a newer capwasm: update this one")],
        )
