"""A hostile plugin tries everything it shouldn't, and each wall is shown to stand alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from capwasm_shim.layers import Layer
from tests.escape.attempt import LACKS, Attempt, got
from tests.escape.attempts import ATTEMPTS
from tests.escape.prey import Prey
from tests.escape.shooting import Range, Shot

# Those of all rows.
CASES = (
    "NAT-01", "NAT-02", "NAT-04", "NAT-05", "NAT-06", "NAT-07", "NAT-08", "NAT-09", "NAT-10",
    "NAT-11", "NAT-12", "NAT-13", "NAT-14", "NAT-15", "NAT-16", "NAT-17", "NAT-18", "NAT-19",
    "NAT-20", "NAT-21", "NAT-24", "IPC-07",
)  # fmt: skip


@pytest.fixture(scope="module")
def prey() -> Iterator[Prey]:
    prey = Prey()
    yield prey
    prey.close()


@pytest.fixture(scope="module")
def range_() -> Iterator[Range]:
    range_ = Range()
    yield range_
    range_.close()


@pytest.fixture(autouse=True)
def _as_at_first(prey: Prey) -> Iterator[None]:
    prey.reset()
    yield
    prey.revive()


def _shoot(range_: Range, prey: Prey, attempt: Attempt, without: frozenset[Layer]) -> Shot:
    message = attempt.does(prey)
    if attempt.early:
        return range_.shoot("constructor", without=without, early=message)
    return range_.shoot(attempt.topic, message, without=without, limits=attempt.limits)


def _is_lacking(shot: Shot) -> bool:
    """Whether the kernel was built without what was asked for."""
    return shot.answer.startswith("errno:") and shot.answer[6:].partition("@")[0] in LACKS


def _walls(attempt: Attempt) -> frozenset[Layer]:
    return frozenset(layer for group in attempt.groups() for layer in group)


def _ready(attempt: Attempt, prey: Prey) -> None:
    if not attempt.needs(prey):
        pytest.skip("this machine has nothing to try it on")


def _each(attempts: Iterable[Attempt]) -> list[Any]:
    return [pytest.param(attempt, id=attempt.name) for attempt in attempts]


def test_the_cases_are_those_of_the_rows() -> None:
    assert set(CASES) == {case for attempt in ATTEMPTS for case in attempt.cases}
    assert len({attempt.name for attempt in ATTEMPTS}) == len(ATTEMPTS) >= 200


@pytest.mark.case(*CASES)
@pytest.mark.parametrize("attempt", _each(ATTEMPTS))
def test_refuses(attempt: Attempt, range_: Range, prey: Prey) -> None:
    _ready(attempt, prey)

    shot = _shoot(range_, prey, attempt, frozenset())

    assert not attempt.goal(prey, shot), shot.answer
    assert any(got(shot, said) for said in attempt.walls.values()), shot.answer
    assert prey.unharmed()
    assert prey.state() == prey.at_first
    assert not prey.hits()
    # Whatever it says: it is who it was, where it was, with what it had.
    assert shot.changed <= {"fds"}
    links = shot.after.get("fds", {}).values()
    assert sum(link.startswith("socket:") for link in set(links)) <= 1
    assert not any(link.startswith("/") and link not in {"/", "/dev/null"} for link in links)


@pytest.mark.case(*CASES)
@pytest.mark.parametrize("attempt", _each(ATTEMPTS))
def test_each_wall_holds_alone(attempt: Attempt, range_: Range, prey: Prey) -> None:
    _ready(attempt, prey)
    every = _walls(attempt)
    stood = 0
    for group, said in attempt.groups().items():
        prey.reset()
        shot = _shoot(range_, prey, attempt, every - group)
        if not group <= set(shot.report.applied):
            continue
        if _is_lacking(shot) and not got(shot, said):
            continue
        stood += 1
        names = "+".join(sorted(group))
        # An ordinary user has no right to some, and no number for others in its own namespace.
        lacks = "|errno:EPERM|errno:EINVAL" if os.geteuid() else ""
        assert got(shot, said + lacks), f"{names} alone: {shot.answer}"
        assert not attempt.goal(prey, shot), f"{names} alone did not stop it: {shot.answer}"
    if not stood:
        pytest.skip("none of the walls can be had here, or the kernel has nothing behind them")


@pytest.mark.case(*CASES)
@pytest.mark.parametrize("attempt", _each(a for a in ATTEMPTS if not a.never))
def test_succeeds_without_any(attempt: Attempt, range_: Range, prey: Prey) -> None:
    _ready(attempt, prey)
    if os.geteuid():
        pytest.skip("some walls are an ordinary user's own")

    shot = _shoot(range_, prey, attempt, _walls(attempt))

    if _is_lacking(shot):
        pytest.skip("this kernel was built without it")
    if attempt.free:
        assert got(shot, attempt.free), shot.answer
    else:
        assert attempt.goal(prey, shot), shot.answer
