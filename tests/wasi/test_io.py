"""Polling and streams: they hold nothing, wait within the call's time, and trap where WIT says so."""

from __future__ import annotations

import threading
import time
import tracemalloc
from dataclasses import replace

import pytest

from capwasm.caps.clock.handle import SystemTime
from capwasm.errors import (
    CallInterrupted,
    CapError,
    DeadlineExceeded,
    GuestTrap,
    HandleLimitExceeded,
    ValueLimitExceeded,
)
from capwasm.handles import HandleTable, Lease
from capwasm.limits import DEFAULTS
from capwasm.values import Err
from capwasm.wasi.io import MAX_BLOCKING, MAX_CHUNK, MAX_POLL, InputStream, OutputStream, Pollable
from tests.helpers import in_call

from .served import CLOSED, VirtualTime, Wasi, clock_state


class Memory(OutputStream):
    """Keeps what it is given, or fails with a word."""

    __slots__ = ("data", "fails")

    def __init__(self) -> None:
        super().__init__(Lease())
        self.data = bytearray()
        self.fails: str | None = None

    def push(self, data: bytes) -> None:
        if self.fails:
            raise CapError(self.fails, "/host/path: secret detail")
        self.data += data


class Source(InputStream):
    """Gives its chunks in turn, then the end."""

    __slots__ = ("chunks",)

    def __init__(self, *chunks: bytes) -> None:
        super().__init__(Lease())
        self.chunks = list(chunks)

    def pull(self, length: int) -> bytes | None:
        if not self.chunks:
            return None
        head, self.chunks[0] = self.chunks[0][:length], self.chunks[0][length:]
        if not self.chunks[0]:
            self.chunks.pop(0)
        if head == b"broken":
            raise CapError("io")
        return head


def test_allows_reading_to_the_end_and_then_says_closed() -> None:
    wasi, stream = Wasi(), Source(b"abc", b"de")

    assert wasi.method("input-stream", "read", stream, 2) == b"ab"
    assert wasi.method("input-stream", "blocking-read", stream, 9) == b"c"
    assert wasi.method("input-stream", "read", stream, 0) == b""
    assert wasi.method("input-stream", "read", stream, 2**64 - 1) == b"de"
    assert wasi.method("input-stream", "read", stream, 1) == CLOSED
    assert wasi.method("input-stream", "read", stream, 0) == CLOSED


def test_allows_skipping_and_the_guest_pays_for_it() -> None:
    wasi, stream = Wasi(), Source(b"abcdef")

    with in_call() as call:
        assert wasi.method("input-stream", "skip", stream, 2) == 2
        assert wasi.method("input-stream", "blocking-skip", stream, 100) == 4
        assert wasi.method("input-stream", "skip", stream, 1) == CLOSED

    assert call.host_fuel == 6


@pytest.mark.case("RES-15")
def test_refuses_to_read_more_than_a_chunk_whatever_length_is_asked() -> None:
    stream = Source(bytes(5 * MAX_CHUNK))

    assert len(Wasi().method("input-stream", "read", stream, 2**64 - 1)) == MAX_CHUNK


def test_refuses_to_go_on_after_a_failed_read_and_tells_one_word() -> None:
    wasi, stream = Wasi(), Source(b"broken", b"more")

    failed = wasi.method("input-stream", "read", stream, 10)

    assert isinstance(failed, Err)
    assert failed.error.case == "last-operation-failed"
    assert wasi.method("error", "to-debug-string", failed.error.value) == "io"
    assert wasi.method("input-stream", "read", stream, 10) == CLOSED


def test_refuses_to_leak_host_text_through_an_error() -> None:
    wasi, out = Wasi(), Memory()
    out.fails = "insufficient-space"

    failed = wasi.method("output-stream", "blocking-write-and-flush", out, b"x")

    assert wasi.method("error", "to-debug-string", failed.error.value) == "insufficient-space"
    assert wasi["filesystem/types.filesystem-error-code"](failed.error.value) is None
    assert wasi.method("output-stream", "check-write", out) == CLOSED
    assert wasi.method("output-stream", "flush", out) == CLOSED


