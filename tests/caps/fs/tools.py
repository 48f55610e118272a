"""A mount to test with: a real directory, opened by the real capability."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capwasm.capability import Grant, GrantedClause
from capwasm.caps.fs import Access, Dir, Fs, FsClause, FsError, FsState, beneath
from capwasm.caps.fs.beneath import Resolve, by_openat2, by_walking
from capwasm.events import Event
from capwasm.lattice import ClauseSet
from tests.helpers import ListRecorder, in_call, open_context

WAYS: dict[str, Resolve] = {"openat2": by_openat2, "walk": by_walking}


class Mounted:
    """One instance's mounts of directories below `base`."""

    def __init__(self, base: Path, fs: Fs, *granted: GrantedClause[FsClause]) -> None:
        self.recorder = ListRecorder()
        data = base / "state"
        data.mkdir(exist_ok=True)
        self.fs = fs
        self.granted = granted
        self.state: FsState = fs.open(
            Grant(granted, ClauseSet.of()), open_context(data, recorder=self.recorder)
        )

    @property
    def root(self) -> Dir:
        return next(iter(self.state.roots.values()))

    def denials(self) -> list[Event]:
        return self.recorder.of("denied")


def clause(path: Path, access: str = "read-write", **rest: Any) -> GrantedClause[FsClause]:
    mount = rest.pop("mount", "/data")
    return GrantedClause(FsClause(mount, None, str(path), Access(access), **rest))


@contextmanager
def mounted(
    base: Path, *granted: GrantedClause[FsClause], fs: Fs | None = None, way: str = "openat2"
) -> Iterator[Mounted]:
    """Mount, within a call, and let go."""
    fs = fs or Fs(resolve=WAYS[way])
    with in_call():
        bench = Mounted(base, fs, *granted)
        try:
            yield bench
        finally:
            fs.close(bench.state)


@contextmanager
def checked_escapes() -> Iterator[None]:
    """Compare each opened file with its root."""
    before, beneath.CHECK_ESCAPES = beneath.CHECK_ESCAPES, True
    try:
        yield
    finally:
        beneath.CHECK_ESCAPES = before


def outcome(act: Callable[[], object]) -> str:
    """`ok`, or the name of the errno that it was refused with."""
    try:
        found = act()
    except FsError as exc:
        return errno.errorcode[exc.errno]
    close = getattr(found, "close", None)
    if close is not None:
        close()
    return "ok"


def held(root: Path) -> tuple[int, int]:
    """Bytes and names below a directory, as anyone would count them."""
    size = names = 0
    for where, below, others in os.walk(root):
        names += len(below) + len(others)
        size += sum((Path(where) / name).lstat().st_size for name in others)
    return size, names


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
