from __future__ import annotations

import pytest

from capwasm.capability import Risk
from capwasm.caps.clock import Clock, ClockClause
from capwasm.lattice import ClauseSet


def test_allows_an_empty_table_as_an_ordinary_clock() -> None:
    parsed = Clock().parse([{}], "manifest")

    assert parsed.clauses == (ClockClause(1, wall=True, sleep=True),)
    assert not parsed.faults


def test_refuses_every_fault_at_once_with_the_valid_words() -> None:
    parsed = Clock().parse([{"resolution-ms": 0, "wall": 1, "walll": True}], "policy")

    assert not parsed.clauses
    assert {f.path for f in parsed.faults} == {"resolution-ms", "wall", ""}
    assert "date, resolution-ms, sleep, wall" in "".join(f.message for f in parsed.faults)


@pytest.mark.parametrize("resolution", [-1, 0, 3_600_001, 1.5, "1"])
def test_refuses_a_resolution_that_is_no_number_of_milliseconds(resolution: object) -> None:
    assert Clock().parse([{"resolution-ms": resolution}], "manifest").faults


def test_allows_only_the_coarser_clock_of_two() -> None:
    met = ClockClause(5, sleep=False).meet(ClockClause(100, wall=False))

    assert met == ClockClause(100, wall=False, sleep=False)
    assert met.within(ClockClause(5, sleep=False))
    assert not ClockClause(5).within(ClockClause(100))


def test_refuses_a_request_to_wait_where_waiting_is_not_granted() -> None:
    granted = ClauseSet.of([ClockClause(1000, sleep=False)])

    assert ClauseSet.of([ClockClause(1)]).missing_from(granted)
    assert not ClauseSet.of([ClockClause(1, sleep=False)]).missing_from(granted)


def test_a_deny_rule_of_the_date_leaves_elapsed_time() -> None:
    rule = ClockClause(wall=True, sleep=False)

    assert not ClockClause().denied_by(rule)
    assert ClockClause().denied_by(ClockClause())


def test_a_date_that_is_set_narrows_and_two_dates_are_none() -> None:
    fixed = ClockClause(date="2027-01-31T00:00:00Z")

    assert ClockClause(5).meet(fixed) == ClockClause(5, date="2027-01-31T00:00:00Z")
    assert fixed.within(ClockClause())
    assert not ClockClause().within(fixed)
    assert fixed.meet(ClockClause(date="2028-01-01T00:00:00Z")) is None
    # The operator says which date it is; that is no want of the plugin's.
    assert not ClauseSet.of([ClockClause()]).missing_from(ClauseSet.of([fixed]))


@pytest.mark.parametrize(
    "date", ["", "2027-01-31", "2027-1-31T0:0:0Z", "2027-02-30T00:00:00Z", "1969-12-31T23:59:59Z"]
)
def test_refuses_a_date_that_is_none(date: str) -> None:
    assert [f.path for f in Clock().parse([{"date": date}], "policy").faults] == ["date"]


@pytest.mark.parametrize(
    "clause",
    [
        ClockClause(),
        ClockClause(250, wall=False, sleep=False),
        ClockClause(date="2027-01-31T00:00:00Z"),
    ],
)
def test_allows_what_to_toml_wrote(clause: ClockClause) -> None:
    clock = Clock()

    assert clock.parse([clause.to_toml()], "consent").clauses == (clause,)
    assert str(clause.resolution_ms) in clause.describe()
    assert clock.risk(clause)[0] is Risk.LOW
    assert "resolution-ms" in clock.schema("policy")["properties"]
