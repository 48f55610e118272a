"""Quotas: never over, never lost, whatever the threads and the order."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.caps.fs import Fs, FsError
from capwasm.caps.fs.node import Node
from capwasm.caps.fs.quota import MAX_NAMES, Ledger
from capwasm.caps.fs.scan import count
from capwasm.errors import CallInterrupted, CapabilityError
from tests.helpers import in_call

from .tools import Mounted, clause, held, mounted, outcome

BYTES, FILES = 3000, 6


@pytest.fixture
def home(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


def limited(home: Path, size: int | None = BYTES, files: int | None = FILES) -> Any:
    return clause(home, quota_bytes=size, quota_files=files)


def refused(act: Any) -> None:
    with pytest.raises(FsError) as caught:
        act()
    assert (caught.value.errno, caught.value.word) == (errno.EDQUOT, "quota")


def ledger_of(bench: Mounted) -> Ledger:
    return bench.root.mount.ledger


@pytest.mark.case("FS-22")
def test_refuses_bytes_over_the_quota_by_every_way_to_add_them(tmp_path: Path, home: Path) -> None:
    with mounted(tmp_path, limited(home)) as bench:
        file = bench.root.open_file("a", read=True, write=True, create=True)
        file.write(0, bytes(BYTES))

        refused(lambda: file.write(BYTES, b"x"))
        refused(lambda: file.write(BYTES - 1, b"xx"))
        refused(lambda: file.append(b"x"))
        refused(lambda: file.set_size(BYTES + 1))
        refused(lambda: file.write(2**35, b"x"))
        file.write(0, bytes(BYTES))
        assert bench.recorder.of("denied")[0].reason == "quota"

    assert held(home) == (BYTES, 1)


@pytest.mark.case("FS-22")
def test_refuses_names_over_the_quota(tmp_path: Path, home: Path) -> None:
    with mounted(tmp_path, limited(home, files=3)) as bench:
        root = bench.root
        root.mkdir("d")
        root.open_file("d/f", write=True, create=True).close()
        root.open_file("g", write=True, create=True).close()
        refused(lambda: root.open_file("h", write=True, create=True))
        refused(lambda: root.mkdir("e"))
        assert outcome(lambda: root.open_file("g", append=True, create=True)) == "ok"
        root.rename("g", root, "d/f")
        root.open_file("h", write=True, create=True)

    assert held(home)[1] == 3


@pytest.mark.case("FS-22")
def test_a_quota_of_bytes_alone_still_bounds_empty_files(tmp_path: Path, home: Path) -> None:
    with mounted(tmp_path, limited(home, size=0, files=None)) as bench:
        for i in range(1000):
            bench.root.mkdir(str(i))
        refused(lambda: bench.root.mkdir("more"))


def test_what_is_removed_cut_or_replaced_is_given_back(tmp_path: Path, home: Path) -> None:
    (home / "old").write_bytes(bytes(1000))
    (home / "d").mkdir()
    with mounted(tmp_path, limited(home)) as bench:
        root, ledger = bench.root, ledger_of(bench)
        assert root.used() == (1000, 2)
        file = root.open_file("a", write=True, create=True)
        file.write(0, bytes(2000))
        file.set_size(500)
        assert ledger.bytes == 1500
        root.open_file("a", write=True, truncate=True).close()
        assert ledger.bytes == 1000
        file.write(0, bytes(7))
        file.close()
        root.rename("old", root, "a")
        assert (ledger.bytes, ledger.files) == (1000, 2)
        root.rename("a", root, "a")
        root.remove("a")
        root.remove("d")
        assert (ledger.bytes, ledger.files) == (0, 0)

    assert held(home) == (0, 0)


@pytest.mark.case("FS-22")
def test_refuses_to_fill_the_disk_with_files_that_have_no_name(tmp_path: Path, home: Path) -> None:
    with mounted(tmp_path, limited(home)) as bench:
        root, ledger = bench.root, ledger_of(bench)
        file = root.open_file("a", write=True, create=True)
        file.write(0, bytes(2000))
        again = root.reopen().open_file("a", read=True)
        root.remove("a")
        other = root.open_file("b", write=True, create=True)

        refused(lambda: other.write(0, bytes(2000)))
        file.write(2000, bytes(500))
        assert ledger.bytes == 2500
        root.rename("b", root, "c")
        file.close()
        assert ledger.bytes == 2500
        again.close()
        assert (ledger.bytes, ledger.files) == (0, 1)
        other.write(0, bytes(2000))


def test_a_hard_link_is_counted_once_and_never_given_back_early(tmp_path: Path, home: Path) -> None:
    (home / "a").write_bytes(bytes(1000))
    os.link(home / "a", home / "b")
    with mounted(tmp_path, limited(home)) as bench:
        root, ledger = bench.root, ledger_of(bench)
        assert (ledger.bytes, ledger.files) == (1000, 2)
        root.rename("a", root, "b")  # rename(2): one file already, both names stay
        assert (ledger.bytes, ledger.files) == (1000, 2)
        root.remove("a")
        assert (ledger.bytes, ledger.files) == (1000, 1)
        root.remove("b")
        assert (ledger.bytes, ledger.files) == (0, 0)


def test_all_mounts_of_a_directory_share_one_count(tmp_path: Path, home: Path) -> None:
    fs = Fs()
    (tmp_path / "alias").symlink_to(home)
    with mounted(tmp_path, limited(home), fs=fs) as one:
        file = one.root.open_file("a", write=True, create=True)
        file.write(0, bytes(2000))
        alias = clause(tmp_path / "alias", quota_bytes=2500)
        with mounted(tmp_path, alias, fs=fs) as two:
            refused(lambda: two.root.open_file("a", append=True).append(bytes(501)))
            two.root.open_file("a", append=True).append(bytes(500))
        assert one.root.used() == (2500, 1)
        refused(lambda: file.append(bytes(501)))


def test_a_quota_that_comes_later_counts_files_without_a_name(tmp_path: Path, home: Path) -> None:
    fs = Fs()
    with mounted(tmp_path, clause(home), fs=fs) as one:
        file = one.root.open_file("a", write=True, create=True)
        file.write(0, bytes(2000))
        one.root.remove("a")
        with mounted(tmp_path, limited(home), fs=fs) as two:
            assert two.root.used() == (2000, 1)
            file.close()
            assert two.root.used() == (0, 0)


def test_an_unbounded_mount_tells_what_it_holds(tmp_path: Path, home: Path) -> None:
    with mounted(tmp_path, clause(home)) as bench:
        bench.root.open_file("a", write=True, create=True).write(0, bytes(5000))
        with in_call() as call:
            assert bench.state.mounts()[0].used_bytes == 5000
        assert call.host_fuel > 0
        assert not ledger_of(bench).counted


def test_refuses_writable_mounts_that_no_quota_can_be_kept_on(tmp_path: Path, home: Path) -> None:
    (home / "sub").mkdir()
    inner = clause(home / "sub", mount="/sub", quota_bytes=10)

    with (
        pytest.raises(CapabilityError, match="/data and /sub: one directory holds the other"),
        mounted(tmp_path, clause(home), inner),
    ):
        pass
    with mounted(tmp_path, clause(home, "read"), inner):
        pass


def test_refuses_a_quota_on_more_than_can_be_counted(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count, "__defaults__", (9,))
    for i in range(10):
        (home / str(i)).touch()

    with (
        pytest.raises(CapabilityError, match="a quota can't be kept on it"),
        mounted(tmp_path, limited(home)),
    ):
        pass
    with mounted(tmp_path, clause(home)) as bench:
        assert bench.root.open_file("1", read=True).read(0, 1) == b""


@pytest.mark.parametrize("bounds", [{"quota_bytes": 2**60}, {"quota_files": 2**60}])
def test_refuses_names_that_would_keep_it_from_being_mounted_again(
    tmp_path: Path, home: Path, bounds: dict[str, int]
) -> None:
    with mounted(tmp_path, clause(home, **bounds)) as bench:
        ledger = bench.root.mount.ledger
        with ledger.held():
            ledger.settle(files=MAX_NAMES - 1 - ledger.files)
        bench.root.mkdir("the-last")
        assert outcome(lambda: bench.root.mkdir("one-more")) == "EDQUOT"


@pytest.mark.case("RES-03")
def test_the_call_pays_for_the_count_and_can_end_it(tmp_path: Path, home: Path) -> None:
    for i in range(2500):
        (home / str(i)).touch()
    with in_call() as call:
        bench = Mounted(tmp_path, Fs(), limited(home))
        assert call.host_fuel >= 2500 * 200
        bench.state.close()
        call.interrupt("killed")
        del bench
        with pytest.raises(CallInterrupted):
            Mounted(tmp_path, Fs(), limited(home))


@pytest.mark.case("FS-22")
def test_refuses_nothing_it_cannot_settle_when_a_write_fails(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def short(fd: int, data: Any, offset: int) -> int:
        if offset >= 1000:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[:1000], offset)

    with mounted(tmp_path, limited(home)) as bench:
        file = bench.root.open_file("a", write=True, create=True)
        monkeypatch.setattr(os, "pwrite", short)
        with pytest.raises(FsError) as caught:
            file.write(0, bytes(2000))
        assert caught.value.word == "unavailable"
        assert ledger_of(bench).bytes == 1000 == file.size()
        assert bench.recorder.of("failed")[0].reason == "ENOSPC"


NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b"])
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, st.integers(0, 1500), st.integers(0, 2000)),
        st.tuples(st.just("append"), NAMES, st.integers(0, 1500)),
        st.tuples(st.just("resize"), NAMES, st.integers(0, 4000)),
        st.tuples(st.just("truncate"), NAMES),
        st.tuples(st.just("hold"), NAMES),
        st.tuples(st.just("let-go"), st.integers(0, 5)),
        st.tuples(st.just("mkdir"), NAMES),
        st.tuples(st.just("remove"), NAMES),
        st.tuples(st.just("rename"), NAMES, NAMES),
    ),
    max_size=25,
)


class Actor:
    """One instance, doing what it is told on the shared directory."""

    def __init__(self, bench: Mounted, root: Path) -> None:
        self.bench = bench
        self.path = root
        self.kept: list[Node] = []
        self.failure: BaseException | None = None

    def run(self, ops: list[Any]) -> None:
        try:
            with in_call():
                for op in ops:
                    try:
                        self.do(*op)
                    except FsError as exc:
                        if exc.word == "unavailable":
                            raise
                    self.audit()
        except BaseException as exc:
            self.failure = exc

    def do(self, what: str, *args: Any) -> None:
        root = self.bench.root
        if what in ("write", "append", "resize"):
            file = root.open_file(args[0], write=True, create=True)
            try:
                if what == "write":
                    file.write(args[2], bytes(args[1]))
                elif what == "append":
                    file.append(bytes(args[1]))
                else:
                    file.set_size(args[1])
            finally:
                file.close()
        elif what == "truncate":
            root.open_file(args[0], write=True, truncate=True).close()
        elif what == "hold":
            self.kept.append(root.open_file(args[0], read=True))
        elif what == "let-go":
            if args[0] < len(self.kept):
                self.kept.pop(args[0]).close()
        elif what == "mkdir":
            root.mkdir(args[0])
        elif what == "remove":
            root.remove(args[0])
        else:
            root.rename(args[0], root, args[1])

    def audit(self) -> None:
        """No change is under way while the ledger is held: then count and reality are one."""
        ledger = self.bench.root.mount.ledger
        with ledger.held():
            size, names = held(self.path)
            nameless = [i for i in map(os.fstat, ledger.holders()) if i.st_nlink == 0]
            size += sum(i.st_size for i in nameless)
            names += len(nameless)
            assert (ledger.bytes, ledger.files) == (size, names)
            assert size <= BYTES
            assert names <= FILES


@pytest.mark.case("FS-22")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OPS, OPS)
def test_two_threads_never_exceed_the_quota_and_the_count_is_exact(
    first: list[Any], second: list[Any]
) -> None:
    fs = Fs()
    with tempfile.TemporaryDirectory() as base:
        root = Path(base) / "root"
        root.mkdir()
        with (
            mounted(Path(base), limited(root), fs=fs) as one,
            mounted(Path(base), limited(root), fs=fs) as two,
        ):
            actors = [Actor(one, root), Actor(two, root)]
            threads = [
                threading.Thread(target=actor.run, args=(ops,))
                for actor, ops in zip(actors, (first, second), strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            for actor in actors:
                if actor.failure is not None:
                    raise actor.failure
                for handle in actor.kept:
                    handle.close()
            ledger = one.root.mount.ledger
            assert (ledger.bytes, ledger.files) == held(root)
