"""What was built is kept, under a digest of all that it was built from.

`capwasm build` always builds.  What runs or tests a project takes what was built of these very files.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from capwasm._files import read_file, write_file
from capwasm._shipped import guest_sdk, wit_packages
from capwasm.capsule.artifact import MAX_CAPSULE_BYTES
from capwasm.errors import ArtifactError, CapabilityError
from capwasm.home import make_private

from .builders import Builder

__all__ = ["Made", "files_of"]

_KEPT: Final = 16
# What tools leave behind, and what no build reads.
_SKIPPED: Final = frozenset({"__pycache__", "node_modules"})
_SKIPPED_AT_TOP: Final = frozenset({"tests", "target"})
_HERE: Final = Path(__file__).parent


def files_of(project: Path) -> Iterator[Path]:
    """The files that a build may read, in a stable order; hidden ones and tests are none."""
    todo = [project]
    while todo:
        place = todo.pop()
        skipped = _SKIPPED | (_SKIPPED_AT_TOP if place == project else frozenset())
        try:
            entries = sorted(place.iterdir())
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in skipped:
                continue
            if entry.is_dir() and not entry.is_symlink():
                todo.append(entry)
            elif entry.is_file() and entry.suffix != ".capsule":
                yield entry


class Made:
    """Capsules of one project, as last built."""

    def __init__(
        self, directory: Path, project: Path, builder: Builder | None, module: str
    ) -> None:
        """Keep them in that directory; nothing is read or made yet."""
        self._directory, self._project = directory, project
        self._builder, self._module = builder, module

    def key(self) -> str:
        """A digest of the project, the SDK, the WIT and the tools: what decides what comes out."""
        total = hashlib.sha256(f"{version('capwasm')}\0{self._module}\n".encode())
        ours = [_HERE / "project.py", _HERE / "sbom.py", _HERE / "world.py"]
        if self._builder is not None:
            ours += [
                _HERE / f"builders/{self._builder.name}.py",
                *files_of(guest_sdk(self._builder.name)),
            ]
            total.update("".join(f"{t.name} {t.found}\n" for t in self._builder.tools()).encode())
        for texts in wit_packages().values():
            total.update("".join(texts.values()).encode())
        theirs = [(p.relative_to(self._project).as_posix(), p) for p in files_of(self._project)]
        for name, path in [*theirs, *((f"/{p.name}", p) for p in ours)]:
            with contextlib.suppress(OSError):
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                total.update(f"{name}\0{digest}\n".encode())
        return total.hexdigest()

    def find(self, key: str) -> bytes | None:
        """The capsule that was built of what this key stands for."""
        try:
            return read_file(
                self._path(key), MAX_CAPSULE_BYTES, ArtifactError, code="artifact.unreadable"
            )
        except ArtifactError:
            return None

    def keep(self, key: str, capsule: bytes) -> None:
        """Keep a capsule, if nothing changed while it was built; that it can't be costs time only."""
        if self.key() != key:
            return
        with contextlib.suppress(OSError, ArtifactError, CapabilityError):
            make_private(self._directory)
            write_file(self._path(key), capsule, ArtifactError, code="artifact.unreadable")
            old = sorted(self._directory.glob("*.capsule"), key=lambda p: -p.stat().st_mtime)
            for path in old[_KEPT:]:
                path.unlink()

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.capsule"
