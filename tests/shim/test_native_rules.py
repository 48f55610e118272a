"""The rules of the native ABI: when functions may be called, what a mistake gives, what large values do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm_shim import native_table
from capwasm_shim.frames import PeerClosed
from capwasm_shim.protocol import Answer, Kind, Outcome
from tests.shim.native_peer import (
    WINDOW,
    Abort,
    NativePeer,
    Refused,
    WithDescriptor,
    answers,
    library,
    message_of,
)


@pytest.fixture(scope="module")
def process() -> Iterator[NativePeer]:
    peer = NativePeer(library("prober"))
    yield peer
    assert peer.close() == 0


@pytest.fixture
def peer(process: NativePeer) -> NativePeer:
    process.asked.clear()
    process.drops.clear()
    return process


@pytest.fixture
def fresh() -> Iterator[NativePeer]:
    """One that the test may break."""
    peer = NativePeer(library("prober"))
    yield peer
    peer.close()


# -- when -----------------------------------------------------------------------------------------


def test_refuses_another_thread_without_asking(peer: NativePeer) -> None:
    assert peer.ask("abi.thread") == b"-1"
    assert peer.asked == []


def test_refuses_what_is_called_outside_of_a_call(peer: NativePeer) -> None:
    """The constructor has no host yet; describe and free have one, and are told that it is closed."""
    peer.ask("echo", "data to be freed")

    assert peer.ask("abi.outside") == b"0 -1 -1"
    assert peer.asked == []


def test_the_structs_of_c_have_the_sizes_that_the_host_believes(peer: NativePeer) -> None:
    abi, *pairs = peer.ask("abi.sizes").decode().split(" ")
    tables = dict(zip(pairs[2::3], zip(pairs[3::3], pairs[4::3], strict=True), strict=True))

    assert abi == "1"
    assert pairs[0] == pairs[1]
    assert list(tables) == [t.member for t in native_table.TABLES]
    assert all(ours == theirs for ours, theirs in tables.values())


def test_an_abort_ends_the_call_and_nothing_is_asked_any_more(peer: NativePeer) -> None:
    outcome, value = peer.call("abi.after-abort", script=answers(now=Abort()))

    assert (outcome, value) == (Outcome.ABORTED, None)
    assert len(peer.asked) == 1


def test_the_next_call_after_an_abort_is_served(peer: NativePeer) -> None:
    peer.call("clock.now", script=answers(now=Abort()))

    assert peer.ask("clock.now", script=answers(now=5)) == b"5"


# -- mistakes -------------------------------------------------------------------------------------


def test_honest_mistakes_are_errors_and_nothing_is_asked(peer: NativePeer) -> None:
    words = peer.ask("abi.mistakes").decode().split(" ")

    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        **dict.fromkeys(
            [
                "utf8",
                "surrogate",
                "null",
                "nowhere",
                "mode",
                "negative",
                "level",
                "fields",
                "request",
                "redirects",
                "value",
                "no-result",
            ],
            "-2",
        ),
        **dict.fromkeys(["huge-key", "huge-value", "fields-count"], "-3"),
        **dict.fromkeys(["handle", "handle-0", "close"], "10"),
        "credential": "5",
    }
    assert peer.asked == []


def test_a_handle_that_is_none_any_more_is_closed(peer: NativePeer) -> None:
    said = peer.ask("abi.stale", "/x", "s", script=answers(open=[0, 1], get=[0, 2], size=[0, 5]))

    assert said == b"0 other-kind 10 10 close 0 closed 10 10"
    assert [name for _, name, _ in peer.asked] == ["open", "get", "[method]file.size"]
    assert peer.drops == [1]


# -- large values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 65536, 1 << 20, WINDOW - 1000])
def test_a_message_and_a_result_of_any_size_arrive_whole(peer: NativePeer, size: int) -> None:
    data = os.urandom(size)

    assert peer.ask("echo", data) == data


@pytest.mark.parametrize("size", [8191, 8192, 100_000, 1 << 20])
def test_a_large_answer_and_argument_arrive_whole(peer: NativePeer, size: int) -> None:
    """An answer is passed on as an argument: it stays where it is until it was taken."""
    data = os.urandom(size)

    peer.ask("abi.pass-on", "from", "to", script=answers(get=[0, [data]], set=[0, None]))

    assert peer.asked[1][2] == ["to", data, None]


def test_a_list_longer_than_a_frame_arrives_whole(peer: NativePeer) -> None:
    keys = [f"key-{n:06}" for n in range(20_000)]

    said = peer.ask("kv.keys", "key", script=answers(keys=[0, keys]))

    assert said.decode().split("\n") == keys


def test_an_argument_that_no_frame_can_carry_is_refused_unasked(peer: NativePeer) -> None:
    with pytest.raises(Refused, match=r"^too-large$"):
        peer.ask("abi.large", str(WINDOW + 1))
    assert peer.asked == []

    assert peer.ask("abi.large", str(WINDOW - 100), script=answers(set=[0, None])) == b""


def test_a_result_that_no_frame_can_carry_is_a_failure(peer: NativePeer) -> None:
    outcome, (code, text) = peer.call("abi.result", message_of(str(WINDOW + 1)))

    assert (outcome, code) == (Outcome.FAILED, "limit.value")
    assert str(WINDOW + 1) in text
    assert peer.ask("echo", "and the next is served") == b"and the next is served"


# -- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 77, 2**31 - 1])
def test_a_number_that_is_no_result_is_a_failure(peer: NativePeer, number: int) -> None:
    outcome, value = peer.call("abi.returns", message_of(str(number)))

    assert outcome == Outcome.FAILED
    assert value == ["guest.trap", f"capwasm_plugin_call returned {number}"]


def test_a_size_without_data_is_a_failure(peer: NativePeer) -> None:
    outcome, value = peer.call("abi.no-data")

    assert outcome == Outcome.FAILED
    assert value == ["guest.trap", "the result has a size and no data"]


def test_a_message_of_an_error_is_text_whatever_it_was(peer: NativePeer) -> None:
    outcome, value = peer.call("abi.bad-message")

    assert (outcome, value) == (Outcome.VALUE, [1, "caf\ufffd"])


# -- descriptors ----------------------------------------------------------------------------------


def reading(path: Path) -> Callable[[int], WithDescriptor]:
    return lambda _file: WithDescriptor(os.open(path, os.O_RDONLY))


@pytest.mark.case("IPC-09")
def test_a_descriptor_is_for_reading(peer: NativePeer, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("content")

    said = peer.ask(
        "abi.descriptor", "/x", script=answers(open=[0, 1], descriptor=reading(tmp_path / "x"))
    )

    assert said == b"write Bad file descriptor: content"
    assert peer.asked[-1] == ("capwasm:fs/native@0.1.0", "descriptor", [1])


# -- a host that is gone, or broken ---------------------------------------------------------------


@pytest.mark.case("NAT-18")
def test_a_host_that_is_gone_ends_it_between_calls(fresh: NativePeer) -> None:
    assert fresh.close() == 0


@pytest.mark.case("NAT-18")
def test_a_host_that_is_gone_ends_it_within_a_function(fresh: NativePeer) -> None:
    fresh.lane.send((Kind.CALL, 1, "handle", ("clock.now", b"")))
    assert fresh.lane.recv()[0] == Kind.ASK

    assert fresh.close() == 0


BROKEN = {
    "another question": (Kind.ANSWER, 1, Answer.VALUE, 5, 0),
    "no answer": (Kind.CALL, 1, "handle", ("echo", b"")),
    "of another type": (Kind.ANSWER, 0, Answer.VALUE, "five", 0),
    "too short": (Kind.ANSWER, 0),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_an_answer_ends_it_and_is_never_a_success(
    fresh: NativePeer, answer: Any
) -> None:
    fresh.lane.send((Kind.CALL, 1, "handle", ("clock.now", b"")))
    fresh.lane.recv()
    fresh.lane.send(answer)

    with pytest.raises(PeerClosed):
        fresh.lane.recv()
    assert fresh.close() == 70


# -- loading --------------------------------------------------------------------------------------


def misfit(tmp_path: Path, way: str) -> Path:
    """The library that does it that way."""
    data = library("misfit").read_bytes()
    assert data.count(b"MISFIT:-") == 1
    path = tmp_path / "plugin.so"
    path.write_bytes(data.replace(b"MISFIT:-", b"MISFIT:" + way.encode()))
    return path


def loaded(path: Path) -> tuple[list[Any], int]:
    """The first frame, and how the process ended."""
    peer = NativePeer(path)
    return peer.hello, peer.close()


WAYS = {
    "n": "not built for version 1",
    "a": "of version 2 of the ABI",
    "s": "has 8 bytes",
    "l": "the name in the description",
    "p": "the name in the description",
    "u": "a topic in the description is not UTF-8",
    "t": "no topics, or more than 256",
    "o": "no topics, or more than 256",
}


@pytest.mark.parametrize(("way", "text"), WAYS.items())
def test_refuses_a_description_that_makes_no_sense(tmp_path: Path, way: str, text: str) -> None:
    (kind, code, message), status = loaded(misfit(tmp_path, way))

    assert (kind, code, status) == (Kind.LOADFAIL, "link.instantiate", 1)
    assert text in message


def test_allows_the_one_that_makes_sense(tmp_path: Path) -> None:
    hello, status = loaded(misfit(tmp_path, "-"))

    assert hello == [Kind.HELLO, 1, [1, "misfit", ["fine"]]]
    assert status == 0


@pytest.mark.case("NAT-20")
@pytest.mark.parametrize(("way", "ended"), [("c", -6), ("e", 3), ("w", -11)])
def test_a_library_that_ends_the_process_ends_its_own(tmp_path: Path, way: str, ended: int) -> None:
    assert loaded(misfit(tmp_path, way)) == ([], ended)


def test_a_library_that_is_cut_off_ends_no_more_than_its_process(tmp_path: Path) -> None:
    path = tmp_path / "plugin.so"
    path.write_bytes(library("misfit").read_bytes()[:3000])

    hello, status = loaded(path)

    assert hello == []
    assert status in {-signal.SIGBUS, -signal.SIGSEGV}


def _without(name: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(name, name[:-1] + b"?")


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no describe": (
        _without(b"capwasm_plugin_describe"),
        "does not export capwasm_plugin_describe",
    ),
    "no call": (_without(b"capwasm_plugin_call"), "does not export capwasm_plugin_call"),
    "no free": (_without(b"capwasm_plugin_free"), "does not export capwasm_plugin_free"),
    "empty": (lambda _: b"", "can't be loaded"),
    "text": (lambda _: b"#!/bin/sh\necho hello\n" * 100, "can't be loaded"),
    "cut off": (lambda data: data[:100], "can't be loaded"),
    "of another machine": (lambda data: data[:18] + b"\xff\x7f" + data[20:], "can't be loaded"),
    "a library that there is not": (
        lambda data: data.replace(b"libc.so.6\0", b"libq.so.6\0"),
        "libq.so.6",
    ),
}


@pytest.mark.parametrize(("change", "text"), BYTES.values(), ids=BYTES)
def test_refuses_what_is_no_plugin(
    tmp_path: Path, change: Callable[[bytes], bytes], text: str
) -> None:
    path = tmp_path / "plugin.so"
    path.write_bytes(change(library("misfit").read_bytes()))

    (kind, code, message), status = loaded(path)

    assert (kind, code, status) == (Kind.LOADFAIL, "link.instantiate", 1)
    assert text in message
    assert len(message) <= 500


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    (kind, _, message), _ = loaded(tmp_path / "none.so")

    assert kind == Kind.LOADFAIL
    assert "can't be loaded" in message


def test_what_the_process_maps_for_functions_is_its_own(fresh: NativePeer) -> None:
    """Executable memory that a fork would share is memory that another plugin could write."""
    maps = Path(f"/proc/{fresh.process.pid}/maps").read_text().splitlines()

    assert [line for line in maps if line.split()[1][2:] == "xs"] == []
