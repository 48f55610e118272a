"""The files that a repository serves, as its owner reads and writes them.

Everything but `timestamp.json` has its version or digest in its name and is written once; the
timestamp is what makes a new state the state, and is put in place last, by one rename.  So a reader
sees the old state whole or the new one, and a writer that was killed leaves files that nobody asks
for.  What is read back is believed only as far as the keys of its root signed it: who can write to
the served files must not have the owner sign for him.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from capwasm._files import read_file, sync_directory, write_file
from capwasm.errors import RepositoryError

from ._told import told
from .fetch import MAX_METADATA
from .layout import check_keys

__all__ = ["KEPT", "State", "Tree"]

KEPT: Final = 20  # versions of a role that stay for readers who began before a newer one


@dataclass(slots=True)
class State:
    """The newest of each role, verified."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]


class Tree:
    """Files below one directory: `metadata/` and `targets/`."""

    def __init__(self, directory: Path) -> None:
        """Name it."""
        self.metadata = directory / "metadata"
        self.targets = directory / "targets"

    def load(self, first_root: bytes) -> State:
        """Read and verify the state that is served.  Expiry is not looked at: it is to be renewed.

        Args:
            first_root: the root metadata that the repository began with.

        Raises:
            RepositoryError: as a client would; `repository.release` if a file is missing.
        """
        with told(str(self.metadata)):
            root = self._root(first_root)
            timestamp = self._verified(root.signed, "timestamp", "timestamp.json")
            meta: MetaFile = timestamp.signed.snapshot_meta
            snapshot = self._verified(
                root.signed, "snapshot", f"{meta.version}.snapshot.json", meta
            )
            meta = snapshot.signed.meta["targets.json"]
            targets = self._verified(root.signed, "targets", f"{meta.version}.targets.json", meta)
            return State(root, timestamp, snapshot, targets)

    def next_version(self, role: str, current: int) -> int:
        """A version that no file of the role has, not even one that a kill left behind."""
        versions = [self._version(p) for p in self.metadata.glob(f"*.{role}.json")]
        return max([current, *versions]) + 1

    def write(self, role: str, metadata: Metadata[Any]) -> bytes:
        """Write a role's metadata, durably; returns the file.

        Raises:
            RepositoryError: `repository.release`.
        """
        data = metadata.to_bytes()
        version = metadata.signed.version
        name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
        write_file(
            self.metadata / name,
            data,
            RepositoryError,
            code="repository.release",
            overwrite=role == "timestamp",
        )
        return data

    def write_target(self, path: str, digest: str, data: bytes) -> None:
        """Write a target under its digest.

        Raises:
            RepositoryError: `repository.release`.
        """
        folder, _, name = path.rpartition("/")
        place = self.targets / folder / f"{digest}.{name}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            for above in (self.targets / folder).parents[:2]:
                sync_directory(above)
        except OSError as exc:
            raise RepositoryError(
                f"can't be made: {exc.strerror}",
                code="repository.release",
                context=str(place.parent),
            ) from exc
        write_file(place, data, RepositoryError, code="repository.release")

    def has_other(self, path: str, digest: str) -> bool:
        """Whether another file ever stood, or was about to stand, where this target would be."""
        folder, _, name = path.rpartition("/")
        return any(
            file.name != f"{digest}.{name}" for file in (self.targets / folder).glob(f"*.{name}")
        )

    def prune(self, state: State) -> None:
        """Take away versions so old that nobody reads them any more."""
        for role in ("snapshot", "targets"):
            newest = getattr(state, role).signed.version
            for path in self.metadata.glob(f"*.{role}.json"):
                if 0 < self._version(path) <= newest - KEPT:
                    path.unlink(missing_ok=True)

    # -- reading -------------------------------------------------------------------------------

    @staticmethod
    def _version(path: Path) -> int:
        number = path.name.partition(".")[0]
        return int(number) if number.isascii() and number.isdigit() else 0

    def _read(self, name: str) -> bytes:
        return read_file(
            self.metadata / name, MAX_METADATA, RepositoryError, code="repository.release"
        )

    def _root(self, first: bytes) -> Metadata[Root]:
        newest = Metadata[Root].from_bytes(first)
        newest.signed.verify_delegate("root", newest.signed_bytes, newest.signatures)
        while (self.metadata / f"{newest.signed.version + 1}.root.json").exists():
            number = newest.signed.version + 1
            found = Metadata[Root].from_bytes(self._read(f"{number}.root.json"))
            for judge in (newest.signed, found.signed):
                judge.verify_delegate("root", found.signed_bytes, found.signatures)
            if found.signed.version != number:
                raise RepositoryError(
                    f"{number}.root.json is of version {found.signed.version}",
                    code="repository.metadata",
                )
            newest = found
        check_keys(newest.signed)
        return newest

    def _verified(
        self, root: Root, role: str, name: str, meta: MetaFile | None = None
    ) -> Metadata[Any]:
        data = self._read(name)
        if meta is not None:
            meta.verify_length_and_hashes(data)
        found = Metadata[Any].from_bytes(data)
        if found.signed.type != role:
            raise RepositoryError(f"{name} is of {found.signed.type}", code="repository.metadata")
        root.verify_delegate(role, found.signed_bytes, found.signatures)
        return found
