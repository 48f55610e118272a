"""The two ways to open beneath a directory, and how a root is found."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from capwasm.caps.fs import beneath
from capwasm.caps.fs.beneath import Lineage, best, by_openat2, by_walking, lineage, open_root
from capwasm.caps.fs.scan import count
from capwasm.errors import CapabilityError, InternalError

from .tools import checked_escapes, clause, mounted, open_descriptors


@pytest.fixture
def home(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"hello")
    return root


@pytest.mark.case("FS-10")
@pytest.mark.parametrize("resolve", [by_openat2, by_walking])
def test_refuses_to_cross_into_what_is_mounted_beneath(resolve: beneath.Resolve) -> None:
    top = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        for names in ([b"proc"], [b"proc", b"self", b"environ"], [b"sys", b"kernel"]):
            with pytest.raises(OSError, match="cross-device") as caught:
                os.close(resolve(top, names, os.O_RDONLY))
            assert caught.value.errno == errno.EXDEV
        os.close(resolve(top, [b"proc", b"version"], os.O_RDONLY, cross=True))
    finally:
        os.close(top)


@pytest.mark.case("FS-10")
@pytest.mark.parametrize("resolve", [by_openat2, by_walking])
def test_refuses_a_kernel_file_system_wherever_it_is_mounted(
    monkeypatch: pytest.MonkeyPatch, resolve: beneath.Resolve
) -> None:
    with pytest.raises(ValueError, match="these are no files"):
        open_root("/proc/self", resolve)
    monkeypatch.setattr(beneath, "host_path_fault", lambda _path: None)
    with pytest.raises(ValueError, match="in a proc file system"):
        open_root("/proc/self/fd", resolve)


@pytest.mark.case("FS-16")
def test_refuses_platforms_that_cannot_confine(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in ("win32", "darwin", "freebsd14"):
        monkeypatch.setattr(beneath.sys, "platform", platform)
        best.cache_clear()
        with pytest.raises(CapabilityError) as caught:
            best()
        assert caught.value.code == "grant.platform"
    monkeypatch.undo()
    best.cache_clear()


def test_the_walk_stands_in_where_openat2_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beneath, "_SYS_OPENAT2", 999_999)  # what an old kernel answers: ENOSYS
    best.cache_clear()
    assert best() is by_walking
    monkeypatch.undo()
    best.cache_clear()
    assert best() is by_openat2


def test_an_escape_would_not_go_unseen(tmp_path: Path, home: Path) -> None:
    (tmp_path / "outside").write_bytes(b"")

    def broken(*_args: object, **_rest: object) -> int:
        return os.open(tmp_path / "outside", os.O_RDONLY)

    with checked_escapes(), mounted(tmp_path, clause(home)) as bench:
        object.__setattr__(bench.root.mount, "resolve", broken)
        with pytest.raises(InternalError, match="sandbox escape"):
            bench.root.stat_at("file")


def test_a_lineage_knows_a_directory_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "alias").symlink_to("a")

    assert lineage(str(tmp_path / "alias")) == lineage(str(tmp_path / "a"))
    here, missing = lineage(str(tmp_path / "a")), lineage(str(tmp_path / "a" / "b" / "missing"))
    assert missing.above[:3] == (None, None, here.above[0])
    assert (missing.device, missing.place) == (here.device, f"{here.place}/b/missing")


def test_directories_overlap_by_what_they_are_or_by_where_they_lie() -> None:
    def at(*above: int | None, place: str, device: bytes = b"8:1") -> Lineage:
        known = tuple(None if i is None else (1, i) for i in above)
        return Lineage((*known, (1, 0)), device, place)

    data = at(1, place="/data")
    assert data.overlaps(at(9, 1, place="/elsewhere"))
    assert data.overlaps(at(9, place="/data/sub"))  # a part of it, mounted at another place
    assert at(9, place="/data/sub").overlaps(data)
    assert not data.overlaps(at(9, place="/database"))
    assert not data.overlaps(at(9, place="/data/sub", device=b"8:2"))
    assert not data.overlaps(at(None, place="/other"))


@pytest.mark.parametrize("resolve", [by_openat2, by_walking])
def test_counting_survives_a_tree_deeper_than_any_path(
    tmp_path: Path, resolve: beneath.Resolve
) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    top = os.dup(here)
    for _ in range(1500):
        os.mkdir("d" * 8, dir_fd=here)
        there = os.open("d" * 8, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    before = open_descriptors()

    assert count(top, resolve, lambda _: None) == (0, 1501)

    assert open_descriptors() == before
    _unnest(here, top)


def _unnest(here: int, top: int) -> None:
    os.unlink("f", dir_fd=here)
    while not os.path.samestat(os.fstat(here), os.fstat(top)):
        above = os.open("..", os.O_RDONLY, dir_fd=here)
        os.close(here)
        os.rmdir("d" * 8, dir_fd=above)
        here = above
    os.close(here)
    os.close(top)
