from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm.capability import Risk
from capwasm.caps._paths import overlap
from capwasm.caps.fs import Access, Fs, FsClause
from capwasm.caps.fs.faults import WORDS, FsError
from capwasm.caps.fs.model import parse
from capwasm.caps.fs.paths import absolute, mount_fault, relative
from capwasm.caps.fs.quota import Quota

MOUNTS = [None, "/data", "/out"]
PATHS = [None, "/srv/a", "/srv/b"]
clauses = st.builds(
    FsClause,
    mount=st.sampled_from(MOUNTS),
    bind=st.sampled_from([None, "a", "b"]),
    path=st.sampled_from(PATHS),
    access=st.sampled_from(list(Access)),
    quota_bytes=st.sampled_from([None, 0, 10, 20]),
    quota_files=st.sampled_from([None, 0, 10, 20]),
)


@given(clauses, clauses)
def test_a_meet_is_the_largest_clause_within_both(a: FsClause, b: FsClause) -> None:
    met = a.meet(b)

    assert met == b.meet(a)
    assert a.within(b) == (met == a)
    assert met is None or (met.within(a) and met.within(b))


@given(clauses, clauses, clauses)
def test_meeting_is_associative(a: FsClause, b: FsClause, c: FsClause) -> None:
    ab, bc = a.meet(b), b.meet(c)

    assert (ab and ab.meet(c)) == (bc and a.meet(bc))


@given(clauses, clauses)
def test_a_clause_within_another_is_satisfied_by_it(a: FsClause, b: FsClause) -> None:
    assert not a.within(b) or a.satisfied_by(b)
    assert a.satisfied_by(a)


@given(clauses)
def test_a_clause_written_as_toml_parses_to_itself(a: FsClause) -> None:
    if a.mount is a.bind is a.path is None:
        return

    assert parse([a.to_toml()], "consent").clauses == (a,)


def test_allows_a_request_that_leaves_the_path_to_the_policy() -> None:
    asked = FsClause("/data", "app", None, Access.READ)
    rule = FsClause(None, "app", "/srv/app", Access.READ_WRITE, 10)
    granted = asked.meet(rule)

    assert granted == FsClause("/data", "app", "/srv/app", Access.READ, 10)
    assert asked.satisfied_by(granted)


@pytest.mark.parametrize(
    "granted",
    [
        FsClause("/data", "app", "/srv/app", Access.READ),
        FsClause("/other", "app", "/srv/app", Access.READ_WRITE),
        FsClause("/data", "else", "/srv/app", Access.READ_WRITE),
    ],
    ids=["less access", "another mount", "another bind"],
)
def test_refuses_to_call_a_request_satisfied_by_less(granted: FsClause) -> None:
    assert not FsClause("/data", "app", None, Access.READ_WRITE).satisfied_by(granted)


def test_allows_manifest_tables() -> None:
    tables = tomllib.loads(
        '[[fs]]\nmount="/data"\nbind="app-data"\naccess="read-write"\nquota="10MiB"\nfiles=1000\n'
        '[[fs]]\nmount="/in"\npath="/srv/in"\n'
    )["fs"]

    parsed = Fs().parse(tables, "manifest")

    assert parsed.faults == ()
    assert parsed.clauses == (
        FsClause("/data", "app-data", None, Access.READ_WRITE, 10 * 2**20, 1000),
        FsClause("/in", None, "/srv/in", Access.READ),
    )


def test_refuses_a_faulty_manifest_with_all_faults_at_once() -> None:
    tables = [
        {"mount": "data", "bind": "a"},
        {"mount": "/data", "bind": "Not A Name", "access": "write"},
        {"mount": "/data", "bind": "a", "qota": 1, "quota": "10 stones", "files": -1},
        {"bind": "a"},
        {"mount": "/x"},
        {"mount": "/y", "bind": "a", "path": "/srv/y"},
        {"mount": "/z", "path": "/srv/../etc"},
    ]

    faults = {f.path: f.message for f in Fs().parse(tables, "manifest").faults}

    assert set(faults) == {
        "[0].mount",
        "[1].bind",
        "[1].access",
        "[2].mount",
        "[2]",
        "[2].quota",
        "[2].files",
        "[3].mount",
        "[4]",
        "[5]",
        "[6].path",
    }
    assert "valid: access, bind, files, mount, path, quota" in faults["[2]"]
    assert "'read' or 'read-write'" in faults["[1].access"]
    assert "twice" in faults["[2].mount"]


def test_refuses_a_policy_table_that_names_nothing() -> None:
    assert Fs().parse([{"access": "read-write"}], "policy").faults[0].path == "[0]"


