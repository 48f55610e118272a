"""Stage 2: an `Artifact` becomes a `VerifiedArtifact`, or nothing at all.

To run a capsule's code, this must be shown:

    0. somebody is trusted
    1. the container is well formed, and its envelope small
    2. the envelope is well formed, and of the right type of payload
    3. the signatures, and the Sigstore bundles over the same bytes, are true, and enough of them
       are by keys and identities that count today
    4. the signed statement is well formed
    5. the keys and identities that count may sign for this plugin
    6. the archive is the one signed
    7. the archive is in canonical form, and holds the signed files and no other
    8. each file is the one signed
    9. the manifest says the same of the plugin's identity as the statement
    10. the version is not older than the last one accepted, and was not revoked

`verify` shows 0 to 8, in this order; what fails, ends it.  The manifest stage MUST do 9, by
`VerifiedArtifact.check_identity`, and whoever keeps state (the registry) MUST do 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, final

from capwasm._stage import Proof
from capwasm.errors import Fault, VerificationError

from .artifact import Artifact
from .attest import Statement, sha256, sha256_beside
from .bundle import true_identities
from .container import places, read_archive, split
from .envelope import PAYLOAD_TYPE, Envelope
from .identity import Identity, Kind
from .members import COMPONENT, MANIFEST, check_members, library_name
from .trust import Requirement, Role, TrustedKey, TrustStore, utc_now
from .trusted import Trusted

__all__ = ["ANY_ORIGIN", "Signer", "VerifiedArtifact", "check_content", "true_signers", "verify"]

ANY_ORIGIN: Final = Requirement()


@dataclass(frozen=True, slots=True)
class Signer:
    """A trusted key, or identity, whose signature is true."""

    name: str
    key_id: str
    roles: frozenset[Role]


@final
@dataclass(frozen=True, slots=True, eq=False)
class VerifiedArtifact(Proof):
    """A capsule that trusted keys signed, every byte of it.  Made by `verify` alone: the proof.

    Attributes:
        identity: id, version and kind, as signed.
        digest: SHA-256 of the archive, in hex: the name of this content, whoever signed it.
        digests: SHA-256 of each member, in hex, by name.
        members: each member's bytes, as read-only views of the one buffer that was hashed.
        signers: the keys and identities that counted, sorted by key id.
        others: those that truly signed too, and do not count: expired, say, or out of scope.
    """

    identity: Identity
    digest: str
    digests: Mapping[str, str] = field(repr=False)
    members: Mapping[str, memoryview] = field(repr=False)
    signers: tuple[Signer, ...]
    others: tuple[Signer, ...] = ()

    @property
    def id(self) -> str:
        """The plugin's id, as signed."""
        return self.identity.id

    @property
    def version(self) -> str:
        """The plugin's version, as signed."""
        return self.identity.version

    @property
    def kind(self) -> Kind:
        """The plugin's kind, as signed."""
        return self.identity.kind

    @property
    def manifest_bytes(self) -> bytes:
        """`plugin.toml`, exactly as signed."""
        return bytes(self.members[MANIFEST])

    @property
    def manifest_digest(self) -> str:
        """SHA-256 of `plugin.toml`, in hex."""
        return self.digests[MANIFEST]

    @property
    def code(self) -> memoryview:
        """`plugin.wasm`, exactly as signed.

        Raises:
            ValueError: for a native plugin, which has a `library` for each target.
        """
        return self.members[self._code_name()]

    @property
    def code_digest(self) -> str:
        """SHA-256 of `plugin.wasm`, in hex.

        Raises:
            ValueError: as for `code`.
        """
        return self.digests[self._code_name()]

    def library(self, triple: str) -> bytes | None:
        """A native plugin's code for a target triple, as a copy; None if it has none."""
        library = self.members.get(library_name(triple))
        return None if library is None else bytes(library)

    def check_identity(self, plugin_id: str, version: str, kind: str) -> None:
        """Step 9: the manifest's identity is the signed one.

        Raises:
            VerificationError: `verify.identity`, with a fault for each that differs.
        """
        pairs = (
            ("id", plugin_id, self.id),
            ("version", version, self.version),
            ("kind", kind, self.kind),
        )
        faults = [
            Fault(f"plugin.{word}", f"the manifest says {says!a}, the signature {signed!a}")
            for word, says, signed in pairs
            if says != signed
        ]
        if faults:
            raise VerificationError(
                "the manifest is not that of the signed plugin",
                code="verify.identity",
                context=str(self.identity),
                faults=faults,
            )

    def _code_name(self) -> str:
        if self.kind != "component":
            raise ValueError("a native plugin has a library for each target, not one code")
        return COMPONENT


