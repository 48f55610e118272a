"""The format of a vault file, version 1: one line of JSON, one line that seals it.

Each entry is sealed with AES-256-GCM under the vault's entry key, with the format and the entry's
name as associated data, so that an entry can't be moved to another name.  The second line is a seal
under another key over every byte of the first, so that no entry can be dropped, revived or brought
back alone.  Both keys come from the vault's key and its salt (see `vaultkey`), so nothing fits into
a second vault that has the same key.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field, ValidationError

from capwasm._model import Model

from .model import MAX_NAME, NAME
from .sealed import SecretBytes
from .vaultkey import DerivedKeys, Kdf

__all__ = [
    "Damaged",
    "Document",
    "Entry",
    "check_seal",
    "open_entry",
    "parse",
    "seal",
    "seal_entry",
]

_ENTRY: Final = b"capwasm-vault/1 entry\0"
_SEAL: Final = b"capwasm-vault/1 seal\0"
_NONCE: Final = 12


class Damaged(Exception):
    """The bytes are not what was sealed, or another key sealed them.  Says which part."""


class Entry(Model):
    """One secret: a sealed box, or the reason why there is none any more."""

    box: str
    revoked: str | None = None


class Document(Model):
    """The first line.

    Attributes:
        kdf: what kind of key it is locked with.
        salt: 32 random bytes, in hex; new with each key.
        serial: counts the changes.
        entries: by name.
    """

    format: Literal["capwasm-vault"] = "capwasm-vault"
    version: Annotated[int, Field(ge=1, le=1)] = 1
    kdf: Kdf
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    serial: Annotated[int, Field(ge=1, lt=2**53)]
    entries: dict[Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)], Entry]


def parse(data: bytes) -> Document:
    """The document, not yet to be believed: `check_seal` comes next.

    Raises:
        Damaged: it has not the form.
    """
    try:
        return Document.model_validate_json(data.partition(b"\n")[0])
    except ValidationError:
        raise Damaged("not a vault of a version that this runtime knows, or damaged") from None


def seal(document: Document, keys: DerivedKeys) -> bytes:
    """The whole file."""
    body = document.model_dump_json().encode()
    return body + b"\n" + base64.b64encode(_encrypt(keys.seal, b"", _SEAL + body)) + b"\n"


def check_seal(data: bytes, keys: DerivedKeys) -> None:
    """Pass if `keys` sealed exactly these bytes.

    Raises:
        Damaged: they did not.
    """
    body, _, line = data.partition(b"\n")
    try:
        box = base64.b64decode(line.removesuffix(b"\n"), validate=True)
        # Of a seal, too, there is but one spelling: base64 has bits to spare.
        if base64.b64encode(box) + b"\n" != line:
            raise ValueError
        AESGCM(keys.seal).decrypt(box[:_NONCE], box[_NONCE:], _SEAL + body)
    except (InvalidTag, ValueError, binascii.Error):
        raise Damaged(
            "the key is not this vault's, or the file was changed by another hand"
        ) from None


def seal_entry(name: str, value: bytes, keys: DerivedKeys) -> Entry:
    """The entry that holds `value` under that name alone."""
    box = _encrypt(keys.entry, value, _ENTRY + name.encode())
    return Entry(box=base64.b64encode(box).decode())


def open_entry(name: str, entry: Entry, keys: DerivedKeys) -> SecretBytes:
    """The value.

    Raises:
        Damaged: the entry was sealed under another name or key.
    """
    try:
        box = base64.b64decode(entry.box, validate=True)
        aead = AESGCM(keys.entry)
        return SecretBytes(aead.decrypt(box[:_NONCE], box[_NONCE:], _ENTRY + name.encode()))
    except (InvalidTag, ValueError, binascii.Error):
        raise Damaged("an entry is damaged") from None


def _encrypt(key: bytes, plain: bytes, bound_to: bytes) -> bytes:
    # 96 random bits: safe for 2**32 changes under one key, and each rotation makes a new one.
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, bound_to)
