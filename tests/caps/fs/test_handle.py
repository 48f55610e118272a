from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from capwasm.caps.fs import Access, Dir, File, Fs, FsError, Kind
from capwasm.caps.fs.handle import MAX_FILE_SIZE, MAX_TRANSFER
from capwasm.errors import (
    AuditError,
    CapError,
    DeadlineExceeded,
)
from capwasm.events import ALLOWED, Event
from capwasm.limits import DEFAULTS
from tests.helpers import ListRecorder, grant_of, in_call, open_context

from .tools import WAYS, Mounted, checked_escapes, clause, held, mounted, open_descriptors, outcome

pytestmark = pytest.mark.usefixtures("_checked")


@pytest.fixture
def _checked() -> Iterator[None]:
    with checked_escapes():
        yield


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"hello")
    (root / "sub" / "inner").write_bytes(b"inner")
    return root


@pytest.fixture
def rw(tmp_path: Path, home: Path, way: str) -> Iterator[Mounted]:
    with mounted(tmp_path, clause(home), way=way) as bench:
        yield bench


@pytest.fixture
def ro(tmp_path: Path, home: Path, way: str) -> Iterator[Mounted]:
    with mounted(tmp_path, clause(home, "read"), way=way) as bench:
        yield bench


def refused(number: int, act: object) -> FsError:
    with pytest.raises(FsError) as caught:
        act()  # type: ignore[operator]
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]
    return caught.value


# -- files -----------------------------------------------------------------------------------------


def test_allows_reading_and_writing_a_file(rw: Mounted, home: Path) -> None:
    file = rw.root.open_file("new", read=True, write=True, create=True)
    file.write(0, b"0123456789")
    file.write(4, b"xx")

    assert file.read(2, 5) == b"23xx6"
    assert file.read(10, 5) == b""
    assert file.read(2**63, 5) == b""
    assert file.size() == 10
    file.set_size(3)
    file.sync()
    file.datasync()
    assert (home / "new").read_bytes() == b"012"


def test_allows_appending_whatever_the_offset(rw: Mounted, home: Path) -> None:
    rw.root.open_file("file", append=True).write(0, b" world")
    rw.root.open_file("file", write=True).append(b"!")

    assert (home / "file").read_bytes() == b"hello world!"


def test_allows_truncating_and_making_anew(rw: Mounted, home: Path) -> None:
    rw.root.open_file("file", write=True, truncate=True).close()
    rw.root.open_file("fresh", write=True, create=True, exclusive=True).close()

    assert (home / "file").read_bytes() == b""
    assert (home / "fresh").stat().st_mode & 0o7777 == 0o644 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_refuses_what_the_file_was_not_opened_for(rw: Mounted) -> None:
    reader = rw.root.open_file("file", read=True)
    writer = rw.root.open_file("file", write=True)

    refused(errno.EBADF, lambda: reader.write(0, b"x"))
    refused(errno.EBADF, lambda: reader.set_size(0))
    refused(errno.EPERM, lambda: reader.set_times(0, 0))
    refused(errno.EBADF, lambda: writer.read(0, 1))
    refused(errno.EINVAL, lambda: rw.root.open_file("file", read=True, truncate=True))
    refused(
        errno.EEXIST, lambda: rw.root.open_file("file", write=True, create=True, exclusive=True)
    )
    assert reader.read(0, 9) == b"hello"


@pytest.mark.case("FS-22")
def test_refuses_sizes_that_no_file_may_have(rw: Mounted, home: Path) -> None:
    file = rw.root.open_file("file", read=True, write=True)

    for size in (MAX_FILE_SIZE + 1, 2**63 - 1, 2**63, 2**64 - 1):
        refused(errno.EFBIG, lambda size=size: file.set_size(size))
        refused(errno.EFBIG, lambda size=size: file.write(size, b"x"))
    refused(errno.EINVAL, lambda: file.set_size(-1))
    refused(errno.EINVAL, lambda: file.write(-1, b"x"))
    refused(errno.EINVAL, lambda: file.read(-1, 1))
    refused(errno.EINVAL, lambda: file.read(0, -1))
    refused(errno.E2BIG, lambda: file.write(0, bytes(MAX_TRANSFER + 1)))
    refused(errno.E2BIG, lambda: file.read(0, MAX_TRANSFER + 1))
    assert (home / "file").read_bytes() == b"hello"


