"""Bodies through `wasi:http`: framing, lengths, trailers, and what may be held."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from capwasm.errors import GuestTrap, NetBudgetExceeded
from capwasm.values import Err, Ok
from tests.caps.net.doors import Coded, Reply, WebGuest
from tests.caps.net.servers import Got, Place, http
from tests.helpers import in_call

from .web import LIMITS, guest, told


def upload(
    web: WebGuest, url: str, pieces: list[bytes], headers: Any = (), trailers: Any = None
) -> Reply:
    request = web.request("POST", url, headers)
    body = web.method("outgoing-request.body", request)
    assert web.method("outgoing-request.body", request) == Err(None)
    future = web.handle(request)
    stream = web.method("outgoing-body.write", body)
    assert web.method("outgoing-body.write", body) == Err(None)
    for piece in pieces:
        web.write(stream, piece)
    stream.close()
    ended = web("types.[static]outgoing-body.finish", body, web.fields(trailers or []))
    if isinstance(ended, Err):
        raise Coded(ended.error.case)
    return web.reply(future)


@pytest.mark.parametrize(
    ("pieces", "headers", "trailers", "framing"),
    [
        ([], [], [], [("content-length", "0")]),
        ([b"abc", b"def"], [], [], [("content-length", "6")]),
        ([b"abc"], [("Content-Length", "3")], [], [("content-length", "3")]),
        ([b"x" * 90_000] * 3, [], [], [("transfer-encoding", "chunked")]),
        ([b"x" * 90_000], [("content-length", "90000")], [], [("content-length", "90000")]),
        ([b"abc"], [], [("X-Sum", "7")], [("transfer-encoding", "chunked")]),
    ],
)
def test_allows_bodies_each_with_one_framing(
    place: Place, pieces: list[bytes], headers: Any, trailers: Any, framing: Any
) -> None:
    with in_call(LIMITS):
        assert upload(guest(place), place.base, pieces, headers, trailers).status == 200
    [got] = place.origin.got
    assert got.body == b"".join(pieces)
    assert got.trailers == [f"{n}: {v}" for n, v in trailers]
    kinds = ("content-length", "transfer-encoding")
    assert [(n.lower(), v) for n, v in got.headers if n.lower() in kinds] == framing


@pytest.mark.parametrize(("stated", "size"), [(3, 4), (3, 2), (70_000, 70_001), (70_000, 69_999)])
def test_refuses_a_body_of_another_length_than_stated(place: Place, stated: int, size: int) -> None:
    with in_call(LIMITS), pytest.raises(Coded) as caught:
        upload(guest(place), place.base, [b"x" * size], [("Content-Length", str(stated))])
    assert caught.value.code == "HTTP-request-body-size"
    assert place.origin.gone.wait(5) or not place.origin.connections
    # A listener that takes what was cut off for whole has seen less than was stated.
    assert all(len(got.body) < stated for got in place.origin.got)


def test_refuses_trailers_that_frame(place: Place) -> None:
    for name in ("Content-Length", "Host"):
        with in_call(LIMITS), pytest.raises(Coded):
            upload(guest(place), place.base, [b"abc"], (), [(name, "1")])
    assert place.origin.got == []


@pytest.mark.case("NET-19")
def test_refuses_trailers_that_an_origin_sent_and_no_guest_may_set(place: Place) -> None:
    place.origin.answer = lambda _: http(b"", 200, [("Host", "evil"), ("Proxy-X", "1"), ("X", "2")])
    with in_call(LIMITS):
        web = guest(place)
        response = web.answer(web.handle(web.request("GET", place.base)))
        fields = web.method("incoming-response.headers", response)
        assert web.method("fields.has", fields, "host")
        request = web.request("POST", place.base)
        body = web.method("outgoing-request.body", request)
        future = web.handle(request)
        ended = web("types.[static]outgoing-body.finish", body, fields)
        assert ended.error.case == "HTTP-request-denied"
        with pytest.raises(Coded):
            web.answer(future)
    assert len(place.origin.got) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_refuses_a_body_where_there_is_none(place: Place, method: str) -> None:
    for size in (1, 70_000):
        code = told(guest(place), place.base, method, body=b"x" * size)
        assert code == "HTTP-request-body-size"
    assert place.origin.got == []


def test_a_body_that_was_not_finished_is_none(place: Place) -> None:
    with in_call(LIMITS):
        web = guest(place)
        request = web.request("POST", place.base)
        body = web.method("outgoing-request.body", request)
        future = web.handle(request)
        web.write(web.method("outgoing-body.write", body), b"x" * 70_000)
        body.close()
        with pytest.raises(Coded):
            web.answer(future)
    assert place.origin.gone.wait(5)
    assert place.origin.got == []
    assert place.bench.reasons == ["sent", "dropped"]


def test_what_is_written_before_the_request_leaves_is_bounded(place: Place) -> None:
    with in_call(LIMITS):
        web = guest(place)
        request = web.request("POST", place.base)
        body = web.method("outgoing-request.body", request)
        stream = web.method("outgoing-body.write", body)
        written = 0
        while room := web.streamed(web("streams.[method]output-stream.check-write", stream)):
            web.streamed(web("streams.[method]output-stream.write", stream, b"x" * room))
            written += room
        assert written == 256 * 1024
        write = "streams.[method]output-stream.blocking-write-and-flush"
        with pytest.raises(Coded) as caught:
            web.streamed(web(write, stream, b"x"))
        assert caught.value.code == "HTTP-request-body-size"


def test_a_program_that_waits_for_the_answer_first_is_answered(place: Place) -> None:
    def echo(got: Got) -> bytes:
        return http(got.body)

    place.origin.answer = echo
    with in_call(LIMITS):
        web = guest(place)
        request = web.request("POST", place.base)
        body = web.method("outgoing-request.body", request)
        future = web.handle(request)
        stream = web.method("outgoing-body.write", body)
        # The head leaves in chunks, for nobody knows yet how much will come.
        assert web.method("future-incoming-response.get", future) is None
        write = "streams.[method]output-stream.blocking-write-and-flush"
        assert web.streamed(web(write, stream, b"abc")) is None
        assert web.streamed(web("streams.[method]output-stream.blocking-flush", stream)) is None
        stream.close()
        assert web("types.[static]outgoing-body.finish", body, None) is None
        assert web.reply(future).body == b"abc"
    assert place.origin.got[0].all("transfer-encoding") == ["chunked"]


def test_allows_trailers_of_an_answer_and_reads_the_rest_for_them(place: Place) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"10000\r\n" + b"y" * 65_536 + b"\r\n" for _ in range(4))
    place.origin.answer = lambda _: head + chunks + b"0\r\nX-Sum: 7\r\n\r\n"
    with in_call(LIMITS):
        web = guest(place)
        reply = web.ask("GET", place.base)
        assert (len(reply.body), reply.trailers) == (4 * 65_536, [("X-Sum", "7")])
        response = web.answer(web.handle(web.request("GET", place.base)))
        body = web.method("incoming-response.consume", response)
        assert web.method("incoming-response.consume", response) == Err(None)
        stream = web.method("incoming-body.stream", body)
        assert web.method("incoming-body.stream", body) == Err(None)
        with pytest.raises(GuestTrap):
            web("types.[static]incoming-body.finish", body)
        next(web.pieces(stream))
        stream.close()
        rest = web("types.[static]incoming-body.finish", body)
        web.block(web.method("future-trailers.subscribe", rest))
        got = web.method("future-trailers.get", rest)
        assert isinstance(got, Ok)
        assert web.method("fields.entries", got.value.value) == [("X-Sum", b"7")]
        assert web.method("future-trailers.get", rest) == Err(None)
    assert place.origin.connections == 1


def test_an_answer_before_the_end_of_the_request_is_heard_and_its_connection_not_used_again(
    place: Place,
) -> None:
    place.origin._read = _head_only  # type: ignore[method-assign]
    place.origin.answer = lambda _: http(b"enough")
    with in_call(LIMITS):
        web = guest(place)
        request = web.request("POST", place.base)
        body = web.method("outgoing-request.body", request)
        future = web.handle(request)
        stream = web.method("outgoing-body.write", body)
        web.write(stream, b"x" * 100_000)
        assert web.reply(future).body == b"enough"
        with pytest.raises(Coded) as caught:
            web.write(stream, b"x")
        assert caught.value.code == "closed"
        web.ask("GET", place.base)
    assert place.origin.connections == 2


def _head_only(file: Any) -> Got | None:
    line = file.readline()
    while file.readline().rstrip():
        pass
    return Got(line.decode().rstrip(), [], b"") if line else None


def test_a_guest_that_never_reads_costs_no_memory(place: Place) -> None:
    sent = itertools.count()

    def endless(_: Got) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
        while next(sent) < 10_000:
            yield b"y" * 100_000

    place.origin.answer = endless
    with in_call(LIMITS) as call:
        web = guest(place)
        response = web.answer(web.handle(web.request("GET", place.base)))
        body = web.method("incoming-response.consume", response)
        pollable = web(
            "streams.[method]input-stream.subscribe", web.method("incoming-body.stream", body)
        )
        for _ in range(200):
            web.block(pollable)
        assert call.net_bytes < 200_000
        body.close()
    assert place.origin.gone.wait(5)


def test_the_byte_budget_ends_the_call(place: Place) -> None:
    place.origin.answer = lambda _: http(b"x" * 60_000)
    limits = replace(LIMITS, net_bytes=50_000)
    with in_call(limits), pytest.raises(NetBudgetExceeded):
        guest(place).ask("GET", place.base)
    with in_call(limits), pytest.raises(NetBudgetExceeded):
        upload(guest(place), place.base, [b"x" * 30_000] * 3)
    assert place.bench.recorder.events[-1].reason == "limit.net-bytes"
