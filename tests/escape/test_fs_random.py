"""Random paths against a real tree, while its directories and links change places."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.caps.fs import Dir, File, FsError, Node
from capwasm.caps.fs.beneath import by_openat2, by_walking, identity
from tests.caps.fs.tools import WAYS, checked_escapes, clause, mounted

SECRET = b"outside: never to be read"
INSIDE = b"inside"
ORDINARY = {
    "denied", "not-found", "exists", "not-directory", "is-directory", "not-empty", "invalid",
}  # fmt: skip
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

# The same names inside and outside, so that a path that slips out finds something there.
NAMES = ["file", "swap", "other", "deep", "in", "out", "abs", "loop", "proc", "up", "new"]
component = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.sampled_from(
        ["..", ".", "", "file\0", "..\\", "\u2025", "\uff0e\uff0e", "FILE", "e\u0301", "\ud800"]
    ),
    st.text(max_size=4),
    st.integers(250, 260).map("x".__mul__),
)
paths = st.builds(
    lambda head, parts, tail: head + "/".join(parts) + tail,
    st.sampled_from(["", "", "", "/", "./", "../"]),
    st.lists(component, max_size=6),
    st.sampled_from(["", "", "", "/", "/.", "//", "/.."]),
)
operations = st.lists(
    st.tuples(
        st.sampled_from(
            ["read", "write", "create", "append", "truncate", "enter", "list", "stat", "times",
             "mkdir", "remove", "rename", "stream"]
        ),
        paths,
        paths,
    ),
    min_size=1,
    max_size=20,
)  # fmt: skip


def build(base: Path) -> tuple[Path, Path]:
    """A mount whose `swap` is a directory and whose `other` is a link out of it."""
    root, outside = base / "root", base / "outside"
    for place, text in (
        (root / "swap", INSIDE),
        (root / "deep" / "deep", INSIDE),
        (outside, SECRET),
    ):
        (place / "deep").mkdir(parents=True)
        for name in ("file", "in", "out", "deep/file"):
            (place / name).write_bytes(text)
    (root / "file").write_bytes(INSIDE)
    (root / "other").symlink_to("../outside")
    (root / "out").symlink_to(outside / "file")
    (root / "abs").symlink_to("/")
    (root / "in").symlink_to("file")
    (root / "loop").symlink_to("loop")
    (root / "proc").symlink_to("/proc/self/root")
    (root / "up").symlink_to("..")
    (root / "deep" / "up").symlink_to("../..")
    return root, outside


def seen(outside: Path) -> list[Any]:
    found = []
    for path in sorted([outside, *outside.rglob("*")]):
        info = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found.append((path, info.st_ino, info.st_mode, info.st_mtime_ns, data))
    return found


@contextmanager
def swapping(root: Path) -> Iterator[None]:
    """Let a directory and a link change places, over and over, each time in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    stop = threading.Event()
    pairs = [(b"swap", b"other"), (b"file", b"out"), (b"deep/deep", b"deep/up")]

    def run() -> None:
        top = os.fsencode(root) + b"/"
        while not stop.is_set():
            for a, b in pairs:
                libc.renameat2(_AT_FDCWD, top + a, _AT_FDCWD, top + b, _RENAME_EXCHANGE)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


