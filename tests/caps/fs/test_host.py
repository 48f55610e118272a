from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps.fs import Access, Fs, FsClause, Kind, roots
from capwasm.caps.fs.beneath import Lineage, lineage
from capwasm.caps.fs.host import Info, Mode, MountInfo
from capwasm.errors import CapabilityError, CapError, InternalError
from capwasm.handles import Handle
from tests.helpers import ListRecorder, grant_of, in_call, open_context

from .tools import WAYS, Mounted, checked_escapes, clause, mounted, open_descriptors

WIT = Path(__file__).parents[3] / "wit" / "fs" / "files.wit"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"hello")
    (tmp_path / "evil").mkdir()
    return root


@pytest.fixture(params=list(WAYS))
def bench(request: pytest.FixtureRequest, tmp_path: Path, home: Path) -> Iterator[Mounted]:
    with checked_escapes(), mounted(tmp_path, clause(home), way=request.param) as bench:
        yield bench


class Guest:
    """Calls the functions as a component does: by their WIT names, with plain values."""

    def __init__(self, bench: Mounted) -> None:
        (interface,) = bench.fs.serve(bench.state)
        self.functions = interface.functions

    def __call__(self, name: str, *args: Any) -> Any:
        return self.functions[name](*args)

    def word(self, name: str, *args: Any) -> str:
        with pytest.raises(CapError) as caught:
            self(name, *args)
        return caught.value.word


def test_serves_every_item_of_the_wit(bench: Mounted) -> None:
    text = WIT.read_text()
    resource = re.search(r"resource (\S+) \{(.*?)\n    \}", text, re.DOTALL)
    assert resource is not None
    methods = re.findall(r"^        ([a-z-]+): func", resource[2], re.MULTILINE)
    functions = re.findall(r"^    %?([a-z-]+): func", text, re.MULTILINE)
    (interface,) = bench.fs.serve(bench.state)

    assert set(interface.functions) == {
        *functions,
        *(f"[method]{resource[1]}.{m}" for m in methods),
    }
    assert list(interface.resources) == [resource[1]]
    assert issubclass(interface.resources["file"], Handle)
    for kind, name in ((Kind, "kind"), (Access, "access"), (Mode, "mode")):
        cases = re.search(rf"enum {name} \{{(.*?)\n    \}}", text, re.DOTALL)
        assert cases is not None
        words = re.findall(r"^        ([a-z-]+),", cases[1], re.MULTILINE)
        assert words == [m.value for m in kind]


def test_allows_the_ordinary_life_of_a_file(bench: Mounted, home: Path) -> None:
    guest = Guest(bench)
    file = guest("open", "/data/new", "create")
    guest("[method]file.write", file, 0, b"abc")
    guest("[method]file.set-size", file, 2)
    guest("[method]file.sync", file)
    assert guest("[method]file.size", file) == 2
    again = guest("open", "/data/new", "append")
    guest("[method]file.write", again, 0, b"cd")
    both = guest("open", "/data/new", "update")
    assert guest("[method]file.read", both, 1, 9) == b"bcd"
    guest("make-directory", "/data/made")
    guest("rename", "/data/new", "/data/made/moved")
    assert (home / "made" / "moved").read_bytes() == b"abcd"
    guest("remove", "/data/made/moved")
    guest("remove", "/data/made")
    guest("open", "/data/file", "write").close()

    assert (home / "file").read_bytes() == b""
    assert [i.name for i in guest("list", "/data", None)] == ["file", "sub"]
    assert [i.name for i in guest("list", "/data", "file")] == ["sub"]


def test_allows_looking(bench: Mounted, home: Path) -> None:
    guest = Guest(bench)
    modified = (home / "file").stat().st_mtime_ns

    assert guest("stat", "/data/file") == Info("file", Kind.FILE, 5, modified)
    assert guest("stat", "/data").name == "data"
    assert guest("mounts") == [MountInfo("/data", Access.READ_WRITE, None, 5)]