def test_allows_writing_within_the_permit() -> None:
    wasi, out = Wasi(), Memory()

    assert wasi.method("output-stream", "check-write", out) == MAX_CHUNK
    assert wasi.method("output-stream", "write", out, b"ab") is None
    assert wasi.method("output-stream", "write", out, b"cd") is None
    assert wasi.method("output-stream", "flush", out) is None
    assert wasi.method("output-stream", "blocking-flush", out) is None
    assert out.data == b"abcd"


@pytest.mark.parametrize("size", [1, MAX_CHUNK + 1])
def test_refuses_a_write_over_the_permit_with_a_trap(size: int) -> None:
    wasi, out = Wasi(), Memory()
    if size > MAX_CHUNK:
        wasi.method("output-stream", "check-write", out)

    with pytest.raises(GuestTrap, match="permitted"):
        wasi.method("output-stream", "write", out, bytes(size))
    with in_call(), pytest.raises(GuestTrap, match="permitted"):
        wasi.method("output-stream", "write-zeroes", out, 2**64 - 1)
    assert not out.data


def test_refuses_to_let_two_writes_share_one_permit() -> None:
    wasi, out = Wasi(), Memory()
    wasi.method("output-stream", "check-write", out)
    wasi.method("output-stream", "write", out, bytes(MAX_CHUNK))

    with pytest.raises(GuestTrap):
        wasi.method("output-stream", "write", out, b"x")


def test_refuses_a_blocking_write_over_4096_bytes_with_a_trap() -> None:
    wasi, out = Wasi(), Memory()

    assert (
        wasi.method("output-stream", "blocking-write-and-flush", out, bytes(MAX_BLOCKING)) is None
    )
    with pytest.raises(GuestTrap, match="4096"):
        wasi.method("output-stream", "blocking-write-and-flush", out, bytes(MAX_BLOCKING + 1))
    with pytest.raises(GuestTrap, match="4096"):
        wasi.method("output-stream", "blocking-write-zeroes-and-flush", out, MAX_BLOCKING + 1)


def test_allows_zeroes_and_the_guest_pays_for_them() -> None:
    wasi, out = Wasi(), Memory()

    with in_call() as call:
        wasi.method("output-stream", "check-write", out)
        assert wasi.method("output-stream", "write-zeroes", out, 1000) is None
        assert wasi.method("output-stream", "blocking-write-zeroes-and-flush", out, 24) is None

    assert (out.data, call.host_fuel) == (bytes(1024), 1024)


def test_allows_splicing_and_the_guest_pays_for_it() -> None:
    wasi, out, src = Wasi(), Memory(), Source(b"abc", bytes(3 * MAX_CHUNK))

    with in_call() as call:
        assert wasi.method("output-stream", "splice", out, src, 2) == 2
        assert wasi.method("output-stream", "blocking-splice", out, src, 2**64 - 1) == 1
        assert wasi.method("output-stream", "splice", out, src, 2**64 - 1) == MAX_CHUNK

    assert out.data[:3] == b"abc"
    assert call.host_fuel == len(out.data) == MAX_CHUNK + 3


def test_refuses_to_splice_from_or_to_what_is_closed() -> None:
    wasi, out = Wasi(), Memory()

    with in_call():
        assert wasi.method("output-stream", "splice", out, Source(), 5) == CLOSED
        out.close()
        src = Source(b"kept")
        assert wasi.method("output-stream", "splice", out, src, 5) == CLOSED
    assert src.chunks == [b"kept"]


def test_refuses_every_operation_once_the_lease_is_revoked() -> None:
    wasi, out, src = Wasi(), Memory(), Source(b"abc")
    out.lease.revoke("test")
    src.lease.revoke("test")

    assert wasi.method("input-stream", "read", src, 1) == CLOSED
    assert wasi.method("output-stream", "check-write", out) == CLOSED
    assert wasi.method("output-stream", "blocking-write-and-flush", out, b"x") == CLOSED
    assert not out.data


