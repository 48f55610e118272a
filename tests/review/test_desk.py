"""The way of a plugin through its review, and each way that is refused."""

from __future__ import annotations

from capwasm.registry.model import State
from tests.review.hall import (
    ID,
    PAINTS,
    Hall,
)


def state_of(hall: Hall, version: str = "1.0.0") -> State | None:
    record = hall.registry.show(ID).version(version)
    return None if record is None else record.state


def test_the_way_from_submitted_to_active(hall: Hall) -> None:
    hall.submit(asks=PAINTS)
    assert state_of(hall) is State.SUBMITTED
    assert hall.desk.case(ID).standing.code == "review.missing"
    assert hall.scan().standing.code == "review.missing"
    assert state_of(hall) is State.SCANNED
    case = hall.approve("ann")
    assert case.standing.ok
    assert state_of(hall) is State.REVIEWED
    assert hall.loads() == "registry.pending"
    hall.activate()
    assert state_of(hall) is State.ACTIVE
    assert hall.loads() == ""
    assert [s.action for s in hall.registry.history(ID)] == [
        "submit", "scan", "approve", "activate",
    ]  # fmt: skip