@pytest.mark.case("FS-07")
def test_refuses_every_change_through_a_read_only_mount(ro: Mounted, home: Path) -> None:
    before = {p: (p.lstat().st_mtime_ns, p.lstat().st_size) for p in home.rglob("*")}
    root = ro.root
    attempts = [
        lambda: root.open_file("file", write=True),
        lambda: root.open_file("file", append=True),
        lambda: root.open_file("file", read=True, truncate=True),
        lambda: root.open_file("file", write=True, truncate=True),
        lambda: root.open_file("file", read=True, create=True),
        lambda: root.open_file("new", read=True, create=True),
        lambda: root.open_at("sub", read=True, write=True),
        lambda: root.mkdir("new"),
        lambda: root.remove_file("file"),
        lambda: root.remove_dir("sub"),
        lambda: root.remove("sub/inner"),
        lambda: root.rename("file", root, "new"),
        lambda: root.set_times_at("file", 0, 0),
        lambda: root.set_times(0, 0),
        lambda: root.open_dir("sub").mkdir("new"),
        lambda: root.open_dir("sub", Access.READ_WRITE).remove_file("inner"),
        lambda: root.reopen().remove_file("file"),
    ]

    for attempt in attempts:
        refused(errno.EPERM, attempt)
    root.sync()
    root.open_file("file", read=True).sync()

    assert {p: (p.lstat().st_mtime_ns, p.lstat().st_size) for p in home.rglob("*")} == before
    assert len(ro.denials()) == len(attempts)
    assert {e.reason for e in ro.denials()} == {"read-only"}


def test_allows_reading_through_a_read_only_mount(ro: Mounted) -> None:
    assert ro.root.open_file("sub/inner", read=True).read(0, 9) == b"inner"
    assert [name for name, _ in ro.root.page(".")] == ["file", "sub"]


def test_a_directory_handle_can_only_narrow(rw: Mounted) -> None:
    narrow = rw.root.open_dir("sub", Access.READ)

    refused(errno.EPERM, lambda: narrow.mkdir("x"))
    refused(errno.EPERM, lambda: narrow.open_dir(".", Access.READ_WRITE).mkdir("x"))
    refused(errno.EPERM, lambda: rw.root.rename("file", narrow, "x"))
    refused(errno.EPERM, lambda: narrow.rename("inner", rw.root, "x"))
    rw.root.open_dir("sub").mkdir("x")


# -- directories -----------------------------------------------------------------------------------


def test_allows_making_renaming_and_removing(rw: Mounted, home: Path) -> None:
    root = rw.root
    root.mkdir("a")
    root.mkdir("a/b/")
    root.rename("file", root.open_dir("a/b"), "moved")
    assert (home / "a/b/moved").read_bytes() == b"hello"
    root.rename("a/b/", root, "c/")
    refused(errno.ENOTEMPTY, lambda: root.remove_dir("c"))
    refused(errno.EISDIR, lambda: root.remove_file("c"))
    refused(errno.ENOTDIR, lambda: root.remove_dir("c/moved"))
    root.remove("c/moved")
    root.remove("c")
    root.remove_dir("a")

    assert sorted(p.name for p in home.iterdir()) == ["sub"]


def test_refuses_to_act_on_the_mount_itself(rw: Mounted) -> None:
    root = rw.root

    refused(errno.EBUSY, lambda: root.remove("."))
    refused(errno.EBUSY, lambda: root.remove_dir("./"))
    refused(errno.EBUSY, lambda: root.rename(".", root, "x"))
    refused(errno.EBUSY, lambda: root.rename("sub", root, "."))
    refused(errno.EEXIST, lambda: root.mkdir("."))
    refused(errno.EINVAL, lambda: root.rename("sub", root, "sub/x"))


