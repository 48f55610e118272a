"""Strict mode: on which terms a file without a manifest runs.

It gets what nobody needs to grant: an empty directory, read-only, at /tmp.  Everything else it may
import, and each use is refused and on record.  It always has a process of its own, the smallest
limits, and no place in the registry; the policy must name its very bytes.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .capability import Capability, Grant, GrantedClause
from .caps.fs.model import Access, FsClause
from .capsule.legacy import LegacyFile
from .errors import CapabilityError
from .grants.consent import Subject, consent_for
from .grants.manifest import Manifest, strict_manifest
from .grants.policy import Policy
from .grants.resolve import Grants, resolve
from .lattice import ClauseSet
from .limits import DEFAULTS, Limits

__all__ = ["STRICT", "StrictRoom", "strict_grants"]

MOUNT: Final = "/tmp"  # noqa: S108  the guest's path; the directory is made below
STRICT: Final = Limits.from_table(
    {
        "fuel": 500_000_000,
        "memory": 64 * 2**20,
        "wall-ms": 5_000,
        "host-call-ms": 1_000,
        "host-calls": 10_000,
        "output-bytes": 64 * 2**10,
        "net-bytes": 1,
        "value-bytes": 2**20,
        "handles": 64,
        "concurrency": 1,
        "depth": 1,
    },
    DEFAULTS,
)
"""Enough for a small program to show what it wants."""


def strict_grants(
    file: LegacyFile, policy: Policy, capabilities: Sequence[Capability[Any, Any]], *, core: str
) -> tuple[Manifest, Grants]:
    """The manifest that stands for the file, and what it is granted: nothing.

    Raises:
        GrantDeniedError: `grant.legacy`: the policy does not list the file; with the line that does.
    """
    manifest = strict_manifest(file.identity, file.code_digest, STRICT, capabilities)
    consent = consent_for(Subject.of(manifest, file.code_digest))
    return manifest, resolve(manifest, policy, consent, capabilities, core=core)


class StrictRoom:
    """The empty directory of one runtime, until it is closed."""

    def __init__(self) -> None:
        """Nothing is made before it is needed."""
        self._lock = threading.Lock()
        self._made: tempfile.TemporaryDirectory[str] | None = None

    @property
    def data(self) -> Path:
        """A directory for stores, which stays empty: there is no grant to write one.

        Raises:
            CapabilityError: it can't be made.
        """
        return self._path("data")

    def given(self) -> Mapping[str, Grant[Any]]:
        """What every file without a manifest has, by capability.

        Raises:
            CapabilityError: the directory can't be made.
        """
        clause = FsClause(MOUNT, path=str(self._path("empty")), access=Access.READ)
        return {"fs": Grant((GrantedClause(clause),), ClauseSet.of())}

    def close(self) -> None:
        """Remove it."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.cleanup()

    def _path(self, name: str) -> Path:
        try:
            with self._lock:
                if self._made is None:
                    self._made = tempfile.TemporaryDirectory(prefix="capwasm-")
                path = Path(self._made.name) / name
            path.mkdir(mode=0o500, exist_ok=True)
        except OSError as exc:
            raise CapabilityError(
                f"there is no place for an empty directory: {exc.strerror}", context=MOUNT
            ) from None
        return path
