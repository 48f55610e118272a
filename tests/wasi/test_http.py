"""`wasi:http` as a guest's library uses it, against real listeners."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps.net.host import NetState
from capwasm.caps.net.refusal import KINDS, REASONS
from capwasm.caps.secrets import MemoryVault, SecretClause, Secrets
from capwasm.engine.abi import signature
from capwasm.engine.abi_types import parse
from capwasm.engine.types import Result, Variant
from capwasm.errors import (
    CallInterrupted,
    CapError,
    DeadlineExceeded,
    ValueLimitExceeded,
)
from capwasm.record.redact import Redactor
from capwasm.wasi.http.errors import CODES
from tests.caps.net.doors import Coded, WebGuest
from tests.caps.net.servers import Bench, Got, Origin, Place, http, local, make_tls, rules
from tests.helpers import grant_of, in_call, open_context

from .web import LIMITS, guest, told

MS = 1_000_000


# -- error codes ---------------------------------------------------------------------------------


def cases() -> set[str]:
    """The names of `error-code` in the WIT text."""
    function = parse(signature("wasi:http/outgoing-handler", "handle") or "")
    assert isinstance(function.result, Result)
    assert isinstance(function.result.err, Variant)
    return {name for name, _ in function.result.err.cases}


def test_allows_a_code_for_every_reason_and_kind() -> None:
    assert set(CODES) == {(r, "") for r in REASONS} | {
        (r, k) for r, ks in KINDS.items() for k in ks
    }
    assert set(CODES.values()) <= cases()


def hang_up(_: Got) -> bytes:
    return b""


def cut(_: Got) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b""]


def raw(answer: bytes) -> Callable[[Got], list[bytes]]:
    return lambda _: [answer, b""]


MANY = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 250 + b"Content-Length: 0\r\n\r\n"
BIG = http(gzip.compress(bytes(3_000_000), 9), headers=[("Content-Encoding", "gzip")])


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (hang_up, "HTTP-response-incomplete"),
        (cut, "HTTP-response-incomplete"),
        (raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "HTTP-protocol-error"),
        (raw(MANY), "HTTP-response-header-section-size"),
        (raw(http(b"x", headers=[("Content-Encoding", "br")])), "HTTP-response-content-coding"),
        (raw(http(b"x", headers=[("Content-Encoding", "gzip")])), "HTTP-response-content-coding"),
        (raw(BIG), "HTTP-response-body-size"),
    ],
)
def test_tells_what_is_wrong_with_an_answer(place: Place, answer: Any, code: str) -> None:
    place.origin.answer = answer
    assert told(guest(place), place.base) == code


@pytest.mark.parametrize(
    ("method", "path", "headers", "code"),
    [
        ("GET", "/\\x", [], "HTTP-request-URI-invalid"),
        ("GET", "/%2e%2e%2fx", [], "HTTP-request-URI-invalid"),
        ("PROPFIND", "/", [], "HTTP-request-method-invalid"),
        ("CONNECT", "/", [], "HTTP-request-method-invalid"),
        ("GET", "/", [("X", "y")] * 101, "HTTP-request-header-section-size"),
        ("GET", "/", [("Content-Length", "1x")], "HTTP-request-denied"),
        ("GET", "/", [("Content-Length", "0")] * 2, "HTTP-request-denied"),
        ("POST", "/", [("Content-Length", "99999999999")], "HTTP-request-body-size"),
        ("GET", "/", [("capwasm-secret", "token")], "HTTP-request-denied"),
    ],
)
def test_tells_what_is_wrong_with_a_request(
    place: Place, method: str, path: str, headers: list[tuple[str, str]], code: str
) -> None:
    assert told(guest(place), place.base + path, method, headers=headers) == code
    assert place.origin.connections == 0


@pytest.mark.case("NET-26")
@pytest.mark.parametrize(
    ("names", "url", "code"),
    [
        ({}, "http://other.test:1/", "HTTP-request-denied"),
        ({"api.test": ["10.0.0.1"]}, "http://api.test:1/", "destination-IP-prohibited"),
        ({"api.test": []}, "http://api.test:1/", "DNS-error"),
        ({}, "http://api.test:1/", "connection-refused"),
    ],
)
def test_tells_why_there_is_no_connection(names: dict[str, Any], url: str, code: str) -> None:
    with Bench(names) as bench:
        web = WebGuest(NetState(rules(local("http://api.test:1")), bench.engine))
        assert told(web, url) == code
        assert code != "HTTP-request-denied" or bench.looked_up == []
        assert [e.kind for e in bench.recorder.events][-1] == "net"


def test_tells_a_bad_certificate(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, server = make_tls(tmp_path)
    ca_file, _ = make_tls(tmp_path / "other")
    with Origin(tls=server) as origin, Bench(ca_file=ca_file) as bench:
        url = f"https://api.test:{origin.port}/"
        web = WebGuest(NetState(rules(local(url)), bench.engine))
        assert told(web, url) == "TLS-certificate-error"
        assert origin.got == []


# -- time ----------------------------------------------------------------------------------------


@pytest.mark.case("NET-23", "NET-29")
@pytest.mark.parametrize(
    ("option", "code"),
    [
        ("first", "HTTP-response-timeout"),
        ("between", "connection-read-timeout"),
        ("connect", "DNS-timeout"),
    ],
)
def test_each_part_has_its_own_time(place: Place, option: str, code: str) -> None:
    stop = threading.Event()

    def answer(_: Got) -> Iterator[bytes]:
        if option == "between":
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
        stop.wait(10)

    def lookup() -> list[str]:
        if option == "connect":
            stop.wait(10)
        return ["127.0.0.1"]

    place.bench.names["api.test"] = lookup
    place.origin.answer = answer
    began = time.monotonic()
    assert told(guest(place), place.base, **{option: 100 * MS}) == code
    assert time.monotonic() - began < 3
    stop.set()


def test_a_handshake_without_end_is_a_connection_timeout(place: Place, tmp_path: Path) -> None:
    make_tls(tmp_path)
    silent = Origin()
    silent._read = lambda file: file.read() and None  # type: ignore[method-assign]
    with silent, Bench(ca_file=tmp_path / "ca.pem") as bench:
        url = f"https://api.test:{silent.port}/"
        web = WebGuest(NetState(rules(local(url)), bench.engine))
        assert told(web, url, connect=200 * MS) == "connection-timeout"


def test_an_origin_that_never_reads_is_a_write_timeout(place: Place) -> None:
    stop = threading.Event()
    place.origin._read = lambda _: stop.wait(10) and None  # type: ignore[method-assign]
    code = told(guest(place), place.base, "POST", body=b"x" * 9_000_000, first=200 * MS)
    assert code == "connection-write-timeout"
    stop.set()


def test_a_wait_ends_with_the_time_of_a_host_call_and_with_a_kill(place: Place) -> None:
    stop = threading.Event()

    def silent(_: Got) -> Iterator[bytes]:
        stop.wait(10)
        yield b""

    place.origin.answer = silent
    with in_call(replace(LIMITS, host_call_ms=200)), pytest.raises(DeadlineExceeded):
        guest(place).ask("GET", place.base)
    with in_call(LIMITS) as call:
        threading.Timer(0.1, call.interrupt, ["evicted"]).start()
        began = time.monotonic()
        with pytest.raises(CallInterrupted):
            guest(place).ask("GET", place.base)
        assert time.monotonic() - began < 2
    stop.set()


def test_a_drip_ends_with_the_call(place: Place) -> None:
    stop = threading.Event()

    def drip(_: Got) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
        while not stop.wait(0.01):
            yield b"."

    place.origin.answer = drip
    with in_call(replace(LIMITS, wall_ms=300)), pytest.raises(DeadlineExceeded):
        guest(place).ask("GET", place.base)
    stop.set()


def test_one_poll_waits_for_several_answers(place: Place) -> None:
    gates = {"/a": threading.Event(), "/b": threading.Event()}

    def answer(got: Got) -> bytes:
        gates[got.line.split()[1]].wait(10)
        return http(got.line.encode())

    place.origin.answer = answer
    with in_call(LIMITS):
        web = guest(place)
        futures = [web.handle(web.request("GET", place.base + path)) for path in gates]
        subscribe = "future-incoming-response.subscribe"
        pollables = [web.method(subscribe, future) for future in futures]
        assert [web("poll.[method]pollable.ready", p) for p in pollables] == [False, False]
        gates["/b"].set()
        assert web("poll.poll", pollables) == [1]
        assert web.method("future-incoming-response.get", futures[0]) is None
        assert web.reply(futures[1]).body == b"GET /b HTTP/1.1"
        gates["/a"].set()
        assert web.reply(futures[0]).body == b"GET /a HTTP/1.1"


# -- fields --------------------------------------------------------------------------------------


def test_allows_fields_as_wit_has_them(place: Place) -> None:
    web = guest(place)
    fields = web.fields([("X-A", "1"), ("x-a", "2"), ("B", "3")])
    assert web.method("fields.get", fields, "x-A") == [b"1", b"2"]
    assert web.method("fields.has", fields, "b")
    web.method("fields.set", fields, "X-a", [b"4"])
    web.method("fields.delete", fields, "B")
    assert web.method("fields.entries", fields) == [("X-a", b"4")]
    copy = web.method("fields.clone", fields)
    web.method("fields.append", copy, "c", b"5")
    assert not web.method("fields.has", fields, "c")
    made = web("types.[static]fields.from-list", [("Content-Length", b"3")])
    assert web.method("fields.entries", made) == [("Content-Length", b"3")]


@pytest.mark.case("NET-18", "NET-19")
@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("X", b"a\r\nHost: evil", "invalid-syntax"),
        ("X Y", b"", "invalid-syntax"),
        ("X", b"\xff", "invalid-syntax"),
        ("Host", b"evil", "forbidden"),
        ("transfer-encoding", b"chunked", "forbidden"),
        ("Proxy-Authorization", b"x", "forbidden"),
    ],
)
def test_refuses_what_may_not_stand_in_fields(
    place: Place, name: str, value: bytes, word: str
) -> None:
    web = guest(place)
    fields = web.fields([])
    for function, argument in (("append", value), ("set", [b"fine", value])):
        with pytest.raises(CapError) as caught:
            web.method(f"fields.{function}", fields, name, argument)
        assert caught.value.word == word
    with pytest.raises(CapError):
        web("types.[static]fields.from-list", [("fine", b""), (name, value)])
    assert web.method("fields.entries", fields) == []


def test_refuses_to_change_what_is_fixed_and_to_hold_without_end(place: Place) -> None:
    web = guest(place)
    request = web.request("GET", place.base, [("a", "1")])
    fixed = web.method("outgoing-request.headers", request)
    for name, args in (("set", ["a", []]), ("delete", ["a"]), ("append", ["a", b""])):
        with pytest.raises(CapError) as caught:
            web.method(f"fields.{name}", fixed, *args)
        assert caught.value.word == "immutable"
    web.method("fields.append", web.method("fields.clone", fixed), "b", b"2")
    with pytest.raises(ValueLimitExceeded):
        web.fields([("a", "x" * 70_000)] * 2)
    with pytest.raises(ValueLimitExceeded):
        web.fields([("a", "")] * 1_001)


# -- grants and secrets --------------------------------------------------------------------------


@pytest.mark.case("SEC-06", "NET-28")
@pytest.mark.parametrize("up", [True, False])
def test_a_revocation_ends_a_stream_that_is_under_way(place: Place, up: bool) -> None:
    stop = threading.Event()

    def slow(_: Got) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
        stop.wait(10)

    place.origin.answer = slow
    with in_call(LIMITS):
        web = guest(place)
        request = web.request("POST" if up else "GET", place.base)
        body = web.method("outgoing-request.body", request)
        future = web.handle(request)
        revoke = threading.Timer(0.1, place.grant.allow[0].lease.revoke, ["operator"])
        began = time.monotonic()
        with pytest.raises(Coded) as caught:  # noqa: PT012  how far it comes is not the point
            if up:
                stream = web.method("outgoing-body.write", body)
                revoke.start()
                while True:
                    web.write(stream, b"x" * 1000)
                    time.sleep(0.01)
            web("types.[static]outgoing-body.finish", body, None)
            response = web.answer(future)
            incoming = web.method("incoming-response.consume", response)
            pieces = web.pieces(web.method("incoming-body.stream", incoming))
            assert next(pieces) == b"abc"
            revoke.start()
            next(pieces)
        assert caught.value.code == "HTTP-request-denied"
        assert time.monotonic() - began < 3
    assert place.bench.recorder.events[-1].reason == "revoked"
    stop.set()


VALUE = b"s3cr3t-token-0123456789"


@pytest.fixture
def secrets(place: Place, tmp_path: Path) -> Any:
    # A secret goes over TLS, or to this machine.
    place.base = f"http://127.0.0.1:{place.origin.port}"
    place.grant = rules({"allow": f"http://127.0.0.1/32:{place.origin.port}"})
    clause = SecretClause("token", "inject", frozenset({place.base}), "Authorization: Bearer {}")
    store = Secrets(MemoryVault({"token": VALUE}), Redactor())
    return store.open(grant_of(clause), open_context(tmp_path))


@pytest.mark.case("SEC-07", "SEC-08")
def test_allows_a_secret_that_a_field_names_and_masks_its_echo(place: Place, secrets: Any) -> None:
    place.origin.answer = lambda got: http(
        repr(got.headers).encode(), 200, [("X-Echo", VALUE.decode())]
    )
    with in_call(LIMITS):
        web = guest(place, secret=secrets)
        reply = web.ask("GET", place.base, [("Capwasm-Secret", "token"), ("authorization", "own")])
    [got] = place.origin.got
    assert got.all("authorization") == [f"Bearer {VALUE.decode()}"]
    assert got.all("capwasm-secret") == []
    assert VALUE not in reply.body
    assert VALUE.decode() not in repr(reply.headers) + repr(place.bench.recorder.events)


@pytest.mark.case("SEC-09", "NET-10")
def test_refuses_a_secret_to_another_origin_or_by_another_name(place: Place, secrets: Any) -> None:
    with Origin() as other:
        place.grant = rules(
            *({"allow": f"http://127.0.0.1/32:{port}"} for port in (place.origin.port, other.port))
        )
        web = guest(place, secret=secrets)
        field = ("capwasm-secret", "token")
        assert (
            told(web, f"http://127.0.0.1:{other.port}/", headers=[field]) == "HTTP-request-denied"
        )
        assert told(web, place.base, headers=[(field[0], "none")]) == "HTTP-request-denied"
        assert told(guest(place), place.base, headers=[field]) == "HTTP-request-denied"
        assert (other.connections, place.origin.connections) == (0, 0)


def test_redirects_are_returned_and_each_is_a_request_of_its_own(place: Place) -> None:
    place.origin.answer = lambda _: http(b"", 302, [("Location", "http://other.test:1/")])
    with in_call(LIMITS):
        reply = guest(place).ask("GET", place.base)
    assert reply.status == 302
    assert ("Location", "http://other.test:1/") in reply.headers
    assert told(guest(place), "http://other.test:1/") == "HTTP-request-denied"
    events = place.bench.recorder.events
    assert [(e.verdict, e.reason) for e in events][-1] == ("denied", "not-granted")


# -- handles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["future", "response", "body", "engine"])
def test_what_is_dropped_ends_its_connection_once(place: Place, how: str) -> None:
    place.origin.answer = lambda _: http(b"x" * 5_000_000)
    with in_call(LIMITS):
        web = guest(place)
        future = web.handle(web.request("GET", place.base))
        if how == "future":
            future.close()
        else:
            held = response = web.answer(future)
            if how == "body":
                held = web.method("incoming-response.consume", response)
                stream = web.method("incoming-body.stream", held)
                next(web.pieces(stream))
            if how == "engine":
                place.bench.engine.close()
            held.close()
            future.close()
            response.close()
            if how == "body":
                with pytest.raises(Coded):
                    next(web.pieces(stream))
    assert place.origin.gone.wait(5)
    assert place.bench.reasons == ["sent", "dropped"]


def test_context_of_tls_is_not_made_for_plain_requests(place: Place) -> None:
    def never() -> ssl.SSLContext:
        raise AssertionError

    place.bench.engine._tls = never
    with in_call(LIMITS):
        assert guest(place).ask("GET", place.base).body == b"hello"