@pytest.mark.case("RES-19")
def test_refuses_to_grow_by_empty_writes_reads_and_flushes() -> None:
    wasi, out, src = Wasi(), Memory(), Source(b"x")
    write, flush = wasi["io/streams.[method]output-stream.write"], out.flush
    check, read = out.check_write, wasi["io/streams.[method]input-stream.read"]
    write(out, b"")

    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(20_000):
        write(out, b"")
        out.blocking_write_and_flush(b"")
        check()
        flush()
        read(src, 0)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 16_000
    assert peak - before < 32_000
    assert not out.data


# -- polling -----------------------------------------------------------------------------------


def test_allows_polling_what_is_ready_without_waiting() -> None:
    wasi, out, src = Wasi(), Memory(), Source(b"x")
    ready = [
        wasi.method("output-stream", "subscribe", out),
        wasi.method("input-stream", "subscribe", src),
    ]

    with in_call():
        assert wasi["io/poll.poll"](ready) == [0, 1]
        assert wasi.method("pollable", "ready", ready[0]) is True
        assert wasi.method("pollable", "block", ready[0]) is None


def test_refuses_an_empty_poll_with_a_trap() -> None:
    with in_call(), pytest.raises(GuestTrap, match="empty"):
        Wasi()["io/poll.poll"]([])


@pytest.mark.case("RES-24")
def test_refuses_a_poll_of_too_many() -> None:
    poll = Wasi()["io/poll.poll"]
    one = Pollable(Lease())

    with in_call():
        assert len(poll([one] * MAX_POLL)) == MAX_POLL
        with pytest.raises(ValueLimitExceeded):
            poll([one] * (MAX_POLL + 1))


def test_allows_a_poll_to_wait_for_the_nearest_timer() -> None:
    source = VirtualTime()
    wasi = Wasi({"clock": clock_state(source)})
    after = wasi["clocks/monotonic-clock.subscribe-duration"]

    with in_call():
        timers = [after(50_000_000), after(20_000_000), after(2**64 - 1)]
        assert [t.ready() for t in timers] == [False, False, False]
        assert wasi["io/poll.poll"](timers) == [1]
        assert 20_000_000 <= source.slept < 22_000_000
        timers[0].block()
        assert wasi["io/poll.poll"](timers) == [0, 1]


@pytest.mark.case("RES-24")
def test_refuses_to_sleep_for_years() -> None:
    wasi = Wasi({"clock": clock_state(SystemTime())})
    began = time.monotonic()

    with in_call(replace(DEFAULTS, wall_ms=60)), pytest.raises(DeadlineExceeded, match="wall-ms"):
        wasi["clocks/monotonic-clock.subscribe-duration"](2**64 - 1).block()
    with (
        in_call(replace(DEFAULTS, host_call_ms=60)),
        pytest.raises(DeadlineExceeded, match="host-call-ms"),
    ):
        wasi["clocks/monotonic-clock.subscribe-instant"](2**64 - 1).block()

    assert time.monotonic() - began < 5


@pytest.mark.case("RES-24")
def test_refuses_to_sleep_on_after_a_kill() -> None:
    wasi = Wasi({"clock": clock_state(SystemTime())})
    began = time.monotonic()

    with in_call() as call:
        killer = threading.Timer(0.05, call.interrupt, ["killed"])
        killer.start()
        with pytest.raises(CallInterrupted, match="killed"):
            wasi["clocks/monotonic-clock.subscribe-duration"](4_000_000_000).block()
        killer.join()

    assert time.monotonic() - began < 2


@pytest.mark.case("RES-24")
def test_refuses_ten_thousand_timers_and_starts_no_thread_for_any() -> None:
    wasi = Wasi({"clock": clock_state(SystemTime())})
    table, threads = HandleTable(DEFAULTS.handles), threading.active_count()

    with in_call():
        timers = [wasi["clocks/monotonic-clock.subscribe-duration"](10**12) for _ in range(10_000)]
    for timer in timers[: DEFAULTS.handles]:
        table.add(timer)
    with pytest.raises(HandleLimitExceeded):
        table.add(timers[-1])

    assert len(table) == DEFAULTS.handles
    assert threading.active_count() == threads