def test_refuses_with_the_word_of_the_wit(bench: Mounted, home: Path) -> None:
    (home / "sub" / "inner").touch()
    (home / "ln").symlink_to("file")
    os.mkfifo(home / "fifo")
    guest = Guest(bench)

    for path, mode, word in [
        ("/data/nope", "read", "not-found"),
        ("/data/nope/x", "create", "not-found"),
        ("/data/nope", "update", "not-found"),
        ("/data/file", "create", "exists"),
        ("/data/file/x", "read", "not-directory"),
        ("/data/sub", "read", "is-directory"),
        ("/data", "read", "is-directory"),
        ("/data/ln", "read", "denied"),
        ("/data/fifo", "read", "denied"),
        ("/data/../x", "read", "denied"),
        ("/etc/passwd", "read", "denied"),
        ("/", "read", "invalid"),
        ("", "read", "invalid"),
        ("file", "read", "invalid"),
        ("/data//file", "read", "invalid"),
        ("/data/file\0", "read", "invalid"),
        ("/data/" + "x" * 256, "read", "invalid"),
        ("/data" + "/x" * 10_000, "read", "invalid"),
    ]:
        assert (path, guest.word("open", path, mode)) == (path, word)
    assert guest.word("remove", "/data/sub") == "not-empty"
    assert guest.word("remove", "/data") == "denied"
    assert guest.word("list", "/data/file", None) == "not-directory"
    file = guest("open", "/data/file", "read")
    assert guest.word("[method]file.read", file, 0, 2**32 - 1) == "too-large"
    file.close()
    assert guest.word("[method]file.size", file) == "closed"


@pytest.mark.case("FS-19")
def test_refuses_a_name_that_only_begins_like_a_mount(bench: Mounted) -> None:
    guest = Guest(bench)

    for path in ("/data-evil/x", "/dat", "/data2", "/DATA/file", "/evil"):
        assert guest.word("open", path, "read") == "denied"
        assert guest.word("stat", path) == "denied"
    assert {e.reason for e in bench.denials()} == {"not-granted"}


@pytest.mark.case("FS-20")
def test_refuses_everything_where_nothing_is_granted(tmp_path: Path, home: Path) -> None:
    with mounted(tmp_path) as bench:
        guest = Guest(bench)
        assert guest("mounts") == []
        for path in ("/data/file", str(home / "file"), "/", ".", str(Path.cwd())):
            assert guest.word("open", path, "read") in ("denied", "invalid")


@pytest.mark.case("FS-09")
@pytest.mark.parametrize("turned", [False, True])
def test_a_path_belongs_to_its_longest_mount_alone(
    tmp_path: Path, home: Path, *, turned: bool
) -> None:
    (home / "sub" / "shadowed").touch()
    other = tmp_path / "other"
    other.mkdir()
    granted = [clause(home, mount="/data"), clause(other, "read", mount="/data/sub")]
    with mounted(tmp_path, *granted[:: -1 if turned else 1]) as bench:
        guest = Guest(bench)
        assert guest.word("stat", "/data/sub/shadowed") == "not-found"
        assert guest.word("open", "/data/sub/new", "create") == "denied"
        assert guest.word("rename", "/data/file", "/data/sub/file") == "denied"
        assert guest.word("remove", "/data/sub") == "denied"
        granted[1].lease.revoke("test")
        assert guest.word("stat", "/data/sub/shadowed") == "closed"
        assert guest("stat", "/data/file").size == 5
        assert [m.path for m in guest("mounts")] == ["/data"]

    assert list(other.iterdir()) == []


def test_revoking_a_mount_closes_it_within_the_running_call(bench: Mounted) -> None:
    guest = Guest(bench)
    file = guest("open", "/data/file", "update")
    bench.granted[0].lease.revoke("test")

    assert guest.word("[method]file.read", file, 0, 1) == "closed"
    assert guest.word("open", "/data/file", "read") == "closed"
    assert guest("mounts") == []


# -- opening ---------------------------------------------------------------------------------------


def opening(tmp_path: Path, *clauses: FsClause, fs: Fs | None = None, **grant: Any) -> Any:
    data = tmp_path / "state"
    data.mkdir(exist_ok=True)
    fs = fs or Fs()
    recorder = ListRecorder()
    state = fs.open(grant_of(*clauses, **grant), open_context(data, recorder=recorder))
    fs.close(state)
    return state, recorder


def faults(tmp_path: Path, *clauses: FsClause, **rest: Any) -> list[str]:
    with pytest.raises(CapabilityError) as caught:
        opening(tmp_path, *clauses, **rest)
    assert caught.value.code == "capability.bind"
    return [str(f) for f in caught.value.faults]


def test_refuses_roots_that_cannot_be_used_all_at_once(tmp_path: Path, home: Path) -> None:
    found = faults(
        tmp_path,
        FsClause("/a", "a", str(tmp_path / "gone")),
        FsClause("/b", "b", str(home / "file")),
        FsClause("/c", "c"),
        FsClause("/d", "d", str(home)),
        FsClause("/d", "d", str(tmp_path)),
    )

    assert len(found) == 4
    assert "/c: the policy names no directory for it" in found[0]
    assert 'bind = "c"' in found[0]
    assert "/d: the policy names two directories" in found[1]
    assert "/a: " in found[2]
    assert "No such file" in found[2]
    assert "Not a directory" in found[3]


