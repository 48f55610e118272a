"""The revocation feed: a signed, numbered list of what may no longer run, and of what alone may.

A DSSE envelope as a capsule has, with a payload type of its own, so that no signature over the one
is one over the other.  It is signed by keys whose only role is `revoker`, as many as the trust
store's threshold for that role.  Each feed is whole: it replaces the one before, and its sequence
is higher.

Large lists are tables from what is denied to the reason, so that nothing can stand twice and a
hundred thousand entries are read in a fraction of a second.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, final

from pydantic import AfterValidator, Field, ValidationError, model_validator

from capwasm._model import Model, faults_of, hidden, parse_json, validate
from capwasm._stage import Proof
from capwasm.capsule.envelope import Envelope, Signature
from capwasm.capsule.identity import IdPattern, PluginId
from capwasm.capsule.keys import PrivateKey
from capwasm.capsule.trust import REVOKED_BY, TrustStore, parse_time
from capwasm.capsule.verify import true_signers
from capwasm.errors import Fault, RevocationError, VerificationError
from capwasm.grants.semver import VersionRange

__all__ = [
    "MAX_ENTRIES",
    "MAX_FEED_BYTES",
    "PAYLOAD_TYPE",
    "SKEW",
    "CapabilityEntry",
    "Content",
    "Feed",
    "add_signature",
    "check_signatures",
    "make",
    "parse",
    "verify_feed",
]

PAYLOAD_TYPE: Final = "application/vnd.capwasm.revocations+json"
SCHEMA: Final = 1
MAX_FEED_BYTES: Final = 32 * 1024 * 1024
MAX_ENTRIES: Final = 200_000
MAX_SEQUENCE: Final = 10**15  # no feed can use up all numbers that could come after it
MAX_REASON: Final = 500
SKEW: Final = timedelta(minutes=5)
"""By how much two clocks that are right may differ."""


@functools.lru_cache(maxsize=4096)
def _range(text: str) -> str:
    VersionRange.parse(text)
    return text


@functools.lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    if (found := hidden(text)) is not None:
        raise ValueError(f"holds an invisible or control character, {found}")
    return text


def _time(text: str) -> str:
    parse_time(text)
    return text


Reason = Annotated[str, Field(max_length=MAX_REASON), AfterValidator(_plain)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Range = Annotated[str, AfterValidator(_range)]
Time = Annotated[str, AfterValidator(_time)]


class CapabilityEntry(Model):
    """A capability that is denied: all of it, or what a table of policy.toml speaks of."""

    capability: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    plugins: IdPattern = "*"
    clause: dict[str, Any] | None = None
    reason: Reason = ""


class Deny(Model):
    """What is denied, each with the reason."""

    digests: dict[Hex, Reason] = Field(default_factory=dict)
    versions: dict[PluginId, dict[Range, Reason]] = Field(default_factory=dict)
    plugins: dict[IdPattern, Reason] = Field(default_factory=dict)
    signers: dict[Hex, Reason] = Field(default_factory=dict)
    capabilities: Annotated[tuple[CapabilityEntry, ...], Field(max_length=1000)] = ()

    @property
    def count(self) -> int:
        """How many entries there are."""
        tables = (self.digests, self.plugins, self.signers, self.capabilities)
        return sum(map(len, tables)) + sum(map(len, self.versions.values()))


class Allow(Model):
    """What alone may run, if there is such a list: plugins by id, or contents by digest."""

    plugins: tuple[IdPattern, ...] = ()
    digests: tuple[Hex, ...] = ()


class Content(Model):
    """What a feed says."""

    schema_number: Annotated[int, Field(alias="schema", ge=1, le=SCHEMA)]
    sequence: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
    issued: Time
    expires: Time
    deny: Deny = Field(default_factory=Deny)
    allow: Allow | None = None

    @model_validator(mode="after")
    def _in_bounds(self) -> Content:
        allowed = 0 if self.allow is None else len(self.allow.plugins) + len(self.allow.digests)
        if self.deny.count + allowed > MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES} entries")
        if parse_time(self.issued) >= parse_time(self.expires):
            raise ValueError("it expires before it is issued")
        return self


@final
@dataclass(frozen=True, slots=True, eq=False)
class Feed(Proof):
    """A feed that is well formed.  Made by `parse`, which proves no signature, and `verify_feed`.

    Attributes:
        content: what it says.
        digest: SHA-256 of the payload, in hex.
        data: the envelope's bytes.
        issued, expires: with a time zone.
        signers: names of the keys that counted; empty if none was asked.
    """

    content: Content
    digest: str
    data: bytes
    issued: datetime
    expires: datetime
    signers: tuple[str, ...] = ()

    @property
    def sequence(self) -> int:
        """Its number."""
        return self.content.sequence


def parse(data: bytes) -> Feed:
    """Read a feed's envelope, and believe nothing of it.

    Raises:
        RevocationError: `revocation.too-large`, `revocation.schema`, else `revocation.feed` with
            all faults.
        VerificationError: `verify.envelope`, `verify.payload-type`.
    """
    return _feed(data, _envelope(data))


def verify_feed(data: bytes, trust: TrustStore, now: datetime) -> Feed:
    """Prove that enough revokers signed a feed, and that its time has come and is not over.

    Nothing of the payload is parsed before its signatures are true.

    Args:
        data: the envelope.
        trust: whose signatures count.
        now: with a time zone.

    Raises:
        VerificationError: as `verify.verify`: `verify.no-trust-store`, `verify.unsigned`,
            `verify.threshold`, `verify.key-role`, …
        RevocationError: as `parse`; `revocation.expired`, `revocation.future`.
    """
    envelope, signers = _proven(data, trust, now)
    feed = _feed(data, envelope, signers)
    if feed.issued > now + SKEW:
        raise RevocationError(
            f"it was issued at {feed.content.issued}, and here it is {now:%Y-%m-%dT%H:%M:%SZ}",
            code="revocation.future",
        )
    if feed.expires <= now:
        raise RevocationError(f"it expired at {feed.content.expires}", code="revocation.expired")
    return feed


def check_signatures(data: bytes, trust: TrustStore, now: datetime) -> tuple[str, ...]:
    """The names of the revokers that signed, if they are enough; its content is not looked at.

    Raises:
        RevocationError, VerificationError: as `verify_feed`.
    """
    return _proven(data, trust, now)[1]


def _proven(data: bytes, trust: TrustStore, now: datetime) -> tuple[Envelope, tuple[str, ...]]:
    if not any("revoker" in key.roles for key in trust.keys):
        raise VerificationError(
            "no trusted key has the role revoker, so no feed can be verified",
            code="verify.no-trust-store",
        )
    envelope = _envelope(data)
    if not envelope.signatures:
        raise VerificationError("the feed is not signed", code="verify.unsigned")
    signed_by, strangers = true_signers(envelope, trust)
    counted = trust.judge(signed_by, REVOKED_BY, now, strangers=strangers)
    return envelope, tuple(sorted(key.name for key in counted))


def make(content: Mapping[str, Any]) -> bytes:
    """An unsigned feed.

    Raises:
        RevocationError: `revocation.list` with all faults; `revocation.too-large`.
    """
    model = validate(Content, dict(content), RevocationError, code="revocation.list")
    doc = model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    payload = json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()
    return _small(Envelope(payload, PAYLOAD_TYPE).encode())


def add_signature(data: bytes, key: PrivateKey) -> bytes:
    """The feed with one more signature; one by the same key is replaced.

    Raises:
        RevocationError, VerificationError: as `parse`.
    """
    envelope = _envelope(data)
    _feed(data, envelope)  # nobody signs what nobody could read
    others = tuple(s for s in envelope.signatures if s.key_id != key.public.key_id)
    mine = Signature(key.public.key_id, key.sign(envelope.signed_bytes()))
    return _small(Envelope(envelope.payload, PAYLOAD_TYPE, (*others, mine)).encode())


def _small(data: bytes) -> bytes:
    if len(data) > MAX_FEED_BYTES:
        raise RevocationError(f"larger than {MAX_FEED_BYTES} bytes", code="revocation.too-large")
    return data


def _envelope(data: bytes) -> Envelope:
    envelope = Envelope.parse(_small(data), MAX_FEED_BYTES)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise VerificationError(
            f"the envelope signs {envelope.payload_type!a}, not {PAYLOAD_TYPE}",
            code="verify.payload-type",
        )
    return envelope


def _feed(data: bytes, envelope: Envelope, signers: Sequence[str] = ()) -> Feed:
    doc = parse_json(
        envelope.payload, RevocationError, code="revocation.feed", limit=MAX_FEED_BYTES
    )
    schema = doc.get("schema") if isinstance(doc, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise RevocationError(
            f"schema {schema}; this runtime knows up to {SCHEMA}",
            code="revocation.schema",
            faults=[Fault("schema", "made by a newer capwasm: update this one")],
        )
    try:
        # The bytes again, which `parse_json` found sound: to write them anew would take as long.
        content = Content.model_validate_json(envelope.payload)
    except ValidationError as exc:
        raise RevocationError(
            "the feed is malformed", code="revocation.feed", faults=faults_of(exc, Content)[:20]
        ) from None
    return Feed.made(
        content=content,
        digest=hashlib.sha256(envelope.payload).hexdigest(),
        data=data,
        issued=parse_time(content.issued),
        expires=parse_time(content.expires),
        signers=tuple(signers),
    )
