"""What goes over the wire and what comes back: headers, bodies, limits, secrets."""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from capwasm.caps.net import Net
from capwasm.caps.net.request import RequestSpec, prepare
from capwasm.errors import CapError, NetBudgetExceeded
from capwasm.events import FAILED
from capwasm.limits import DEFAULTS
from tests.helpers import ListRecorder, in_call, open_context

from .servers import Got, Place, http

both = pytest.mark.usefixtures("door")
"""The case holds for `wasi:http` too, and is run through it."""


# -- requests ------------------------------------------------------------------------------------


@both
@pytest.mark.case("NET-19")
@pytest.mark.parametrize(
    "name",
    [
        "Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "TE", "Trailer", "Keep-Alive",
        "Proxy-Authorization", "Proxy-Connection", "proxy-anything", "Expect", "HTTP2-Settings", "hOsT", "Via",
    ],
)  # fmt: skip
def test_refuses_headers_that_are_the_host_s_own(place: Place, name: str) -> None:
    assert place.refused(headers=[(name, "x")]) == "denied"
    assert place.origin.connections == 0
    if place.bench.door.name == "fetch":  # else there is no request yet
        assert place.bench.reasons == ["forbidden-header"]


@both
@pytest.mark.case("NET-18")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", "a\r\nHost: evil"), ("X", "a\nb"), ("X", "a\rb"), ("X", "a\0b"), ("X", "é"), ("X", "\x7f"),
        ("X\r\nY", "a"), ("X Y", "a"), ("X:", "a"), ("", "a"), (" X", "a"), ("X\0", "a"), ("Hést", "a"),
        ("Host ", "a"), ("X" * 300, "a"), ("X", "\u2028"),
    ],
)  # fmt: skip
def test_refuses_malformed_headers_before_any_socket(place: Place, name: str, value: str) -> None:
    assert place.refused(headers=[(name, value)]) == "invalid"
    assert place.origin.connections == 0


@both
@pytest.mark.case("NET-18", "NET-20")
@pytest.mark.parametrize(
    "method",
    [
        "GET\r\nX: y",
        "GET /x HTTP/1.1\r\n",
        "get",
        "CONNECT",
        "TRACE",
        "",
        "GET ",
        "PRI",
        "GET http://other/",
    ],
)
def test_refuses_methods_that_are_none(place: Place, method: str) -> None:
    assert place.refused(method=method) == "invalid"
    assert place.origin.connections == 0


@both
@pytest.mark.case("NET-20")
def test_the_target_is_always_a_path(place: Place) -> None:
    for path in ("/http://other/", "//other/", "/?http://other/"):
        place.fetch(path)
    assert [g.line for g in place.origin.got] == [
        "GET /http://other/ HTTP/1.1",
        "GET //other/ HTTP/1.1",
        "GET /?http://other/ HTTP/1.1",
    ]


def test_allows_ordinary_headers_and_adds_the_host_s_own(place: Place) -> None:
    place.fetch(
        headers=[("X-A", " 1\t"), ("x-a", "2"), ("Accept-Encoding", "br"), ("Cookie", "c=1")]
    )
    got = place.origin.got[0]
    assert got.all("x-a") == ["1", "2"]
    assert got.all("accept-encoding") == ["gzip, deflate"]
    assert got.all("cookie") == ["c=1"]
    assert got.all("host") == [f"api.test:{place.origin.port}"]
    assert got.all("user-agent") == ["capwasm"]
    assert got.all("content-length") == []


@both
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_allows_a_body(place: Place, method: str) -> None:
    place.fetch(method=method, body=b"x" * 100_000)
    assert place.origin.got[0].body == b"x" * 100_000


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_refuses_a_body_where_there_is_none(place: Place, method: str) -> None:
    assert place.refused(method=method, body=b"") == "invalid"


@both
def test_refuses_too_many_headers(place: Place) -> None:
    assert place.refused(headers=[("X", "y")] * 101) == "too-large"
    assert place.refused(headers=[("X", "y" * 33_000)]) == "too-large"
    assert place.fetch(headers=[("X", "y")] * 100)[1] == b"hello"
    assert place.origin.connections == 1


