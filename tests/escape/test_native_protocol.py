"""A hostile plugin speaks to the host by itself: whatever it says out of turn is the end of its process."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from capwasm.errors import GuestCrashed
from capwasm.session import Session
from capwasm_shim import native_table
from capwasm_shim.native_table import SERVED
from capwasm_shim.protocol import Kind
from tests.escape.kernelcalls import LANE, call, calls, out, repeated, stored
from tests.escape.shooting import Range

MANIFEST = '[[fs]]\nmount = "/data"\nbind = "app"\naccess = "read"\n[clock]\n'
FILES = "capwasm:fs/files@0.1.0"
MOUNTS = SERVED.index((FILES, "mounts"))
OPEN = SERVED.index((FILES, "open"))
READ = SERVED.index((FILES, "[method]file.read"))
DESCRIPTOR = SERVED.index(native_table.DESCRIPTOR)
NOW = SERVED.index(("capwasm:clock/clock@0.1.0", "now"))
ASK, RETURN, HELLO = int(Kind.ASK), int(Kind.RETURN), int(Kind.HELLO)
STATS = [0, 0]
# Lines that wait for what is sent.
WAITS = call("fcntl", LANE, 4, 0)
# The descriptor that came with line 2, behind the head of its control message.
FD = stored(2, 4)
ANSWER = call("recvfrom", LANE, out(256), 256, 0, 0, 0)


def packed(*frame: Any) -> bytes:
    return bytes(msgpack.packb(frame))


def said(*frames: bytes) -> bytes:
    """Says these, one after the other, and reads no answer."""
    return calls(*(call("sendto", LANE, frame, len(frame), 0, 0, 0) for frame in frames))


def asked(*frame: Any) -> bytes:
    """Asks that, and shows the answer."""
    data = packed(*frame)
    return calls(WAITS, call("sendto", LANE, data, len(data), 0, 0, 0), ANSWER)


def answer_of(result: Any) -> list[Any]:
    """The ANSWER that the plugin shows."""
    shown = re.fullmatch(r"ok:\d+:([0-9a-f]+)", bytes(result.value).decode())
    assert shown
    data = bytes.fromhex(shown[1])
    unpacker = msgpack.Unpacker()
    # Zeros at its end are not shown.
    unpacker.feed(data + bytes(16))
    return list(unpacker.unpack())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    (data / "a.txt").write_text("hello")
    return data


@pytest.fixture(scope="module")
def policy(data: Path) -> str:
    return "".join(
        f'[[plugins."{name}".fs]]\nbind = "app"\npath = "{data}"\naccess = "read"\n'
        f'[plugins."{name}".clock]\n'
        for name in ("test.hostile", "test.early")
    )


@pytest.fixture(scope="module")
def range_(policy: str) -> Iterator[Range]:
    range_ = Range(MANIFEST, policy)
    yield range_
    range_.close()


# -- what is not to be said -----------------------------------------------------------------------------

_GOOD_ASK = packed(ASK, 0, MOUNTS, [], [])
_EXT = msgpack.ExtType

ORDER = {
    "the end of a call that was never made": packed(RETURN, 99, 0, [0, b""], [], STATS),
    "the end of the call before": packed(RETURN, 0, 0, [0, b""], [], STATS),
    "the end of the call after": packed(RETURN, 2, 0, [0, b""], [], STATS),
    "the end of a negative call": packed(RETURN, -1, 0, [0, b""], [], STATS),
    "the end of call true": packed(RETURN, True, 0, [0, b""], [], STATS),
    "an end by an abort that nobody asked for": packed(RETURN, 1, 3, None, [], STATS),
    "an end of no known kind": packed(RETURN, 1, 9, None, [], STATS),
    "an end with statistics below nothing": packed(RETURN, 1, 0, [0, b""], [], [-1, 0]),
    "an end without statistics": packed(RETURN, 1, 0, [0, b""], []),
    "an end with one thing more": packed(RETURN, 1, 0, [0, b""], [], STATS, "test.other"),
    "a question out of order": packed(ASK, 1, MOUNTS, [], []),
    "a question of number -1": packed(ASK, -1, MOUNTS, [], []),
    "a question of number 2^64-1": packed(ASK, 2**64 - 1, MOUNTS, [], []),
    "a question of number false": packed(ASK, False, MOUNTS, [], []),
    "a function that there is not": packed(ASK, 0, 10_000, [], []),
    "a function before the first": packed(ASK, 0, -1, [], []),
    "a function by its name": packed(ASK, 0, "mounts", [], []),
    "a question without its arguments": packed(ASK, 0, OPEN, [], []),
    "a question with one argument more": packed(ASK, 0, MOUNTS, ["test.other"], []),
    "a question on behalf of another": packed(ASK, 0, MOUNTS, [], [], "test.other"),
    "an argument of another type": packed(ASK, 0, OPEN, [7, 0], []),
    "an argument beyond its enum": packed(ASK, 0, OPEN, ["/data/a.txt", 99], []),
    "an argument that is a float": packed(ASK, 0, OPEN, ["/data/a.txt", 0.0], []),
    "an argument that is no number": packed(ASK, 0, OPEN, ["/data/a.txt", float("nan")], []),
    "an argument larger than its type": packed(ASK, 0, READ, [1, 0, 2**32], []),
    "a handle given up that is none": packed(ASK, 0, MOUNTS, [], ["1"]),
    "more handles given up than there can be": packed(ASK, 0, MOUNTS, [], [1] * 20_000),
    "a greeting in the midst": packed(HELLO, 1, [1, "Hostile", []]),
    "a greeting of an older version": packed(HELLO, 0, [1, "Hostile", []]),
    "a failure to load, when it is loaded": packed(11, "link.instantiate", "no"),
    **{f"the host's own word {kind}": packed(kind, 1, "handle", []) for kind in range(1, 7)},
    "a word that there is not": packed(77),
    "a word below nothing": packed(-1, 0),
    "a word that is true": packed(True, 0, MOUNTS, [], []),
    "a word that is text": packed("ask", 0, MOUNTS, [], []),
}  # fmt: skip

FORM = {
    "nothing in it": packed(),
    "no array": b"\x01",
    "text": b"\xa5hello",
    "half of it": _GOOD_ASK[:-1],
    "more than it": _GOOD_ASK + b"\x00",
    "two in one": _GOOD_ASK * 2,
    "an array of 4 G": b"\xdd\xff\xff\xff\xff",
    "a text of 4 G": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 G": b"\xc6\xff\xff\xff\xff",
    "an extension of 4 G": b"\xc9\xff\xff\xff\xff\x01",
    "a map": packed(ASK, 0, MOUNTS, {"a": 1}, []),
    "a map of 4 G": b"\xdf\xff\xff\xff\xff",
    "a map with one key twice": b"\x95\x09\x00\x00\x82\xa1a\x01\xa1a\x02\x90",
    "a time": b"\x95\x09\x00\x00\x91\xd6\xff\x00\x00\x00\x00\x90",
    "an extension that there is not": packed(ASK, 0, MOUNTS, [_EXT(5, bytes(16))], []),
    "a range of another size": packed(ASK, 0, MOUNTS, [_EXT(1, bytes(8))], []),
    "a range outside": packed(ASK, 0, MOUNTS, [_EXT(1, struct.pack("<QQ", 1 << 40, 16))], []),
    "a range that runs over": packed(
        ASK, 0, MOUNTS, [_EXT(1, struct.pack("<QQ", 2**64 - 8, 16))], []
    ),
    "ranges that are more than all": packed(
        ASK, 0, MOUNTS, [_EXT(1, struct.pack("<QQ", 0, 1 << 22))] * 4, []
    ),
    "a large frame without a range": packed(ASK | 0x80, b"x"),
    "a large frame that is another": packed(ASK | 0x80, _EXT(1, struct.pack("<QQ", 0, 64))),
    "a large frame in itself": packed(ASK | 0x80, _EXT(1, packed(ASK | 0x80, b"12345678ab"))),
    "text that is none": b"\x95\x09\x00\x01\x92\xa2\xff\xfe\x00\x90",
    "the byte that is never used": b"\xc1",
}

DEPTHS = {f"{n} arrays in each other": (0x91, n) for n in (600, 1_025, 60_000)}


@pytest.mark.case("IPC-01", "IPC-02", "IPC-03", "IPC-04", "IPC-05", "IPC-06", "IPC-07", "IPC-12")
@pytest.mark.parametrize("frame", [pytest.param(f, id=n) for n, f in (ORDER | FORM).items()])
def test_refuses_to_hear(range_: Range, frame: bytes) -> None:
    assert _refused(range_, said(frame))


@pytest.mark.case("IPC-03")
@pytest.mark.parametrize(("byte", "size"), [pytest.param(*d, id=n) for n, d in DEPTHS.items()])
def test_refuses_depth(range_: Range, byte: int, size: int) -> None:
    message = calls(call("sendto", LANE, repeated(byte, size), size, 0, 0, 0))

    assert _refused(range_, message)


@pytest.mark.case("IPC-01", "IPC-04")
@pytest.mark.parametrize(("byte", "size"), [(0x90, 65_536), (0xC0, 65_537), (0x80, 100_000)])
def test_refuses_size(range_: Range, byte: int, size: int) -> None:
    message = calls(call("sendto", LANE, repeated(byte, size), size, 0, 0, 0))

    assert _refused(range_, message)


@pytest.mark.case("IPC-06")
def test_refuses_a_question_again(range_: Range) -> None:
    assert _refused(range_, said(_GOOD_ASK, _GOOD_ASK))


def _refused(range_: Range, message: bytes) -> bool:
    """Whether the host killed the process for what it said."""
    shot = range_.shoot("calls", message)
    assert shot.answer.startswith("guest.protocol:"), shot.answer
    # Neither a path nor a traceback of the host's is in what is told.
    assert not re.search(r"/|Traceback|\.py|line \d", shot.answer), shot.answer
    return not Path(f"/proc/{shot.before['pid']}").exists() or _ends(shot.before["pid"])


def _ends(pid: int) -> bool:
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.005)
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.case("IPC-06", "IPC-10")
def test_allows_what_it_may_ask_however_it_is_asked(range_: Range) -> None:
    """The twin of all above: the frames do reach the host, and a right one is answered."""
    with range_.plugin.session() as session:
        result = session.call("handle", "calls", asked(ASK, 0, NOW, [], []))
        kind, seq, status, now, _ = answer_of(result)

    assert (kind, seq, status) == (Kind.ANSWER, 0, 0)
    assert abs(now / 1e9 - time.time()) < 60


# -- before and after a call ------------------------------------------------------------------------------


@pytest.mark.case("IPC-12", "NAT-20")
@pytest.mark.parametrize(
    "frame",
    [
        packed(HELLO, 2, [1, "Hostile", []]),
        packed(HELLO, True, [1, "Hostile", []]),
        packed(HELLO, 1, [2, "Hostile", []]),
        packed(HELLO, 1, ["1", "Hostile", []]),
        packed(HELLO, 1, None),
        packed(RETURN, 1, 0, [0, b""], [], STATS),
        _GOOD_ASK,
        b"\xc1",
    ],
)
def test_refuses_another_greeting(range_: Range, frame: bytes) -> None:
    shot = range_.shoot("environment", early=said(frame))

    assert shot.answer.startswith(("guest.protocol:", "link.")), shot.answer


@pytest.mark.case("IPC-12")
def test_refuses_what_follows_a_greeting(range_: Range) -> None:
    """A second greeting, the real one, comes where a call's end is waited for."""
    shot = range_.shoot("environment", early=said(packed(HELLO, 1, [1, "Early", []])))

    assert shot.answer.startswith("guest.protocol:"), shot.answer


