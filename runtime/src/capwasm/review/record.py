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
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from capwasm._model import Model, hidden, parse_json, validate
from capwasm.capsule.attest import STATEMENT_TYPE
from capwasm.capsule.envelope import PAYLOAD_TYPE, Envelope, Signature, pae
from capwasm.capsule.identity import PluginId, Version
from capwasm.capsule.keys import PrivateKey, PublicKey
from capwasm.capsule.trusted import parse_time
from capwasm.errors import CapwasmError, Fault, RegistryError
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
    def verb(self) -> str:
        """The command that makes one."""
        return {"scan": "scan", "approval": "approve", "rejection": "reject"}.get(self, "except")

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
        when: by the signer's clock.   reason: in the signer's words.
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
    reason: str
    envelope: Envelope = field(repr=False)
    seen: frozenset[str] = frozenset()
    what: str = ""
    expires: datetime | None = None
    report: Report | None = None

    @classmethod
    def parse(cls, data: bytes, context: str = "") -> Self:
        """Read a record from its envelope; whose signature is true, `rules` sees.

        Raises:
            RegistryError: `review.record`, with all faults.
        """
        try:
            envelope = Envelope.parse(data, MAX_RECORD_BYTES)
        except CapwasmError as exc:
            raise _malformed(exc.message, context, *exc.faults) from exc
        if envelope.payload_type != PAYLOAD_TYPE or len(envelope.signatures) != 1:
            raise _malformed(f"it is no {PAYLOAD_TYPE} with one signature", context)
        doc = parse_json(
            envelope.payload,
            RegistryError,
            code="review.record",
            context=context,
            limit=MAX_RECORD_BYTES,
        )
        made = validate(_Statement, doc, RegistryError, code="review.record", context=context)
        said, kind = made.predicate, RecordKind(made.predicate_type.split("/")[-2])
        report = None if said.report is None else Report.parse(_canonical(said.report), context)
        return cls(
            kind,
            Bond(
                said.id,
                said.version,
                made.subject[0].digest.sha256,
                said.code,
                said.manifest,
                said.permissions,
            ),
            envelope.signatures[0].key_id,
            parse_time(said.when),
            said.reason,
            envelope,
            frozenset(said.seen),
            said.what,
            None if said.expires is None else parse_time(said.expires),
            report,
        )

    @classmethod
    def sign(
        cls,
        kind: RecordKind,
        bond: Bond,
        key: PrivateKey,
        when: datetime,
        reason: str = "",
        **said: Any,
    ) -> Self:
        """Say something, signed.

        Args:
            kind: what it says.
            bond: of what.
            key: whose word it is.
            when: with a time zone.
            reason: why, for people; at most 500 characters, all of which can be seen.
            said: `seen`, `what`, `expires` or `report`, as the kind has it.

        Raises:
            RegistryError: `review.record`: it can't be said so.
        """
        report, expires = said.pop("report", None), said.pop("expires", None)
        predicate = {
            "schema": 1,
            "id": bond.plugin,
            "version": bond.version,
            "code": bond.code,
            "manifest": bond.manifest,
            "permissions": bond.permissions,
            "when": _time(when),
            "reason": reason,
            **({"seen": sorted(said.pop("seen"))} if "seen" in said else {}),
            **({} if report is None else {"report": json.loads(report.to_json())}),
            **({} if expires is None else {"expires": _time(expires)}),
            **said,
        }
        name = _subject_name(bond.plugin, bond.version)
        doc = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": bond.archive}}],
            "predicateType": kind.predicate_type,
            "predicate": predicate,
        }
        payload = _canonical(doc)
        signature = Signature(key.public.key_id, key.sign(pae(PAYLOAD_TYPE, payload)))
        return cls.parse(Envelope(payload, PAYLOAD_TYPE, (signature,)).encode())

    def is_by(self, key: PublicKey) -> bool:
        """Whether that key truly signed it."""
        signature = self.envelope.signatures[0]
        return signature.key_id == key.key_id and key.verify(
            signature.value, self.envelope.signed_bytes()
        )


# -- the statement, word by word ----------------------------------------------------------------------


def _seen(text: str) -> str:
    if (found := hidden(text)) is not None:
        raise ValueError(f"holds {found}")
    return text


def _moment(text: str) -> str:
    parse_time(text)
    return text


_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Time = Annotated[str, Field(max_length=32), AfterValidator(_moment)]
_Print = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class _DigestSet(Model):
    sha256: _Digest


class _Subject(Model):
    name: Annotated[str, Field(max_length=256)]
    digest: _DigestSet


class _Predicate(Model):
    schema_number: Annotated[int, Field(alias="schema", ge=1, le=1)]
    id: PluginId
    version: Version
    code: _Digest
    manifest: _Digest
    permissions: _Digest
    when: _Time
    reason: Annotated[str, Field(max_length=MAX_REASON), AfterValidator(_seen)] = ""
    seen: Annotated[tuple[_Print, ...], Field(max_length=MAX_FINDINGS)] = ()
    what: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$|^$")] = ""
    expires: _Time | None = None
    report: dict[str, Any] | None = None


class _Statement(Model):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Annotated[
        Literal[
            "https://capwasm.dev/review/scan/v1",
            "https://capwasm.dev/review/approval/v1",
            "https://capwasm.dev/review/rejection/v1",
            "https://capwasm.dev/review/exception/v1",
        ],
        Field(alias="predicateType"),
    ]
    predicate: _Predicate

    @model_validator(mode="after")
    def _whole(self) -> Self:
        said, subject = self.predicate, self.subject[0]
        if subject.name != _subject_name(said.id, said.version):
            raise ValueError("the subject's name is not that of the plugin's id and version")
        has = {
            "scan": said.report is not None,
            "approval": True,
            "rejection": bool(said.reason.strip()),
            "exception": bool(said.what and said.expires and said.reason.strip()),
        }
        kind = self.predicate_type.split("/")[-2]
        words = {"seen": said.seen, "what": said.what, "expires": said.expires}
        own = {"scan": {"report"}, "approval": {"seen"}, "exception": {"what", "expires"}}
        others = [
            w
            for w, value in {**words, "report": said.report}.items()
            if value and w not in own.get(kind, ())
        ]
        if not has[kind] or others:
            raise ValueError(f"not what a record of kind {kind} says")
        if said.report is not None and any(
            said.report.get(word) != value
            for word, value in (
                ("plugin", said.id),
                ("version", said.version),
                ("archive", subject.digest.sha256),
            )
        ):
            raise ValueError("the report is about something else")
        return self


def _subject_name(plugin: str, version: str) -> str:
    return f"{plugin}-{version}.capsule"


def _time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _canonical(doc: Any) -> bytes:
    return json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()


def _malformed(message: str, context: str, *faults: Fault) -> RegistryError:
    return RegistryError(
        f"no review record: {message}", code="review.record", context=context, faults=faults
    )
