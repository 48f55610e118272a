"""Private keys of the release side: in files, or wherever securesystemslib can reach them.

`signers.toml` says for each public key where its private half is; it holds no secret itself::

    schema = 1
    [[signer]]
    public = "MCowBQYDK2VwAyEA…"
    uri = "file:keys/timestamp.key"      # or hsm:, awskms:, gcpkms:, azurekms:, hv: …
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field
from securesystemslib.signer import Key, Signature, Signer

from capwasm._files import read_file, write_file
from capwasm._model import MAX_TEXT_BYTES, Model, parse_toml, validate
from capwasm.capsule.keys import PrivateKey, PublicKey
from capwasm.errors import Fault, PolicyError, RepositoryError

from .layout import public_key_of, tuf_key

__all__ = ["Days", "KeyPlace", "KeyRing", "Passphrase"]

Passphrase = Callable[[str], bytes]
"""Asks for what opens a private key, by the name that it is given."""

_FILE: Final = "file:"


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """A public key, and where its private half is: `file:PATH`, or a URI of securesystemslib."""

    public: PublicKey
    uri: str


class Days(Model):
    """For how long each role's metadata are good, in days."""

    root: Annotated[int, Field(ge=1, le=3650)] = 365
    targets: Annotated[int, Field(ge=1, le=3650)] = 90
    snapshot: Annotated[int, Field(ge=1, le=3650)] = 14
    timestamp: Annotated[int, Field(ge=1, le=3650)] = 2


class _Signer(Model):
    public: Annotated[str, Field(max_length=4096)]
    uri: Annotated[str, Field(min_length=3, max_length=1024)]


class _Document(Model):
    schema_: Annotated[int, Field(alias="schema", ge=1, le=1)]
    expires_days: Days = Days()
    signer: Annotated[tuple[_Signer, ...], Field(max_length=64)] = ()


class KeyRing:
    """All keys that this machine can sign with.

    Attributes:
        days: for how long what they sign is good.
    """

    def __init__(
        self, file: Path, places: Iterable[KeyPlace], days: Days, passphrase: Passphrase
    ) -> None:
        """Take them; no private key is opened before it signs."""
        self._file = file
        self._places = {place.public: place for place in places}
        self.days = days
        self._passphrase = passphrase
        self._open: dict[PublicKey, Signer] = {}

    @classmethod
    def load(cls, file: Path, passphrase: Passphrase) -> KeyRing:
        """Take them from a signers.toml.

        Raises:
            RepositoryError: `repository.signer`: it can't be read, or has faults.
        """
        data = read_file(
            file,
            MAX_TEXT_BYTES,
            RepositoryError,
            code="repository.signer",
            refuse_mode=0o022,
            refuse_owner=True,
        )
        doc = parse_toml(data, RepositoryError, code="repository.signer", context=str(file))
        found = validate(
            _Document, doc, RepositoryError, code="repository.signer", context=str(file)
        )
        try:
            places = [KeyPlace(PublicKey.parse(s.public), s.uri) for s in found.signer]
        except PolicyError as exc:
            raise RepositoryError(
                exc.message, code="repository.signer", context=str(file), faults=exc.faults
            ) from None
        return cls(file, places, found.expires_days, passphrase)

    def add(self, places: Iterable[KeyPlace]) -> None:
        """Know these too."""
        self._places.update({place.public: place for place in places})

    def save(self) -> None:
        """Write the signers.toml.

        Raises:
            RepositoryError: `repository.signer`.
        """
        lines = ["schema = 1", "", "[expires-days]"]
        lines += [f"{word} = {days}" for word, days in self.days.model_dump(by_alias=True).items()]
        for place in self._places.values():
            lines += ["", "[[signer]]", f'public = "{place.public.base64()}"']
            lines += [f"uri = {json.dumps(place.uri)}"]
        data = "\n".join([*lines, ""]).encode()
        write_file(self._file, data, RepositoryError, code="repository.signer", mode=0o600)

    def place_of(self, key: Key) -> str | None:
        """Where the private half of a key is, or None if this machine has not got it."""
        place = self._places.get(public_key_of(key))
        return None if place is None else place.uri

    def signers(self, keys: Iterable[Key], threshold: int, what: str) -> list[Signer]:
        """Signers for as many of these keys as are at hand.

        Args:
            keys: that may sign.
            threshold: how many must.
            what: is to be signed, for messages.

        Raises:
            RepositoryError: `repository.signer`: fewer are at hand, or one can't be opened.
        """
        keys = list(keys)
        found = [s for s in map(self._signer, keys) if s is not None]
        if len(found) < threshold:
            missing = [key.keyid for key in keys if self.place_of(key) is None]
            raise RepositoryError(
                f"{what} needs {threshold} signature(s), and {len(found)} of its keys are here",
                code="repository.signer",
                faults=[
                    Fault(
                        f"key {key_id[:16]}",
                        "its private half is not here",
                        fix=f"name it in a [[signer]] of {self._file}",
                    )
                    for key_id in missing
                ],
            )
        return found

    def _signer(self, key: Key) -> Signer | None:
        public = public_key_of(key)
        place = self._places.get(public)
        if place is None:
            return None
        if public not in self._open:
            self._open[public] = self._opened(place)
        return _As(key, self._open[public])

    def _opened(self, place: KeyPlace) -> Signer:
        name = f"key {place.public.key_id[:16]} at {place.uri}"
        try:
            if place.uri.startswith(_FILE):
                path = self._file.parent / place.uri.removeprefix(_FILE)
                key = PrivateKey.load(path, lambda: self._passphrase(str(path)))
                if key.public != place.public:
                    raise PolicyError("holds another key than signers.toml says", code="trust.key")
                return _FileSigner(key)
            return Signer.from_priv_key_uri(
                place.uri,
                tuf_key(place.public),
                lambda secret: self._passphrase(f"{secret} of {place.uri}").decode(),
            )
        except PolicyError as exc:
            raise RepositoryError(exc.message, code="repository.signer", context=name) from exc
        except Exception as exc:  # tokens and services raise what they like
            raise RepositoryError(
                f"can't be opened: {type(exc).__name__}", code="repository.signer", context=name
            ) from exc


class _FileSigner(Signer):
    """Signs with a key of our own kind of file, which may be encrypted and must be private."""

    def __init__(self, key: PrivateKey) -> None:
        self._key = key

    @property
    def public_key(self) -> Key:
        return tuf_key(self._key.public)

    @classmethod
    def from_priv_key_uri(cls, *_args: Any, **_words: Any) -> Signer:
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        return Signature(self._key.public.key_id, self._key.sign(payload).hex())


class _As(Signer):
    """Signs under the id that the metadata give to the key, and looks at what it signed."""

    def __init__(self, key: Key, signer: Signer) -> None:
        self._key = key
        self._signer = signer

    @property
    def public_key(self) -> Key:
        return self._key

    @classmethod
    def from_priv_key_uri(cls, *_args: Any, **_words: Any) -> Signer:
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        try:
            made = Signature(self._key.keyid, self._signer.sign(payload).signature)
            self._key.verify_signature(made, payload)
        except Exception as exc:
            raise RepositoryError(
                f"did not sign: {type(exc).__name__}",
                code="repository.signer",
                context=f"key {self._key.keyid[:16]}",
            ) from exc
        return made