class Probe:
    """Does an operation and checks everything that comes back."""

    def __init__(self, root: Dir, outside: Path) -> None:
        self.root = root
        self.forbidden = {identity(p.lstat()) for p in [outside, *outside.rglob("*")]}
        self.reached = 0

    def do(self, what: str, path: str, other: str) -> None:
        try:
            self.act(what, path, other)
            self.reached += 1
        except FsError as exc:
            if exc.word not in ORDINARY:
                raise

    def act(self, what: str, path: str, other: str) -> None:
        root = self.root
        if what == "read":
            file = self.inside(root.open_file(path, read=True))
            assert isinstance(file, File)
            assert SECRET not in file.read(0, 1000)
            file.close()
        elif what in ("write", "create", "append", "truncate"):
            how: dict[str, Any] = {"write": True} | ({} if what == "write" else {what: True})
            file = self.inside(root.open_file(path, **how))
            assert isinstance(file, File)
            file.write(0, INSIDE)
            file.close()
        elif what == "enter":
            self.inside(root.open_at(path, read=True)).close()
        elif what == "list":
            root.page(path)
        elif what == "stat":
            root.stat_at(path)
        elif what == "times":
            root.set_times_at(path, 0, 0)
        elif what == "mkdir":
            root.mkdir(path)
        elif what == "remove":
            root.remove(path)
        elif what == "rename":
            root.rename(path, root, other)
        else:
            found = root.open_dir(path)
            self.inside(found)
            stream = found.entries()
            while stream.next():
                pass
            stream.close()
            found.close()

    def inside(self, node: Node) -> Node:
        assert identity(os.fstat(node._fd)) not in self.forbidden
        return node


@pytest.mark.case("FS-01", "FS-03", "FS-04", "FS-11", "FS-13", "FS-17", "FS-18")
@pytest.mark.parametrize("way", list(WAYS))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(ops=operations)
def test_random_paths_never_leave_the_mount_while_it_changes(way: str, ops: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as base:
        root, outside = build(Path(base))
        before = seen(outside)
        with checked_escapes(), mounted(Path(base), clause(root), way=way) as bench:
            probe = Probe(bench.root, outside)
            with swapping(root):
                for op in ops:
                    probe.do(*op)
        assert seen(outside) == before


@pytest.mark.case("FS-18")
@pytest.mark.parametrize("way", list(WAYS))
def test_a_race_for_one_name_is_never_won(way: str, tmp_path: Path) -> None:
    root, outside = build(tmp_path)
    before = seen(outside)
    reads: list[int] = []
    with checked_escapes(), mounted(tmp_path, clause(root), way=way) as bench:
        probe = Probe(bench.root, outside)
        with swapping(root):
            for _ in range(400):
                for what, path in (
                    ("read", "swap/file"),
                    ("read", "other/file"),
                    ("append", "file"),
                    ("truncate", "swap/in"),
                    ("read", "file"),
                    ("create", "other/new"),
                    ("remove", "other/new"),
                    ("stream", "swap"),
                    ("times", "other/deep"),
                    ("rename", "swap/new"),
                ):
                    count = probe.reached
                    probe.do(what, path, "other/new2")
                    reads.append(probe.reached - count)

    assert seen(outside) == before
    assert 0 < sum(reads) < len(reads)  # the swaps did hit: some went through, some were refused


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=paths, flags=st.sampled_from([os.O_RDONLY, os.O_RDONLY | os.O_DIRECTORY,
                                          os.O_PATH | os.O_NOFOLLOW, os.O_PATH | os.O_DIRECTORY,
                                          os.O_WRONLY, os.O_WRONLY | os.O_CREAT | os.O_EXCL]))  # fmt: skip
def test_both_ways_open_the_same_and_refuse_alike(
    shared: tuple[Path, int], path: str, flags: int
) -> None:
    root, fd = shared
    names = [n.encode("utf-8", "replace") for n in path.split("/") if n not in ("", ".", "..")]
    names = [n for n in names if b"\0" not in n]
    calm = flags if flags & os.O_PATH else flags | os.O_NONBLOCK
    mode = 0o600 if flags & os.O_CREAT else 0
    results: list[object] = []
    for resolve in (by_openat2, by_walking):
        try:
            opened = resolve(fd, names, calm, mode)
        except OSError as exc:
            results.append(errno.errorcode[exc.errno or 0])
            continue
        results.append("made" if flags & os.O_CREAT else identity(os.fstat(opened)))
        os.close(opened)
        if flags & os.O_CREAT:
            root.joinpath(*map(os.fsdecode, names)).unlink()

    assert results[0] == results[1]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    root, _ = build(tmp_path_factory.mktemp("alike"))
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield root, fd
    os.close(fd)
