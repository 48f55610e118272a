"""What is scanned: one capsule's members, its manifest, and its component, each read once at need.

A subject may be hostile, and need not be proven: a reviewer looks before anybody trusts it.  What
can't be read is no error here, but a fact, which `manifest_fault` and `outline.fault` tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

from capwasm.capability import Capability, Risk
from capwasm.capsule.artifact import Artifact
from capwasm.capsule.attest import Statement
from capwasm.capsule.container import split
from capwasm.capsule.envelope import Envelope
from capwasm.capsule.identity import Identity
from capwasm.capsule.members import COMPONENT, MANIFEST, triple_of
from capwasm.capsule.verify import VerifiedArtifact, check_content
from capwasm.engine.compile import types_of
from capwasm.engine.lane.binary import OddBinary
from capwasm.engine.outline import Outline, outline
from capwasm.engine.types import ComponentTypes
from capwasm.errors import CapwasmError
from capwasm.grants.manifest import Asked, Manifest, parse_manifest
from capwasm.lattice import Clause

from .texts import Text, texts_of

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """One capsule.  Nothing of it is run by being here.

    Attributes:
        identity: id, version and kind, as its statement has them.
        digest: SHA-256 of its archive, in hex.
        members: each file's bytes, by name.   digests: SHA-256 of each, in hex.
        capabilities: those that its manifest may ask for.
        verified: the proof that trusted keys signed it; None for one that nobody vouches for.
        refusal: why there is none.
        file: SHA-256 of the capsule's file, signatures included, in hex, where that is known.
    """

    identity: Identity
    digest: str
    members: Mapping[str, memoryview] = field(repr=False)
    digests: Mapping[str, str] = field(repr=False)
    capabilities: Sequence[Capability[Any, Any]] = field(repr=False)
    verified: VerifiedArtifact | None = None
    refusal: str = ""
    file: str = ""

    @classmethod
    def of(
        cls,
        verified: VerifiedArtifact,
        capabilities: Sequence[Capability[Any, Any]],
        file: str = "",
    ) -> Self:
        """A capsule that was verified; `file` is the digest of the file that it came in."""
        return cls(
            verified.identity,
            verified.digest,
            verified.members,
            verified.digests,
            capabilities,
            verified,
            file=file,
        )

    @classmethod
    def unproven(
        cls, artifact: Artifact, capabilities: Sequence[Capability[Any, Any]], refusal: str
    ) -> Self:
        """A capsule that holds together, whoever made it.

        Args:
            artifact: its bytes.
            capabilities: as above.
            refusal: why nobody vouches for it.

        Raises:
            VerificationError: it is no capsule, or its content is not what its statement says.
        """
        parts = split(artifact.data)
        statement = Statement.parse(Envelope.parse(bytes(parts.envelope)).payload)
        members = MappingProxyType(check_content(statement, parts.archive))
        digests = MappingProxyType({m.name: m.sha256 for m in statement.members})
        return cls(
            statement.identity,
            statement.archive_sha256,
            members,
            digests,
            capabilities,
            refusal=refusal,
            file=artifact.sha256,
        )

    @property
    def is_component(self) -> bool:
        """Whether its code is `plugin.wasm`."""
        return self.identity.kind == "component"

    @property
    def code(self) -> memoryview:
        """`plugin.wasm`; nothing for a native plugin."""
        return (
            self.members.get(COMPONENT, memoryview(b"")) if self.is_component else memoryview(b"")
        )

    @property
    def libraries(self) -> dict[str, str]:
        """A native plugin's code: the member's name by target triple."""
        return {triple: name for name in self.members if (triple := triple_of(name)) is not None}

    @cached_property
    def manifest(self) -> Manifest | None:
        """Its manifest; None if it can't be read, and `manifest_fault` says why."""
        return self._manifest[0]

    @property
    def manifest_fault(self) -> str:
        """Why the manifest can't be read, or says another identity than the statement."""
        return self._manifest[1]

    @cached_property
    def _manifest(self) -> tuple[Manifest | None, str]:
        try:
            manifest = parse_manifest(bytes(self.members[MANIFEST]), self.capabilities)
        except CapwasmError as exc:
            return None, "; ".join([exc.message, *map(str, exc.faults[:3])])
        if manifest.identity != self.identity:
            return manifest, f"it says {manifest.identity}, the statement {self.identity}"
        return manifest, ""

    def permissions(self, only: str = "") -> Iterator[tuple[Asked, Clause, Risk]]:
        """All that its manifest asks (of one capability), with how grave it is.

        Nothing if the manifest can't be read.
        """
        for capability in (c for c in self.capabilities if not only or c.name == only):
            request = self.manifest.requests.get(capability.name) if self.manifest else None
            for asked in request.asked if request else ():
                for clause in asked.clauses:
                    yield asked, clause, capability.risk(clause)[0]

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """Its bytes as those look at them who look for words."""
        return tuple(texts_of(self.members))

    @cached_property
    def outline(self) -> Outline:
        """How its component is built of sections and modules; of nothing for a native plugin."""
        return outline(self.code) if self.is_component else Outline()

    @cached_property
    def types(self) -> ComponentTypes | None:
        """What its component truly imports and exports; None if that can't be read.

        It is compiled without its code, in a process apart, which takes some tenths of a second.
        """
        return self._types[0]

    @property
    def types_fault(self) -> str:
        """Why the types can't be read, or empty."""
        return self._types[1]

    @cached_property
    def _types(self) -> tuple[ComponentTypes | None, str]:
        if not self.is_component:
            return None, "it is native code"
        try:
            found = types_of(bytes(self.code))
        except OddBinary as exc:
            return None, f"it is not framed as a component is: {exc}"
        except CapwasmError as exc:
            return None, exc.message
        return found, "" if found else "it has types that capwasm does not know"