def verify(
    artifact: Artifact,
    trust: TrustStore,
    *,
    requirement: Requirement = ANY_ORIGIN,
    now: datetime | None = None,
) -> VerifiedArtifact:
    """Prove that trusted keys or identities signed these bytes; the steps are the module's.

    Args:
        artifact: the bytes.
        trust: whom to trust.
        requirement: whose word is needed.
        now: with a time zone; the system's clock if None.

    Raises:
        VerificationError: for everything that is not proven, with the code of the step.
        ValueError: for a `now` without a time zone.
    """
    now = utc_now() if now is None else now
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    # 0: somebody is trusted
    if not trust.keys and not trust.identities:
        raise VerificationError(
            "there is no trusted key, so nothing can be verified", code="verify.no-trust-store"
        )
    try:
        # 1: the container
        parts = split(artifact.data)
        # 2: the envelope
        envelope = Envelope.parse(bytes(parts.envelope))
        if envelope.payload_type != PAYLOAD_TYPE:
            raise VerificationError(
                f"the envelope signs {envelope.payload_type!a}, not {PAYLOAD_TYPE}",
                code="verify.payload-type",
            )
        if not envelope.signatures and not artifact.bundles:
            raise VerificationError("the capsule is not signed", code="verify.unsigned")
        # 3: the signatures, before any scope is known
        keys, strangers = true_signers(envelope, trust)
        identities, unknown = true_identities(artifact.bundles, envelope, trust)
        signed_by: tuple[Trusted, ...] = (*keys, *identities)
        trust.judge(signed_by, requirement, now, strangers=strangers, unknown=unknown)
        # 4: the statement, parsed from the bytes that were signed
        statement = Statement.parse(envelope.payload)
        # 5: the scopes
        counted = trust.judge(
            signed_by,
            requirement,
            now,
            plugin_id=statement.identity.id,
            strangers=strangers,
            unknown=unknown,
        )
        # 6 to 8: the archive
        members = check_content(statement, parts.archive)
    except VerificationError as exc:
        exc.context = ": ".join(filter(None, (artifact.name, exc.context)))
        raise
    return VerifiedArtifact.made(
        identity=statement.identity,
        digest=statement.archive_sha256,
        digests=MappingProxyType({m.name: m.sha256 for m in statement.members}),
        members=MappingProxyType(members),
        signers=_signers(counted),
        others=_signers({*signed_by} - {*counted}),
    )


def _signers(found: Iterable[Trusted]) -> tuple[Signer, ...]:
    made = (Signer(s.name, s.key_id, s.roles) for s in found)
    return tuple(sorted(made, key=lambda s: s.key_id))


def true_signers(envelope: Envelope, trust: TrustStore) -> tuple[list[TrustedKey], list[str]]:
    """The trusted keys that truly signed, and the key ids of the others.

    One false signature by a trusted key ends it.  A false signature in the name of a trusted key is never an accident: somebody changed the bytes,
    or the signature.  So it refuses the capsule even if enough others are true.  A signature by a
    stranger can't be checked, and counts for nothing.

    Raises:
        VerificationError: `verify.bad-signature`, `verify.key-hint`.
    """
    message = envelope.signed_bytes()
    signers, strangers = [], []
    for signature in envelope.signatures:
        named = trust.find(signature.key_id)
        if named is None:
            # The hint may lie (SIG-10).  If a trusted key did sign this, somebody changed the hint.
            liar = next((k for k in trust.keys if k.key.verify(signature.value, message)), None)
            if liar is not None:
                raise VerificationError(
                    f"a signature by key {liar.name} names another key", code="verify.key-hint"
                )
            strangers.append(signature.key_id)
        elif named.key.verify(signature.value, message):
            signers.append(named)
        else:
            raise VerificationError(
                f"the signature by key {named.name} is false: what it signs or it was changed",
                code="verify.bad-signature",
                faults=[Fault(f"key {named.name}", signature.key_id)],
            )
    return signers, strangers


def check_content(statement: Statement, archive: memoryview) -> dict[str, memoryview]:
    """Steps 6 to 8: the archive is exactly what the statement says.  Returns its members.

    Raises:
        VerificationError: `verify.digest`, `verify.zip`, `verify.bomb` or a `verify.member-…`,
            with all faults of that step.
    """
    # 6: the digest before any parsing: a reader never meets bytes that nobody signed.
    if len(archive) != statement.predicate.size:
        raise VerificationError(
            f"the archive has {len(archive)} bytes; {statement.predicate.size} were signed",
            code="verify.digest",
        )
    signed = {m.name: m for m in statement.members}
    # What was signed says where each file must lie, so all can be hashed side by side, and still
    # nothing of the archive has been parsed.
    where = places({name: member.size for name, member in signed.items()})
    whole, each = sha256_beside(archive, [archive[place] for place in where.values()])
    if whole != statement.archive_sha256:
        raise VerificationError("the archive is not the one signed", code="verify.digest")
    # 7: canonical form and the set of files
    members = read_archive(archive)
    coded = check_members(list(members), statement.identity.kind)
    coded += [
        ("verify.member-extra", Fault(name, "in the archive, but not signed"))
        for name in members.keys() - signed.keys()
    ]
    coded += [
        ("verify.member-missing", Fault(ascii(name), "signed, but not in the archive"))
        for name in sorted(signed.keys() - members.keys())
    ]
    if coded:
        raise VerificationError(
            "the archive does not hold the files it should",
            code=coded[0][0],
            faults=[fault for _, fault in coded],
        )
    # 8: each file.  If all sizes are the signed ones, each lies where it was hashed.
    hashed = dict(zip(where, each, strict=True))
    if any(len(data) != signed[name].size for name, data in members.items()):
        hashed = {name: sha256(data) for name, data in members.items()}
    faults = [
        Fault(name, "is not the file that was signed")
        for name, data in members.items()
        if len(data) != signed[name].size or hashed[name] != signed[name].sha256
    ]
    if faults:
        raise VerificationError(
            "a file is not the one signed", code="verify.member-digest", faults=faults
        )
    return members
