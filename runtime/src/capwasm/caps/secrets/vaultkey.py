"""The key of a vault: from a file, a passphrase, or the desktop's keyring."""

from __future__ import annotations

import base64
import binascii
import importlib
import os
from dataclasses import dataclass, field
from os import PathLike
from typing import Final, Literal, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from capwasm._files import read_file, write_file
from capwasm.errors import CapabilityError

from .sealed import SecretBytes

__all__ = ["DerivedKeys", "Kdf", "VaultKey"]

Kdf = Literal["none", "scrypt"]

_PREFIX: Final = b"capwasm-vault-key-1:"
KEY_BYTES: Final = 32
MIN_PASSPHRASE: Final = 12
# 128 MiB and a good tenth of a second: what OWASP advises for scrypt.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**17, 8, 1


@dataclass(frozen=True, slots=True)
class DerivedKeys:
    """The keys of one vault, for its entries and for its seal."""

    salt: str
    entry: bytes = field(repr=False)
    seal: bytes = field(repr=False)


class VaultKey:
    """What opens a vault.  Shows only of which kind it is."""

    __slots__ = ("_material", "kdf")

    def __init__(self, material: SecretBytes, kdf: Kdf) -> None:
        """Use the class methods."""
        self._material = material
        self.kdf = kdf

    def __repr__(self) -> str:
        return f"VaultKey({self.kdf})"

    @classmethod
    def generate(cls, path: str | PathLike[str]) -> Self:
        """Write a new random key to a new file, mode 0600.

        Raises:
            CapabilityError: `capability.vault-key`: the name is taken, or can't be written.
        """
        material = os.urandom(KEY_BYTES)
        line = _PREFIX + base64.b64encode(material) + b"\n"
        write_file(
            path, line, CapabilityError, code="capability.vault-key", mode=0o600, overwrite=False
        )
        return cls(SecretBytes(material), "none")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a key from a file that is the user's own and that no other can read.

        Raises:
            CapabilityError: `capability.vault-key`.
        """
        line = read_file(
            path,
            256,
            CapabilityError,
            code="capability.vault-key",
            refuse_mode=0o077,
            refuse_owner=True,
        )
        return cls._parse(line, str(path))

    @classmethod
    def from_passphrase(cls, passphrase: str) -> Self:
        """Use a passphrase, through scrypt.

        Raises:
            CapabilityError: `capability.vault-key`: shorter than 12 characters.
        """
        if len(passphrase) < MIN_PASSPHRASE:
            raise CapabilityError(
                f"a passphrase has at least {MIN_PASSPHRASE} characters",
                code="capability.vault-key",
            )
        return cls(SecretBytes(passphrase.encode("utf-8", "surrogatepass")), "scrypt")

    @classmethod
    def from_keyring(cls, service: str = "capwasm", user: str = "vault") -> Self:
        """Take the key from the desktop's keyring, where `keyring set` put a key file's line.

        Raises:
            CapabilityError: `capability.vault-key`: no `keyring` package, or no such entry.
        """
        try:
            keyring = importlib.import_module("keyring")
            line = keyring.get_password(service, user)
        except ImportError:
            raise CapabilityError(
                "needs the keyring package; run: pip install keyring", code="capability.vault-key"
            ) from None
        except Exception as exc:  # noqa: BLE001  each backend has errors of its own
            raise CapabilityError(
                f"the keyring can't be used: {type(exc).__name__}", code="capability.vault-key"
            ) from None
        if line is None:
            raise CapabilityError(
                f"the keyring has no entry; run: keyring set {service} {user}",
                code="capability.vault-key",
            )
        return cls._parse(line.encode("utf-8", "replace"), f"keyring {service}/{user}")

    @classmethod
    def _parse(cls, line: bytes, context: str) -> Self:
        try:
            material = base64.b64decode(line.strip().removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            material = b""
        if not line.startswith(_PREFIX) or len(material) != KEY_BYTES:
            raise CapabilityError(
                "not a vault key; make one with: capwasm vault init",
                code="capability.vault-key",
                context=context,
            )
        return cls(SecretBytes(material), "none")

    def derive(self, salt: str) -> DerivedKeys:
        """The keys of the vault with that salt, which is in hex."""
        raw = bytes.fromhex(salt)
        if self.kdf == "scrypt":
            scrypt = Scrypt(raw, KEY_BYTES, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
            master = scrypt.derive(self._material.expose())
        else:
            master = self._material.expose()
        both = HKDF(SHA256(), 2 * KEY_BYTES, raw, b"capwasm-vault/1").derive(master)
        return DerivedKeys(salt, both[:KEY_BYTES], both[KEY_BYTES:])