@pytest.mark.case("IPC-06")
def test_refuses_a_second_end_of_a_call(range_: Range) -> None:
    forged = packed(RETURN, 1, 0, [0, b"forged"], [], STATS)
    with range_.plugin.session() as session:
        # To say what it returns is its own right; the end that follows belongs to no call.
        assert session.call("handle", "calls", said(forged)).value == b"forged"
        with pytest.raises(GuestCrashed) as caught:
            session.call("handle", "environment", b"")
    assert caught.value.code == "guest.protocol"


@pytest.mark.case("IPC-06")
def test_refuses_the_host_s_functions_after_the_call(range_: Range) -> None:
    with range_.plugin.session() as session:
        assert session.call("handle", "later", b"").value == b"ok:0"
        time.sleep(0.3)
        assert session.call("handle", "afterwards", b"").value == b"ok:-1"


# -- handles ----------------------------------------------------------------------------------------------


def _open(session: Session) -> int:
    answer = answer_of(session.call("handle", "calls", asked(ASK, 0, OPEN, ["/data/a.txt", 0], [])))
    assert answer[2:3] == [0]
    assert answer[3][0] == 0
    return int(answer[3][1])


def _read(session: Session, handle: int) -> Any:
    return answer_of(session.call("handle", "calls", asked(ASK, 0, READ, [handle, 0, 64], [])))[3]


