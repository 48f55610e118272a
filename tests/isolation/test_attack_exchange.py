"""A process that is the attacker's: what it says to go on, to be believed, or to cost the host more than it may."""

from __future__ import annotations

import socket
import threading
from typing import Any

import msgpack
import pytest

from capwasm.errors import GuestCrashed, HostCallLimitExceeded
from capwasm.limits import Limits

from .peer import Rig, asks, returns

# -- to go on after its call has to end ---------------------------------------------------------------


@pytest.mark.case("IPC-06", "IPC-08", "RES-03", "LIFE-01")
@pytest.mark.parametrize("number", [-1, 0, 1, 2])
def test_refuses_questions_without_end_after_an_abort(number: int) -> None:
    over = threading.Event()

    def ask(sock: socket.socket) -> None:
        data = msgpack.packb(asks(number, 0, [1]))
        with sock:
            while not over.is_set():
                try:
                    sock.send(data, socket.MSG_DONTWAIT)
                    sock.recv(1 << 16, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                except OSError:
                    return

    # The second one ends the call.
    with Rig(asks(0, 0, [1]), asks(1, 0, [1]), limits=Limits(host_calls=1, wall_ms=100)) as rig:
        assert rig.peer.sock is not None
        thread = threading.Thread(target=ask, args=(rig.peer.sock.dup(),))
        hang = threading.Timer(10, over.set)
        thread.start()
        hang.start()
        try:
            with pytest.raises(HostCallLimitExceeded):
                rig.call("run", "x")
            assert not over.is_set(), "it went on for as long as it liked"
            assert rig.toy.seen == [1]
        finally:
            over.set()
            thread.join()
            hang.cancel()


# -- to be believed -----------------------------------------------------------------------------------


@pytest.mark.case("LIFE-06", "IPC-06")
@pytest.mark.parametrize(
    "says",
    {
        "never given": (returns(77),),
        "given up before": (asks(0, 1, []), returns(1, drops=[1])),
        "of another kind": (asks(0, 2, []), returns(1)),
    }.items(),
    ids=lambda item: item[0],
)
def test_refuses_a_result_that_it_does_not_have(says: tuple[str, Any]) -> None:
    with Rig(*says[1]) as rig:
        with pytest.raises(GuestCrashed) as caught:
            rig.call("make")
        assert caught.value.code == "guest.protocol"
        assert rig.peer.killed
    assert all(thing.closed == 1 for thing in rig.toy.things)
