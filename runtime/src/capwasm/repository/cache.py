"""Metadata as last verified, one generation at a time: a kill leaves the old one or the new one.

A generation is a directory.  Work is done on a copy of the newest; when it ends, the copy is made
durable and takes the next number by one rename.  One process works at a time.  The files within are
verified anew whenever they are used, so that a cache is never a second root of trust; what it keeps
is the newest versions seen, without which an old state could be shown again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from capwasm._files import sync_directory, why
from capwasm._lock import held
from capwasm.errors import RepositoryError

__all__ = ["Cache"]

_GENERATION: Final = "g{:020d}"
_ROOTS: Final = "root_history"  # python-tuf's name


class Cache:
    """The cache of one repository."""

    def __init__(self, directory: Path) -> None:
        """Name it; nothing is read or made yet."""
        self.directory = directory

    @contextlib.contextmanager
    def work(self) -> Iterator[Path]:
        """A copy of the newest generation, to work on; `keep` makes it the newest.

        Raises:
            RepositoryError: `repository.cache`: it can't be read or written, or is not private;
                `repository.busy`: another process holds it.
        """
        try:
            with self._lock():
                stage = self._stage()
                try:
                    yield stage
                finally:
                    shutil.rmtree(stage, ignore_errors=True)
        except OSError as exc:
            raise RepositoryError(
                f"the cache can't be used: {why(exc)}",
                code="repository.cache",
                context=str(self.directory),
            ) from exc

    def keep(self, stage: Path) -> None:
        """Make what stands in `stage` the newest generation, durably, in one step, if it is new.

        Raises:
            OSError: it can't be; the old one stands.
        """
        old = self._generations()
        if old and _contents(stage) == _contents(old[-1]):
            return
        for file in _files(stage):
            _sync(file)
        sync_directory(stage / _ROOTS)
        sync_directory(stage)
        number = int(old[-1].name[1:]) + 1 if old else 1
        stage.rename(self.directory / _GENERATION.format(number))
        sync_directory(self.directory)
        for path in old:
            shutil.rmtree(path, ignore_errors=True)

    def _generations(self) -> list[Path]:
        return sorted(p for p in self.directory.iterdir() if p.name[0] == "g" and p.is_dir())

    def _stage(self) -> Path:
        for path in self.directory.iterdir():
            if path.name.startswith(".stage-"):  # of a process that was killed: we hold the lock
                shutil.rmtree(path)
        *older, newest = [None, *self._generations()]
        for path in filter(None, older):
            shutil.rmtree(path)
        stage = self.directory / f".stage-{secrets.token_hex(8)}"
        (stage / _ROOTS).mkdir(parents=True, mode=0o700)
        if newest is not None:
            for file in _files(newest):
                # A link to the same bytes: whoever writes replaces names, never bytes.
                os.link(file, stage / file.relative_to(newest))
        return stage

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = self.directory.stat()
        if info.st_uid not in {0, os.geteuid()} or stat.S_IMODE(info.st_mode) & 0o022:
            raise RepositoryError(
                "others own the cache or may write in it; run: chmod go-w on it",
                code="repository.cache",
                context=str(self.directory),
            )
        with held(self.directory, RepositoryError, code="repository.busy"):
            yield


def _files(generation: Path) -> list[Path]:
    """Its files; the one link in it, to the newest root, is made anew by whoever walks."""
    both = [*generation.iterdir(), *(generation / _ROOTS).iterdir()]
    return sorted(p for p in both if p.is_file() and not p.is_symlink())


def _contents(generation: Path) -> dict[Path, bytes]:
    return {p.relative_to(generation): p.read_bytes() for p in _files(generation)}


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
