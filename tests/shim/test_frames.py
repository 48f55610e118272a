"""Frames and windows: what may come in from a process that is not trusted."""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capwasm_shim import frames
from capwasm_shim.frames import (
    BULK,
    MAX_FRAME,
    DownReader,
    Lane,
    PeerClosed,
    ProtocolFault,
    UpWriter,
    make_down,
    make_up,
    pair,
)

SIZE = 1 << 20


class Ends:
    """Both ends of one lane, and the shim's socket to write to by hand."""

    def __init__(self, size: int = SIZE) -> None:
        ours, theirs = pair()
        self.up, up_fd = make_up(size)
        self.down, self.down_fd = make_down(size)
        self.raw = theirs
        self.host = Lane(ours, self.down, self.up)
        self.shim = Lane(theirs, UpWriter(up_fd, size), DownReader(self.down_fd, size))
        self.writer = up_fd

    def close(self) -> None:
        self.host.close()
        self.shim.close()
        self.up.close()
        self.down.close()
        os.close(self.down_fd)
        os.close(self.writer)


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


class Late(Exception):
    pass


def late() -> None:
    raise Late


def test_there_and_back(ends: Ends) -> None:
    for data in (b"", b"x" * 10, os.urandom(BULK), os.urandom(SIZE)):
        ends.host.begin()
        ends.host.send((1, 7, "handle", [ends.host.put(data)]))
        frame = ends.shim.recv()
        assert frame[:3] == [1, 7, "handle"]
        assert bytes(frame[3][0]) == data
        ends.shim.begin()
        ends.shim.send((10, 7, 0, ends.shim.put(data)))
        assert ends.host.recv() == [10, 7, 0, data]


def test_a_message_too_large_for_a_datagram_goes_through_the_window(ends: Ends) -> None:
    words = [f"key-{i:05}" for i in range(20_000)]
    for one, other in ((ends.host, ends.shim), (ends.shim, ends.host)):
        one.begin()
        one.send((2, 0, 0, words))
        assert other.recv() == [2, 0, 0, words]
    with pytest.raises(ValueError, match="fit the window"):
        ends.host.send((2, 0, 0, words * 10))


def test_what_was_put_before_stays(ends: Ends) -> None:
    ends.host.begin()
    ends.host.send((1, 0, "handle", [ends.host.put(b"a" * BULK)]))
    base = ends.host.used
    first = ends.shim.recv()[3][0]
    for fill in (b"b", b"c"):
        ends.host.begin(base)
        ends.host.send((2, 0, 0, ends.host.put(fill * BULK)))
        assert bytes(ends.shim.recv()[3]) == fill * BULK
    assert bytes(first) == b"a" * BULK