def test_a_stat_tells_kinds_and_hides_inodes(rw: Mounted, home: Path) -> None:
    (home / "ln").symlink_to("/etc/passwd")
    root = rw.root

    assert root.stat_at(".").kind is Kind.DIRECTORY
    found = root.stat_at("file")
    assert (found.kind, found.size, found.links) == (Kind.FILE, 5, 1)
    assert found.modified_ns == (home / "file").stat().st_mtime_ns
    link = root.stat_at("ln")
    assert (link.kind, link.size) == (Kind.LINK, 0)
    assert root.open_file("file", read=True).stat().hash == found.hash
    assert root.open_file("file", read=True).same_object(root.open_file("file", write=True))
    assert not root.same_object(root.open_dir("sub"))
    assert (home / "file").stat().st_ino not in found.hash


@pytest.mark.case("FS-25")
def test_times_are_bounded_both_ways(rw: Mounted, home: Path) -> None:
    os.utime(home / "file", ns=(-(10**18), -1))
    root = rw.root
    file = root.open_file("file", write=True)

    assert root.stat_at("file").modified_ns == 0
    assert root.page(".")[0][1].modified_ns == 0
    for bad in (-1, 2**63, 2**64 * 10**9):
        refused(errno.EINVAL, lambda bad=bad: file.set_times(bad, None))
        refused(errno.EINVAL, lambda bad=bad: root.set_times_at("file", None, bad))
    file.set_times(None, 7_000_000_000)
    assert (home / "file").stat().st_mtime_ns == 7_000_000_000
    root.set_times_at("sub/", 1_000_000_000, 2_000_000_000)
    assert (home / "sub").stat().st_mtime_ns == 2_000_000_000
    root.set_times(3_000_000_000, 4_000_000_000)
    assert home.stat().st_mtime_ns == 4_000_000_000


@pytest.mark.case("FS-10", "FS-25")
def test_refuses_to_set_the_times_of_what_a_link_leads_to(
    rw: Mounted, home: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"")
    before = canary.stat().st_mtime_ns
    (home / "ln").symlink_to(canary)

    refused(errno.ELOOP, lambda: rw.root.set_times_at("ln", 0, 0))

    assert canary.stat().st_mtime_ns == before


@pytest.mark.case("FS-24")
def test_a_huge_directory_comes_in_pages(rw: Mounted, home: Path) -> None:
    names = sorted(f"{i:05}-é" for i in range(2500))
    for name in names:
        (home / "sub" / name).touch()
    (home / "sub" / os.fsdecode(b"\xff\xfe")).touch()  # can't be said in Unicode
    (home / "sub" / "inner").unlink()
    root, found, after = rw.root, [], None

    while page := root.page("sub", after, 10**9):
        assert len(page) <= 1000
        found += [name for name, _ in page]
        after = found[-1]

    assert found == names
    stream, streamed = root.open_dir("sub").entries(), set()
    while entry := stream.next():
        assert entry.kind is Kind.FILE
        streamed.add(entry.name)
    assert stream.next() is None
    stream.close()
    assert streamed == set(names)


def test_looking_through_a_directory_is_paid_for(rw: Mounted, home: Path) -> None:
    for i in range(3000):
        (home / "sub" / str(i)).touch()

    with in_call() as call:
        rw.root.page("sub", "zzz")
        cost = call.host_fuel
        call.deadline = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            rw.root.page("sub")

    assert cost > 3000 * 100


def test_a_stream_tells_kinds(rw: Mounted, home: Path) -> None:
    (home / "ln").symlink_to("sub")
    os.mkfifo(home / "fifo")
    stream = rw.root.entries()
    kinds = {}
    while entry := stream.next():
        kinds[entry.name] = entry.kind
    stream.close()

    assert kinds == {
        "file": Kind.FILE, "sub": Kind.DIRECTORY, "ln": Kind.LINK, "fifo": Kind.OTHER
    }  # fmt: skip


# -- special files, links, mounts ------------------------------------------------------------------


@pytest.mark.case("FS-15")
def test_refuses_special_files_without_waiting(rw: Mounted, home: Path) -> None:
    os.mkfifo(home / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(home / "socket"))
    began = time.monotonic()

    for name in ("fifo", "socket"):
        for how in ({"read": True}, {"write": True}, {"read": True, "write": True}):
            error = refused(errno.EPERM, lambda n=name, h=how: rw.root.open_file(n, **h))
            assert error.word == "denied"
        refused(errno.EPERM, lambda n=name: rw.root.open_dir(n))
        refused(errno.EPERM, lambda n=name: rw.root.set_times_at(n, 0, 0))
        assert rw.root.stat_at(name).kind is Kind.OTHER
    listener.close()

    assert time.monotonic() - began < 5


