"""The operator's own requests, against real listeners: bounded in size and time, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.caps.net.resolve import Lookups
from capwasm.errors import RepositoryError
from capwasm.web import Patience, Web, checked_url
from tests.caps.net.servers import Got, Origin, http, make_tls, redirect

QUICK = Patience(idle=0.4, total=0.8)  # only where the server is meant to be too slow


def get(web: Web, url: str, limit: int = 1000) -> bytes:
    with web.request(url, limit=limit) as answer:
        assert answer.status == 200
        return answer.read()


def refusal(web: Web, url: str, limit: int = 1000) -> RepositoryError:
    with pytest.raises(RepositoryError) as caught:
        get(web, url, limit)
    return caught.value


def test_an_answer_is_read_whole_and_the_request_says_little_of_us() -> None:
    with Origin(lambda _: http(b"x" * 1000)) as origin:
        assert get(Web(), f"http://127.0.0.1:{origin.port}/a/b?c") == b"x" * 1000
    [got] = origin.got
    assert got.line == "GET /a/b?c HTTP/1.1"
    assert {name.lower() for name, _ in got.headers} == {"host", "connection", "accept-encoding"}


def test_a_body_is_sent_with_its_length() -> None:
    with Origin(lambda _: http(status=201)) as origin:
        url = f"http://127.0.0.1:{origin.port}/"
        with Web().request(url, method="PUT", body=b"data", limit=10) as answer:
            assert answer.status == 201
    assert origin.got[0].body == b"data"


@pytest.mark.case("SIG-19", "NET-23")
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "not declared"])
def test_an_answer_of_one_byte_too_many_is_refused(declared: bool) -> None:
    def answer(_: Got) -> Iterator[bytes]:
        if declared:
            yield http(b"x" * 1001)
        else:
            yield b"HTTP/1.1 200 X\r\n\r\n" + b"x" * 1001

    with Origin(answer) as origin:
        error = refusal(Web(), f"http://127.0.0.1:{origin.port}/")
    assert error.code == "repository.too-large"


@pytest.mark.case("SIG-19")
def test_an_answer_without_end_is_refused_once_it_is_too_large() -> None:
    def endless(_: Got) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"1000\r\n" + b"x" * 0x1000 + b"\r\n"

    with Origin(endless) as origin:
        error = refusal(Web(), f"http://127.0.0.1:{origin.port}/", limit=100_000)
        assert origin.gone.wait(10)
    assert error.code == "repository.too-large"


def drip(head: bytes, each: bytes) -> Iterator[bytes]:
    if head:
        yield head
    for _ in range(100):
        time.sleep(0.1)
        if each:
            yield each


@pytest.mark.case("SIG-19")
@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 X\r\n", b"HTTP/1.1 200 X\r\nContent-Length: 900\r\n\r\n"],
    ids=["before the head", "within the head", "within the body"],
)
@pytest.mark.parametrize("each", [b"", b"x"], ids=["silent", "dripping"])
def test_a_slow_server_is_left(head: bytes, each: bytes) -> None:
    before = time.monotonic()
    with Origin(lambda _: drip(head, each)) as origin:
        error = refusal(Web(patience=QUICK), f"http://127.0.0.1:{origin.port}/")
    assert error.code == "repository.timeout"
    assert time.monotonic() - before < 10


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with (
        Origin() as other,
        Origin(lambda _: redirect(f"http://127.0.0.1:{other.port}/")) as origin,
        Web().request(f"http://127.0.0.1:{origin.port}/", limit=10) as answer,
    ):
        assert answer.status == 302
    assert other.connections == 0


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nxx",
        b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 200 X\r\n" + b"A: b\r\n" * 200 + b"Content-Length: 0\r\n\r\n",
    ],
    ids=["cut off", "encoded", "two lengths", "another protocol", "many headers"],
)
def test_an_answer_that_is_not_as_it_should_be_is_refused(head: bytes) -> None:
    def answer(_: Got) -> Iterator[bytes]:
        yield head
        yield b""  # hang up

    with Origin(answer) as origin:
        error = refusal(Web(), f"http://127.0.0.1:{origin.port}/")
    assert error.code in {"repository.protocol", "repository.unreachable"}


def test_nobody_there_is_unreachable() -> None:
    with Origin() as origin:
        port = origin.port
    error = refusal(Web(), f"http://127.0.0.1:{port}/")
    assert error.code == "repository.unreachable"
    assert error.context == f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://plugins.example/", "repository.insecure"),
        ("http://10.0.0.1/", "repository.insecure"),
        ("ftp://plugins.example/", "repository.url"),
        ("https://user@plugins.example/", "repository.url"),
        ("file:///etc/passwd", "repository.url"),
        ("/etc/passwd", "repository.url"),
    ],
)
def test_refuses_a_url_before_anything_is_sent(url: str, code: str) -> None:
    assert refusal(Web(), url).code == code


def test_plain_http_goes_where_the_operator_allows_it() -> None:
    assert str(checked_url("http://plugins.example/", plain_http=True)) == "http://plugins.example/"
    lookups = Lookups(lambda _n, _p: ["127.0.0.1"])
    with Origin(lambda _: http(b"ok")) as origin:
        url = f"http://plugins.example:{origin.port}/"
        assert get(Web(plain_http=True, lookups=lookups), url) == b"ok"


def test_localhost_that_leads_elsewhere_is_refused() -> None:
    lookups = Lookups(lambda _n, _p: ["127.0.0.1", "192.0.2.1"])
    assert refusal(Web(lookups=lookups), "http://localhost:1/").code == "repository.insecure"


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with Origin() as proxy, Origin(lambda _: http(b"ok")) as origin:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert get(Web(), f"http://127.0.0.1:{origin.port}/") == b"ok"
    assert proxy.connections == 0


def test_tls_is_by_name_and_by_the_authorities_given(tmp_path: Path) -> None:
    lookups = Lookups(lambda _n, _p: ["127.0.0.1"])
    ca_file, server = make_tls(tmp_path, ["good.example"])
    with Origin(lambda _: http(b"ok"), tls=server) as origin:
        web = Web(ca_file=ca_file, lookups=lookups)
        assert get(web, f"https://good.example:{origin.port}/") == b"ok"
        for bad, url in (
            (web, f"https://other.example:{origin.port}/"),
            (Web(lookups=lookups), f"https://good.example:{origin.port}/"),
        ):
            assert refusal(bad, url).code == "repository.tls"


def test_authorities_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with Origin() as origin:
        error = refusal(Web(ca_file=tmp_path / "none.pem"), f"https://127.0.0.1:{origin.port}/")
    assert error.code == "repository.tls"
