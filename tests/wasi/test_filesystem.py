"""Files through WASI: only what was granted, in WASI's words, on a real directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from capwasm.caps.fs.faults import FsError
from capwasm.caps.fs.host import Fs
from capwasm.caps.fs.model import Access, FsClause
from capwasm.errors import CapError, HandleLimitExceeded
from capwasm.handles import HandleTable
from capwasm.values import Err, Variant
from capwasm.wasi._files import ERROR_CODES
from capwasm.wasi.filesystem import Descriptor
from capwasm.wasi.io import MAX_CHUNK
from tests.helpers import grant_of, in_call, open_context

from .served import CLOSED, Wasi

NO_CHANGE, NOW = Variant("no-change"), Variant("now")


def at(seconds: int, nanoseconds: int = 0) -> Variant:
    return Variant("timestamp", SimpleNamespace(seconds=seconds, nanoseconds=nanoseconds))


@dataclass
class Tree:
    """A granted tree: `/rw` to change, `/ro` to read, and an outside that is not granted."""

    root: Path
    state: Any
    wasi: Wasi
    rw: Descriptor
    ro: Descriptor
    revoke: Callable[[], None]

    def call(self, name: str, *args: Any) -> Any:
        return self.wasi.method("descriptor", name, *args)

    def open(self, path: str, how: tuple[str, ...] = (), flags: tuple[str, ...] = ("read",)) -> Any:
        return self.call("open-at", self.rw, (), path, how, flags)

    def make(self, path: str, data: bytes = b"") -> Any:
        descriptor = self.open(path, ("create", "truncate"), ("read", "write"))
        if data:
            assert self.call("write", descriptor, data, 0) == len(data)
        return descriptor


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    root = tmp_path / "tree"
    for name in ("rw/sub", "ro/sub", "outside"):
        (root / name).mkdir(parents=True)
    (root / "ro/file").write_bytes(b"read me")
    (root / "rw/file").write_bytes(b"change me")
    (root / "outside/secret").write_bytes(b"secret")
    (root / "rw/up").symlink_to("../outside")
    (root / "rw/same").symlink_to("file")
    data = tmp_path / "data"
    data.mkdir(0o700)
    grant = grant_of(
        FsClause("/rw", None, str(root / "rw"), Access.READ_WRITE),
        FsClause("/ro", None, str(root / "ro"), Access.READ),
    )
    fs = Fs()
    state = fs.open(grant, open_context(data))
    wasi = Wasi({"fs": state})

    def revoke() -> None:
        for granted in grant.allow:
            granted.lease.revoke("test")

    with in_call():
        found = {path: d for d, path in wasi["filesystem/preopens.get-directories"]()}
        yield Tree(root, state, wasi, found["/rw"], found["/ro"], revoke)
        for descriptor in found.values():
            descriptor.close()
    fs.close(state)


def names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


def refused(function: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(CapError) as caught:
        function(*args)
    return caught.value.word


# -- what is there ---------------------------------------------------------------------------------


@pytest.mark.case("FS-20")
def test_refuses_every_directory_that_is_not_granted() -> None:
    assert Wasi()["filesystem/preopens.get-directories"]() == []


@pytest.mark.case("FS-20")
def test_allows_exactly_the_granted_directories(tree: Tree) -> None:
    found = tree.wasi["filesystem/preopens.get-directories"]()

    assert [path for _, path in found] == ["/rw", "/ro"]
    assert tree.call("get-flags", tree.rw) == ["read", "mutate-directory"]
    assert tree.call("get-flags", tree.ro) == ["read"]
    assert tree.call("get-type", tree.rw) == "directory"
    assert tree.call("is-same-object", found[0][0], tree.rw) is True
    assert tree.call("is-same-object", found[1][0], tree.rw) is False
    for descriptor, _ in found:
        descriptor.close()


def test_allows_the_mounts_after_their_descriptors_were_dropped(tree: Tree) -> None:
    tree.rw.close()

    found = {path: d for d, path in tree.wasi["filesystem/preopens.get-directories"]()}

    assert tree.call("stat", found["/rw"])["type"] == "directory"
    for descriptor in found.values():
        descriptor.close()


# -- files -----------------------------------------------------------------------------------------


def test_allows_a_file_its_whole_life(tree: Tree) -> None:
    file = tree.open("new", ("create", "exclusive"), ("read", "write", "mutate-directory"))

    assert tree.call("get-type", file) == "regular-file"
    assert tree.call("get-flags", file) == ["read", "write"]
    assert tree.call("write", file, b"hello", 0) == 5
    assert tree.call("write", file, b"!", 7) == 1
    assert tree.call("read", file, 100, 0) == (b"hello\0\0!", False)
    assert tree.call("read", file, 100, 8) == (b"", True)
    assert tree.call("read", file, 0, 0) == (b"", False)
    assert tree.call("set-size", file, 5) is None
    assert tree.call("stat", file)["size"] == 5
    assert tree.call("stat", file)["link_count"] == 1
    assert tree.call("sync", file) is None
    assert tree.call("sync-data", file) is None
    assert tree.call("advise", file, 0, 0, "will-need") is None
    assert tree.call("rename-at", tree.rw, "new", tree.rw, "sub/moved") is None
    assert (tree.root / "rw/sub/moved").read_bytes() == b"hello"
    assert tree.call("unlink-file-at", tree.rw, "sub/moved") is None
    assert refused(tree.call, "stat-at", tree.rw, (), "sub/moved") == "no-entry"
    file.close()


def test_allows_directories_their_whole_life(tree: Tree) -> None:
    assert tree.call("create-directory-at", tree.rw, "d") is None
    inner = tree.open("d", ("directory",))
    # Standard libraries open a directory to read it and then remove beneath it.
    made = tree.call("open-at", inner, (), "f", ("create",), ("write",))
    made.close()
    assert refused(tree.call, "remove-directory-at", tree.rw, "d") == "not-empty"
    assert refused(tree.call, "unlink-file-at", tree.rw, "d") == "is-directory"
    assert tree.call("unlink-file-at", inner, "f") is None
    assert tree.call("remove-directory-at", tree.rw, "d") is None
    inner.close()


@pytest.mark.parametrize(
    ("path", "how", "flags", "word"),
    [
        ("none", (), ("read",), "no-entry"),
        ("file", ("create", "exclusive"), ("write",), "exist"),
        ("file", ("directory",), ("read",), "not-directory"),
        ("file/", (), ("read",), "not-directory"),
        ("file/x", (), ("read",), "not-directory"),
        ("sub", (), ("read", "write"), "is-directory"),
        ("same", (), ("read",), "loop"),
        ("up/secret", (), ("read",), "loop"),
        ("up", ("directory",), ("read",), "loop"),
        ("../outside/secret", (), ("read",), "not-permitted"),
        ("/etc/passwd", (), ("read",), "not-permitted"),
        ("", (), ("read",), "no-entry"),
        ("a\0b", (), ("read",), "invalid"),
        ("x" * 300, (), ("read",), "name-too-long"),
    ],
)
@pytest.mark.parametrize("follow", [(), ("symlink-follow",)])
def test_refuses_in_the_words_of_wasi(
    tree: Tree,
    path: str,
    how: tuple[str, ...],
    flags: tuple[str, ...],
    word: str,
    follow: tuple[str, ...],
) -> None:
    assert refused(tree.call, "open-at", tree.rw, follow, path, how, flags) == word


def test_refuses_to_follow_a_link_and_shows_it_for_what_it_is(tree: Tree) -> None:
    for path in ("same", "up"):
        stat = tree.call("stat-at", tree.rw, ("symlink-follow",), path)
        assert stat["type"] == "symbolic-link"


@pytest.mark.case("FS-08")
def test_refuses_to_make_or_read_any_link(tree: Tree) -> None:
    assert refused(tree.call, "link-at", tree.rw, (), "file", tree.rw, "two") == "not-permitted"
    assert refused(tree.call, "link-at", tree.ro, (), "file", tree.rw, "two") == "not-permitted"
    assert refused(tree.call, "symlink-at", tree.rw, "file", "two") == "not-permitted"
    assert refused(tree.call, "readlink-at", tree.rw, "up") == "not-permitted"
    assert not (tree.root / "rw/two").exists()
    assert len(tree.wasi.events) == 3


# -- read-only -------------------------------------------------------------------------------------


@pytest.mark.case("FS-07")
@pytest.mark.parametrize(
    ("how", "flags"),
    [
        (("truncate",), ("read",)),
        (("truncate",), ("write",)),
        (("create",), ("read",)),
        ((), ("write",)),
        ((), ("read", "write")),
        ((), ("read", "mutate-directory")),
        (("create", "truncate"), ("write", "mutate-directory")),
    ],
)
@pytest.mark.parametrize("path", ["file", "new", "sub"])
def test_refuses_to_open_for_change_beneath_a_read_only_mount(
    tree: Tree, path: str, how: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    assert refused(tree.call, "open-at", tree.ro, (), path, how, flags) == "read-only"
    assert (tree.root / "ro/file").read_bytes() == b"read me"
    assert not (tree.root / "ro/new").exists()


@pytest.mark.case("FS-07", "FS-08")
def test_refuses_every_change_beneath_a_read_only_mount(tree: Tree) -> None:
    file = tree.call("open-at", tree.ro, (), "file", (), ("read",))
    changes: list[tuple[Any, ...]] = [
        ("create-directory-at", tree.ro, "d"),
        ("remove-directory-at", tree.ro, "sub"),
        ("unlink-file-at", tree.ro, "file"),
        ("rename-at", tree.ro, "file", tree.ro, "other"),
        ("rename-at", tree.ro, "file", tree.rw, "stolen"),
        ("rename-at", tree.rw, "file", tree.ro, "planted"),
        ("set-times-at", tree.ro, (), "file", NOW, NOW),
        ("set-times", tree.ro, NOW, NOW),
        ("set-times", file, NOW, NOW),
        ("set-size", file, 0),
        ("write", file, b"x", 0),
        ("write-via-stream", file, 0),
        ("append-via-stream", file),
    ]

    words = {(name, refused(tree.call, name, *args)) for name, *args in changes}

    assert {word for _, word in words} <= {"read-only", "bad-descriptor", "cross-device"}
    assert tree.call("sync", file) is None
    assert names(tree.root / "ro") == ["file", "sub"]
    assert (tree.root / "ro/file").read_bytes() == b"read me"
    assert names(tree.root / "rw") == ["file", "same", "sub", "up"]
    file.close()


@pytest.mark.case("FS-07")
def test_refuses_more_than_a_descriptor_was_opened_for(tree: Tree) -> None:
    reader, writer = tree.open("file"), tree.open("file", (), ("write",))

    for name, *args in (
        ("write", b"x", 0),
        ("write-via-stream", 0),
        ("append-via-stream",),
        ("set-size", 0),
    ):
        assert refused(tree.call, name, reader, *args) == "bad-descriptor"
    assert refused(tree.call, "read", writer, 1, 0) == "bad-descriptor"
    assert refused(tree.call, "read-via-stream", writer, 0) == "bad-descriptor"
    assert (tree.root / "rw/file").read_bytes() == b"change me"
    reader.close()
    writer.close()


# -- descriptors used wrongly ----------------------------------------------------------------------


@pytest.mark.case("FS-23")
def test_refuses_a_directory_as_a_file_and_a_file_as_a_directory(tree: Tree) -> None:
    file = tree.open("file")

    for name, *args in (
        ("read", 1, 0),
        ("write", b"x", 0),
        ("set-size", 0),
        ("advise", 0, 0, "normal"),
        ("read-via-stream", 0),
        ("write-via-stream", 0),
        ("append-via-stream",),
    ):
        assert refused(tree.call, name, tree.rw, *args) == "is-directory"
    for name, *args in (
        ("open-at", (), "x", (), ("read",)),
        ("stat-at", (), "x"),
        ("metadata-hash-at", (), "x"),
        ("set-times-at", (), "x", NOW, NOW),
        ("read-directory",),
        ("create-directory-at", "x"),
        ("remove-directory-at", "x"),
        ("unlink-file-at", "x"),
        ("rename-at", "x", tree.rw, "y"),
    ):
        assert refused(tree.call, name, file, *args) == "not-directory"
    assert refused(tree.call, "rename-at", tree.rw, "file", file, "y") == "not-directory"
    file.close()


@pytest.mark.case("FS-23")
def test_refuses_a_descriptor_after_it_was_dropped(tree: Tree) -> None:
    file, other = tree.open("file"), tree.open("file")
    file.close()
    file.close()

    for name, *args in (
        ("read", 1, 0),
        ("stat",),
        ("get-flags",),
        ("get-type",),
        ("sync",),
        ("read-via-stream", 0),
        ("metadata-hash",),
    ):
        assert refused(tree.call, name, file, *args) == "bad-descriptor"
    assert tree.call("is-same-object", file, other) is False
    assert tree.call("is-same-object", other, file) is False
    other.close()


@pytest.mark.case("FS-23")
def test_refuses_to_leak_a_descriptor_of_the_host_in_a_loop(tree: Tree) -> None:
    def held() -> int:
        return len(names(Path("/proc/self/fd")))

    tree.open("file").close()
    before = held()
    for _ in range(300):
        file = tree.open("file")
        source = tree.call("read-via-stream", file, 0)
        file.close()
        assert source.read(6) == b"change"
        source.close()
        source.close()
        tree.call("read-directory", tree.rw).close()
        with pytest.raises(CapError):
            tree.open("none")
        for descriptor, _ in tree.wasi["filesystem/preopens.get-directories"]():
            descriptor.close()

    assert held() == before


@pytest.mark.case("FS-23")
def test_refuses_to_open_anything_for_a_list_of_directories(tree: Tree) -> None:
    before = names(Path("/proc/self/fd"))

    # Not one of them is dropped, as when the handle limit cuts the list.
    lost = [tree.wasi["filesystem/preopens.get-directories"]() for _ in range(100)]

    assert names(Path("/proc/self/fd")) == before
    assert tree.call("stat", lost[7][0][0])["type"] == "directory"


@pytest.mark.case("FS-23")
def test_refuses_more_descriptors_than_the_handle_limit_and_closes_what_is_over(
    tree: Tree,
) -> None:
    table = HandleTable(4)
    for _ in range(4):
        table.add(tree.open("file"))
    over = tree.open("file")

    with pytest.raises(HandleLimitExceeded):
        table.add(over)

    assert not over.alive
    table.close_all()


def test_refuses_everything_once_the_grant_is_revoked(tree: Tree) -> None:
    file = tree.open("file", (), ("read", "write"))
    source, sink = tree.call("read-via-stream", file, 0), tree.call("write-via-stream", file, 0)
    entries = tree.call("read-directory", tree.rw)
    sink.check_write()

    tree.revoke()

    assert refused(tree.call, "read", file, 1, 0) == "bad-descriptor"
    assert refused(tree.call, "stat-at", tree.rw, (), "file") == "bad-descriptor"
    assert (
        refused(tree.wasi.method, "directory-entry-stream", "read-directory-entry", entries)
        == "bad-descriptor"
    )
    assert source.read(1) == CLOSED
    assert sink.write(b"x") == CLOSED
    assert (tree.root / "rw/file").read_bytes() == b"change me"
    for handle in (file, source, sink, entries):
        handle.close()


# -- streams ---------------------------------------------------------------------------------------


def test_allows_streams_to_read_write_and_append(tree: Tree) -> None:
    file = tree.make("s", b"0123456789")

    source = tree.call("read-via-stream", file, 7)
    assert source.blocking_read(2) == b"78"
    assert source.read(100) == b"9"
    assert source.read(100) == CLOSED
    sink = tree.call("write-via-stream", file, 2)
    assert sink.blocking_write_and_flush(b"ab") is None
    assert sink.blocking_write_and_flush(b"c") is None
    end = tree.call("append-via-stream", file)
    assert end.blocking_write_and_flush(b"!") is None
    assert (tree.root / "rw/s").read_bytes() == b"01abc56789!"
    for handle in (file, source, sink, end):
        handle.close()


def test_allows_a_stream_to_outlive_its_descriptor(tree: Tree) -> None:
    file = tree.make("s", b"abc")
    source, sink = tree.call("read-via-stream", file, 0), tree.call("append-via-stream", file)
    file.close()

    assert source.read(10) == b"abc"
    assert sink.blocking_write_and_flush(b"d") is None
    source.close()
    sink.close()
    assert (tree.root / "rw/s").read_bytes() == b"abcd"


def test_allows_splicing_one_file_into_another(tree: Tree) -> None:
    source = tree.call("read-via-stream", tree.make("a", b"x" * 1000), 0)
    sink = tree.call("write-via-stream", tree.make("b"), 0)

    assert tree.wasi.method("output-stream", "splice", sink, source, 2**64 - 1) == 1000
    assert (tree.root / "rw/b").read_bytes() == b"x" * 1000


@pytest.mark.case("RES-15")
def test_refuses_to_read_or_write_more_than_a_chunk_a_call(tree: Tree) -> None:
    file = tree.make("big")
    tree.call("set-size", file, 10 * MAX_CHUNK)

    data, end = tree.call("read", file, 2**64 - 1, 0)
    assert (len(data), end) == (MAX_CHUNK, False)
    assert tree.call("read", file, 2**64 - 1, 2**64 - 1) == (b"", True)
    assert tree.call("write", file, bytes(3 * MAX_CHUNK), 0) == MAX_CHUNK
    source = tree.call("read-via-stream", file, 2**64 - 1)
    assert source.read(2**64 - 1) == CLOSED
    file.close()


def test_refuses_a_write_that_fails_with_its_code_in_the_error(tree: Tree) -> None:
    sink = tree.call("write-via-stream", tree.make("s"), 2**64 - 1)

    failed = sink.blocking_write_and_flush(b"x")

    assert isinstance(failed, Err)
    assert failed.error.case == "last-operation-failed"
    code = tree.wasi["filesystem/types.filesystem-error-code"](failed.error.value)
    assert code == "file-too-large"
    assert sink.check_write() == CLOSED


# -- directories, times, hashes --------------------------------------------------------------------


@pytest.mark.case("FS-24")
def test_allows_reading_a_huge_directory_entry_by_entry(tree: Tree) -> None:
    names = {f"f{i:04}" for i in range(2_000)}
    for name in names:
        (tree.root / "rw/sub" / name).touch()
    stream = tree.call("read-directory", tree.open("sub", ("directory",)))

    seen = []
    while entry := tree.wasi.method("directory-entry-stream", "read-directory-entry", stream):
        assert set(entry) == {"type", "name"}
        assert entry["type"] == "regular-file"
        seen.append(entry["name"])

    assert sorted(seen) == sorted(names)
    assert tree.wasi.method("directory-entry-stream", "read-directory-entry", stream) is None
    stream.close()


@pytest.mark.case("FS-24")
def test_refuses_nothing_but_shows_each_entry_for_what_it_is(tree: Tree) -> None:
    os.mkfifo(tree.root / "rw/pipe")
    stream = tree.call("read-directory", tree.rw)
    kinds = {}
    while entry := tree.wasi.method("directory-entry-stream", "read-directory-entry", stream):
        kinds[entry["name"]] = entry["type"]

    assert kinds == {
        "file": "regular-file",
        "same": "symbolic-link",
        "sub": "directory",
        "up": "symbolic-link",
        "pipe": "unknown",
    }
    stream.close()


@pytest.mark.case("FS-25")
@pytest.mark.parametrize("seconds", [-(2**31), -1, 0, 2**31, 2**33])
def test_allows_times_before_and_long_after_now(tree: Tree, seconds: int) -> None:
    os.utime(tree.root / "rw/file", (seconds, seconds))

    stat = tree.call("stat-at", tree.rw, (), "file")

    for name in ("data_access_timestamp", "data_modification_timestamp"):
        assert stat[name] == {"seconds": max(seconds, 0), "nanoseconds": 0}


@pytest.mark.case("FS-25")
def test_allows_setting_times(tree: Tree) -> None:
    file = tree.open("file", (), ("write",))

    tree.call("set-times", file, at(5, 6), at(7, 999_999_999))
    tree.call("set-times-at", tree.rw, (), "file", NO_CHANGE, at(8))
    info = (tree.root / "rw/file").stat()
    assert (info.st_atime_ns, info.st_mtime_ns) == (5_000_000_006, 8_000_000_000)
    tree.call("set-times", file, NO_CHANGE, NOW)
    assert (tree.root / "rw/file").stat().st_mtime_ns > 1_600_000_000 * 10**9
    file.close()


@pytest.mark.case("FS-25")
@pytest.mark.parametrize("moment", [at(0, 10**9), at(2**64 - 1), at(2**63), at(10**10, 2**32 - 1)])
def test_refuses_times_that_no_file_can_have(tree: Tree, moment: Variant) -> None:
    before = (tree.root / "rw/file").stat()
    file = tree.open("file", (), ("write",))

    assert refused(tree.call, "set-times", file, moment, moment) == "invalid"
    assert refused(tree.call, "set-times-at", tree.rw, (), "file", moment, NO_CHANGE) == "invalid"
    assert (tree.root / "rw/file").stat().st_mtime_ns == before.st_mtime_ns
    file.close()


def test_allows_telling_objects_apart_by_their_hash(tree: Tree) -> None:
    file = tree.open("file")

    assert tree.call("metadata-hash", file) == tree.call("metadata-hash-at", tree.rw, (), "file")
    assert tree.call("metadata-hash", file) != tree.call("metadata-hash", tree.rw)
    assert set(tree.call("metadata-hash", file)) == {"lower", "upper"}
    file.close()


# -- the words -------------------------------------------------------------------------------------


def test_allows_a_word_for_every_error_of_the_system_or_io() -> None:
    wasi = Wasi()

    class Broken:
        alive = True

        def __init__(self, number: int) -> None:
            self.number = number

        @property
        def node(self) -> Any:
            raise FsError(self.number)

    for number in errno.errorcode:
        word = refused(wasi["filesystem/types.[method]descriptor.get-type"], Broken(number))
        assert word == ERROR_CODES.get(number, "io")
    assert len(set(ERROR_CODES.values())) == 37
