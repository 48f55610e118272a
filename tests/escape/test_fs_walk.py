"""One flat walk of what may and may not be reached beneath a mount.  Read it as a table."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from capwasm.caps.fs import Dir, Fs
from tests.caps.fs.tools import WAYS, Mounted, checked_escapes, clause, mounted, outcome

SECRET = b"outside: never to be read"


class Row(NamedTuple):
    """A path, what reading and changing it must come to, and the attack it stands for."""

    path: str
    read: str
    write: str
    case: str = ""


LONG = "x" * 255
ROWS = [
    # path, opened to read, opened to write or made
    Row("file", "ok", "ok"),
    Row("./file", "ok", "ok"),
    Row("sub/inner", "ok", "ok"),
    Row("sub//inner", "ok", "ok"),
    Row("sub/./inner", "ok", "ok"),
    Row("new", "ENOENT", "ok"),
    Row("sub/new", "ENOENT", "ok"),
    Row("gone/new", "ENOENT", "ENOENT"),
    Row("...", "ENOENT", "ok"),
    Row("..file", "ENOENT", "ok"),
    Row("FILE", "ENOENT", "ok", "FS-17"),
    Row("ﬁle", "ENOENT", "ok", "FS-17"),
    Row("file\u200b", "ENOENT", "ok", "FS-17"),
    Row(LONG, "ENOENT", "ok", "FS-12"),
    # up and out
    Row("..", "EPERM", "EPERM", "FS-01"),
    Row("../", "EPERM", "EPERM", "FS-01"),
    Row("../outside/canary", "EPERM", "EPERM", "FS-01"),
    Row("sub/../../outside/canary", "EPERM", "EPERM", "FS-01"),
    Row("sub/../file", "EPERM", "EPERM", "FS-01"),
    Row("up/outside/canary", "ELOOP", "ELOOP", "FS-01"),
    Row("sub/up/../outside/canary", "EPERM", "EPERM", "FS-01"),
    Row("/etc/passwd", "EPERM", "EPERM", "FS-02"),
    Row("//etc/passwd", "EPERM", "EPERM", "FS-02"),
    Row("/", "EPERM", "EPERM", "FS-02"),
    # through links
    Row("ln-rel", "ELOOP", "ELOOP", "FS-03"),
    Row("ln-abs", "ELOOP", "ELOOP", "FS-03"),
    Row("ln-dir/canary", "ELOOP", "ELOOP", "FS-03"),
    Row("ln-dir/new", "ELOOP", "ELOOP", "FS-04"),
    Row("ln-in", "ELOOP", "ELOOP", "FS-03"),
    Row("ln-sub/inner", "ELOOP", "ELOOP", "FS-03"),
    Row("sub/ln-top/outside/canary", "ELOOP", "ELOOP", "FS-03"),
    Row("dangling", "ELOOP", "ELOOP", "FS-04"),
    Row("dangling-dir/new", "ELOOP", "ELOOP", "FS-04"),
    Row("ln-rel/", "ELOOP", "ELOOP", "FS-05"),
    Row("ln-abs/", "ELOOP", "ELOOP", "FS-05"),
    Row("ln-dir/", "ELOOP", "ELOOP", "FS-05"),
    Row("ln-dir/.", "ELOOP", "ELOOP", "FS-05"),
    Row("ln-dir//", "ELOOP", "ELOOP", "FS-05"),
    Row("ln-slash", "ELOOP", "ELOOP", "FS-05"),
    Row("ln-slash/canary", "ELOOP", "ELOOP", "FS-05"),
    Row("dangling/", "ELOOP", "ELOOP", "FS-05"),
    Row("proc-root/etc/passwd", "ELOOP", "ELOOP", "FS-10"),
    Row("proc-fd/0", "ELOOP", "ELOOP", "FS-10"),
    Row("proc-environ", "ELOOP", "ELOOP", "FS-10"),
    Row("dev-zero", "ELOOP", "ELOOP", "FS-10"),
    Row("loop-a", "ELOOP", "ELOOP", "FS-13"),
    Row("loop-a/x", "ELOOP", "ELOOP", "FS-13"),
    Row("loop-self", "ELOOP", "ELOOP", "FS-13"),
    Row("chain-41", "ELOOP", "ELOOP", "FS-13"),
    # odd text
    Row("", "ENOENT", "ENOENT", "FS-12"),
    Row(".", "EISDIR", "EISDIR", "FS-12"),
    Row("./", "EISDIR", "EISDIR", "FS-12"),
    Row("sub", "EISDIR", "EISDIR", "FS-12"),
    Row("sub/", "EISDIR", "EISDIR", "FS-12"),
    Row("file\0", "EINVAL", "EINVAL", "FS-11"),
    Row("file\0/../../outside/canary", "EINVAL", "EINVAL", "FS-11"),
    Row("\0", "EINVAL", "EINVAL", "FS-11"),
    Row("\ud800", "EILSEQ", "EILSEQ", "FS-11"),
    Row(LONG + "x", "ENAMETOOLONG", "ENAMETOOLONG", "FS-12"),
    Row("é" * 128, "ENAMETOOLONG", "ENAMETOOLONG", "FS-12"),
    Row("a/" * 2047 + "ab", "ENAMETOOLONG", "ENAMETOOLONG", "FS-12"),
    Row("a/" * 2047 + "a", "ENOENT", "ENOENT", "FS-12"),
    Row("a/" * 10_000 + "a", "ENAMETOOLONG", "ENAMETOOLONG", "FS-12"),
    Row("../" * 100_000, "ENAMETOOLONG", "ENAMETOOLONG", "FS-12"),
    Row("file/", "ENOTDIR", "ENOTDIR", "FS-14"),
    Row("file/.", "ENOTDIR", "ENOTDIR", "FS-14"),
    Row("file//", "ENOTDIR", "ENOTDIR", "FS-14"),
    Row("file/x", "ENOTDIR", "ENOTDIR", "FS-14"),
    Row("new/", "ENOENT", "EISDIR", "FS-14"),
    # no regular file
    Row("fifo", "EPERM", "EPERM", "FS-15"),
    Row("socket", "EPERM", "EPERM", "FS-15"),
    Row("fifo/", "EPERM", "EPERM", "FS-15"),
    # names that another system would give a meaning
    Row("COM1", "ENOENT", "ok", "FS-16"),
    Row("file:stream", "ENOENT", "ok", "FS-16"),
    Row("C:x", "ENOENT", "ok", "FS-16"),
    Row("..\\outside\\canary", "ENOENT", "ok", "FS-16"),
]

LINKS = {
    "up": "..",
    "sub/up": "..",
    "ln-rel": "../outside/canary",
    "ln-dir": "../outside",
    "ln-in": "file",
    "ln-sub": "sub",
    "sub/ln-top": "../..",
    "dangling": "../outside/planted",
    "dangling-dir": "../outside/planted-dir",
    "ln-slash": "../outside/",
    "proc-root": "/proc/self/root",
    "proc-fd": "/proc/self/fd",
    "proc-environ": "/proc/self/environ",
    "dev-zero": "/dev/zero",
    "loop-a": "loop-b",
    "loop-b": "loop-a",
    "loop-self": "loop-self",
    "chain-0": "../outside/canary",
    **{f"chain-{i}": f"chain-{i - 1}" for i in range(1, 42)},
}


class Tree:
    """A mount full of traps, and beside it what must not be touched."""

    def __init__(self, base: Path) -> None:
        self.root, self.outside = base / "root", base / "outside"
        self.outside.mkdir()
        (self.outside / "canary").write_bytes(SECRET)
        (self.root / "sub").mkdir(parents=True)
        (self.root / "file").write_bytes(b"inside")
        (self.root / "sub" / "inner").write_bytes(b"inside")
        for name, target in LINKS.items():
            (self.root / name).symlink_to(target)
        (self.root / "ln-abs").symlink_to(self.outside / "canary")
        os.mkfifo(self.root / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.root / "socket"))
        self.before = self.seen()

    def seen(self) -> list[tuple[str, int, int, bytes]]:
        out = []
        for path in sorted([self.outside, *self.outside.rglob("*")]):
            info = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            out.append((str(path), info.st_mtime_ns, info.st_mode, data))
        return out

    def check(self) -> None:
        assert self.seen() == self.before


@pytest.fixture(params=list(WAYS))
def walk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Tree, Mounted]]:
    tree = Tree(tmp_path)
    with checked_escapes(), mounted(tmp_path, clause(tree.root), way=request.param) as bench:
        yield tree, bench
    tree.check()


def marked(row: Row) -> Any:
    name = row.path if len(row.path) < 40 else f"{row.path[:20]}…{len(row.path)}"
    marks = [pytest.mark.case(row.case)] if row.case else []
    return pytest.param(row, id=ascii(name), marks=marks)


@pytest.mark.parametrize("row", [marked(row) for row in ROWS])
def test_reading_and_writing_reach_just_what_is_inside(
    walk: tuple[Tree, Mounted], row: Row
) -> None:
    tree, bench = walk
    root: Dir = bench.root

    def read() -> object:
        file = root.open_file(row.path, read=True)
        assert file.read(0, 100) != SECRET
        return file

    def write() -> object:
        file = root.open_file(row.path, write=True, create=True)
        file.write(0, b"written")
        return file

    assert (row.path, outcome(read)) == (row.path, row.read)
    assert (row.path, outcome(write)) == (row.path, row.write)
    tree.check()


@pytest.mark.case("FS-01", "FS-02", "FS-03", "FS-04", "FS-05", "FS-06", "FS-10", "FS-13")
@pytest.mark.parametrize(
    "path", [r.path for r in ROWS if r.read in ("EPERM", "ELOOP") and r.case != "FS-15"]
)
def test_refuses_every_other_operation_out_of_the_mount(
    walk: tuple[Tree, Mounted], path: str
) -> None:
    tree, bench = walk
    root = bench.root
    followed = path.rstrip("/.") != path or "/" in path or path.startswith(".")

    for act in (
        lambda: root.open_dir(path),
        lambda: root.open_at(path, read=True),
        lambda: root.page(path),
        lambda: root.set_times_at(path, 0, 0),
        lambda: root.open_file(path, append=True),
        lambda: root.open_file(path, write=True, truncate=True),
        lambda: root.open_file(f"{path}/x", write=True, create=True, exclusive=True),
        lambda: root.rename("file", root, f"{path}/x"),
        lambda: root.mkdir(f"{path}/x"),
        lambda: root.remove(f"{path}/canary"),
    ):
        assert outcome(act) in ("EPERM", "ELOOP")
    if followed:  # a plain name of a link is the link itself, which is inside
        for act in (
            lambda: root.stat_at(path),
            lambda: root.remove(path),
            lambda: root.rename(path, root, "stolen"),
            lambda: root.rename("file", root, path),
        ):
            assert outcome(act) in ("EPERM", "ELOOP", "ENOTDIR")
    tree.check()
    assert (tree.root / "file").read_bytes() == b"inside"


@pytest.mark.case("FS-04")
def test_refuses_to_make_a_file_where_a_link_stands_also_exclusively(
    walk: tuple[Tree, Mounted],
) -> None:
    root = walk[1].root

    for name in ("dangling", "ln-rel", "ln-in"):
        make = lambda n=name: root.open_file(n, write=True, create=True, exclusive=True)
        assert outcome(make) == "EEXIST"
        assert outcome(lambda n=name: root.mkdir(n)) == "EEXIST"


@pytest.mark.case("FS-06")
def test_a_link_is_renamed_and_removed_as_itself(walk: tuple[Tree, Mounted]) -> None:
    tree, bench = walk
    root = bench.root

    for name in ("ln-rel/", "ln-abs/", "ln-dir/", "ln-dir/.", "dangling/"):
        assert outcome(lambda n=name: root.rename(n, root, "moved")) == "ELOOP"
        assert outcome(lambda n=name: root.remove(n)) == "ELOOP"
        assert outcome(lambda n=name: root.remove_dir(n)) == "ELOOP"
    root.rename("ln-dir", root, "moved")
    assert outcome(lambda: root.page("moved")) == "ELOOP"
    root.remove("moved")
    root.rename("file", root, "ln-rel")

    assert (tree.root / "ln-rel").read_bytes() == b"inside"
    assert not (tree.root / "ln-rel").is_symlink()


@pytest.mark.case("FS-12")
def test_long_paths_cost_no_quadratic_time(walk: tuple[Tree, Mounted]) -> None:
    _, bench = walk
    began = time.monotonic()

    for text in ("a/" * 1_000_000, "/" * 1_000_000, "." * 1_000_000, "./" * 1_000_000, "é" * 10**6):
        outcome(lambda t=text: bench.root.stat_at(t))
        outcome(lambda t=text: bench.state.stat("/data/" + t))

    assert time.monotonic() - began < 5
    assert all(len(e.target) <= 512 for e in bench.recorder.events)


@pytest.mark.case("FS-18")
@pytest.mark.parametrize("way", list(WAYS))
def test_refuses_a_link_that_takes_a_directorys_place_after_the_look(
    tmp_path: Path, way: str
) -> None:
    tree, swapped = Tree(tmp_path), []

    def swapping(
        root: int, names: Sequence[bytes], flags: int, mode: int = 0, *, cross: bool = False
    ) -> int:
        fd = WAYS[way](root, names, flags, mode, cross=cross)
        if list(names) == [b"sub", b"inner"]:  # now that it was looked at
            (tree.root / "sub").rename(tree.root / "was-sub")
            (tree.root / "sub").symlink_to("../outside")
            swapped.append(names)
        return fd

    with mounted(tmp_path, clause(tree.root), fs=Fs(resolve=swapping)) as bench:
        assert outcome(lambda: bench.root.open_file("sub/inner", read=True)) == "ELOOP"
        assert len(swapped) == 1
    tree.check()
