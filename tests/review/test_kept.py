"""Records in the registry: by several processes at once, and by hands that nobody wants there."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from capwasm.registry.model import PermitKind
from capwasm.review.finding import MAX_FINDINGS, Finding, Severity
from tests.registry.shop import KEYS as KEPT
from tests.review.hall import ID, KEYS, PAINTS, REVIEWED, Hall, code_of, finding

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.case("PER-06")
def test_two_processes_approve_at_once_and_no_word_is_lost(hall: Hall, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    for name, key in KEYS.items():
        key.save(folder / name.replace("/", "-"))
    for name in ("acme", "stranger"):  # two that tests.registry.shop wants
        KEYS[name].save(folder / {"acme": "acme.key", "stranger": "globex.key"}[name])
    hall.with_policy(REVIEWED + "approvals = 2\n")
    hall.submit(asks=PAINTS)
    hall.scan()
    hall.registry.close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.review.saying", str(hall.home), *names],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, KEPT: str(folder)},
        )
        for names in (("ann", "bob"), ("bob", "ann"))
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        said += process.communicate(timeout=60)[0].split()
    assert sorted(said) == ["review.twice", "review.twice", "said", "said"]
    case = hall.desk.case(ID)
    assert sorted(v.name for v in case.votes) == ["ann", "bob", "this home"]
    assert case.standing.ok
    assert hall.registry.verify().problems == ()
    assert [r.number for r in hall.registry.show(ID).reviews] == [1, 2, 3]


# -- by hand ----------------------------------------------------------------------------------------------

TABLES = ("plugins", "versions", "permits", "steps", "reviews", "meta")


def sql(hall: Hall, *statements: str) -> None:
    db = sqlite3.connect(hall.home / "registry.db")
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def rows(hall: Hall) -> dict[str, list[Any]]:
    db = sqlite3.connect(hall.home / "registry.db")
    found = {t: db.execute(f"SELECT * FROM {t}").fetchall() for t in TABLES}
    db.close()
    return found


def put_back(hall: Hall, old: dict[str, list[Any]], *tables: str) -> None:
    db = sqlite3.connect(hall.home / "registry.db")
    for table in tables:
        db.execute(f"DELETE FROM {table}")
        for row in old[table]:
            db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
    db.commit()
    db.close()


@pytest.mark.case("SIG-23", "SIG-15")
@pytest.mark.parametrize(
    ("tables", "code"),
    [
        (("reviews",), "registry.tampered"),
        (("reviews", "steps"), "registry.tampered"),
        (("reviews", "plugins", "versions", "permits", "steps"), "registry.tampered"),
        (TABLES, "registry.rolled-back"),
    ],
    ids=["reviews", "with steps", "all of the plugin", "the whole database"],
)
def test_refuses_records_of_before_a_rejection(
    hall: Hall, tables: tuple[str, ...], code: str
) -> None:
    data = hall.submit(asks=PAINTS)
    hall.scan()
    hall.approve("ann")
    hall.activate()
    before = rows(hall)
    assert hall.loads(data) == ""
    hall.desk.reject(ID, "1.0.0", key=KEYS["bob"], why="it paints at night")
    assert hall.loads(data) == "review.rejected"
    put_back(hall, before, *tables)
    assert hall.loads(data) == hall.loads() == code


@pytest.mark.case("SIG-23")
def test_refuses_records_in_another_order(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    hall.scan(finding(severity=Severity.LOW))
    hall.scan()
    columns = "kind, version, archive, digest, who, at, why, seal, envelope"
    sql(
        hall,
        "UPDATE reviews SET number = 9 WHERE number = 1",
        "UPDATE reviews SET number = 1 WHERE number = 2",
        "UPDATE reviews SET number = 2 WHERE number = 9",
    )
    assert code_of(hall.desk.case, ID) == "registry.tampered"
    sql(
        hall,
        f"UPDATE reviews SET ({columns}) = (SELECT {columns} FROM reviews r WHERE r.number = 1)",
    )
    assert code_of(hall.desk.case, ID) == "registry.tampered"


@pytest.mark.case("SIG-23")
def test_refuses_a_record_that_was_moved_to_another_plugin(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    hall.scan()
    hall.approve("ann")
    hall.registry.permit("acme.other", PermitKind.MIN_AGE, "1.0.0", who="tester")
    sql(hall, "UPDATE reviews SET plugin = 'acme.other' WHERE number = 2")
    assert code_of(hall.desk.case, ID) == "registry.tampered"
    assert code_of(hall.registry.show, "acme.other") == "registry.tampered"


def test_records_outlive_the_removal_of_their_plugin(hall: Hall) -> None:
    data = hall.submit(asks=PAINTS)
    hall.desk.reject(ID, key=KEYS["bob"], why="no")
    hall.registry.remove(ID, who="tester")
    assert code_of(hall.desk.submit, data, who="tester") == "review.rejected"
    assert hall.registry.verify().problems == ()


def test_the_largest_report_is_kept_and_only_the_newest_is_read(hall: Hall) -> None:
    hall.submit()
    large = [
        Finding("a.b", Severity.LOW, "m" * 500, f"p{n}".ljust(500, "p"), "e" * 200, "f" * 500)
        for n in range(MAX_FINDINGS)
    ]
    hall.scan(*large)
    assert len(hall.desk.case(ID).report.findings) == MAX_FINDINGS  # type: ignore[union-attr]
    hall.scan()
    first, second = hall.registry.show(ID).reviews
    assert (first.envelope is None, second.envelope is None) == (True, False)
    assert hall.registry.verify().problems == ()
    # What is not read for a load is checked all the same.
    sql(hall, "UPDATE reviews SET envelope = zeroblob(10) WHERE number = 1")
    assert code_of(hall.registry.verify) == "registry.tampered"
