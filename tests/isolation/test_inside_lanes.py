"""What a component's own process does with what is said to it: in turn, out of turn, and no more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capwasm.engine.compiled import Compiled
from capwasm.engine.link import Linked
from capwasm.engine.sealed import Sealed, memory_file
from capwasm.isolation.server import ShimServer
from capwasm.limits import DEFAULTS
from capwasm_shim.frames import PeerClosed
from capwasm_shim.protocol import Answer, Kind
from tests.kit import guest

from .conftest import Enter
from .scripted import Failed, Scripted

ENDLESS = 2**50

OUT_OF_TURN: list[Any] = [
    pytest.param([Kind.OPEN, 9], id="a second instance"),
    pytest.param([Kind.ANSWER, 0, Answer.VALUE, 1, 0], id="an answer to nothing"),
    pytest.param([Kind.CALL, 9, 10_000, []], id="an export that there is not"),
    pytest.param([Kind.CALL, 9, "divide", [1, 2]], id="a name"),
    pytest.param([Kind.CALL, 9, 0, None], id="no arguments"),
    pytest.param([Kind.CALL, 9, 0, [1] * 9], id="too many arguments"),
    pytest.param([Kind.DROP, 9, 1], id="a resource that there is not"),
    pytest.param([Kind.RETURN, 9, 0, None, [], [0, 0]], id="the shim's own word"),
    pytest.param([Kind.CLOSE, 1], id="too long"),
    pytest.param([99], id="an unknown word"),
]


@pytest.mark.parametrize("frame", OUT_OF_TURN)
def test_ends_when_the_host_makes_no_sense(enter: Enter, frame: list[Any]) -> None:
    process = enter(guest("hostile"))
    process.lanes[0].send(frame)
    with pytest.raises(PeerClosed):
        process.lanes[0].recv()
    assert process.ended().number == 70


@pytest.mark.parametrize(
    "answer",
    [
        [Kind.ANSWER, 1, Answer.VALUE, 3, 0],
        [Kind.ANSWER, 0, Answer.VALUE, "3", 0],
        [Kind.ANSWER, 0, Answer.VALUE, 3, -1],
        [Kind.ANSWER, 0, 7, 3, 0],
        [Kind.CALL, 0, 0, []],
    ],
    ids=["seq", "type", "cost", "status", "kind"],
)
def test_takes_no_value_from_an_answer_to_something_else(enter: Enter, answer: list[Any]) -> None:
    process = enter(guest("caller"), api())
    process.begin("number", 5)
    assert process.lanes[0].recv()[0] == Kind.ASK
    process.lanes[0].send(answer)
    with pytest.raises(PeerClosed):
        process.lanes[0].recv()
    assert process.ended().number == 70


def api() -> Any:
    from capwasm.capability import Interface

    return Interface(
        "test:host/api@1.0.0",
        {"number": lambda n: n + 1, "nothing": lambda: None, "maybe": lambda n: n},
        {},
        {
            "number": "func(n: u32) -> u32",
            "nothing": "func() -> _",
            "maybe": "func(n: u32) -> result<u32, enum{denied, closed}>",
        },
    )


def test_questions_count_from_nothing_in_each_call(enter: Enter) -> None:
    process = enter(guest("caller"), api())
    assert process.call("number", 5) == 6
    assert process.call("twice", 5) == 6
    process.call("nothing")
    assert [name for _, name in process.asked] == ["number", "number", "number", "nothing"]


def test_ends_with_the_host(enter: Enter) -> None:
    assert enter(guest("hostile"), lanes=2).hang_up().number == 0
    busy = enter(guest("hostile"), fuel=ENDLESS, wall_ms=3_600_000)
    busy.begin("spin")
    assert busy.hang_up().number == 0


def test_an_interrupt_ends_its_call_alone(enter: Enter) -> None:
    process = enter(guest("hostile"), lanes=2, fuel=ENDLESS, wall_ms=60_000)
    process.open(1)
    first, _ = process.begin("spin")
    second, _ = process.begin("spin", lane=1)
    process.interrupt(first)
    with pytest.raises(Failed) as told:
        process.finish(first)
    assert told.value.code == "guest.interrupted"
    # The other one runs on, and stands what is meant for calls that are over, or not begun.
    for call in (first, second + 1, -1, 2**40):
        process.interrupt(call, lane=1)
    time.sleep(0.05)
    process.interrupt(second, lane=1)
    with pytest.raises(Failed) as told:
        process.finish(second, lane=1)
    assert told.value.code == "guest.interrupted"
    process.open()
    assert process.call("count") == 1


def test_an_interrupt_that_comes_first_is_not_lost(enter: Enter) -> None:
    process = enter(guest("hostile"), fuel=ENDLESS, wall_ms=60_000)
    process.interrupt(2)  # the next one's number
    time.sleep(0.05)
    call, _ = process.begin("spin")
    assert call == 2
    with pytest.raises(Failed) as told:
        process.finish(call)
    assert told.value.code == "guest.interrupted"


def test_ends_at_nonsense_on_the_side(enter: Enter) -> None:
    process = enter(guest("hostile"))
    process.interrupt(1, lane=5)
    assert process.ended().number == 70


def test_lanes_are_apart(enter: Enter) -> None:
    process = enter(guest("hostile"), lanes=3)
    process.open(1)
    process.open(2)
    assert [process.call("count", lane=lane) for lane in (0, 1, 2, 0, 1, 0)] == [1, 1, 1, 2, 2, 3]
    with pytest.raises(Failed):
        process.call("trap", lane=1)
    assert process.call("count") == 4
    process.open(1)
    assert process.call("count", lane=1) == 1


def test_a_thousand_instances_leave_nothing(enter: Enter) -> None:
    process = enter(guest("hostile"))

    def private() -> int:
        lines = Path(f"/proc/{process.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private"))

    def again(count: int) -> None:
        for _ in range(count):
            process.close_instance()
            process.open()
            process.call("count")

    again(200)
    before = private()
    again(1_000)
    assert private() - before < 1_024  # KiB
    assert process.call("count") == 2


# -- what it is given -------------------------------------------------------------------------------


def test_refuses_code_that_is_none(forker: ShimServer, linked: Callable[..., Linked]) -> None:
    good = linked(guest("hostile"))
    with Sealed.holding(b"\x7fELF" + bytes(5_000)) as bad:
        kept = Compiled(good.compiled.component, good.compiled.types, good.compiled.laned, bad)
        with Scripted(forker, replace(good, compiled=kept), DEFAULTS) as process:
            kind, code, text = process.hello()
            assert (kind, code) == (Kind.LOADFAIL, "internal")
            assert "mapped" in text
            assert process.ended().number == 70


@pytest.mark.case("SIG-21")
def test_refuses_code_that_somebody_could_still_change() -> None:
    fd = memory_file()
    os.write(fd, b"code")
    with pytest.raises(OSError, match="not sealed"):
        Sealed.given(fd)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
    with Sealed.holding(b"code") as sealed, Sealed.given(os.dup(sealed.fd)) as given:
        assert given.size == 4


def test_refuses_to_be_linked_otherwise_than_by_the_host(
    forker: ShimServer, linked: Callable[..., Linked]
) -> None:
    good = linked(guest("caller"), api())
    turned = replace(good, slots=good.slots[::-1])
    with Scripted(forker, turned, DEFAULTS) as process:
        kind, code, _ = process.hello()
        assert (kind, code) == (Kind.LOADFAIL, "internal")