@pytest.mark.case("IPC-07", "LIFE-07", "TYP-09")
def test_refuses_another_instance_s_handles(policy: str) -> None:
    closed = [1, 9]  # the index of `closed` in the error of capwasm:fs
    range_ = Range(MANIFEST, policy, "per-call")
    try:
        with range_.plugin.session() as one, range_.plugin.session() as two:
            handle = _open(one)

            assert _read(one, handle) == [0, b"hello"]
            for number in (handle, handle + 1, 2**31):
                assert _read(two, number) == closed
    finally:
        range_.close()


@pytest.mark.case("IPC-07", "IPC-11")
def test_tells_a_refusal_by_its_number_alone(range_: Range) -> None:
    ask = asked(ASK, 0, OPEN, ["/etc/passwd", 0], [])
    with range_.plugin.session() as session:
        answer = answer_of(session.call("handle", "calls", ask))

    assert answer[2:4] == [0, [1, 0]]


# -- descriptors --------------------------------------------------------------------------------------------


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.case("IPC-09")
@pytest.mark.parametrize("count", [1, 253])
def test_refuses_descriptors(range_: Range, count: int) -> None:
    range_.shoot("environment")
    before = _descriptors()
    rights = struct.pack(f"<Qii{count}i", 16 + 4 * count, 1, 1, *[0] * count)
    rights += bytes(-len(rights) % 8)
    parts = (_GOOD_ASK, len(_GOOD_ASK))

    assert _refused(
        range_, calls(call("sendmsg", LANE, (0, 0, parts, 1, rights, len(rights), 0), 0))
    )

    assert _descriptors() == before


