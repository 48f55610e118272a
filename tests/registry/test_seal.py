"""Rows changed, swapped, put back or left out by hand, older copies, and files of other kinds."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.errors import CapwasmError
from capwasm.registry.desk import Desk
from capwasm.registry.model import PermitKind
from capwasm.registry.registry import Registry
from tests.registry.shop import GLOBEX, ID, Shop, capsule, state_of
from tests.review.hall import report_of

WHO: dict[str, Any] = {"who": "ann", "why": "a test"}
OTHER = "acme.other"
TABLES = {
    "meta": ["name", "sequence", "root", "seal"],
    "plugins": [
        "id", "serving", "state", "highest", "owners", "pinned", "waiting", "removed", "who", "at",
        "why", "parts", "seal",
    ],
    "versions": [
        "plugin", "version", "kind", "state", "bundle", "size", "archive", "code", "manifest",
        "signers", "source", "published", "pending", "installed_by", "installed_at",
        "installed_why", "changed_by", "changed_at", "changed_why", "seal",
    ],
    "permits": ["plugin", "kind", "subject", "who", "at", "why", "seal"],
    "steps": ["plugin", "number", "version", "before", "after", "action", "who", "at", "why", "seal"],
    "reviews": [
        "plugin", "number", "kind", "version", "archive", "digest", "who", "at", "why", "seal",
        "envelope",
    ],
}  # fmt: skip

COPIED = ", ".join(TABLES["versions"][2:])


@pytest.fixture
def filled(shop: Shop) -> Shop:
    """Two plugins with versions, an exception, one that waits, scans, and a history."""
    with shop.registry() as registry:
        for name in (ID, OTHER):
            registry.install(capsule("1.0.0", id=name), **WHO)
            registry.install(capsule("1.1.0", id=name), **WHO)
            registry.install(capsule("1.2.0", id=name, keys=(GLOBEX,)), **WHO)
            registry.permit(name, PermitKind.DOWNGRADE, "1.0.0", **WHO)
            for version in ("1.1.0", "1.2.0", "1.1.0"):
                Desk(registry).scanned(name, version, report_of(registry, version, name=name))
    return shop


def sql(shop: Shop, *statements: str) -> None:
    db = sqlite3.connect(shop.home / "registry.db")
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def code_of(call: Callable[..., object], *args: Any, **words: Any) -> str | None:
    try:
        call(*args, **words)
    except CapwasmError as exc:
        return exc.code
    return None


def questions(registry: Registry) -> dict[str, str | None]:
    """What each question answers: a code, or None for an answer."""
    return {
        "list": code_of(registry.list, removed=True),
        "show": code_of(registry.show, ID),
        "serving": code_of(registry.serving, ID),
        "history": code_of(registry.history, ID),
        "verify": code_of(registry.verify),
        "change": code_of(registry.suspend, ID, **WHO),
    }


# -- one cell -------------------------------------------------------------------------------------------


def test_the_tables_are_those_that_are_tampered_with(filled: Shop) -> None:
    db = sqlite3.connect(filled.home / "registry.db")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    found = {
        t: [c[1] for c in db.execute(f"PRAGMA table_info({t})") if c[1:] != ("id",)] for t in tables
    }
    db.close()
    found["meta"].remove("id")  # the only row's number, held by a CHECK

    assert found == TABLES


@pytest.mark.case("SIG-23")
@pytest.mark.parametrize(("table", "column"), [(t, c) for t, cs in TABLES.items() for c in cs])
def test_refuses_a_cell_that_was_changed(filled: Shop, table: str, column: str) -> None:
    db = sqlite3.connect(filled.home / "registry.db")
    kind = next(c[2] for c in db.execute(f"PRAGMA table_info({table})") if c[1] == column)
    key = {
        "meta": "1",
        "plugins": f"id = '{ID}'",
        "steps": f"plugin = '{ID}' AND number = 12",
        "reviews": f"plugin = '{ID}' AND number = 2",
    }
    where = key.get(table, f"plugin = '{ID}'")
    if table == "versions":
        where += " AND version = '1.1.0'"
    new = {
        "INTEGER": f"{column} + 1000",
        "BLOB": "zeroblob(32)",
        "TEXT": f"coalesce({column}, '') || 'x'",
    }
    done = db.execute(f"UPDATE {table} SET {column} = {new[kind]} WHERE {where}")
    assert done.rowcount == 1
    db.commit()
    db.close()
    with filled.registry() as registry:
        found = questions(registry)

    assert found["verify"] in {"registry.tampered", "registry.rolled-back"}
    wanted = {"registry.tampered", "registry.rolled-back"}
    if table != "steps":
        assert found["serving"] in wanted
        assert found["change"] in wanted
    else:
        assert found["history"] in wanted
    if table in {"meta", "plugins"}:
        assert found["list"] in wanted


# -- whole rows -----------------------------------------------------------------------------------------


def rows(shop: Shop, table: str, plugin: str = ID) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(shop.home / "registry.db")
    column = "id" if table == "plugins" else "plugin"
    found = db.execute(f"SELECT * FROM {table} WHERE {column} = ?", (plugin,)).fetchall()
    db.close()
    return found


def put_back(shop: Shop, table: str, old: list[tuple[Any, ...]], plugin: str = ID) -> None:
    db = sqlite3.connect(shop.home / "registry.db")
    column = "id" if table == "plugins" else "plugin"
    db.execute(f"DELETE FROM {table} WHERE {column} = ?", (plugin,))
    for row in old:
        db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
    db.commit()
    db.close()


@pytest.mark.case("SIG-23")
@pytest.mark.parametrize(
    "statement",
    [
        f"DELETE FROM versions WHERE plugin = '{ID}' AND version = '1.0.0'",
        f"DELETE FROM versions WHERE plugin = '{ID}'",
        f"DELETE FROM permits WHERE plugin = '{ID}'",
        f"DELETE FROM steps WHERE plugin = '{ID}' AND number = (SELECT max(number) FROM steps WHERE plugin = '{ID}')",
        f"DELETE FROM steps WHERE plugin = '{ID}'",
        f"DELETE FROM reviews WHERE plugin = '{ID}' AND number = 3",
        f"DELETE FROM reviews WHERE plugin = '{ID}' AND number = 1",
        f"DELETE FROM reviews WHERE plugin = '{ID}'",
        f"UPDATE reviews SET number = number + 10 WHERE plugin = '{ID}'",
        f"UPDATE reviews SET number = 14 - number WHERE plugin = '{ID}'",
        f"DELETE FROM plugins WHERE id = '{ID}'",
        f"DELETE FROM plugins WHERE id = '{OTHER}'",
        f"UPDATE versions SET plugin = '{OTHER}', version = '9.0.0' WHERE plugin = '{ID}' AND version = '1.2.0'",
        f"INSERT INTO permits SELECT '{OTHER}', kind, '1.1.0', who, at, why, seal FROM permits WHERE plugin = '{ID}'",
        f"INSERT INTO versions SELECT plugin, '9.0.0', {COPIED} FROM versions WHERE plugin = '{ID}' AND version = '1.1.0'",
    ],
)  # fmt: skip
def test_refuses_rows_that_were_removed_moved_or_copied(filled: Shop, statement: str) -> None:
    sql(filled, statement)
    with filled.registry() as registry:
        assert code_of(registry.verify) == "registry.tampered"
        if OTHER not in statement or statement.startswith("DELETE"):
            found = questions(registry)
            assert found["serving"] == "registry.tampered"
            assert found["show"] == "registry.tampered"


@pytest.mark.case("SIG-23")
def test_refuses_a_middle_step_that_is_gone(filled: Shop) -> None:
    sql(filled, f"DELETE FROM steps WHERE plugin = '{ID}' AND number = 5")
    with filled.registry() as registry:
        assert questions(registry)["history"] == "registry.tampered"


@pytest.mark.case("SIG-23", "SIG-15")
@pytest.mark.parametrize(
    "tables",
    [("versions",), ("plugins",), ("permits",), ("plugins", "versions", "permits", "steps")],
    ids="+".join,
)
def test_refuses_true_rows_of_an_earlier_time(filled: Shop, tables: tuple[str, ...]) -> None:
    earlier = {t: rows(filled, t) for t in tables}
    with filled.registry() as registry:
        registry.revoke(ID, "1.1.0", **WHO)
        registry.permit(ID, PermitKind.SIGNER, "f" * 64, **WHO)
        assert code_of(registry.serving, ID) == "verify.revoked"
    for table in tables:
        put_back(filled, table, earlier[table])
    with filled.registry() as registry:
        found = questions(registry)

    assert found["serving"] == "registry.tampered"
    assert found["verify"] == "registry.tampered"
    if "plugins" in tables:
        assert found["list"] == "registry.tampered"


@pytest.mark.case("SIG-23")
def test_refuses_rows_sealed_by_another_key(filled: Shop, tmp_path: Path) -> None:
    other = Shop(tmp_path / "theirs")
    with other.registry() as registry:
        registry.install(capsule("1.0.0"), **WHO)
    shutil.copy(other.home / "registry.key", filled.home / "registry.key")
    with filled.registry() as registry:
        assert set(questions(registry).values()) == {"registry.tampered"}


# -- older copies ------------------------------------------------------------------------------------------


def copy_of(shop: Shop, name: str = "registry.db") -> bytes:
    return (shop.home / name).read_bytes()


@pytest.mark.case("PER-08", "SIG-15")
def test_refuses_an_older_copy_of_the_database(filled: Shop) -> None:
    older = copy_of(filled)
    with filled.registry() as registry:
        registry.revoke(ID, "1.1.0", **WHO)
    newer = copy_of(filled)
    (filled.home / "registry.db").write_bytes(older)
    with filled.registry() as registry:
        assert set(questions(registry).values()) == {"registry.rolled-back"}
    (filled.home / "registry.db").write_bytes(newer)
    with filled.registry() as registry:
        assert code_of(registry.serving, ID) == "verify.revoked"


@pytest.mark.case("PER-08")
def test_refuses_a_database_that_lost_its_head_and_a_head_that_lost_its_database(
    filled: Shop,
) -> None:
    head = copy_of(filled, "registry.head")
    (filled.home / "registry.head").unlink()
    with filled.registry() as registry:
        assert set(questions(registry).values()) == {"registry.rolled-back"}
    (filled.home / "registry.head").write_bytes(head)
    (filled.home / "registry.db").unlink()
    with filled.registry() as registry:
        assert code_of(registry.list) == "registry.rolled-back"
        assert code_of(registry.install, capsule("0.1.0"), **WHO) == "registry.rolled-back"
    assert not (filled.home / "registry.db").exists()


@pytest.mark.case("PER-08")
def test_finds_an_older_copy_of_everything_by_what_the_audit_tells(filled: Shop) -> None:
    saved = {n: copy_of(filled, n) for n in ("registry.db", "registry.head")}
    with filled.registry() as registry:
        counted = registry.verify().sequence
        assert registry.verify(told=counted + 1).problems == ()  # a kill before the commit
        registry.suspend(ID, **WHO)
        registry.activate(ID, "1.2.0", **WHO)
        assert registry.verify(told=counted + 2).problems == ()
    for name, data in saved.items():
        (filled.home / name).write_bytes(data)
    with filled.registry() as registry:
        assert code_of(registry.serving, ID) is None  # said plainly: this alone is not noticed
        assert "an older copy" in registry.verify(told=counted + 2).problems[0]


@pytest.mark.case("PER-08")
@pytest.mark.parametrize("text", [b"", b"x" * 600, b"0" * 32 + b" 99 " + b"0" * 64 + b"\n"])
def test_refuses_a_head_that_is_not_sealed(filled: Shop, text: bytes) -> None:
    (filled.home / "registry.head").write_bytes(text)
    with filled.registry() as registry:
        assert set(questions(registry).values()) == {"registry.tampered"}


# -- the key, and who may write ---------------------------------------------------------------------------


@pytest.mark.case("SIG-25", "SIG-23")
def test_refuses_a_key_that_others_can_read_and_one_that_is_none(filled: Shop) -> None:
    key = filled.home / "registry.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (filled.home / "registry.db").stat().st_mode & 0o777 == 0o600

    key.chmod(0o640)
    assert code_of(filled.registry().list) == "registry.permissions"
    key.chmod(0o600)
    assert code_of(filled.registry().list) is None
    key.write_bytes(b"short")
    assert code_of(filled.registry().list) == "registry.key"
    key.unlink()
    assert code_of(filled.registry().list) == "registry.key"
    assert code_of(filled.registry().install, capsule("2.0.0"), **WHO) == "registry.key"
    assert not key.exists()  # never a new one for old rows


@pytest.mark.case("SIG-25")
@pytest.mark.parametrize("name", ["registry.db", "registry.head", "store"])
def test_refuses_what_others_may_write(filled: Shop, name: str) -> None:
    path = filled.home / name
    path.chmod(path.stat().st_mode | 0o020)
    registry = filled.registry()

    assert code_of(registry.install, capsule("1.1.1"), **WHO) == "registry.permissions"
    if name != "store":
        assert code_of(registry.serving, ID) == "registry.permissions"


@pytest.mark.case("SIG-25")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("name", ["registry.db", "registry.head", "registry.key"])
def test_refuses_the_word_of_another_user(filled: Shop, name: str) -> None:
    os.chown(filled.home / name, 54_321, -1)

    assert code_of(filled.registry().serving, ID) == "registry.permissions"


# -- files of other kinds ---------------------------------------------------------------------------------


@pytest.mark.case("PER-05")
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON steps BEGIN DELETE FROM permits; END",
        "CREATE VIEW v AS SELECT * FROM plugins",
        "CREATE TABLE more (x)",
        "DROP TABLE steps",
        "PRAGMA user_version = 3",
        "PRAGMA application_id = 7",
    ],
)
def test_refuses_a_database_that_is_not_exactly_ours(filled: Shop, statement: str) -> None:
    sql(filled, statement)

    assert set(questions(filled.registry()).values()) == {"registry.foreign"}


BEFORE_REVIEWS = ("DROP TABLE reviews", "PRAGMA user_version = 1")
"""A registry as it was before there were reviews; or one whose reviews somebody wants gone."""


def test_allows_a_registry_of_before_there_were_reviews(shop: Shop) -> None:
    with shop.registry() as registry:
        registry.install(capsule("1.0.0"), **WHO)
        before = state_of(registry.find(ID))
    sql(shop, *BEFORE_REVIEWS)
    with shop.registry() as registry:
        assert state_of(registry.find(ID)) == before
        assert registry.verify().problems == ()
        registry.install(capsule("1.1.0"), **WHO)
        assert registry.serving(ID)[0].version == "1.1.0"


@pytest.mark.case("SIG-23")
def test_refuses_a_registry_that_is_made_to_look_older_than_its_reviews(filled: Shop) -> None:
    sql(filled, *BEFORE_REVIEWS)
    with filled.registry() as registry:
        assert questions(registry)["serving"] == "registry.tampered"
        assert questions(registry)["change"] == "registry.tampered"


@pytest.mark.case("PER-05")
@pytest.mark.parametrize("what", ["text", "directory", "fifo", "foreign"])
def test_refuses_what_is_no_database(filled: Shop, what: str) -> None:
    path = filled.home / "registry.db"
    path.unlink()
    if what == "text":
        path.write_text("hello" * 1000)
    elif what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        sql(filled, "CREATE TABLE other (x)")
    before = path.read_bytes() if path.is_file() else b""
    path.chmod(0o700 if what == "directory" else 0o600)

    assert set(questions(filled.registry()).values()) == {"registry.foreign"}
    assert not path.is_file() or path.read_bytes() == before


@pytest.mark.case("PER-03", "PER-05", "SIG-23")
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_byte_is_flipped_the_answer_is_the_true_one_or_none(
    filled: Shop, data: st.DataObject
) -> None:
    path = filled.home / "registry.db"
    good = path.read_bytes()
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with filled.registry() as registry:
        truth = state_of(registry.show(ID)), registry.list()
    try:
        path.write_bytes(bad)
        with filled.registry() as registry:
            for ask in (lambda: state_of(registry.show(ID)), registry.list):
                try:
                    assert ask() in truth
                except CapwasmError as exc:
                    assert exc.code in {  # noqa: PT017
                        "registry.foreign", "registry.tampered", "registry.unusable",
                        "registry.rolled-back",
                    }  # fmt: skip
    finally:
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(good)


@pytest.mark.case("PER-05")
def test_refuses_to_wait_for_ever_for_a_lock(filled: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("db", "books"):
        monkeypatch.setattr(f"capwasm.registry.{module}.BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(filled.home / "registry.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with filled.registry() as registry:
            assert code_of(registry.suspend, ID, **WHO) == "registry.busy"
            assert code_of(registry.serving, ID) is None
    finally:
        holder.rollback()
        holder.close()
    with filled.registry() as registry:
        assert code_of(registry.suspend, ID, **WHO) is None