@pytest.mark.case("FS-10")
@pytest.mark.parametrize(
    "target", ["/proc", "/proc/self/root", "/proc/self/task", "/sys", "/dev/shm", "/"]
)
def test_refuses_a_root_that_is_a_window_on_the_kernel(tmp_path: Path, target: str) -> None:
    (tmp_path / "alias").symlink_to(target)

    assert "must not" in faults(tmp_path, FsClause("/a", "a", str(tmp_path / "alias")))[0]


def test_allows_a_root_that_the_operator_named_by_a_link(tmp_path: Path, home: Path) -> None:
    (tmp_path / "alias").symlink_to(home)

    state, _ = opening(tmp_path, FsClause("/a", "a", str(tmp_path / "alias")))

    assert state.roots["/a"].mount.real == str(home)


@pytest.mark.case("FS-21")
@pytest.mark.parametrize("where", ["state", "state/inner", ".", "trust", "trust/keys", "link"])
@pytest.mark.parametrize("access", list(Access))
def test_refuses_a_root_that_overlaps_the_runtimes_own(
    tmp_path: Path, where: str, access: Access
) -> None:
    (tmp_path / "state" / "inner").mkdir(parents=True)
    (tmp_path / "trust" / "keys").mkdir(parents=True)
    (tmp_path / "link").symlink_to("trust")
    fs = Fs(protected=[tmp_path / "trust"])

    found = faults(tmp_path, FsClause("/a", "a", str(tmp_path / where), access), fs=fs)

    assert "which is the runtime's own" in found[0]


@pytest.mark.case("FS-21")
def test_refuses_a_root_that_holds_a_protected_file_yet_to_come(tmp_path: Path, home: Path) -> None:
    fs = Fs(protected=[home / "sub" / "registry.db"])

    assert faults(tmp_path, FsClause("/a", "a", str(home)), fs=fs)
    opening(tmp_path, FsClause("/a", "a", str(tmp_path / "evil")), fs=fs)


@pytest.mark.case("FS-21")
def test_refuses_a_root_when_it_cannot_be_told_apart(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(path: str) -> Lineage:
        if path.endswith("vault"):
            raise PermissionError(13, "Permission denied")
        return lineage(path)

    monkeypatch.setattr(roots, "lineage", blind)
    fs = Fs(protected=[tmp_path / "vault"])

    assert "can't be told" in faults(tmp_path, FsClause("/a", "a", str(home)), fs=fs)[0]


@pytest.mark.parametrize("deny", ["", "sub", "..", "alias"])
def test_refuses_a_mount_that_a_rule_denies(tmp_path: Path, home: Path, deny: str) -> None:
    (tmp_path / "alias").symlink_to(home / "sub")
    rule = FsClause(path=os.path.normpath(home / deny))
    if deny == "alias":
        rule = FsClause(path=str(tmp_path / "alias"))

    state, recorder = opening(tmp_path, FsClause("/a", "a", str(home)), deny=(rule,))

    assert state.roots == {}
    assert [(e.target, e.reason) for e in recorder.of("denied")] == [("/a", "denied-by-rule")]


def test_allows_a_mount_that_a_rule_for_another_does_not_deny(tmp_path: Path, home: Path) -> None:
    deny = (FsClause(path=str(tmp_path / "evil")), FsClause(bind="b", path=str(home)))

    state, _ = opening(tmp_path, FsClause("/a", "a", str(home)), deny=deny)

    assert list(state.roots) == ["/a"]


def test_several_clauses_for_one_mount_give_the_rights_of_one(tmp_path: Path, home: Path) -> None:
    state, _ = opening(
        tmp_path,
        FsClause("/a", "a", str(home), Access.READ),
        FsClause("/a", "a", str(home), Access.READ_WRITE, 100, None),
    )

    assert state.roots["/a"].access is Access.READ_WRITE
    assert state.roots["/a"].mount.quota.bytes == 100


def test_closing_lets_go_of_every_descriptor(tmp_path: Path, home: Path) -> None:
    before = open_descriptors()

    opening(tmp_path, FsClause("/a", "a", str(home), Access.READ_WRITE, 10**6))
    faults(tmp_path, FsClause("/a", "a", str(home)), FsClause("/b", "b", str(home / "gone")))

    assert open_descriptors() == before


def test_refuses_to_serve_outside_a_call(tmp_path: Path, home: Path) -> None:
    with mounted(tmp_path, clause(home)) as bench:
        guest = Guest(bench)
    with pytest.raises(InternalError):
        guest("open", "/data/file", "read")
    with in_call():
        assert guest.word("open", "/data/file", "read") == "closed"