def _with_descriptor(handle: int, *then: str) -> bytes:
    """Asks for the file's descriptor, and goes on with it; it is `FD`."""
    ask = packed(ASK, 0, DESCRIPTOR, [handle], [])
    return calls(
        WAITS,
        call("sendto", LANE, ask, len(ask), 0, 0, 0),
        call("recvmsg", LANE, (0, 0, (out(256), 256), 1, out(24), 24, 0), 0),
        *then,
    )


@pytest.mark.case("IPC-09", "NAT-14")
def test_allows_a_descriptor_to_be_read_and_refuses_all_else(range_: Range, data: Path) -> None:
    before = (data / "a.txt").stat()
    refused = {
        call("write", FD, b"x", 1): "EBADF",
        call("pwrite64", FD, b"x", 1, 0): "EBADF",
        call("ftruncate", FD, 0): "EPERM",
        call("fallocate", FD, 0, 0, 4096): "EPERM",
        call("fchmod", FD, 0o777): "EPERM",
        call("fchown", FD, 0, 0): "EPERM",
        call("flock", FD, 2): "EPERM",
        call("fcntl", FD, 6, bytes(32)): "EPERM",  # a lock
        call("fcntl", FD, 1024, 0): "EPERM",  # a lease
        call("fcntl", FD, 8, 1): "EPERM",  # who is told of it
        call("ioctl", FD, 0x40086602, bytes(8)): "EPERM",  # its flags
        call("fsetxattr", FD, "user.x", "x", 1, 0): "EPERM",
        call("openat", FD, "..", 0): "ENOTDIR",
        call("fchdir", FD): "EPERM",
        call("linkat", FD, "", -100, "/x", 0x1000): "EPERM",
        call("mmap", 0, 4096, 3, 1, FD, 0): "EACCES",
        call("execveat", FD, "", 0, 0, 0x1000): "EPERM",
    }

    def tried(line: str) -> str:
        with range_.plugin.session() as session:
            message = _with_descriptor(_open(session), line)
            return bytes(session.call("handle", "calls", message).value).decode()

    assert tried(call("pread64", FD, out(5), 5, 0)) == f"ok:5:{b'hello'.hex()}"
    for line, name in refused.items():
        assert tried(line) == f"errno:{name}@3", line
    after = (data / "a.txt").stat()
    assert (after.st_mode, after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_mode,
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


# -- too much, and nothing at all -----------------------------------------------------------------------------


@pytest.mark.case("IPC-08")
def test_refuses_to_answer_who_never_reads(range_: Range) -> None:
    began = time.monotonic()
    shot = range_.shoot("flood", b"10000")

    assert shot.answer.startswith("guest.protocol:"), shot.answer
    assert time.monotonic() - began < 20


@pytest.mark.case("IPC-01", "IPC-08")
def test_refuses_to_wait_for_the_rest(tmp_path: Path) -> None:
    """Silence in the midst of a call ends with the call's own time."""
    range_ = Range("[limits]\nwall-ms = 300\n")
    try:
        shot = range_.shoot("calls", calls(WAITS, ANSWER))
        assert shot.answer.startswith("limit.deadline:"), shot.answer
    finally:
        range_.close()


@pytest.mark.case("IPC-01")
@pytest.mark.parametrize("line", [call("shutdown", LANE, 2), call("close", LANE)])
def test_refuses_a_lane_that_is_closed(range_: Range, line: str) -> None:
    shot = range_.shoot("calls", calls(line, call("nanosleep", struct.pack("<qq", 5, 0), 0)))

    assert shot.answer.startswith(("guest.crashed:", "exited:", "killed:")), shot.answer


@pytest.mark.case("IPC-01")
def test_refuses_a_datagram_of_nothing(range_: Range) -> None:
    shot = range_.shoot("calls", said(b""))

    assert shot.answer.startswith(("guest.crashed:", "guest.protocol:")), shot.answer


# -- results that are none -------------------------------------------------------------------------------------


@pytest.mark.case("IPC-06", "RES-17")
@pytest.mark.parametrize(
    ("how", "said"),
    [
        (b"n", "guest.trap:the result has a size and no data"),
        (b"w", "killed:SIGSEGV"),
        (b"h", "limit.value:"),
        (b"?", "guest.trap:capwasm_plugin_call returned 77"),
    ],
)
def test_refuses_a_result_that_is_none(range_: Range, how: bytes, said: str) -> None:
    assert range_.shoot("lie", how).answer.startswith(said)


@pytest.mark.case("IPC-05")
def test_an_error_that_is_no_text_becomes_some(range_: Range) -> None:
    with range_.plugin.session() as session:
        result = session.call("handle", "lie", b"u")
    assert not result.ok
    assert result.error == "\ufffd" * 4
