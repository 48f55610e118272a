"""Stage 1: a file or bytes become an `Artifact`: all bytes, read once, none of them parsed.

Every later stage works on this one immutable object.  Nothing opens the file again, so a file
swapped after verification changes nothing (SIG-05, SIG-21).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from os import PathLike
from typing import Final, final

from capwasm._files import read_file
from capwasm._stage import Proof
from capwasm.errors import ArtifactError

__all__ = ["MAX_CAPSULE_BYTES", "Artifact", "read_artifact"]

# A Python guest is 18 MB, one with a few libraries 40.  The bytes are held in memory unverified.
MAX_CAPSULE_BYTES: Final = 64 * 1024 * 1024


@final
@dataclass(frozen=True, slots=True, eq=False)
class Artifact(Proof):
    """Bytes that claim to be a capsule.  Made by `read_artifact` alone; proves only their size.

    Attributes:
        data: the bytes, opaque until `verify`.
        name: where they came from, escaped, for messages; may be empty.
    """

    data: bytes = field(repr=False)
    name: str

    @property
    def sha256(self) -> str:
        """Digest of the whole file, signatures included, in hex: a name for it in a log.

        It changes when a signature is added.  What identifies a plugin's content is
        `VerifiedArtifact.digest`, which does not.
        """
        return hashlib.sha256(self.data).hexdigest()


def read_artifact(
    source: str | PathLike[str] | bytes | bytearray | memoryview, limit: int = MAX_CAPSULE_BYTES
) -> Artifact:
    """Take the bytes of a capsule, once.

    Args:
        source: a path, or the bytes themselves, which are copied if they could change.
        limit: bytes.

    Raises:
        ArtifactError: `artifact.unreadable` for what is missing, no regular file (a FIFO, a
            device, a directory) or changes while read; `artifact.too-large` for one over `limit`.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        size = memoryview(source).nbytes
        if size > limit:
            raise ArtifactError(
                f"{size} bytes, more than the limit of {limit}", code="artifact.too-large"
            )
        return Artifact.made(bytes(source), "")
    data = read_file(
        source, limit, ArtifactError, code="artifact.unreadable", too_large="artifact.too-large"
    )
    return Artifact.made(data, ascii(str(source))[1:-1])