@pytest.mark.case("NET-29")
@pytest.mark.parametrize(
    "timeout", [0, -1, 2**32, 2**64, 1.5, float("nan"), float("inf"), True, "1"]
)
def test_refuses_an_odd_timeout(timeout: Any) -> None:
    with pytest.raises(CapError) as caught:
        prepare(RequestSpec("GET", "https://a.com/", timeout_ms=timeout))
    assert caught.value.word == "invalid"


@both
@pytest.mark.case("NET-29")
def test_allows_a_plain_timeout(place: Place) -> None:
    assert place.fetch(timeout_ms=5_000)[1] == b"hello"
    assert place.fetch(timeout_ms=2**32 - 1)[1] == b"hello"


# -- time ----------------------------------------------------------------------------------------


def drip(
    stop: threading.Event, piece: bytes, head: bytes = b""
) -> Callable[[Got], Iterator[bytes]]:
    def answer(_: Got) -> Iterator[bytes]:
        if head:
            yield head
        while not stop.wait(0.01):
            yield piece

    return answer


@pytest.mark.case("NET-23")
@pytest.mark.parametrize(
    ("piece", "head"),
    [
        (b"H", b""),
        (b"X: y\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
        (b".", b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"),
        (b"1\r\n.\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b".", b"HTTP/1.1 200 OK\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_a_slow_drip_ends_with_the_deadline(
    place: Place, piece: bytes, head: bytes, own: bool
) -> None:
    stop = threading.Event()
    place.origin.answer = drip(stop, piece, head)
    began = time.monotonic()
    words = {"timeout_ms": 200} if own else {"limits": replace(DEFAULTS, host_call_ms=200)}
    word = place.refused(**words)
    stop.set()
    assert word in ("timeout", "unavailable")  # a malformed head may be noticed first
    assert time.monotonic() - began < 2


@both
@pytest.mark.case("NET-23")
def test_a_host_that_never_reads_ends_with_the_deadline(place: Place) -> None:
    stop = threading.Event()
    place.origin._read = lambda _: stop.wait(10) and None  # type: ignore[method-assign]
    began = time.monotonic()
    assert place.refused(method="POST", body=b"x" * 8_000_000, timeout_ms=200) == "timeout"
    assert time.monotonic() - began < 2
    stop.set()


def test_each_read_has_the_time_of_its_own_call(place: Place) -> None:
    def answer(_: Got) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
        for _n in range(4):
            time.sleep(0.5)
            yield b"x"

    place.origin.answer = answer
    limits = replace(DEFAULTS, host_call_ms=1_500)  # less than all four take together
    with in_call(limits) as call:
        response = place.send(call)
        assert b"".join(response.read(10) for _ in range(4)) == b"xxxx"
        assert response.read(10) == b""
        response.close()


# -- sizes ---------------------------------------------------------------------------------------


@both
@pytest.mark.case("NET-23")
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 250,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n",
        b"HTTP/1.1 200 " + b"y" * 1_000_000 + b"\r\n",
    ],
)
def test_refuses_a_head_that_is_too_large(place: Place, head: bytes) -> None:
    place.origin.answer = lambda _: head + b"Content-Length: 0\r\n\r\n"
    assert place.refused() == "too-large"


@both
@pytest.mark.case("NET-24")
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX Y: z\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
        b"\x00" * 100,
    ],
)
def test_refuses_answers_that_are_not_http_as_it_should_be(place: Place, answer: bytes) -> None:
    place.origin.answer = lambda _: [answer, b""]
    assert place.refused() == "unavailable"
    assert place.bench.recorder.events[-1].verdict == FAILED


@both
def test_an_answer_too_many_is_never_taken_for_the_next(place: Place) -> None:
    place.origin.answer = lambda g: http(b"mine") + (http(b"planted") if "/a" in g.line else b"")
    assert place.fetch("/a")[1] == b"mine"
    time.sleep(0.05)
    assert place.fetch("/b")[1] == b"mine"
    assert place.origin.connections == 2


@both
@pytest.mark.case("NET-22")
@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda d: zlib.compress(d)[2:-4]),
        ("identity", lambda d: d),
        ("GZIP", gzip.compress),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 65_536, 300_000])