@pytest.mark.case("FS-10", "FS-11", "FS-17")
@pytest.mark.parametrize(
    "mount",
    [
        "",
        "data",
        "/",
        "//",
        "//data",
        "/data/",
        "/data/../etc",
        "/./data",
        "/a//b",
        "/da\0ta",
        "/da\nta",
        "/da\x85ta",
        "/proc",
        "/proc/self",
        "/sys/kernel",
        "/dev/shm",
        "/e\u0301",
        "/a\\b",
        "/" + "x" * 256,
        "/x" * 3000,
        "/\ud800",
    ],
)
def test_refuses_a_mount_that_is_not_plain(mount: str) -> None:
    assert mount_fault(mount) is not None
    assert parse([{"mount": mount, "bind": "a"}], "manifest").faults or mount == "/\ud800"


@pytest.mark.parametrize("mount", ["/data", "/data/sub", "/procession", "/\u00e9", "/.hidden"])
def test_allows_a_plain_mount(mount: str) -> None:
    assert mount_fault(mount) is None


@pytest.mark.case("FS-10")
@pytest.mark.parametrize("path", ["/", "/proc/1/root", "/sys", "/dev/shm/x", "srv", "/srv/..", "~"])
def test_refuses_a_host_path_that_is_no_plain_directory(path: str) -> None:
    assert parse([{"bind": "a", "path": path}], "policy").faults[0].path == "[0].path"


@pytest.mark.case("FS-19")
def test_refuses_to_take_a_like_name_for_the_same_directory() -> None:
    assert overlap("/srv/data", "/srv/data/sub")
    assert overlap("/srv/data/sub", "/srv/data")
    assert not overlap("/srv/data", "/srv/data-evil")
    assert not overlap("/srv/data-evil/x", "/srv/data")


@pytest.mark.parametrize(
    ("rule", "denied"),
    [
        (FsClause(path="/srv/app"), True),
        (FsClause(path="/srv/app/secret"), True),
        (FsClause(path="/srv"), True),
        (FsClause(bind="app"), True),
        (FsClause(mount="/data"), True),
        (FsClause(path="/srv/application"), False),
        (FsClause(bind="other", path="/srv/app"), False),
        (FsClause(mount="/other"), False),
    ],
)
def test_a_deny_rule_covers_what_it_names_with_all_below(rule: FsClause, *, denied: bool) -> None:
    granted = FsClause("/data", "app", "/srv/app", Access.READ)

    assert granted.denied_by(rule) is denied


def test_writing_is_a_high_risk_and_reading_a_medium_one() -> None:
    fs = Fs()

    assert fs.risk(FsClause("/a", access=Access.READ_WRITE))[0] is Risk.HIGH
    assert fs.risk(FsClause("/a"))[0] is Risk.MEDIUM


def test_a_clause_describes_itself_to_a_person() -> None:
    clause = FsClause("/data", "app", "/srv/app", Access.READ_WRITE, 2**20, 10)

    assert clause.describe() == (
        "read and change files under /data (app = /srv/app, at most 1MiB, at most 10 names)"
    )
    assert FsClause("/data").describe() == "read files under /data"


def test_a_quota_of_bytes_also_bounds_empty_files() -> None:
    assert Quota.of(10 * 2**20, None).files == 10 * 1024
    assert Quota.of(1, None).files == 1000
    assert Quota.of(None, None).files is None
    assert Quota.of(1, 5).files == 5


@pytest.mark.parametrize("side", ["manifest", "policy", "consent"])
def test_the_schema_names_every_word(side: str) -> None:
    properties = Fs().schema(side)["properties"]  # type: ignore[arg-type]

    assert set(properties) == {"mount", "bind", "path", "access", "quota", "files"}


@pytest.mark.case("FS-01", "FS-02", "FS-11", "FS-12")
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("..", "escape"),
        ("a/../b", "escape"),
        ("/a", "absolute"),
        ("", "empty"),
        ("a\0", "nul"),
        ("\ud800", "not-unicode"),
        ("x" * 256, "name-too-long"),
        ("é" * 128, "name-too-long"),
        ("a/" * 2048, "too-long"),
        ("é/" * 1366, "too-long"),
    ],
)
def test_refuses_a_relative_path(path: str, reason: str) -> None:
    with pytest.raises(FsError) as caught:
        relative(path)

    assert caught.value.reason == reason


def test_allows_a_relative_path() -> None:
    assert relative("a/b").names == (b"a", b"b")
    assert relative("./a//b/.").names == (b"a", b"b")
    assert relative("a/").directory
    assert relative(".").names == ()
    assert relative("x" * 255).names == (b"x" * 255,)
    assert relative("..a/b..").names == (b"..a", b"b..")


@pytest.mark.parametrize("path", ["", "data/x", "/data/", "/data//x", "/data/./x", "/", "/a\0"])
def test_refuses_a_guest_path_that_is_not_canonical(path: str) -> None:
    with pytest.raises(FsError) as caught:
        absolute(path)

    assert caught.value.word == "invalid"


def test_every_word_is_one_of_the_wit() -> None:
    words = {
        "denied", "not-found", "exists", "not-directory", "is-directory", "not-empty", "invalid",
        "quota", "too-large", "closed", "unavailable",
    }  # fmt: skip

    assert set(WORDS.values()) <= words
