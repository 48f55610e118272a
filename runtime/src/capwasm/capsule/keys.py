"""Signing keys: Ed25519, and ECDSA over P-256 with SHA-256.  The only module with cryptography.

A key's algorithm is a property of the key, never of a message (SIG-11).  A key is its bytes: two
are equal when their SubjectPublicKeyInfo is, and the key id is only the digest of that, a hint by
which a signature says whose it is (SIG-10).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from typing import Final, Literal, Self, TypeAlias, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from capwasm._files import read_file, write_file
from capwasm.errors import PolicyError

__all__ = ["ALGORITHMS", "Algorithm", "PrivateKey", "PublicKey"]

Algorithm = Literal["ed25519", "ecdsa-p256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("ed25519", "ecdsa-p256")
MAX_KEY_BYTES: Final = 4096

_Public: TypeAlias = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
_Private: TypeAlias = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

# Ed25519 points whose order divides 8, by their y.  A signature can be made for each that fits any
# message, and the library takes them, so no such key is let in (SIG-13).  y is reduced below.
_P: Final = 2**255 - 19
_ORDER_8: Final = 0x5FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that is strong enough to trust.  Made by `parse`, or by a private key.

    Attributes:
        der: SubjectPublicKeyInfo in canonical DER: what equality means.
        algorithm: how it verifies.
        key_id: SHA-256 of `der`, in hex.
    """

    der: bytes = field(repr=False)
    algorithm: Algorithm = field(compare=False)
    key_id: str = field(compare=False)
    _key: _Public = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Take a key from PEM, or from base64 of DER.

        Raises:
            PolicyError: `trust.key` if it is neither; `trust.weak-key` for RSA, another curve,
                or an Ed25519 point of small order.
        """
        data = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        if len(data) > MAX_KEY_BYTES:
            raise PolicyError(f"a public key is at most {MAX_KEY_BYTES} bytes", code="trust.key")
        try:
            if b"-----BEGIN" in data:
                key = serialization.load_pem_public_key(data)
            else:
                der = base64.b64decode(data.strip(), validate=True)
                key = serialization.load_der_public_key(der)
        except UnsupportedAlgorithm:
            raise PolicyError(_WEAK, code="trust.weak-key") from None
        except (ValueError, TypeError, binascii.Error):
            raise PolicyError(
                "not a public key: write PEM (-----BEGIN PUBLIC KEY-----) or base64 of its DER",
                code="trust.key",
            ) from None
        return cls._of(key)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Take a key from a file.

        Raises:
            PolicyError: as `parse`, and `trust.unreadable`.
        """
        return cls.parse(read_file(path, MAX_KEY_BYTES, PolicyError, code="trust.unreadable"))

    @classmethod
    def _of(cls, key: object) -> Self:
        algorithm = _algorithm(key)
        public = cast("_Public", key)
        if isinstance(public, ed25519.Ed25519PublicKey):
            _refuse_small_order(public.public_bytes_raw())
        der = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(der, algorithm, hashlib.sha256(der).hexdigest(), public)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made `signature` over exactly `message`.  Never raises."""
        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, message)
            else:
                self._key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True

    def base64(self) -> str:
        """One line, as a trust store writes it."""
        return base64.b64encode(self.der).decode()

    def pem(self) -> bytes:
        """The usual file form."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@dataclass(frozen=True, slots=True, eq=False)
class PrivateKey:
    """A key that signs.  Shows only its public half."""

    public: PublicKey
    _key: _Private = field(repr=False)

    @classmethod
    def generate(cls, algorithm: Algorithm = "ed25519") -> Self:
        """Make a new key.

        Raises:
            ValueError: for an algorithm that is none of `ALGORITHMS`.
        """
        if algorithm == "ed25519":
            return cls._of(ed25519.Ed25519PrivateKey.generate())
        if algorithm == "ecdsa-p256":
            return cls._of(ec.generate_private_key(ec.SECP256R1()))
        raise ValueError(f"unknown algorithm {algorithm!r}; valid: {', '.join(ALGORITHMS)}")

    @classmethod
    def parse(cls, pem: bytes, passphrase: bytes | Callable[[], bytes] | None = None) -> Self:
        """Take a key from PEM (PKCS #8).

        Args:
            pem: the file.
            passphrase: itself, or a function that asks for it, called only if the key needs one.

        Raises:
            PolicyError: `trust.key` if it is no key, or the passphrase is missing, wrong or not
                needed; `trust.weak-key` as for public keys.
        """
        if callable(passphrase):
            passphrase = passphrase() if b"ENCRYPTED" in pem else None
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except UnsupportedAlgorithm:
            raise PolicyError(_WEAK, code="trust.weak-key") from None
        except TypeError:
            which = "not encrypted, but a" if passphrase is not None else "encrypted, and no"
            raise PolicyError(
                f"the private key is {which} passphrase was given", code="trust.key"
            ) from None
        except ValueError:
            # The library's text is not passed on: it may quote the key.
            raise PolicyError(
                "not a private key in PEM, or the wrong passphrase", code="trust.key"
            ) from None
        return cls._of(key)

    @classmethod
    def load(
        cls, path: str | PathLike[str], passphrase: bytes | Callable[[], bytes] | None = None
    ) -> Self:
        """Take a key from a file that only its owner can read.

        Raises:
            PolicyError: as `parse`; `trust.unreadable`; `trust.permissions` if others own or
                may read it.
        """
        pem = read_file(
            path,
            MAX_KEY_BYTES,
            PolicyError,
            code="trust.unreadable",
            refuse_mode=0o077,
            refuse_owner=True,
            mode_code="trust.permissions",
        )
        return cls.parse(pem, passphrase)

    @classmethod
    def _of(cls, key: object) -> Self:
        _algorithm(key)
        private = cast("_Private", key)
        return cls(PublicKey._of(private.public_key()), private)  # noqa: SLF001  same module

    def sign(self, message: bytes) -> bytes:
        """Sign exactly these bytes: 64 bytes for Ed25519, DER for ECDSA."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, ec.ECDSA(hashes.SHA256()))

    def pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS #8, encrypted if there is a passphrase.

        Raises:
            ValueError: for an empty passphrase.
        """
        if passphrase == b"":
            raise ValueError("an empty passphrase protects nothing")
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption(),
        )

    def save(
        self, path: str | PathLike[str], passphrase: bytes | None = None, *, overwrite: bool = False
    ) -> None:
        """Write the key with mode 0600, whole or not at all; never over another unless told.

        Raises:
            PolicyError: `trust.unreadable` if the name is taken, or can't be written.
        """
        write_file(
            path,
            self.pem(passphrase),
            PolicyError,
            code="trust.unreadable",
            mode=0o600,
            overwrite=overwrite,
        )


_WEAK: Final = "keys are Ed25519 or ECDSA over P-256; no other curve, no RSA, no DSA"


def _algorithm(key: object) -> Algorithm:
    if isinstance(key, ed25519.Ed25519PublicKey | ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey) and isinstance(
        key.curve, ec.SECP256R1
    ):
        return "ecdsa-p256"
    raise PolicyError(_WEAK, code="trust.weak-key")


def _refuse_small_order(raw: bytes) -> None:
    """Refuse a point of small order, and one written in any but its one proper form."""
    y = int.from_bytes(raw, "little") & (2**255 - 1)  # the top bit is the sign of x
    if y >= _P or y in _SMALL_ORDER_Y:
        raise PolicyError(
            "the Ed25519 key is a point of small order: anything would verify under it",
            code="trust.weak-key",
        )
