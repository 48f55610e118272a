"""One call on a lane, from its CALL to its RETURN, and every question in between.

The peer is the plugin's own process: whatever it says out of turn, of another shape or with another
number is a `ProtocolFault`, and nothing it says is believed but the value of a call that it was asked for
(IPC-06).  The thread that called is the one that waits, and that answers; so a call has the same record,
deadline and switches as one in process, looked at every 10 ms and at every question.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol

from capwasm.call import CallRecord
from capwasm_shim.frames import Lane, PeerClosed, ProtocolFault
from capwasm_shim.protocol import Answer, Kind, Outcome

__all__ = ["GRACE_SECONDS", "Answered", "Desk", "Exchange", "Hung", "Returned"]

GRACE_SECONDS: Final = 0.25
"""For a call to return once it was told to end."""


class Hung(Exception):
    """The call was told to end and did not; the record knows why it had to."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one question.

    Attributes:
        value: as it stands in a frame; None with `abort`.
        abort: whether the call must end.
        cost: host work, in units of fuel.
        fds: descriptors that go along, and are closed then.
    """

    value: Any
    abort: bool = False
    cost: int = 0
    fds: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """How a call ended, as its process tells.

    Attributes:
        outcome: see there.   value: by its outcome; not looked at yet.
        fuel, memory: what it says that it used: for statistics alone.
    """

    outcome: Outcome
    value: Any
    fuel: int
    memory: int


class Desk(Protocol):
    """Where the questions of one instance are answered."""

    def answer(self, function: int, args: Any) -> Answered:
        """Answer one; never raises but `ProtocolFault`: what ends the call is on its record."""

    def drop(self, numbers: Sequence[Any]) -> None:
        """Let go of handles; as `answer`."""

    def check(self) -> None:
        """Pass if the call may go on; raises what must end it."""


class Exchange:
    """The calls on one lane, one at a time.

    Attributes:
        busy: whether a call was begun whose end was not seen; then nobody knows what the process
            would say next, and it can't be used any more.
    """

    def __init__(self, lane: Lane, interrupt: Callable[[int], bool]) -> None:
        """Speak on that lane.

        Args:
            lane: the host's end.
            interrupt: asks a call to end, by its number; says whether it could be asked.
        """
        self.busy = False
        self._lane = lane
        self._interrupt = interrupt
        self._number = 0
        # Until when the call under way has to return; None: it was not told to end.
        self._until: float | None = None

    def run(self, kind: Kind, rest: Sequence[Any], record: CallRecord, desk: Desk) -> Returned:
        """Have the process run something, and answer what it asks meanwhile.

        Args:
            kind: CALL, OPEN or DROP.
            rest: what follows the call's number; large bytes were `put`.
            record: of the call.  What ends it is kept there.
            desk: answers.

        Raises:
            ProtocolFault, PeerClosed: as of `Lane`.
            Hung: it did not return when it was told to.
        """
        lane = self._lane
        self._number = number = self._number + 1
        self._until = None
        self.busy = True
        frame: Sequence[Any] | None = (kind, number, *rest)
        fds: Sequence[int] = ()
        seq = 0
        kept = lane.used  # its arguments stay until it has returned
        tick = self._ticker(desk)
        while True:
            try:
                if frame is not None:
                    sent, frame = frame, None
                    self._send(sent, fds)
                    fds = ()
                got = lane.recv(tick)
            except (ProtocolFault, PeerClosed):
                raise
            except BaseException as exc:  # noqa: BLE001 - a tick's, or a signal's handler's
                self._end(exc, record, number)
                continue
            if got[0] == Kind.RETURN:
                returned = self._returned(got, number, record, desk)
                self.busy = False
                lane.begin()
                return returned
            function, args = self._asked(got, seq, desk)
            lane.begin(kept)
            answered = desk.answer(function, args) if self._until is None else _ABORT
            if answered.abort and self._until is None:
                self._until = monotonic() + GRACE_SECONDS
            status = Answer.ABORT if answered.abort else Answer.VALUE
            frame = (Kind.ANSWER, seq, status, answered.value, answered.cost)
            fds = answered.fds
            # After an abort it may ask nothing more.
            seq = -1 if answered.abort else seq + 1

    def _send(self, frame: Sequence[Any], fds: Sequence[int]) -> None:
        try:
            self._lane.send(frame, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _ticker(self, desk: Desk) -> Callable[[], None]:
        def tick() -> None:
            if self._until is None:
                desk.check()
            elif monotonic() >= self._until:
                raise Hung

        return tick

    def _end(self, why: BaseException, record: CallRecord, number: int) -> None:
        """Have the call end.

        Raises:
            Hung: it can't be told to, or was and did not.
        """
        if not isinstance(why, Hung):
            record.fail(why)
        if self._until is None and self._interrupt(number):
            self._until = monotonic() + GRACE_SECONDS
        elif self._until is None or monotonic() >= self._until:
            raise Hung from why

    def _asked(self, got: list[Any], seq: int, desk: Desk) -> tuple[int, Any]:
        match got:
            case [Kind.ASK, said, function, args, list() as drops] if (
                type(said) is int and 0 <= said == seq and type(function) is int
            ):
                desk.drop(drops)
                return function, args
        raise ProtocolFault("not a question that it may ask now")

    def _returned(self, got: list[Any], number: int, record: CallRecord, desk: Desk) -> Returned:
        match got:
            case [Kind.RETURN, said, how, value, list() as drops, [fuel, memory]] if (
                type(said) is int
                and said == number
                and type(how) is int
                and how in _OUTCOMES
                and type(fuel) is int
                and type(memory) is int
                and min(fuel, memory) >= 0
            ):
                if how == Outcome.ABORTED and record.failure is None:
                    raise ProtocolFault("it was aborted by nobody")
                desk.drop(drops)
                return Returned(Outcome(how), value, fuel, memory)
        raise ProtocolFault("not the end of the call that it runs")


_OUTCOMES: Final = frozenset(map(int, Outcome))
_ABORT: Final = Answered(None, abort=True)
