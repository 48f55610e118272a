"""A file that is the plugin itself, with no manifest and no signature: its bytes, and what they are.

Nothing vouches for such a file, so its digest is all the name that it has.  What may be done with it
is for `grants` to say; here it is only told apart from what could never run.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

from capwasm._stage import Proof
from capwasm.errors import ArtifactError

from .artifact import Artifact
from .container import MAGIC
from .identity import LEGACY, Identity, Kind
from .verify import Signer, VerifiedArtifact

__all__ = ["LegacyFile", "Proven", "recognise"]

_COMPONENT: Final = b"\0asm\x0d\0\x01\0"
_CORE: Final = b"\0asm\x01\0\0\0"
_ELF: Final = b"\x7fELF"
# Class, data, version (System V ABI, figure 4-4): 64 bits, little endian, the only version.
_ELF64: Final = b"\x02\x01\x01"
_HEADER: Final = struct.Struct("<16xHH")  # e_type, e_machine
_SHARED_OBJECT: Final = 3
_DIGITS: Final = 32  # of 64: a label has 63 characters at most; 128 bits tell any two files apart
_MACHINES: Final = {"x86_64": 62, "aarch64": 183}


@final
@dataclass(frozen=True, slots=True, eq=False)
class LegacyFile(Proof):
    """The bytes of a plugin that has no manifest.  Made by `recognise` alone; proves no origin.

    Attributes:
        code: the bytes that were hashed, and that are to run.
        code_digest: their SHA-256, in hex.
        identity: an id made of the digest, no version, and what they are.
        name: where they came from, escaped, for messages; may be empty.
    """

    code: bytes = field(repr=False)
    code_digest: str
    identity: Identity
    name: str = ""

    @property
    def id(self) -> str:
        """The id that it is known by here."""
        return self.identity.id

    @property
    def version(self) -> str:
        """The least there is."""
        return self.identity.version

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.identity.kind

    @property
    def digest(self) -> str:
        """The name of this content: there is nothing else in it than its code."""
        return self.code_digest

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of all that is in it, by name."""
        return {"": self.code_digest}

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Nobody."""
        return ()

    def library(self, triple: str) -> bytes | None:  # noqa: ARG002  `recognise` looked at it
        """Its code, which is for this machine."""
        return self.code if self.kind == "native" else None


Proven = VerifiedArtifact | LegacyFile
"""Bytes that may be loaded: each is what its maker says that it is."""


def recognise(artifact: Artifact) -> LegacyFile:
    """Tell what the bytes are, by their first few.

    Raises:
        ArtifactError: `artifact.legacy`: neither a component nor a shared object of this machine.
    """
    data = artifact.data

    def refuse(message: str) -> ArtifactError:
        return ArtifactError(message, code="artifact.legacy", context=artifact.name)

    if data.startswith(_COMPONENT):
        kind: Kind = "component"
    elif data.startswith(_ELF):
        if (fault := _elf_fault(data)) is not None:
            raise refuse(fault)
        kind = "native"
    elif data.startswith(_CORE):
        raise refuse("a core module of WebAssembly, not a component")
    elif data.startswith(MAGIC):
        raise refuse("a capsule, which has a manifest: load it as one")
    else:
        raise refuse("neither a WebAssembly component nor a shared object")
    digest = artifact.sha256
    identity = Identity(f"{LEGACY}{digest[:_DIGITS]}", "0.0.0", kind)
    return LegacyFile.made(data, digest, identity, artifact.name)


def _elf_fault(data: bytes) -> str | None:
    """Why a file that begins as ELF does is no shared object of this machine, or None."""
    if len(data) < _HEADER.size or data[4:7] != _ELF64:
        return "not a 64-bit, little-endian file of ELF"
    type_, machine = _HEADER.unpack_from(data)
    if type_ != _SHARED_OBJECT:
        return "a file of ELF, but no shared object"
    here = platform.machine()
    if machine != _MACHINES.get(here):
        return f"a shared object of another machine than this one, {here}"
    return None
