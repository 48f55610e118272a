from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm.capability import Risk
from capwasm.caps.log import Log, LogClause
from capwasm.lattice import ClauseSet

clauses = st.builds(
    LogClause,
    level=st.sampled_from([None, "debug", "info", "warn", "error"]),
    rate=st.none() | st.integers(1, 5),
    record_bytes=st.none() | st.integers(64, 68),
)


@settings(max_examples=200)
@given(clauses, clauses, clauses)
def test_allows_only_what_both_sides_allow(a: LogClause, b: LogClause, c: LogClause) -> None:
    met = a.meet(b)
    assert met == b.meet(a)
    assert a.meet(a) == a
    assert met.meet(c) == a.meet(b.meet(c))
    assert met.within(a)
    assert met.within(b)
    assert a.within(b) == (met == a)
    if c.within(a) and c.within(b):
        assert c.within(met)
    for rank in range(4):
        assert met.admits(rank) == (a.admits(rank) and b.admits(rank))


@settings(max_examples=100)
@given(clauses)
def test_allows_a_clause_to_go_through_a_file(clause: LogClause) -> None:
    for side in ("manifest", "policy", "consent"):
        assert Log().parse([clause.to_toml()], side).clauses == (clause,)  # type: ignore[arg-type]


def test_allows_an_empty_table_and_an_open_policy() -> None:
    asked = ClauseSet.of(Log().parse([{"level": "info", "rate": 5}], "manifest").clauses)
    ruled = ClauseSet.of(Log().parse([{}], "policy").clauses)
    assert list(asked.meet(ruled)) == [LogClause("info", 5)]
    assert not asked.meet(ClauseSet.of())
    # A stricter policy narrows; it is no denial.
    narrow = ClauseSet.of([LogClause("error", 1, 64)])
    assert asked.missing_from(asked.meet(narrow)) == []


def test_allows_sizes_with_units() -> None:
    parsed = Log().parse([{"record-bytes": "4KiB"}], "manifest")
    assert parsed.clauses == (LogClause(record_bytes=4096),)


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"level": "trace"}, "level"),
        ({"level": 1}, "level"),
        ({"rate": 0}, "rate"),
        ({"rate": 10_001}, "rate"),
        ({"rate": 1.5}, "rate"),
        ({"rate": True}, "rate"),
        ({"record-bytes": 63}, "record-bytes"),
        ({"record-bytes": 65537}, "record-bytes"),
        ({"colour": "red"}, ""),
    ],
)
def test_refuses_a_malformed_table(table: dict[str, Any], path: str) -> None:
    parsed = Log().parse([table], "manifest")
    assert parsed.clauses == ()
    assert [f.path for f in parsed.faults] == [path]


def test_refuses_all_faults_at_once() -> None:
    faults = Log().parse([{"level": "trace", "rate": 0, "x": 1}], "policy").faults
    assert len(faults) == 3
    assert any("level, rate, record-bytes" in f.message for f in faults)


def test_allows_a_reviewer_to_understand_it() -> None:
    assert Log().risk(LogClause())[0] is Risk.LOW
    assert LogClause("warn", 5, 1024).describe() == (
        "write log records of level warn and above, up to 5 a second of 1KiB"
    )
    assert set(Log().schema("manifest")["properties"]) == {"level", "rate", "record-bytes"}