def test_undoes_one_encoding(place: Place, encoding: str, encode: Any, size: int) -> None:
    data = bytes(i * i % 251 for i in range(size))
    place.origin.answer = lambda _: http(encode(data), headers=[("Content-Encoding", encoding)])
    response, body = place.fetch()
    assert body == data
    assert not {"content-encoding", "content-length"} & {n.lower() for n, _ in response.headers}


@both
@pytest.mark.case("NET-22")
@pytest.mark.parametrize("size", [65_537, 65_539, 131_073])
def test_misses_nothing_that_the_decoder_still_holds(place: Place, size: int) -> None:
    # zlib has taken all the input here, and not yet given all the output.
    data = zlib.compress(bytes(size), 9)[2:-4]
    place.origin.answer = lambda _: http(data, headers=[("Content-Encoding", "deflate")])
    assert place.fetch()[1] == bytes(size)


@both
@pytest.mark.case("NET-22")
def test_refuses_a_body_that_grows_too_much_whatever_the_budget(place: Place) -> None:
    def answer(data: bytes) -> bytes:
        return http(gzip.compress(data, 9), headers=[("Content-Encoding", "gzip")])

    limits = replace(DEFAULTS, net_bytes=2**30, value_bytes=2**26)
    place.origin.answer = lambda _: answer(bytes(5_000_000))
    assert place.refused(limits=limits) == "too-large"
    text = b"".join(b"%d, and so on; " % n for n in range(200_000))
    place.origin.answer = lambda _: answer(text)
    assert place.fetch(limits=limits)[1] == text


@both
@pytest.mark.case("NET-22")
@pytest.mark.parametrize(
    "encodings",
    [
        ["gzip, gzip"],
        ["gzip", "gzip"],
        ["gzip, identity, deflate"],
        ["br"],
        ["zstd"],
        ["compress"],
        ["x"],
        ["gzip,br"],
    ],
)
def test_refuses_other_encodings_and_chains(place: Place, encodings: list[str]) -> None:
    data = gzip.compress(gzip.compress(b"x"))
    place.origin.answer = lambda _: http(data, headers=[("Content-Encoding", e) for e in encodings])
    assert place.refused() == "unavailable"


@both
@pytest.mark.case("NET-22")
@pytest.mark.parametrize(
    "data",
    [
        b"not gzip",
        gzip.compress(b"x" * 1000, mtime=0)[:-9],
        gzip.compress(b"x", mtime=0) + b"more",
        gzip.compress(b"x", mtime=0) * 2,
    ],
)
def test_refuses_damaged_encodings(place: Place, data: bytes) -> None:
    place.origin.answer = lambda _: http(data, headers=[("Content-Encoding", "gzip")])
    assert place.refused() == "unavailable"


@pytest.mark.case("NET-22")
def test_refuses_a_bomb_early_and_keeps_it_small(place: Place) -> None:
    bomb = gzip.compress(b"\0" * 300_000_000, 9)
    place.origin.answer = lambda _: http(bomb, headers=[("Content-Encoding", "gzip")])
    with in_call(replace(DEFAULTS, wall_ms=60_000, host_call_ms=60_000)) as call:
        response = place.send(call)
        total = 0
        with pytest.raises(CapError) as caught:  # noqa: PT012  how much came before it, matters
            while True:
                total += len(response.read(1_000_000))
        assert caught.value.word == "too-large"
        assert total <= call.limits.net_bytes
        assert len(response._hop._body._ready) < 200_000
        assert call.host_fuel >= total


@pytest.mark.case("NET-22")
def test_never_decodes_a_bomb_in_a_redirect(place: Place) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000, 9)
    place.origin.answer = lambda g: (
        http()
        if "/b" in g.line
        else http(bomb, 302, [("Content-Encoding", "br, gzip"), ("Location", "/b")])
    )
    with in_call() as call:
        response = place.send(call, "/a")
        assert response.read_all(100) == b"hello"
        assert call.host_fuel < 1_000


@both
def test_head_and_no_content_have_no_body(place: Place) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nContent-Encoding: br\r\n\r\n"
    place.origin.answer = lambda g: head if g.line.startswith("HEAD") else b"HTTP/1.1 204 X\r\n\r\n"
    response, body = place.fetch(method="HEAD")
    assert (body, dict(response.headers)["Content-Length"]) == (b"", "12345")
    assert place.fetch()[1] == b""


