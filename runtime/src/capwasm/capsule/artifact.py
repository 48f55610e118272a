"""Stage 1: a file or bytes become an `Artifact`: all bytes, read once, none of them parsed.

A Sigstore bundle that stands beside the file is read with it, once and unparsed too.
Every later stage works on this one immutable object.  Nothing opens the file again, so a file
swapped after verification changes nothing (SIG-05, SIG-21).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Final, final

from capwasm._files import read_file
from capwasm._stage import Proof
from capwasm.errors import ArtifactError

__all__ = ["BUNDLE_END", "MAX_BUNDLE_BYTES", "MAX_CAPSULE_BYTES", "Artifact", "read_artifact"]

# A Python guest is 18 MB, one with a few libraries 40.  The bytes are held in memory unverified.
MAX_CAPSULE_BYTES: Final = 64 * 1024 * 1024
MAX_BUNDLE_BYTES: Final = 64 * 1024
BUNDLE_END: Final = ".sigstore.json"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Artifact(Proof):
    """Bytes that claim to be a capsule.  Made by `read_artifact` alone; proves only their size.

    Attributes:
        data: the bytes, opaque until `verify`.
        name: where they came from, escaped, for messages; may be empty.
        bundles: what claims to be Sigstore bundles for it, as opaque.
    """

    data: bytes = field(repr=False)
    name: str
    bundles: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def sha256(self) -> str:
        """Digest of the whole file, signatures included, in hex: a name for it in a log.

        It changes when a signature is added.  What identifies a plugin's content is
        `VerifiedArtifact.digest`, which does not.
        """
        return hashlib.sha256(self.data).hexdigest()


def read_artifact(
    source: str | PathLike[str] | bytes | bytearray | memoryview,
    limit: int = MAX_CAPSULE_BYTES,
    *,
    beside: bool = False,
    bundles: Sequence[str | PathLike[str]] = (),
) -> Artifact:
    """Take the bytes of a capsule, once.

    Args:
        source: a path, or the bytes themselves, which are copied if they could change.
        limit: bytes.
        beside: whether the bundle that stands beside a path, with `.sigstore.json` at the end of
            its name, is read too.
        bundles: files of bundles; then none is looked for beside the path.

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
        return Artifact.made(bytes(source), "", _bundles(bundles))
    data = read_file(
        source, limit, ArtifactError, code="artifact.unreadable", too_large="artifact.too-large"
    )
    if beside and not bundles and os.path.lexists(there := os.fspath(source) + BUNDLE_END):
        bundles = [there]
    return Artifact.made(data, ascii(str(source))[1:-1], _bundles(bundles))


def _bundles(paths: Sequence[str | PathLike[str]]) -> tuple[bytes, ...]:
    return tuple(
        read_file(
            path,
            MAX_BUNDLE_BYTES,
            ArtifactError,
            code="artifact.unreadable",
            too_large="artifact.too-large",
        )
        for path in paths
    )
