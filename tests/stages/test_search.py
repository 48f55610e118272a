"""The newest records first, a page at a time, and what comes from now on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, DENIED, FAILED, KINDS, Event
from capwasm.record import _read
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from capwasm.record.search import Follow, Query, moment, search

PLUGINS = ("acme.a@1.0.0", "acme.a@1.1.0", "acme.ab@1.0.0", "")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 records of all kinds, in several segments."""
    path = tmp_path_factory.mktemp("search") / "log"
    rng = random.Random(7)
    kinds = sorted(set(KINDS) - {"anchor"})
    with AuditLog.open(path, Redactor(), segment_bytes=40_000) as made:
        for number in range(600):
            made.note(
                Event(
                    rng.choice(kinds),
                    rng.choice([ALLOWED, DENIED, FAILED]),
                    rng.choice(PLUGINS),
                    target=f"/Ünder/{number}",
                    details={
                        "ms": number,
                        "said": 'a "quoted" word',
                        "odd": "3 \u212a" * (number % 2),
                    },
                )
            )
            if number % 50 == 0:
                made.flush()
    return path


def everything(log: Path) -> list[dict[str, Any]]:
    files = sorted(log.glob("*.jsonl"), reverse=True)
    lines = [x for f in files for x in reversed(f.read_bytes().splitlines())]
    return [{k: v for k, v in json.loads(x).items() if k != "hash"} for x in lines]


def pages(log: Path, query: Query, **how: int) -> Iterator[dict[str, Any]]:
    before: str | None = None
    while True:
        page = search(log, query, before=before, **how)
        yield from page.records
        if page.next is None:
            return
        assert page.next != before
        before = page.next


@pytest.mark.parametrize("how", [{}, {"limit": 7}, {"budget": 3_000}], ids=str)
@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(plugin="acme.a"),
        Query(plugin="acme.a@1.1.0"),
        Query(plugin="acme"),
        Query(kinds=frozenset({"fs", "grant"})),
        Query(verdicts=frozenset({DENIED})),
        Query("acme.ab", frozenset({"call", "net"}), frozenset({FAILED, DENIED})),
        Query(text="üNDER/17"),
        Query(text='A "QUOTED"'),
        Query(text="3 k"),  # U+212A is a K
        Query(text="true"),
        Query(text="nowhere"),
    ],
)
def test_allows_just_what_was_asked_for_in_pages_of_any_size(
    log: Path, query: Query, how: dict[str, int]
) -> None:
    def wanted(r: dict[str, Any]) -> bool:
        texts = [str(r[k]) for k in ("kind", "verdict", "plugin", "action", "target", "reason")]
        texts += [str(v) for v in r["details"].values()]
        return (
            query.plugin in ("", r["plugin"], r["plugin"].split("@")[0])
            and (not query.kinds or r["kind"] in query.kinds)
            and (not query.verdicts or r["verdict"] in query.verdicts)
            and any(query.text.casefold() in text.casefold() for text in texts)
        )

    expected = [r for r in everything(log) if wanted(r)]
    assert list(pages(log, query, **how)) == expected


def test_allows_a_span_of_time(log: Path) -> None:
    records = everything(log)
    since, until = records[400]["time"], records[100]["time"]
    found = list(pages(log, Query(since=since, until=until)))
    assert found == [r for r in records if since <= r["time"] < until]
    # What is much older is not read at all.
    page = search(log, Query(since="2999-01-01T00:00:00"))
    assert (page.records, page.next, page.looked_at) == ((), None, 1)


def test_allows_a_page_to_begin_where_records_were_pruned(log: Path, tmp_path: Path) -> None:
    for file in sorted(log.glob("*.jsonl"))[2:]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    page = search(tmp_path, before="2:400")
    assert (page.records, page.next) == ((), None)


@pytest.mark.parametrize("before", ["", "x", "1", "1:-1", "1:9" + "9" * 30, "1:1:1", "１:1"])
def test_refuses_a_place_that_no_page_named(log: Path, before: str) -> None:
    with pytest.raises(ValueError, match="not a place"):
        search(log, before=before)
    assert search(log, before="99:1").records == search(log).records


def test_refuses_to_pass_over_a_changed_record(log: Path, tmp_path: Path) -> None:
    last = max(log.glob("*.jsonl"))
    lines = last.read_bytes().splitlines(keepends=True)
    lines[-2] = lines[-2].replace(b'"details"', b'"detailx"')
    (tmp_path / last.name).write_bytes(b"".join(lines))
    query = Query(kinds=frozenset({"consent"}), verdicts=frozenset({"nothing"}))
    assert ["broken" in r for r in search(tmp_path, query).records] == [True]


def test_refuses_a_place_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(AuditError):
        search(tmp_path)
    with pytest.raises(AuditError):
        Follow(tmp_path)


@pytest.mark.parametrize("block", [1, 7, 100, 262_144])
def test_allows_lines_backwards_in_blocks_of_any_size(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_read, "BLOCK", block)
    rng = random.Random(block)
    for _ in range(30):
        lines = [b"x" * rng.randrange(12) + b"\n" for _ in range(rng.randrange(9))]
        (tmp_path / "f").write_bytes(b"".join(lines))
        begins = [sum(map(len, lines[:i])) for i in range(len(lines))]
        with (tmp_path / "f").open("rb") as file:
            found = list(_read.backwards(file, sum(map(len, lines))))
        assert found[::-1] == list(zip(begins, lines, strict=True))


def test_allows_following_without_waiting(tmp_path: Path) -> None:
    with AuditLog.open(tmp_path / "log", Redactor(), segment_bytes=1_500) as log:
        follow = Follow(tmp_path / "log")
        assert follow.new() == []
        for n in range(12):
            log.record(Event("fs", DENIED, target=str(n)))
        got = [r["target"] for _ in range(12) for r in follow.new() if r["kind"] == "fs"]
    assert got == [str(n) for n in range(12)]


def test_allows_times_as_people_write_them_and_refuses_others() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert moment("2h", now) == "2026-03-01T10:00:00"
    assert moment("1d", now) == "2026-02-28T12:00:00"
    assert moment("2026-01-31") == "2026-01-31T00:00:00"
    assert moment("2026-01-31T12:00+02:00") == "2026-01-31T10:00:00"
    assert moment("2026-01-31T12:00:30Z") == "2026-01-31T12:00:30"
    assert moment("2026-01-31T12:00:30.25Z") == "2026-01-31T12:00:30.250000"
    for bad in ("", "soon", "2h ", "-2h", "2026-13-01", "٢h"):
        with pytest.raises(ValueError, match="write a time"):
            moment(bad)
    with pytest.raises(ValueError, match="beyond"):
        moment("999999d", datetime(2, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="beyond"):
        moment("0001-01-01T00:00+14:00")