@pytest.mark.case("IPC-01")
@pytest.mark.parametrize(
    "data",
    [b"\x93\x01", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff\x01"],
    ids=["half", "array of 4 G", "bytes of 4 G", "map of 4 G"],
)
def test_half_and_huge_frames_are_faults(ends: Ends, data: bytes) -> None:
    ends.raw.send(data)
    with pytest.raises(ProtocolFault):
        ends.host.recv()


@pytest.mark.case("IPC-01")
def test_a_frame_over_the_limit_is_a_fault_and_one_at_it_is_not(ends: Ends) -> None:
    at_limit = msgpack.packb([9, b"x" * (MAX_FRAME - 5)])
    assert len(at_limit) == MAX_FRAME
    ends.raw.send(at_limit)
    assert ends.host.recv()[0] == 9
    ends.raw.send(at_limit + b"x")
    with pytest.raises(ProtocolFault, match="too large"):
        ends.host.recv()


@pytest.mark.case("IPC-01")
def test_who_never_answers_is_waited_for_as_long_as_the_caller_likes(ends: Ends) -> None:
    ticks = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            raise Late

    with pytest.raises(Late):
        ends.host.recv(tick)


@pytest.mark.case("IPC-02", "IPC-03", "IPC-05", "IPC-12")
@pytest.mark.parametrize(
    "value",
    [
        {},
        [9, {}],
        [9, {"a": 1}],
        [9, msgpack.Timestamp(1), msgpack.ExtType(2, b"x")],
        [9, msgpack.ExtType(1, b"short")],
        [9, msgpack.ExtType(1, (SIZE + 1).to_bytes(8, "little") + bytes(8))],
        [9, msgpack.ExtType(1, bytes(8) + (SIZE + 1).to_bytes(8, "little"))],
        [9, msgpack.ExtType(1, b"\xff" * 16)],
        7,
        None,
        "HELLO",
        [],
        ["9", 1],
        [None],
        [True, 1],
        [9 | 0x80, b"not a frame"],
        [9 | 0x80, 5],
        [9 | 0x80, msgpack.packb([8, 1])],
    ],
    ids=repr,
)
def test_what_no_peer_sends_is_a_fault(ends: Ends, value: Any) -> None:
    ends.raw.send(msgpack.packb(value))
    with pytest.raises(ProtocolFault):
        ends.host.recv()


@pytest.mark.case("IPC-03")
def test_nesting_is_a_fault_and_no_crash(ends: Ends) -> None:
    ends.raw.send(b"\x92\x09" + b"\x91" * (MAX_FRAME - 3) + b"\x01")
    with pytest.raises(ProtocolFault):
        ends.host.recv()


@pytest.mark.case("IPC-05")
def test_text_that_is_no_utf8_and_bytes_after_the_end(ends: Ends) -> None:
    for data in (b"\x92\x09\xa1\xff", b"\x92\x09\x01\x02", b"\x92\x09\xc1"):
        ends.raw.send(data)
        with pytest.raises(ProtocolFault):
            ends.host.recv()


@pytest.mark.case("IPC-04")
def test_a_large_frame_holds_so_many_arrays_and_no_more(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_LISTS", 100_000)
    ends.shim.begin()
    ends.shim.send((9, [[]] * 99_000))
    assert len(ends.host.recv()[1]) == 99_000
    ends.shim.begin()
    ends.shim.send((9, [[]] * 100_000))
    with pytest.raises(ProtocolFault, match="arrays"):
        ends.host.recv()


@pytest.mark.case("IPC-04")
def test_ranges_of_one_frame_measure_no_more_than_the_window(ends: Ends) -> None:
    whole = msgpack.ExtType(1, bytes(8) + SIZE.to_bytes(8, "little"))
    ends.raw.send(msgpack.packb([9, whole]))
    assert len(ends.host.recv()[1]) == SIZE
    ends.raw.send(msgpack.packb([9, whole, whole]))
    with pytest.raises(ProtocolFault, match="range"):
        ends.host.recv()


@pytest.mark.case("IPC-08")
def test_who_sends_and_never_reads_ends(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_SEND_SECONDS", 0.05)

    def answer_all() -> None:
        for seq in range(100_000):
            ends.host.send((2, seq, 0, b"x" * 1000, 0))

    with pytest.raises(ProtocolFault, match="read"):
        answer_all()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.case("IPC-09")
def test_descriptors_never_come_up(ends: Ends) -> None:
    with Path("/dev/null").open("rb") as file:
        rights = array.array("i", [file.fileno()] * 253)
        before = open_files()
        for _ in range(3):
            ends.raw.sendmsg(
                [msgpack.packb([9, 0])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            )
            with pytest.raises(ProtocolFault, match="descriptors"):
                ends.host.recv()
            assert ends.host.received == []
        assert open_files() == before


@pytest.mark.case("IPC-09")
def test_descriptors_go_down(ends: Ends) -> None:
    shim = Lane(ends.raw, None, None, descriptors=True)
    with Path(__file__).open("rb") as file:
        ends.host.send((2, 0, 0, None, 0), [file.fileno()])
        shim.recv()
        (taken,) = shim.received
        assert os.fstat(taken).st_ino == os.fstat(file.fileno()).st_ino
        assert not os.get_inheritable(taken)
        os.close(taken)
    ends.host.send((2, 1, 0, None, 0))
    shim.recv()


@pytest.mark.case("NAT-14")
def test_the_shim_can_t_write_to_the_window_that_it_reads(ends: Ends) -> None:
    with pytest.raises(PermissionError):
        mmap.mmap(ends.down_fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(ends.down_fd, b"x", 0)
    for fd in (ends.down_fd, ends.writer):
        with contextlib.suppress(OSError):  # one is not open for writing, the other is sealed
            os.ftruncate(fd, 0)
        assert os.fstat(fd).st_size == SIZE


def test_what_the_host_took_out_does_not_change(ends: Ends) -> None:
    ends.shim.begin()
    ends.shim.send((10, 0, 0, ends.shim.put(b"a" * BULK)))
    taken = ends.host.recv()[3]
    os.pwrite(ends.writer, b"b" * BULK, 0)
    assert taken == b"a" * BULK


def test_memory_of_large_values_is_given_back() -> None:
    ends = Ends(32 << 20)
    try:
        data = b"x" * (16 << 20)
        ends.host.begin()
        ends.host.send((1, 0, "handle", [ends.host.put(data)]))
        ends.shim.recv()
        ends.shim.begin()
        ends.shim.send((10, 0, 0, ends.shim.put(data)))
        ends.host.recv()
        assert os.fstat(ends.up.fd).st_blocks * 512 >= len(data)
        ends.up.trim()
        ends.down.trim()
        for fd in (ends.up.fd, ends.down.fd):
            assert os.fstat(fd).st_blocks * 512 <= 1 << 20
    finally:
        ends.close()


def test_a_peer_that_is_gone(ends: Ends) -> None:
    ends.raw.close()
    with pytest.raises(PeerClosed):
        ends.host.recv(late)
    with pytest.raises(PeerClosed):
        ends.host.send((1, 0))


def test_a_peer_that_goes_while_it_is_waited_for(ends: Ends) -> None:
    timer = threading.Timer(0.05, lambda: ends.raw.shutdown(socket.SHUT_RDWR))
    timer.start()
    with pytest.raises(PeerClosed):
        ends.host.recv(lambda: None)
    timer.join()


def test_an_empty_datagram_counts_as_the_end(ends: Ends) -> None:
    ends.raw.send(b"")
    with pytest.raises(PeerClosed):
        ends.host.recv(late)


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_a_frame_or_a_fault(data: bytes) -> None:
    ours, theirs = pair()
    host = Lane(ours, None, None)
    try:
        theirs.send(data)
        try:
            frame = host.recv()
        except ProtocolFault:
            return
        assert type(frame[0]) is int
    finally:
        ours.close()
        theirs.close()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=20,
)


@given(st.lists(_JSON, max_size=5))
def test_any_frame_crosses_as_it_is(rest: list[Any]) -> None:
    ours, theirs = pair()
    host, shim = Lane(ours, None, None), Lane(theirs, None, None)
    try:
        shim.send((9, *rest))
        assert host.recv() == [9, *rest]
    finally:
        ours.close()
        theirs.close()
