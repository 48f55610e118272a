"""The host's own side, at its worst moments: a handler that raises anywhere, an end while a process starts."""

from __future__ import annotations

import contextlib
import dis
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Self

import pytest

import capwasm.isolation
from capwasm.errors import GuestError, InstanceClosedError
from capwasm_shim.layers import Spec

from .peer import NUMBER, Peer, Process, Rig, asks, returns

_HERE = Path(capwasm.isolation.__file__).parent
_FILES = {
    str(_HERE / name)
    for name in ("supervisor.py", "process.py", "exchange.py", "instance.py", "broker.py", "ledger.py")
}  # fmt: skip


class Alarm(BaseException):
    """What a signal's handler raises."""


class Moment:
    """Raises at the so-manieth moment at which Python runs a signal's handler, in the files above."""

    def __init__(self, number: int) -> None:
        self.left = number
        self._last: dict[FrameType, str] = {}

    def __enter__(self) -> Self:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self._last.clear()

    def _enter(self, frame: FrameType, _event: str, _arg: object) -> Any:
        if frame.f_code.co_filename not in _FILES:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._come()
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            before, self._last[frame] = self._last.get(frame, ""), name
            if before.startswith(("CALL", "JUMP_BACKWARD")):
                self._come()
        return self._step

    def _come(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Alarm


def rig(kind: Literal["native", "component"]) -> Rig:
    opened = [returns(None)] if kind == "component" else []
    call = len(opened) + 1
    asked = asks(0, 1, []), asks(1, NUMBER["size"], [b"y"])
    made = Rig(*opened, *asked, returns("x", call, drops=[1]), kind=kind, start=False)
    made.toy.opens = kind == "component"
    return made


@pytest.mark.case("LIFE-13")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # sockets that nobody has
@pytest.mark.parametrize("kind", ["native", "component"])
@pytest.mark.parametrize("what", ["start", "call", "close"])
def test_a_handler_that_raises_leaves_no_line_to_nobody(
    kind: Literal["native", "component"], what: str
) -> None:
    number, left = 0, 0
    while left <= 0:
        number += 3  # every third will do
        with rig(kind) as made:
            if what != "start":
                made.instance.start()
            works: dict[str, Callable[[], object]] = {
                "start": made.instance.start,
                "call": lambda made=made: made.call("run", "x"),  # type: ignore[misc]
                "close": made.instance.close,
            }
            work = works[what]
            with contextlib.suppress(Alarm), Moment(number) as moment:
                work()
            left = moment.left
            assert not made.engine.running
            assert made.instance.alive or made.instance.released
            made.instance.close()
            lines = [line for p in made.supervisor.processes for line in p.lines]
            assert all(line.holder is None for line in lines)
            assert kind == "component" or not lines
            made.supervisor.close()
            assert made.supervisor.processes == ()
            assert made.engine.live == 0
    gc.collect()
    assert number > 9, "else nothing was tried"


@pytest.mark.case("LIFE-13")
def test_a_line_that_was_given_back_is_not_taken_from_the_next() -> None:
    with Rig(returns(None), kind="component", start=False) as made:
        made.toy.opens = True
        made.instance.start()
        lodging = made.instance._lodging
        made.supervisor.give_back(lodging)  # as far as the first came
        made.peer.say(returns(None, 2))
        other = made.new()
        other.start()
        (line,) = made.supervisor.processes[0].lines
        assert line.holder is other._lodging
        made.instance.close()  # and what it had left to do
        assert line.holder is other._lodging
        assert not made.peer.killed
        other.close()


@pytest.mark.case("LIFE-13")
def test_an_end_while_a_process_starts_closes_no_descriptor_that_it_is_given() -> None:
    class Ending(Peer):
        def start(
            self, spec: Spec, fds: Sequence[tuple[str, int]], load: Mapping[str, Any]
        ) -> Process:
            made.supervisor.close()
            assert made.held() is not None, "their numbers may be other files' by now"
            return super().start(spec, fds, load)

    with Rig(start=False) as made:
        made.peer.__class__ = Ending
        with contextlib.suppress(GuestError, InstanceClosedError):
            made.instance.start()
        made.instance.close()
        assert made.held() is None
        assert made.supervisor.processes == ()