def test_reads_in_pieces_and_all_at_once(place: Place) -> None:
    data = bytes(range(256)) * 1000
    place.origin.answer = lambda _: http(data)
    with in_call() as call:
        response = place.send(call)
        assert response.read(3) == data[:3]
        with pytest.raises(CapError) as caught:
            response.read(0)
        assert caught.value.word == "invalid"
        assert response.read_all(len(data)) == data[3:]
        assert (response.read(1), response.read_all(0)) == (b"", b"")
        response.close()
        with pytest.raises(CapError) as caught:
            response.read(1)
        assert caught.value.word == "closed"


def test_refuses_to_read_all_of_too_much(place: Place) -> None:
    place.origin.answer = lambda _: http(b"x" * 1000)
    with in_call() as call:
        assert place.send(call).read_all(1000) == b"x" * 1000
        response = place.send(call)
        for _ in range(2):
            with pytest.raises(CapError) as caught:
                response.read_all(999)
            assert caught.value.word == "too-large"


@both
@pytest.mark.parametrize("up", [True, False])
def test_the_byte_budget_ends_the_call(place: Place, up: bool) -> None:
    place.origin.answer = lambda _: http(b"x" * 60_000)
    limits = replace(DEFAULTS, net_bytes=50_000)
    with in_call(limits) as call:
        if up:
            with pytest.raises(CapError) as caught:
                place.send(call, method="POST", body=b"x" * 50_001)
            assert (caught.value.word, place.origin.connections) == ("too-large", 0)
        with pytest.raises(NetBudgetExceeded):
            place.send(call).read_all(100_000)
        assert call.net_bytes <= 50_001
    assert place.bench.recorder.events[-1].reason == "limit.net-bytes"
    place.origin.answer = lambda _: http(b"x" * 40_000)
    assert len(place.fetch(limits=limits)[1]) == 40_000


def test_dropping_a_response_closes_its_connection(place: Place) -> None:
    place.origin.answer = lambda _: http(b"x" * 10_000_000)
    with in_call() as call:
        response = place.send(call)
        response.read(10)
        response.close()
        response.close()
    assert place.origin.gone.wait(5)
    assert place.bench.reasons == ["sent", "dropped"]


def test_closing_the_engine_closes_everything(place: Place) -> None:
    with in_call() as call:
        place.send(call).read_all(100)
        held = place.send(call)
        place.bench.engine.close()
        with pytest.raises(CapError):
            held.read(1)
    assert len(place.bench.engine._pool) == 0
    assert place.origin.gone.wait(5)


# -- the interface -------------------------------------------------------------------------------


def test_serves_the_interface_as_its_wit_says(place: Place, tmp_path: Any) -> None:
    place.origin.answer = lambda _: http(b"abc", 201, [("X-A", "1")])
    recorder = ListRecorder()
    net = Net(resolver=lambda *_: ["127.0.0.1"])
    state = net.open(place.grant, open_context(tmp_path, recorder=recorder))
    (served,) = net.serve(state)
    f = served.functions
    assert served.name == net.interfaces[0]
    assert set(f) == {
        "send",
        *(f"[method]response.{m}" for m in ("status", "headers", "url", "read", "read-all")),
    }
    request = SimpleNamespace(
        method="POST",
        url=place.base,
        headers=[SimpleNamespace(name="X-B", value="2")],
        body=b"body",
        timeout_ms=None,
        redirects="follow",
    )
    with in_call():
        response = f["send"](request, [])
        assert isinstance(response, served.resources["response"])
        assert f["[method]response.status"](response) == 201
        assert f["[method]response.headers"](response) == [{"name": "X-A", "value": "1"}]
        assert f["[method]response.url"](response) == place.base + "/"
        assert f["[method]response.read"](response, 1) == b"a"
        assert f["[method]response.read-all"](response, 9) == b"bc"
    net.close(state)
    assert {e.plugin for e in recorder.events} == {"acme.demo@1.0.0"}
    assert (place.origin.got[0].body, place.origin.got[0].all("x-b")) == (b"body", ["2"])
