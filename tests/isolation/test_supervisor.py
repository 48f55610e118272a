"""Processes that serve several calls: told to end one, given time to, and killed when they don't."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from capwasm.errors import (
    CallInterrupted,
    DeadlineExceeded,
    GuestCrashed,
    GuestError,
    InstanceClosedError,
    ShimError,
)
from capwasm.limits import Limits
from capwasm_shim.protocol import Kind, Outcome

from .peer import FAILED, NUMBER, Peer, Rig, asks, returns


def component(*says: Any, **rig: Any) -> Rig:
    return Rig(*says, kind="component", **rig)


def when_told(peer: Peer, work: Callable[[], None]) -> threading.Thread:
    """Do that when the process is told to end a call."""
    assert peer.side is not None
    peer.side.setblocking(True)
    side = peer.side

    def wait() -> None:
        side.recv(100)
        work()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_call_that_ends_when_it_is_told_to_leaves_its_process() -> None:
    with component(limits=Limits(wall_ms=150)) as rig:
        thread = when_told(
            rig.peer, lambda: rig.peer.say(returns(["guest.interrupted", "x"], outcome=FAILED))
        )
        with pytest.raises(DeadlineExceeded):
            rig.call("run", "x")
        thread.join()
        assert not rig.instance.alive, "what it was doing is not known"
        assert not rig.peer.killed
        again = rig.new()
        rig.peer.heard()
        again.start()
        assert rig.peer.starts == 1, "the process serves the next"
        again.close()
        assert [frame[0] for frame in rig.peer.heard()] == [Kind.CLOSE]


def test_a_question_on_its_way_when_the_call_is_told_to_end_is_aborted() -> None:
    with component(limits=Limits(wall_ms=150)) as rig:

        def ask() -> None:
            rig.peer.say(asks(0, NUMBER["words"], [1]))
            rig.peer.say(returns(None, outcome=Outcome.ABORTED))

        thread = when_told(rig.peer, ask)
        with pytest.raises(DeadlineExceeded):
            rig.call("run", "x")
        thread.join()
        assert rig.toy.seen == []
        assert not rig.peer.killed


def test_a_call_that_does_not_end_is_killed_with_its_process() -> None:
    with component(limits=Limits(wall_ms=150)) as rig:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            rig.call("run", "x")
        assert time.monotonic() - began < 10
        assert rig.peer.killed
        assert not rig.instance.alive
        assert rig.supervisor.backoff.crashes == 1


def test_the_one_that_is_told_is_the_call_that_runs() -> None:
    with component(returns("x"), limits=Limits(wall_ms=150)) as rig:
        rig.call("run", "x")
        seen: list[Any] = []
        side = rig.peer.side
        assert side is not None
        thread = threading.Thread(target=lambda: seen.append(msgpack.unpackb(side.recv(100))))
        thread.start()
        with pytest.raises(DeadlineExceeded):
            rig.call("run", "x")
        thread.join()
        assert seen == [[Kind.INTERRUPT, 0, 2]]


def test_native_code_is_never_told() -> None:
    with Rig(limits=Limits(wall_ms=100)) as rig:
        assert rig.peer.side is None
        with pytest.raises(DeadlineExceeded):
            rig.call("run", "x")
        assert rig.peer.killed


def test_an_interrupt_is_not_a_crash() -> None:
    with Rig(limits=Limits(wall_ms=20_000)) as rig:
        timer = threading.Timer(0.05, lambda: rig.instance.interrupt("enough"))
        timer.start()
        with pytest.raises(CallInterrupted):
            rig.call("run", "x")
        timer.join()
        assert rig.supervisor.backoff.crashes == 0


def test_crashes_in_a_row_are_counted_and_a_good_call_ends_the_row() -> None:
    hang_up = [lambda sock: sock.shutdown(socket.SHUT_RDWR)]
    with Rig(*hang_up) as rig:
        for crashes in (1, 2, 3):
            with pytest.raises(GuestCrashed):
                rig.call("run", "x")
            assert rig.supervisor.backoff.crashes == crashes
            rig.instance = rig.new()
            if crashes < 3:
                rig.instance.start()
        with pytest.raises(GuestError) as caught:
            rig.instance.start()
        assert caught.value.code == "guest.backoff"
        assert rig.peer.starts == 3
        rig.supervisor.backoff._until = 0.0
        rig.peer.says = [rig.peer.says[0], returns("x")]
        rig.instance = rig.new()
        rig.instance.start()
        rig.call("run", "x")
        assert rig.supervisor.backoff.crashes == 0


def test_a_closed_supervisor_starts_nothing_and_lets_go_once() -> None:
    with Rig(returns("x")) as rig:
        assert rig.held() is not None
        rig.supervisor.close()
        rig.supervisor.close()
        assert rig.held() is None
        assert rig.call("run", "x") == "x", "what runs is not stopped by it"
        rig.instance.close()
        assert rig.peer.killed
        assert rig.supervisor.processes == ()
        late = rig.new()
        with pytest.raises(InstanceClosedError):
            late.start()


def test_a_start_that_fails_leaves_nothing() -> None:
    with Rig(start=False) as rig:

        def fail(*_args: Any) -> Any:
            raise ShimError("no")

        rig.peer.start = fail  # type: ignore[method-assign]
        before = rig.engine.live
        with pytest.raises(ShimError):
            rig.instance.start()
        assert rig.engine.live == before - 1
        assert rig.supervisor.processes == ()