@pytest.mark.case("FS-15")
def test_refuses_a_fifo_that_took_a_files_place_after_the_look(
    tmp_path: Path, home: Path, way: str
) -> None:
    real = WAYS[way]

    def swapping(
        root: int, names: object, flags: int, mode: int = 0, *, cross: bool = False
    ) -> int:
        if names == (b"file",) and not flags & os.O_PATH:
            (home / "file").unlink()
            os.mkfifo(home / "file")
        return real(root, names, flags, mode, cross=cross)  # type: ignore[arg-type]

    with mounted(tmp_path, clause(home), fs=Fs(resolve=swapping)) as bench:
        error = refused(errno.EPERM, lambda: bench.root.open_file("file", read=True))

    assert error.reason == "special"


@pytest.mark.case("FS-03", "FS-08")
def test_no_operation_makes_or_reads_a_link() -> None:
    words = [name for name in (*dir(Dir), *dir(File)) if "link" in name or "mode" in name]

    assert words == []


@pytest.mark.case("FS-08")
def test_refuses_to_rename_between_mounts(tmp_path: Path, home: Path, way: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "theirs").write_bytes(b"x")
    granted = (clause(home, "read", mount="/ro"), clause(other, mount="/rw"))

    with mounted(tmp_path, *granted, way=way) as bench:
        ro, rw = bench.state.roots["/ro"], bench.state.roots["/rw"]
        refused(errno.EXDEV, lambda: ro.rename("file", rw, "stolen"))
        refused(errno.EXDEV, lambda: rw.rename("theirs", ro, "planted"))

    assert sorted(p.name for p in home.iterdir()) == ["file", "sub"]
    assert sorted(p.name for p in other.iterdir()) == ["theirs"]


@pytest.mark.case("FS-09")
@pytest.mark.parametrize("inner_first", [True, False])
def test_each_handle_has_its_own_rights_on_nested_directories(
    tmp_path: Path, home: Path, way: str, *, inner_first: bool
) -> None:
    granted = [clause(home, "read", mount="/d"), clause(home / "sub", mount="/d/sub")]

    with mounted(tmp_path, *granted[:: -1 if inner_first else 1], way=way) as bench:
        outer, inner = bench.state.roots["/d"], bench.state.roots["/d/sub"]
        refused(errno.EPERM, lambda: outer.open_file("sub/inner", write=True))
        refused(errno.EPERM, lambda: outer.open_dir("sub").open_file("inner", write=True))
        refused(errno.EXDEV, lambda: outer.rename("file", inner, "x"))
        inner.open_file("inner", write=True).write(0, b"OK")

    assert (home / "sub" / "inner").read_bytes() == b"OKner"


# -- lease, life, cost -----------------------------------------------------------------------------


def test_refuses_everything_once_the_lease_is_off(rw: Mounted) -> None:
    file = rw.root.open_file("file", read=True, write=True)
    sub, stream = rw.root.open_dir("sub"), rw.root.entries()
    rw.granted[0].lease.revoke("test")

    for act in (
        lambda: file.read(0, 1),
        lambda: file.write(0, b"x"),
        file.size,
        lambda: sub.stat_at("inner"),
        lambda: rw.root.open_file("file", read=True),
        stream.next,
        lambda: rw.root.page("."),
    ):
        with pytest.raises(CapError) as caught:
            act()
        assert caught.value.word == "closed"
    for handle in (file, sub, stream):
        handle.close()


@pytest.mark.case("FS-23")
def test_handles_close_once_and_leak_no_descriptor(rw: Mounted, home: Path) -> None:
    (home / "ln").symlink_to("/etc")
    before = open_descriptors()

    for _ in range(50):
        file = rw.root.open_file("file", read=True)
        file.close()
        file.close()
        rw.root.open_dir("sub").close()
        stream = rw.root.entries()
        stream.next()
        stream.close()
        for path in ("ln/x", "nope", "sub", "file/", "sub/nope/x", ".."):
            assert outcome(lambda p=path: rw.root.open_file(p, read=True)) != "ok"
        outcome(lambda: rw.root.mkdir("sub"))
        outcome(lambda: rw.root.rename("nope", rw.root, "x"))
        rw.root.page("sub")

    assert open_descriptors() == before
    with pytest.raises(CapError, match="closed"):
        file.read(0, 1)


