"""A Sigstore of our own for tests: authority, logs of certificates and signatures, and bundles.

Made from the specifications with `cryptography` alone, so the package that verifies is met by
bytes that it did not make: certificates with an embedded SCT (RFC 6962), a log entry of Rekor v1
(`hashedrekord` or `dsse`) with proof of inclusion, checkpoint and signed entry timestamp.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from capwasm.capsule.envelope import PAYLOAD_TYPE, pae

ISSUER = "https://accounts.example.org"
SUBJECT = "release@acme.example"
SIGNED_AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
V03 = "application/vnd.dev.sigstore.bundle.v0.3+json"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class Sigstore:
    """Who issues certificates, and who logs them and what is signed with them."""

    ca: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    ct_log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    log: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An authority of tests")])
        public = self.ca.public_key()
        self.name = name
        self.authority = (
            x509.CertificateBuilder(name, name, public, x509.random_serial_number())
            .not_valid_before(SIGNED_AT - timedelta(days=300))
            .not_valid_after(SIGNED_AT + timedelta(days=3000))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self.ca, hashes.SHA256())
        )

    def trusted_root(self) -> bytes:
        start = {"start": "2025-01-01T00:00:00Z"}

        def log(key: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
            return {
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(der(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": start,
                },
                "logId": {"keyId": b64(hashlib.sha256(der(key)).digest())},
            }

        certificate = self.authority.public_bytes(serialization.Encoding.DER)
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.log, "https://log.invalid")],
                "certificateAuthorities": [
                    {
                        "subject": {"organization": "tests", "commonName": "An authority of tests"},
                        "uri": "https://ca.invalid",
                        "certChain": {"certificates": [{"rawBytes": b64(certificate)}]},
                        "validFor": start,
                    }
                ],
                "ctlogs": [log(self.ct_log, "https://ct.invalid")],
                "timestampAuthorities": [],
            }
        ).encode()

    def certificate(
        self,
        key: ec.EllipticCurvePrivateKey,
        *,
        issuer: str = ISSUER,
        names: tuple[x509.GeneralName, ...] = (x509.RFC822Name(SUBJECT),),
        at: datetime = SIGNED_AT,
        sct: bool = True,
    ) -> x509.Certificate:
        """A certificate of ten minutes, with the log's promise in it."""
        issuer_text = issuer.encode()
        builder = (
            x509.CertificateBuilder(
                self.name, x509.Name([]), key.public_key(), x509.random_serial_number()
            )
            .not_valid_before(at - timedelta(minutes=1))
            .not_valid_after(at + timedelta(minutes=9))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key()), False
            )
            .add_extension(x509.SubjectAlternativeName(list(names)), critical=True)
            .add_extension(
                x509.UnrecognizedExtension(
                    ObjectIdentifier("1.3.6.1.4.1.57264.1.8"),
                    bytes([0x0C, len(issuer_text)]) + issuer_text,
                ),
                critical=False,
            )
        )
        before = builder.sign(self.ca, hashes.SHA256())
        if not sct:
            return before
        return builder.add_extension(
            x509.UnrecognizedExtension(
                ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), self._promise(before, at)
            ),
            critical=False,
        ).sign(self.ca, hashes.SHA256())

    def _promise(self, before: x509.Certificate, at: datetime) -> bytes:
        """A list of one SCT, as RFC 6962 section 3.3 embeds it."""
        tbs, millis = before.tbs_certificate_bytes, int(at.timestamp() * 1000)
        entry = hashlib.sha256(der(self.ca)).digest() + len(tbs).to_bytes(3, "big") + tbs
        signature = sign(
            self.ct_log, struct.pack("!BBQH", 0, 0, millis, 1) + entry + struct.pack("!H", 0)
        )
        sct = (
            b"\0"
            + hashlib.sha256(der(self.ct_log)).digest()
            + struct.pack("!QHBBH", millis, 0, 4, 3, len(signature))
            + signature
        )
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        return bytes([0x04, len(listed)] if len(listed) < 128 else [0x04, 0x81, len(listed)]) + (
            listed
        )

    def bundle(
        self,
        payload: bytes,
        *,
        payload_type: str = PAYLOAD_TYPE,
        dsse: bool = False,
        logged_at: datetime = SIGNED_AT,
        **words: Any,
    ) -> dict[str, Any]:
        """Sign in the way of `sigstore sign` (a message) or `attest` (`dsse`): a bundle v0.3."""
        key = new_key()
        certificate = self.certificate(key, **words)
        message = pae(payload_type, payload)
        signature = sign(key, message)
        pem = b64(certificate.public_bytes(serialization.Encoding.PEM))
        if dsse:
            content: dict[str, Any] = {
                "dsseEnvelope": {
                    "payload": b64(payload),
                    "payloadType": payload_type,
                    "signatures": [{"sig": b64(signature)}],
                }
            }
            spec: dict[str, Any] = {
                "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
                "payloadHash": _hash(payload),
                "signatures": [{"signature": b64(signature), "verifier": pem}],
            }
        else:
            digest = hashlib.sha256(message).digest()
            content = {
                "messageSignature": {
                    "messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)},
                    "signature": b64(signature),
                }
            }
            spec = {
                "data": {"hash": _hash(message)},
                "signature": {"content": b64(signature), "publicKey": {"content": pem}},
            }
        kind = "dsse" if dsse else "hashedrekord"
        body = canonical({"apiVersion": "0.0.1", "kind": kind, "spec": spec})
        return {
            "mediaType": V03,
            "verificationMaterial": {
                "certificate": {
                    "rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))
                },
                "tlogEntries": [self._logged(body, kind, int(logged_at.timestamp()))],
            },
            **content,
        }

    def _logged(self, body: bytes, kind: str, at: int) -> dict[str, Any]:
        """An entry, the first of two of a tree."""
        log_id = hashlib.sha256(der(self.log)).digest()
        sibling = hashlib.sha256(b"\0another entry").digest()
        root = hashlib.sha256(b"\1" + hashlib.sha256(b"\0" + body).digest() + sibling).digest()
        note = f"log.invalid - 1\n2\n{b64(root)}\n"
        promise = canonical(
            {"body": b64(body), "integratedTime": at, "logID": log_id.hex(), "logIndex": 0}
        )
        signature = b64(log_id[:4] + sign(self.log, note.encode()))
        return {
            "logIndex": "0",
            "logId": {"keyId": b64(log_id)},
            "kindVersion": {"kind": kind, "version": "0.0.1"},
            "integratedTime": str(at),
            "inclusionPromise": {"signedEntryTimestamp": b64(sign(self.log, promise))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "2",
                "hashes": [b64(sibling)],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.invalid {signature}\n"},
            },
            "canonicalizedBody": b64(body),
        }


def _hash(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


def _usage(**on: bool) -> x509.KeyUsage:
    words = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{word: on.get(word, False) for word in words})
