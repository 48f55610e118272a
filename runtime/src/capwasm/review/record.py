"""Review records: who said what of exactly which plugin, signed, and read back from the bytes.

A record is a DSSE envelope around an in-toto statement.  Its subject is the archive that was
signed; its predicate repeats the plugin's id and version, the digests of code and manifest, and the
digest of the exact permission set.  So none of it can be moved to another plugin, another version,
or to the same version with other wishes.  Holding a record proves nothing: what it is worth is
decided by `rules`, each time anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator

from capwasm._model import Model, hidden, parse_json, validate
from capwasm.capsule.attest import STATEMENT_TYPE
from capwasm.capsule.container import MAX_ENVELOPE_BYTES
from capwasm.capsule.envelope import PAYLOAD_TYPE, Envelope, Signature, pae
from capwasm.capsule.identity import Identity, PluginId, Version
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trusted import parse_time
from capwasm.errors import CapwasmError, RegistryError
from capwasm.grants.manifest import Manifest

from .finding import MAX_FINDINGS, MAX_REPORT_BYTES, Report
from .permissions import permission_digest

__all__ = ["MAX_RECORD_BYTES", "UNREVIEWED", "Bond", "Record", "RecordKind"]

# A report stands in its payload as it is, and the payload in base64.
MAX_RECORD_BYTES: Final = 2 * MAX_REPORT_BYTES
MAX_REASON: Final = 500
UNREVIEWED: Final = "unreviewed"
"""What an exception is about that stands in for scan and approvals."""
_PREFIX: Final = "https://capwasm.dev/review/"  # a name, never fetched


class RecordKind(StrEnum):
    """What a record says."""

    SCAN = "scan"
    """What was found; by the home's own key."""
    APPROVAL = "approval"
    """A reviewer has looked at it, and it may serve."""
    REJECTION = "rejection"
    """It may not, whatever others say."""
    EXCEPTION = "exception"
    """One of two words that let it serve in spite of a finding, for a time."""

    @property
    def predicate_type(self) -> str:
        """Its in-toto predicate type."""
        return f"{_PREFIX}{self}/v1"


@dataclass(frozen=True, slots=True)
class Bond:
    """What a record speaks of, to the last byte.

    Attributes:
        plugin, version: as signed.
        archive: SHA-256 of what was signed.
        code: of `plugin.wasm`; for native code, which has a file for each target, of the archive.
        manifest: of `plugin.toml`.
        permissions: of the exact permission set; see `permission_digest`.
    """

    plugin: str
    version: str
    archive: str
    code: str
    manifest: str
    permissions: str

    @classmethod
    def of(cls, manifest: Manifest, archive: str, code: str | None) -> Self:
        """Of a proven capsule.

        Args:
            manifest: parsed from its verified bytes.
            archive: SHA-256 of what was signed, in hex.
            code: of its code; None for native code.
        """
        return cls(
            manifest.id,
            manifest.version,
            archive,
            code or archive,
            manifest.digest,
            permission_digest(manifest),
        )


@dataclass(frozen=True, slots=True)
class Record:
    """One record, as parsed from its envelope.

    Attributes:
        kind: what it says.   bond: of what.
        key_id: who signed it, by the envelope's word.
        when: `2027-01-31T00:00:00Z`, by the signer's clock.   reason: his words.
        seen: of an approval, the fingerprints of all findings that the signer was shown.
        what: of an exception, a rule, a fingerprint, or `unreviewed`.
        expires: of an exception.
        report: of a scan.
        envelope: the signed bytes.
    """

    kind: RecordKind
    bond: Bond
    key_id: str
    when: datetime
    reason: str = ""
    seen: frozenset[str] = frozenset()
    what: str = ""
    expires: datetime | None = None
    report: Report | None = None
    envelope: Envelope = field(default=Envelope(b""), repr=False, compare=False)
