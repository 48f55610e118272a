"""From a capsule's bytes to a candidate: the whole verification, again each time.

Nothing is known of a capsule because it was installed.  Whether it comes from a stranger or out of
our own store, it is verified against the trust of today, its manifest is parsed from the verified
bytes, and the two must say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from capwasm.capability import Capability
from capwasm.capsule.artifact import Artifact, read_artifact
from capwasm.capsule.trust import TrustStore
from capwasm.capsule.verify import VerifiedArtifact, verify
from capwasm.errors import CapwasmError, Fault, RegistryError, VerificationError
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.grants.policy import Policy

from .model import Candidate, Mark, State, VersionRecord
from .store import Store

__all__ = ["Intake"]

_NOBODY = Mark("", "")
_SHORT_OF_SIGNERS = frozenset(
    {"verify.unsigned", "verify.untrusted-key", "verify.threshold", "verify.key-role"}
)


@dataclass(frozen=True, slots=True)
class Intake:
    """Whom to trust, which words a manifest may hold, and what else may be in the way."""

    trust: TrustStore
    policy: Policy
    capabilities: Sequence[Capability[Any, Any]]
    check: Callable[[VerifiedArtifact], None]

    def examine(
        self, artifact: Artifact, *, source: str = "", published: datetime | None = None
    ) -> Candidate:
        """The candidate that a capsule is, in state `SUBMITTED`.

        Raises:
            VerificationError, ManifestError: as for a load; what `check` raises.
        """
        proven = self._verify(artifact)
        self.check(proven)
        name = f"{proven.id}@{proven.version}"
        manifest = parse_manifest(proven.manifest_bytes, self.capabilities, context=name)
        proven.check_identity(manifest.id, manifest.version, manifest.plugin.kind)
        of_code = proven.code_digest if proven.kind == "component" else None
        record = VersionRecord(
            plugin=proven.id,
            version=proven.version,
            kind=proven.kind,
            state=State.SUBMITTED,
            bundle=artifact.sha256,
            size=len(artifact.data),
            archive=proven.digest,
            code=of_code,
            manifest=proven.manifest_digest,
            signers=proven.signers,
            source=source,
            published=published,
            pending=(),
            installed=_NOBODY,
            changed=_NOBODY,
        )
        return Candidate(record, manifest, proven)

    def _verify(self, artifact: Artifact) -> VerifiedArtifact:
        """Prove it by keys alone: the store keeps no bundles, so an identity's word would be lost."""
        try:
            return verify(artifact, self.trust, requirement=self.policy.requirement)
        except VerificationError as exc:
            if self.trust.identities and exc.code in _SHORT_OF_SIGNERS:
                message = "the registry keeps no Sigstore bundles yet: keys alone count here"
                exc.faults = (*exc.faults, Fault("identity", message))
            raise

    def again(self, store: Store, record: VersionRecord) -> Candidate:
        """The candidate that an installed version is today.

        Raises:
            RegistryError: `registry.bundle`: it is gone from the store, or is not what the record
                says.
            VerificationError, ManifestError: as for a load.
        """
        artifact = read_artifact(store.get(record.bundle))
        found = self.examine(artifact, source=record.source, published=record.published)
        check_same(found.record, record)
        return found

    def manifest(self, store: Store, record: VersionRecord | None) -> Manifest | None:
        """The manifest of an installed version; None when it does not verify any more."""
        try:
            return None if record is None else self.again(store, record).manifest
        except CapwasmError:
            return None


def check_same(found: VersionRecord, kept: VersionRecord) -> None:
    """Pass if what was verified is what the record speaks of.

    Raises:
        RegistryError: `registry.bundle`, with a fault for each difference.
    """
    words = ("plugin", "version", "kind", "bundle", "size", "archive", "code", "manifest")
    faults = [
        Fault(word, f"the capsule's is {ours!a}, the registry's {theirs!a}")
        for word in words
        if (ours := getattr(found, word)) != (theirs := getattr(kept, word))
    ]
    if faults:
        raise RegistryError(
            "the stored capsule is not the one that was installed",
            code="registry.bundle",
            context=kept.name,
            faults=faults,
        )
