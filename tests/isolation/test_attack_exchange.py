"""A process that is the attacker's: what it says to go on, to be believed, or to cost the host more than it may."""

from __future__ import annotations

import os
import socket
import threading
import tracemalloc
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest

from capwasm.call import CallRecord
from capwasm.errors import GuestCrashed, HostCallLimitExceeded
from capwasm.handles import Handle, Lease
from capwasm.isolation.native import NativeServed
from capwasm.limits import Limits
from capwasm_shim.frames import Lane, ProtocolFault, pair
from capwasm_shim.protocol import Outcome

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


@pytest.mark.case("RES-12")
def test_a_call_within_another_ends_with_that_one_also_after_its_start() -> None:
    outer = CallRecord("outer", "f", Limits(wall_ms=50))
    inner = CallRecord("inner", "g", Limits(wall_ms=60_000))
    inner.outer = outer
    inner.restart()
    assert inner.deadline == outer.deadline
    assert inner.remaining() < 1


@pytest.mark.case("LOG-07", "IPC-10")
def test_refuses_to_blame_the_caller_once_it_has_asked_for_something() -> None:
    misused = ["type", "argument text: no"]
    with Rig(asks(0, 0, [1]), returns(misused, outcome=Outcome.MISUSED)) as rig:
        rig.toy.opens = True
        with pytest.raises(GuestCrashed) as caught:  # which is on record, as no misuse is
            rig.call("run", "x")
        assert caught.value.code == "guest.protocol"
        assert rig.peer.killed


# -- to cost more than it may -------------------------------------------------------------------------


@pytest.mark.case("IPC-04")
def test_arrays_that_are_claimed_and_not_there_cost_nothing() -> None:
    """Old releases of msgpack kept what was made of half a frame, for good."""
    ours, theirs = pair()
    lane = Lane(ours, None, None)
    text = b"\xdb" + (50_000).to_bytes(4, "big") + b"a" * 50_000
    tracemalloc.start()
    try:
        for _ in range(40):
            theirs.send(b"\x92\x91\x92" + text + b"\xc1")
            with pytest.raises(ProtocolFault):
                lane.recv()
            theirs.send((b"\xdd" + (60_000).to_bytes(4, "big")) * 1000 + bytes(50_000))
            with pytest.raises(ProtocolFault):
                lane.recv()
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
        lane.close()
        theirs.close()


@pytest.mark.case("IPC-08", "IPC-09")
def test_refuses_descriptors_to_who_does_not_take_them() -> None:
    ours, theirs = pair()
    host, shim = Lane(ours, None, None), Lane(theirs, None, None, descriptors=True)
    with Path("/dev/null").open() as file:
        for _ in range(3):
            host.send([1], [file.fileno()])
            shim.recv()
            os.close(*shim.received)
        host.send([1])
        with pytest.raises(ProtocolFault, match="take them"):
            host.send([1], [file.fileno()])
    host.close()
    shim.close()


@pytest.mark.case("RES-14")
def test_what_was_given_for_good_is_noted_once_a_grant() -> None:
    class File(Handle):
        def read_only(self) -> int:
            return -1

    served = NativeServed(cast("Any", None))
    first, second = Lease(), Lease()
    for _ in range(3):
        for lease in (first, second):
            served._descriptor(cast("Any", File(lease)))
    assert served.leases == [first, second]
