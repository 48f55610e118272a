"""The DSSE envelope: bytes, their type, and signatures over both (DSSE 1.0).

Signatures cover the payload's bytes as they came, never a second encoding of what was parsed from
them (SIG-08), together with their type (SIG-09).  The envelope itself has one canonical form, so
that there is no byte of it that could be changed unseen.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from dataclasses import dataclass
from typing import Annotated, Final, NoReturn

from pydantic import Field

from capwasm._model import Model, parse_json, validate
from capwasm.errors import VerificationError

from .container import MAX_ENVELOPE_BYTES

__all__ = ["PAYLOAD_TYPE", "Envelope", "Signature", "pae"]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MAX_SIGNATURES: Final = 16
MAX_SIGNATURE_BYTES: Final = 256


class _Signature(Model):
    key_id: Annotated[str, Field(alias="keyid", pattern=r"^[0-9a-f]{64}$")]
    sig: Annotated[str, Field(min_length=1, max_length=MAX_SIGNATURE_BYTES * 4 // 3 + 4)]


class _Envelope(Model):
    payload: str
    payload_type: Annotated[str, Field(alias="payloadType", min_length=1, max_length=128)]
    signatures: Annotated[tuple[_Signature, ...], Field(max_length=MAX_SIGNATURES)]


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature, and whose it says it is.  `key_id` is a hint, and nothing trusts it."""

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and the signatures beside it.  Holding one proves nothing."""

    payload: bytes
    payload_type: str = PAYLOAD_TYPE
    signatures: tuple[Signature, ...] = ()

    @classmethod
    def parse(cls, data: bytes, limit: int = MAX_ENVELOPE_BYTES) -> Envelope:
        """Read an envelope that is in canonical form, of `limit` bytes; its payload stays bytes.

        Raises:
            VerificationError: `verify.envelope`.
        """
        doc = parse_json(data, VerificationError, code="verify.envelope", limit=limit)
        model = validate(_Envelope, doc, VerificationError, context="envelope")
        try:
            signatures = tuple(
                Signature(s.key_id, base64.b64decode(s.sig, validate=True))
                for s in model.signatures
            )
            payload = base64.b64decode(model.payload, validate=True)
        except (binascii.Error, ValueError):
            _malformed("a part of the envelope is not base64")
        key_ids = [s.key_id for s in signatures]
        if any(a >= b for a, b in itertools.pairwise(key_ids)):
            _malformed("the signatures are not sorted by keyid, or one key signs twice")
        envelope = cls(payload, model.payload_type, signatures)
        if envelope.encode() != data:
            _malformed("the envelope is not in canonical form")
        return envelope

    def encode(self) -> bytes:
        """The canonical form: sorted keys, no spaces, signatures sorted by keyid."""
        doc = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": s.key_id, "sig": base64.b64encode(s.value).decode()}
                for s in sorted(self.signatures, key=lambda s: s.key_id)
            ],
        }
        return json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()

    def signed_bytes(self) -> bytes:
        """What a signature covers: type and payload, each with its length before it."""
        return pae(self.payload_type, self.payload)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding of DSSE 1.0: no two pairs give the same bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _malformed(message: str) -> NoReturn:
    raise VerificationError(message, code="verify.envelope")
