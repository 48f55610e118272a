"""What a capsule is in a registry: three manifests, none of which has a date or a random part.

    the component     config application/vnd.wasm.config.v0+json, one layer application/wasm;
                      its annotations name the capsule's blob by digest and size
    the capsule       an artifact of its own, whose subject is the component's manifest
    the attestation   the capsule's DSSE envelope, in the same way

The first is what the Wasm OCI artifact layout of the CNCF asks for, which has one layer and no
more, and what wkg and others run.  The annotations make its digest one for the whole capsule: who
has that, has all.  The other two are referrers, so that the registry keeps the blobs and tools for
attestations find theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn, TypeVar

from pydantic import ConfigDict, Field

from capwasm._model import Model, parse_json, validate
from capwasm.capsule.artifact import MAX_CAPSULE_BYTES
from capwasm.capsule.attest import PREDICATE_TYPE, Statement
from capwasm.capsule.container import split
from capwasm.capsule.envelope import Envelope
from capwasm.capsule.members import COMPONENT
from capwasm.capsule.verify import check_content
from capwasm.errors import RepositoryError, VerificationError

from .component import world_of

__all__ = [
    "ATTESTATION_TYPE",
    "CAPSULE_TYPE",
    "INDEX_TYPE",
    "MANIFEST_TYPE",
    "MAX_MANIFEST",
    "Blob",
    "Descriptor",
    "Layout",
    "Pushed",
    "digest_of",
    "encode",
    "lay_out",
    "read_component",
    "read_index",
]

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
WASM_CONFIG_TYPE: Final = "application/vnd.wasm.config.v0+json"
WASM_TYPE: Final = "application/wasm"
EMPTY_TYPE: Final = "application/vnd.oci.empty.v1+json"
CAPSULE_TYPE: Final = "application/vnd.capwasm.capsule.v1"
ATTESTATION_TYPE: Final = "application/vnd.in-toto+json"
ENVELOPE_TYPE: Final = "application/vnd.dsse.envelope.v1+json"

MAX_MANIFEST: Final = 4 * 1024 * 1024
MAX_REFERRERS: Final = 1000
_DIGEST_NOTE: Final = "dev.capwasm.capsule.digest"
_SIZE_NOTE: Final = "dev.capwasm.capsule.size"
_TITLE: Final = "org.opencontainers.image.title"
_VERSION: Final = "org.opencontainers.image.version"
_PREDICATE: Final = "in-toto.io/predicate-type"
# The day of all files in a capsule: the layout wants one, and the same capsule is the same bytes.
_CREATED: Final = "1980-01-01T00:00:00Z"

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Notes = dict[str, str]
ModelT = TypeVar("ModelT", bound=Model)


class _Open(Model):
    """As OCI has it: words that are not known are passed over."""

    model_config = ConfigDict(extra="ignore")


class Descriptor(_Open):
    """A blob or manifest, as another speaks of it."""

    media_type: Annotated[str, Field(alias="mediaType", max_length=255)]
    digest: Digest
    size: Annotated[int, Field(ge=0, le=2**53)]
    artifact_type: Annotated[str | None, Field(alias="artifactType", max_length=255)] = None
    annotations: Notes | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.model_dump(by_alias=True, exclude_none=True)


class _Manifest(_Open):
    schema_version: Annotated[int, Field(alias="schemaVersion", ge=2, le=2)]
    media_type: Annotated[str | None, Field(alias="mediaType")] = None
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], Field(max_length=128)]
    annotations: Annotated[Notes, Field(default_factory=dict)]


class _Index(_Open):
    schema_version: Annotated[int, Field(alias="schemaVersion", ge=2, le=2)]
    media_type: Annotated[str | None, Field(alias="mediaType")] = None
    manifests: Annotated[tuple[Descriptor, ...], Field(max_length=MAX_REFERRERS)]


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, and how others speak of them."""

    descriptor: Descriptor
    data: bytes | memoryview

    @classmethod
    def of(
        cls,
        media_type: str,
        data: bytes | memoryview,
        *,
        artifact_type: str | None = None,
        notes: Notes | None = None,
    ) -> Blob:
        """Describe bytes."""
        return cls(
            Descriptor.model_validate(
                {
                    "mediaType": media_type,
                    "digest": digest_of(data),
                    "size": len(data),
                    "artifactType": artifact_type,
                    "annotations": notes,
                }
            ),
            data,
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """All that a capsule becomes.

    Attributes:
        blobs: what the manifests speak of.
        component: the manifest that a tag names.
        referrers: those of the capsule and of the attestation.
    """

    blobs: tuple[Blob, ...]
    component: Blob
    referrers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a component's manifest says of its capsule: `capsule`, and `code`, the digest of its layer."""

    capsule: Descriptor
    code: str


def digest_of(data: bytes | memoryview) -> str:
    """`sha256:…`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode(doc: Mapping[str, Any]) -> bytes:
    """The one form in which we write a manifest."""
    return json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()


def lay_out(capsule: bytes) -> Layout:
    """What is pushed of a capsule; the same for the same capsule.

    Its content is checked against what was signed; whose the signatures are is not asked.

    Raises:
        VerificationError: it is no well-formed capsule; `verify.unsigned`.
        RepositoryError: `oci.layout`: it holds no component.
    """
    parts = split(capsule)
    envelope = bytes(parts.envelope)
    parsed = Envelope.parse(envelope)
    if not parsed.signatures:
        raise VerificationError(
            "the capsule is not signed: nobody could install it", code="verify.unsigned"
        )
    statement = Statement.parse(parsed.payload)
    members = check_content(statement, parts.archive)
    identity = statement.identity
    if identity.kind != "component":
        raise RepositoryError(
            "a native plugin is no WebAssembly, and has no place in the Wasm OCI artifact layout",
            code="oci.layout",
        )
    names = {_TITLE: identity.file_name, _VERSION: identity.version}
    code = Blob.of(WASM_TYPE, members[COMPONENT], notes={_TITLE: COMPONENT})
    whole = Blob.of(CAPSULE_TYPE, capsule, notes={_TITLE: identity.file_name})
    signed = Blob.of(ENVELOPE_TYPE, envelope)
    empty = Blob.of(EMPTY_TYPE, b"{}")
    config = Blob.of(WASM_CONFIG_TYPE, _config(code))
    notes = {
        **names,
        _DIGEST_NOTE: whole.descriptor.digest,
        _SIZE_NOTE: str(whole.descriptor.size),
    }
    component = _manifest(config, code, notes)
    subject = component.descriptor
    referrers = (
        _manifest(empty, whole, names, artifact_type=CAPSULE_TYPE, subject=subject),
        _manifest(
            empty,
            signed,
            {_PREDICATE: PREDICATE_TYPE},
            artifact_type=ATTESTATION_TYPE,
            subject=subject,
        ),
    )
    return Layout((config, code, whole, signed, empty), component, referrers)


def _config(code: Blob) -> bytes:
    imports, exports = world_of(memoryview(code.data))
    return encode(
        {
            "created": _CREATED,
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [code.descriptor.digest],
            "component": {"imports": imports, "exports": exports},
        }
    )


def _manifest(
    config: Blob,
    layer: Blob,
    notes: Notes,
    *,
    artifact_type: str | None = None,
    subject: Descriptor | None = None,
) -> Blob:
    doc: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.descriptor.plain(),
        "layers": [layer.descriptor.plain()],
        "annotations": notes,
    }
    if artifact_type is not None:
        doc["artifactType"] = artifact_type
    if subject is not None:
        doc["subject"] = subject.plain()
    return Blob.of(MANIFEST_TYPE, encode(doc), artifact_type=artifact_type, notes=notes)


def read_component(data: bytes) -> Pushed:
    """Where a component's manifest says that its capsule is.

    Raises:
        RepositoryError: `oci.manifest`: malformed; `oci.media-type`: about something else;
            `oci.no-capsule`: a component without one; `oci.size`.
    """
    doc = parse_json(data, RepositoryError, code="oci.manifest", limit=MAX_MANIFEST)
    manifest = _validated(_Manifest, doc)
    if manifest.media_type not in (None, MANIFEST_TYPE):
        _refuse("oci.media-type", f"a manifest of type {ascii(manifest.media_type)[:200]}")
    if manifest.config.media_type != WASM_CONFIG_TYPE:
        _refuse("oci.media-type", f"an artifact of {manifest.config.media_type!a}, not of Wasm")
    if [layer.media_type for layer in manifest.layers] != [WASM_TYPE]:
        _refuse("oci.media-type", f"layers other than one {WASM_TYPE}")
    notes = manifest.annotations
    digest, size = notes.get(_DIGEST_NOTE, ""), notes.get(_SIZE_NOTE, "")
    if not digest and not size:
        _refuse("oci.no-capsule", "a component without a capsule: who signed it can't be known")
    if not (size.isascii() and size.isdigit() and len(size) < 20):
        _refuse("oci.manifest", "the capsule's size is no number")
    if int(size) > MAX_CAPSULE_BYTES:
        _refuse("oci.size", f"a capsule of {size} bytes; at most {MAX_CAPSULE_BYTES}")
    described = {"mediaType": CAPSULE_TYPE, "digest": digest, "size": int(size)}
    return Pushed(_validated(Descriptor, described), manifest.layers[0].digest)


def read_index(data: bytes) -> tuple[dict[str, Any], tuple[Descriptor, ...]]:
    """The referrers that an index names, and the index as it is.

    Raises:
        RepositoryError: `oci.manifest`.
    """
    doc = parse_json(data, RepositoryError, code="oci.manifest", limit=MAX_MANIFEST)
    return doc, _validated(_Index, doc).manifests


def _validated(model: type[ModelT], doc: Any) -> ModelT:
    return validate(model, doc, RepositoryError, code="oci.manifest")


def _refuse(code: str, message: str) -> NoReturn:
    raise RepositoryError(message, code=code)