def test_closing_waits_for_the_operation_that_uses_the_descriptor(rw: Mounted) -> None:
    file = rw.root.open_file("file", read=True)
    closer = threading.Thread(target=file.close)

    with file.in_use():
        closer.start()
        closer.join(0.05)
        os.fstat(file._fd)  # still ours
        assert closer.is_alive()
    closer.join(10)

    assert not file.alive


def test_host_work_is_charged_to_the_call(rw: Mounted) -> None:
    file = rw.root.open_file("file", read=True, write=True)

    with in_call() as call:
        file.write(0, bytes(100_000))
        wrote = call.host_fuel
        file.read(0, 100_000)

    assert wrote >= 100_000
    assert call.host_fuel - wrote >= 100_000


def test_refuses_to_begin_or_wait_past_the_deadline(rw: Mounted) -> None:
    file = rw.root.open_file("file", read=True, write=True)
    with in_call(replace(DEFAULTS, wall_ms=1)):
        time.sleep(0.01)
        with pytest.raises(DeadlineExceeded):
            file.read(0, 1)
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with rw.root.mount.ledger.held():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with in_call(replace(DEFAULTS, host_call_ms=50)):
        error = refused(errno.ETIMEDOUT, lambda: file.write(0, b"x"))
    leave.set()
    thread.join(10)

    assert error.word == "unavailable"


# -- audit -----------------------------------------------------------------------------------------


class _Broken(ListRecorder):
    def record(self, event: Event) -> None:
        if event.verdict == ALLOWED:
            raise AuditError("full")
        super().record(event)


def test_refuses_every_change_that_cannot_be_recorded(tmp_path: Path, home: Path, way: str) -> None:
    fs = Fs(resolve=WAYS[way])
    (tmp_path / "state").mkdir()
    before = held(home)
    with in_call():
        bench = mounted(tmp_path, clause(home, quota_bytes=1000), fs=fs)
        with bench as m:
            context = open_context(tmp_path / "state", recorder=_Broken())
            state = fs.open(grant_of(*(g.clause for g in m.granted)), context)
            root = state.roots["/data"]
            descriptors = open_descriptors()
            for act in (
                lambda: root.open_file("new", write=True, create=True),
                lambda: root.open_file("file", write=True, truncate=True),
                lambda: root.open_file("file", read=True),
                lambda: root.open_dir("sub"),
                lambda: root.mkdir("new"),
                lambda: root.remove("file"),
                lambda: root.rename("file", root, "new"),
                lambda: root.set_times(0, 0),
                lambda: root.set_times_at("file", 0, 0),
            ):
                with pytest.raises(AuditError):
                    act()
            assert (root.mount.ledger.bytes, root.mount.ledger.files) == before
            assert open_descriptors() == descriptors
            fs.close(state)

    assert held(home) == before


def test_the_audit_log_sees_guest_paths_and_no_host_path(rw: Mounted, home: Path) -> None:
    root = rw.root
    sub = root.open_dir("sub")
    sub.open_file("inner", read=True)
    sub.open_file("n\x1b[31mew", write=True, create=True)
    outcome(lambda: root.open_file("../" + "x" * 1000, read=True))
    root.rename("file", sub, "moved")
    events = rw.recorder.events

    assert [(e.action, e.target) for e in events[:2]] == [
        ("open", "/data/sub"),
        ("open", "/data/sub/inner"),
    ]
    assert events[2].target == "/data/sub/n\ufffd[31mew"
    assert (events[3].verdict, events[3].reason) == ("denied", "escape")
    assert len(events[3].target) <= 512
    assert (events[4].target, events[4].details["to"]) == ("/data/file", "/data/sub/moved")
    assert str(home) not in repr(events)


def test_an_error_holds_no_host_path(rw: Mounted, home: Path) -> None:
    (home / "ln").symlink_to("/etc/passwd")
    for path in ("ln", "nope", "sub", ".."):
        with pytest.raises(FsError) as caught:
            rw.root.open_file(path, read=True)
        error = caught.value
        assert str(home) not in f"{error!r} {error.detail} {error.__context__!r}"
