"""What a process may say, and when: all else ends it, and is the plugin's named failure."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.errors import (
    CallInterrupted,
    CapwasmError,
    DeadlineExceeded,
    FuelExhausted,
    GuestCrashed,
    GuestError,
    GuestTrap,
    HandleLimitExceeded,
    HostCallLimitExceeded,
    InstanceClosedError,
    InternalError,
    LinkError,
    RecursionLimitExceeded,
    ValueLimitExceeded,
)
from capwasm.limits import Limits
from capwasm_shim.frames import MAX_FRAME
from capwasm_shim.protocol import Kind, Outcome

from .peer import FAILED, HELLO, NUMBER, Peer, Rig, Thing, asks, flood, returns

_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def refused(*says: Any, call: str = "run", args: tuple[Any, ...] = ("x",), **rig: Any) -> Rig:
    """The call fails as a fault of the protocol; the process is killed and the instance gone."""
    made = Rig(*says, **rig)
    with made:
        with pytest.raises(GuestCrashed) as caught:
            made.call(call, *args)
        assert caught.value.code == "guest.protocol"
        assert made.peer.killed
        assert not made.instance.alive
        assert made.instance.released
        with pytest.raises(InstanceClosedError):
            made.call(call, *args)
    return made


def test_allows_a_call_with_questions() -> None:
    with Rig(
        asks(0, NUMBER["words"], [2]), asks(1, NUMBER["silent"] - 5, [3]), returns("yes")
    ) as rig:
        assert rig.call("run", "x") == "yes"
        assert rig.answers() == [
            [2, 0, 0, [0, ["word", "word"]], 1000],
            [2, 1, 0, [0, ["word"] * 3], 1000],
        ]
        rig.peer.say(returns("again", call=2))
        assert rig.call("run", "x") == "again"
        assert not rig.peer.killed


@pytest.mark.case("IPC-06", "IPC-07")
@pytest.mark.parametrize(
    "frame",
    {
        "another call": returns("x", call=2),
        "an old call": returns("x", call=0),
        "a call that is true": returns("x", call=True),
        "a negative call": returns("x", call=-1),
        "an unknown outcome": returns("x", outcome=9),
        "an outcome that is true": returns("x", outcome=True),
        "aborted by nobody": returns(None, outcome=Outcome.ABORTED),
        "drops that are none": returns("x", drops=3),
        "no stats": returns("x", stats=None),
        "negative stats": returns("x", stats=(-1, 0)),
        "stats that are text": returns("x", stats=("1", "2")),
        "a short return": (Kind.RETURN, 1, 0, "x"),
        "a long return": (*returns("x"), 1),
        "a name of its own": (*returns("x"), "acme.other@1.0.0"),
        "a call by another's name": returns("x", call="acme.other@1.0.0"),
        "an unknown function": asks(0, 8, []),
        "a negative function": asks(0, -1, []),
        "a function that is text": asks(0, "words", [1]),
        "a wrong sequence": asks(1, 0, [1]),
        "a sequence that is false": asks(False, 0, [1]),
        "too few arguments": asks(0, 0, []),
        "too many arguments": asks(0, 0, [1, 2]),
        "arguments that are none": asks(0, 0, None),
        "an argument of another type": asks(0, 0, ["1"]),
        "an argument out of range": asks(0, 0, [2**32]),
        "a call of its own": (Kind.CALL, 1, 0, ["x"]),
        "an answer": (Kind.ANSWER, 0, 0, None, 0),
        "a kind that there is not": (77, 1, 2),
        "a kind of large frames alone": (Kind.RETURN | 0x80, 1),
        "another result": returns(7),
        "no result": returns(None),
        "a failure without reason": returns(None, outcome=FAILED),
        "a failure with half a reason": returns(["guest.trap"], outcome=FAILED),
        "a misuse of no kind": returns(["else", "x"], outcome=Outcome.MISUSED),
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_refuses_what_is_out_of_turn(frame: tuple[str, Any]) -> None:
    refused(frame[1])


@pytest.mark.case("IPC-12")
@pytest.mark.parametrize(
    "hello",
    [
        (Kind.HELLO, 2, None),
        (Kind.HELLO, 0, None),
        (Kind.HELLO, True, None),
        (Kind.HELLO, 1),
        (Kind.HELLO, 1, None, None),
        (Kind.RETURN, 1, 0, None, [], [0, 0]),
        b"\xc1",
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_refuses_another_greeting(hello: Any) -> None:
    with Rig(start=False, hello=hello) as rig:
        with pytest.raises(GuestCrashed) as caught:
            rig.instance.start()
        assert caught.value.code == "guest.protocol"
        assert rig.peer.killed
        assert not rig.instance.alive


@pytest.mark.case("IPC-12")
def test_refuses_a_second_greeting() -> None:
    refused(HELLO)


def test_what_can_not_be_loaded_is_told_in_its_own_words() -> None:
    with Rig(start=False, hello=(Kind.LOADFAIL, "link.instantiate", "no\x1b[2Jplugin")) as rig:
        with pytest.raises(LinkError, match="can't be loaded: no") as caught:
            rig.instance.start()
        assert "\x1b" not in str(caught.value)
        assert rig.peer.killed


@pytest.mark.case("IPC-01", "IPC-02", "IPC-03", "IPC-05")
@pytest.mark.parametrize(
    "data",
    {
        "an array of 4 G": b"\xdd\xff\xff\xff\xff",
        "a map of 4 G": b"\xdf\xff\xff\xff\xff",
        "text of 4 G": b"\x92\x0a\xdb\xff\xff\xff\xff",
        "half a frame": msgpack.packb(returns("x" * 50))[:20],
        "two frames": msgpack.packb(returns("x")) * 2,
        "not an array": b"\x01",
        "a map": b"\x81\x01\x02",
        "a map within": msgpack.packb((10, 1, 0, {"a": 1}, [], [0, 0])),
        "no bytes at all": b"\x90",
        "not UTF-8": b"\x96\x0a\x01\x00\xa1\xff\x90\x92\x00\x00",
        "nested 2,000 deep": b"\x96\x0a\x01\x00" + b"\x91" * 2000 + b"\xc0\x90\x92\x00\x00",
        "an extension": msgpack.packb((10, 1, 0, msgpack.ExtType(5, b"x"), [], [0, 0])),
        "a timestamp": msgpack.packb((10, 1, 0, msgpack.Timestamp(1), [], [0, 0])),
        "a range past the end": msgpack.packb(
            (10, 1, 0, msgpack.ExtType(1, b"\xff" * 16), [], [0, 0])
        ),
        "a range of half a size": msgpack.packb(
            (10, 1, 0, msgpack.ExtType(1, b"\x00" * 8), [], [0, 0])
        ),
        "a large frame without a range": msgpack.packb((10 | 0x80, 5)),
        "more than a frame may have": msgpack.packb(returns("x" * MAX_FRAME)),
    }.items(),
    ids=lambda item: item[0],
)
def test_refuses_what_is_no_frame(data: tuple[str, bytes]) -> None:
    refused(data[1])


@pytest.mark.case("IPC-05")
def test_refuses_a_number_for_a_float_and_nan_for_a_number() -> None:
    refused(asks(0, 0, [float("nan")]))
    refused(asks(0, 0, [True]))


@pytest.mark.case("IPC-03")
def test_is_never_looked_at_deeper_than_its_type() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    refused(returns(deep), call="nest", args=())


@pytest.mark.case("IPC-04")
def test_many_small_arrays_are_charged_as_values() -> None:
    many = [[[]] * 2000] * 20  # two bytes each in a frame
    with Rig(returns(many), limits=Limits(value_bytes=1 << 20)) as rig:
        with pytest.raises(ValueLimitExceeded):
            rig.call("nest")
        assert rig.instance.alive, "a result that is too large leaves it as it was"
        assert not rig.peer.killed


@pytest.mark.case("IPC-04")
def test_a_window_full_of_empty_arrays_does_not_become_memory() -> None:
    import tracemalloc

    def say(peer: Peer) -> None:
        assert peer.up is not None
        data = msgpack.packb(returns([])).replace(
            b"\x90\x90", b"\xdd\x00\x3f\xff\xff" + b"\x90" * 0x3FFFFF + b"\x90"
        )
        peer.up.write(0, data)
        peer.say(
            (
                Kind.RETURN | 0x80,
                msgpack.ExtType(1, (0).to_bytes(8, "little") + len(data).to_bytes(8, "little")),
            )
        )

    with Rig(limits=Limits(value_bytes=4 << 20)) as rig:
        say(rig.peer)
        tracemalloc.start()
        try:
            with pytest.raises(GuestCrashed, match="protocol"):
                rig.call("nest")
            assert tracemalloc.get_traced_memory()[1] < 120 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.case("IPC-08")
def test_refuses_questions_that_did_not_wait_for_their_answers() -> None:
    # They are in the socket already; the second is answered only after the first, and none twice.
    with Rig(asks(0, 0, [1]), asks(0, 0, [1])) as rig:
        with pytest.raises(GuestCrashed):
            rig.call("run", "x")
        assert len(rig.toy.seen) == 1


@pytest.mark.case("IPC-08")
def test_ends_a_peer_that_asks_without_end_and_never_reads() -> None:
    frames = (asks(i, 0, [100]) for i in range(100_000))
    with Rig(limits=Limits(wall_ms=10_000, host_calls=50)) as rig:
        rig.peer.say(flood(frames))
        with pytest.raises((HostCallLimitExceeded, GuestCrashed)):
            rig.call("run", "x")
        assert rig.peer.killed
        assert len(rig.toy.seen) <= 50


@pytest.mark.case("IPC-09")
def test_takes_no_descriptor() -> None:
    with Path("/dev/null").open() as file:

        def send(sock: socket.socket) -> None:
            rights = array("i", [file.fileno()] * 250)
            sock.sendmsg(
                [msgpack.packb(returns("x"))],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
            )

        before = len(descriptors())
        refused(send)
        assert len(descriptors()) <= before


def descriptors() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


# -- failures that a process may tell of -------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("guest.trap", GuestTrap),
        ("limit.fuel", FuelExhausted),
        ("limit.deadline", GuestTrap),
        ("limit.host-calls", GuestTrap),
        ("limit.recursion", RecursionLimitExceeded),
        ("internal", InternalError),
        ("grant.denied", GuestTrap),
        ("audit.sink", GuestTrap),
        ("no.such", GuestTrap),
        ("link.instantiate", GuestTrap),
    ],
)
def test_a_failure_is_one_of_a_few_of_ours(code: str, kind: type[CapwasmError]) -> None:
    with Rig(returns([code, "why\nat\x1b[31m x\u202e" + "y" * 5000], outcome=FAILED)) as rig:
        with pytest.raises(kind) as caught:
            rig.call("run", "x")
        assert type(caught.value) is kind
        assert "\x1b" not in caught.value.message
        assert "\u202e" not in caught.value.message
        assert len(caught.value.message) < 1200
        assert not rig.instance.alive


def test_misuse_that_only_the_process_sees_is_the_callers() -> None:
    with Rig(returns(["type", "argument x: no"], outcome=Outcome.MISUSED)) as rig:
        rig.toy.opens = True  # as a component, whose values are converted there once more
        with pytest.raises(TypeError, match="argument x"):
            rig.call("run", "x")
        assert rig.instance.alive
    refused(returns(["type", "argument x: no"], outcome=Outcome.MISUSED))


def test_what_it_says_that_it_used_is_for_the_statistics_alone() -> None:
    with Rig(returns("x", stats=(2**62, 2**62)), limits=Limits(fuel=1000)) as rig:
        _, stats = rig.instance.call(rig.toy.exports.find("run"), ("x",))
        assert stats.fuel == 1000


# -- switches -----------------------------------------------------------------------------------------


@pytest.mark.case("IPC-01", "LIFE-13")
def test_the_deadline_ends_a_peer_that_says_nothing() -> None:
    with Rig(limits=Limits(wall_ms=100)) as rig:
        with pytest.raises(DeadlineExceeded):
            rig.call("run", "x")
        assert rig.peer.killed
        assert not rig.instance.alive


def test_the_deadline_of_a_start_holds() -> None:
    with Rig(limits=Limits(wall_ms=100), start=False, hello=None) as rig:
        with pytest.raises(DeadlineExceeded):
            rig.instance.start()
        assert rig.peer.killed


@pytest.mark.case("LIFE-01")
def test_an_interrupt_from_another_thread_ends_the_wait() -> None:
    with Rig(limits=Limits(wall_ms=20_000)) as rig:
        timer = threading.Timer(0.05, lambda: rig.instance.close("evicted"))
        timer.start()
        began = time.monotonic()
        with pytest.raises(CallInterrupted, match="evicted"):
            rig.call("run", "x")
        assert time.monotonic() - began < 10
        timer.join()
        assert rig.peer.killed
        assert rig.instance.released


def test_the_end_of_the_peer_is_a_crash() -> None:
    with Rig(lambda sock: sock.shutdown(socket.SHUT_RDWR)) as rig:
        with pytest.raises(GuestCrashed) as caught:
            rig.call("run", "x")
        assert caught.value.code == "guest.crashed"
        assert not rig.instance.alive


@pytest.mark.case("RES-03")
def test_a_question_that_must_end_the_call_is_aborted_and_nothing_more_is_answered() -> None:
    says = asks(0, 0, [1]), asks(1, 0, [1]), returns(None, outcome=Outcome.ABORTED)
    with Rig(*says, limits=Limits(host_calls=1)) as rig:
        with pytest.raises(HostCallLimitExceeded):
            rig.call("run", "x")
        assert rig.toy.seen == [1]
    with Rig(asks(0, 0, [1]), asks(1, 0, [1]), asks(2, 0, [1]), limits=Limits(host_calls=1)) as rig:
        with pytest.raises(HostCallLimitExceeded):
            rig.call("run", "x")
        assert rig.peer.killed
        assert rig.toy.seen == [1]


def test_a_call_that_goes_on_after_its_abort_is_killed() -> None:
    with Rig(asks(0, 0, [1]), asks(1, 0, [1]), limits=Limits(host_calls=1)) as rig:
        with pytest.raises(HostCallLimitExceeded):
            rig.call("run", "x")
        assert rig.peer.killed


def test_a_value_after_an_abort_is_still_a_failure() -> None:
    with Rig(asks(0, 0, [99]), returns("x")) as rig:
        with pytest.raises(InternalError, match="KeyError") as caught:
            rig.call("run", "x")
        assert "passwd" not in str(caught.value)
        assert not rig.instance.alive


@pytest.mark.case("RES-03")
def test_host_work_is_paid_for_whatever_the_process_says() -> None:
    frames = [asks(i, 0, [1]) for i in range(40)]
    with Rig(*frames, returns("x"), limits=Limits(fuel=20_000)) as rig:
        with pytest.raises(FuelExhausted):
            rig.call("run", "x")
        assert len(rig.toy.seen) <= 21


# -- handles ------------------------------------------------------------------------------------------


def ask_each(*asked: tuple[str, list[Any]], **limits: Any) -> tuple[Rig, list[Any]]:
    """Ask these one after the other; what was answered."""
    frames = [asks(i, NUMBER[name], args) for i, (name, args) in enumerate(asked)]
    with Rig(*frames, returns("x"), limits=Limits(wall_ms=3_000, **limits)) as rig:
        rig.call("run", "x")
        return rig, [answer[3] for answer in rig.answers()]


NAME, CLOSED = "[method]thing.name", [1, 1]


@pytest.mark.case("LIFE-06", "TYP-09")
def test_a_handle_is_what_was_given_out_and_nothing_else() -> None:
    _, answers = ask_each(
        ("open", []),
        ("open-other", []),
        (NAME, [1]),
        (NAME, [2]),
        (NAME, [3]),
        (NAME, [2**32 - 1]),
        ("give", [2, 0]),
        ("give", [1, 0]),
        (NAME, [1]),
        ("give", [1, 0]),
    )
    assert answers == [
        [0, 1], 2, [0, "thing"], CLOSED, CLOSED, CLOSED, CLOSED, [0, None], CLOSED, CLOSED,
    ]  # fmt: skip


def test_a_dead_handle_where_no_error_can_be_told_is_a_trap() -> None:
    with Rig(asks(0, NUMBER["mute"], [9])) as rig, pytest.raises(GuestTrap, match="does not have"):
        rig.call("run", "x")


@pytest.mark.parametrize("number", [0, -1, 2**32, True, "1", None, 1.0, [1]])
def test_refuses_a_handle_that_is_no_number(number: Any) -> None:
    refused(asks(0, NUMBER["open"], []), asks(1, NUMBER[NAME], [number]))


def test_a_handle_that_is_given_and_refused_is_closed_as_in_process() -> None:
    rig, answers = ask_each(("open", []), ("give", [1, 1]), (NAME, [1]))
    assert answers == [[0, 1], [1, 0], CLOSED]
    assert [thing.closed for thing in rig.toy.things] == [1]


def test_dropped_handles_are_closed_once() -> None:
    says = asks(0, 1, []), asks(1, 1, [], [1]), returns("x", drops=[1, 1, 2])
    with Rig(*says) as rig:
        rig.call("run", "x")
        assert [thing.closed for thing in rig.toy.things] == [1, 1]
        assert len(rig.instance.handles) == 0


@pytest.mark.parametrize("drops", [["1"], [None], [True], [[1]], list(range(1, 10_000))])
def test_refuses_drops_of_what_it_can_not_have(drops: list[Any]) -> None:
    refused(asks(0, 1, []), returns("x", drops=drops))


@pytest.mark.parametrize(
    "says",
    [
        (returns(1, drops=[1]),),
        (asks(0, NUMBER["give"], [1, 0]), returns(1)),
        (asks(0, NUMBER["give"], [1, 1]), returns(1)),
    ],
)
def test_refuses_to_close_or_keep_what_was_lent(says: tuple[Any, ...]) -> None:
    thing = Thing("mine")
    refused(*says, call="lend", args=(thing,))
    assert thing.alive
    assert not thing.closed


def test_what_was_lent_can_be_used_and_comes_back() -> None:
    thing = Thing("mine")
    says = asks(0, NUMBER[NAME], [1]), returns(7), asks(0, NUMBER[NAME], [1]), returns("x", call=2)
    with Rig(*says) as rig:
        assert rig.call("lend", thing) == 7
        assert len(rig.instance.handles) == 0
        rig.call("run", "x")
        assert [a[3] for a in rig.answers()] == [[0, "mine"], CLOSED]
    assert thing.alive


def test_a_handle_that_comes_back_as_a_result_is_the_callers() -> None:
    with Rig(asks(0, 1, []), returns(1)) as rig:
        thing = rig.call("make")
        assert thing is rig.toy.things[0]
        assert thing.alive
        rig.instance.close()
        assert thing.alive
        thing.close()


@pytest.mark.case("RES-14")
def test_no_more_handles_than_the_limit() -> None:
    with Rig(*[asks(i, 1, []) for i in range(5)], limits=Limits(handles=3)) as rig:
        with pytest.raises(HandleLimitExceeded):
            rig.call("run", "x")
        assert all(thing.closed == 1 for thing in rig.toy.things)


@pytest.mark.case("IPC-11")
def test_a_refusal_is_a_word_and_no_more() -> None:
    _, answers = ask_each(("words", [101]))
    assert answers == [[1, 0]]
    with Rig(asks(0, NUMBER["silent"], [])) as rig, pytest.raises(InternalError):
        rig.call("run", "x")


# -- large values -------------------------------------------------------------------------------------


def test_large_bytes_go_through_the_window() -> None:
    data = bytes(range(256)) * 400

    def say(peer: Peer) -> None:
        assert peer.up is not None
        peer.up.write(0, data)
        where = (0).to_bytes(8, "little") + len(data).to_bytes(8, "little")
        peer.say(returns(msgpack.ExtType(1, where)))

    with Rig() as rig:
        say(rig.peer)
        assert rig.call("data", data) == data


def test_refuses_an_argument_that_is_too_large_before_anything_is_said() -> None:
    with Rig(returns("x"), limits=Limits(value_bytes=1000)) as rig:
        with pytest.raises(ValueLimitExceeded):
            rig.call("run", "y" * 1001)
        assert rig.call("run", "y") == "x"


@pytest.mark.parametrize("value", ["\ud800", 5, None, b"x"])
def test_refuses_what_is_no_argument_and_goes_on(value: Any) -> None:
    with Rig(returns("x")) as rig:
        with pytest.raises((TypeError, ValueError), match="argument text"):
            rig.call("run", value)
        assert rig.call("run", "y") == "x"


# -- anything -----------------------------------------------------------------------------------------

ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(max_size=8),
    st.binary(max_size=8),
)  # fmt: skip
OBJECTS = st.recursive(ATOMS, lambda x: st.lists(x, max_size=4), max_leaves=12)
FRAMES = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.sampled_from([*map(int, Kind), 0, 77, 130, 138]), OBJECTS, OBJECTS, OBJECTS, OBJECTS, OBJECTS).map(list),
    st.tuples(st.just(9), st.integers(0, 2), st.integers(-1, 8), st.lists(OBJECTS, max_size=3), st.lists(OBJECTS, max_size=2)).map(list),
    st.tuples(st.just(9), st.integers(0, 2), st.integers(0, 6), st.lists(st.integers(0, 3), max_size=2), st.lists(st.integers(1, 3), max_size=2)).map(list),
    st.tuples(st.just(10), st.just(1), st.integers(0, 4), OBJECTS, st.lists(st.integers(1, 3), max_size=2), st.just([0, 0])).map(list),
    st.builds(lambda cut: msgpack.packb(returns("x"))[:cut], st.integers(0, 12)),
)  # fmt: skip


@pytest.mark.case("IPC-01", "IPC-05", "IPC-06")
@given(st.lists(FRAMES, max_size=5), st.sampled_from(["run", "data", "make", "nest"]))
@_SETTINGS
def test_whatever_is_said_ends_in_a_value_or_a_named_error(says: list[Any], name: str) -> None:
    says = [s for s in says if s != b""]
    with Rig(*says, lambda sock: sock.shutdown(socket.SHUT_WR)) as rig:
        args = {"run": ("x",), "data": (b"x",)}.get(name, ())
        with contextlib.suppress(GuestError, InternalError, TypeError, ValueError):
            rig.call(name, *args)
        things = rig.toy.things
    assert all(not thing.alive or name == "make" for thing in things), "none is left open"
    assert rig.instance.released
    assert not rig.engine.running
