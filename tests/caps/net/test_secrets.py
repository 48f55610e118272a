"""Secrets in requests: where they go, and that they never come back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from capwasm.errors import CapError
from tests.helpers import in_call

from .servers import Got, Place, Secret, http, redirect


@pytest.mark.case("SEC-07", "SEC-08")
def test_a_secret_is_sent_and_never_comes_back(place: Place) -> None:
    secret = Secret(origins=(place.base,))

    def echo(got: Got) -> bytes:
        key = got.all("authorization")[0].removeprefix("Bearer ")
        forms = {"raw": key, "hex": key.encode().hex(), "all": got.headers, "json": json.dumps(key)}
        return http(json.dumps(forms).encode(), headers=[("X-Echo", key), (f"X-{key}", "1")])

    place.origin.answer = echo
    response, body = place.fetch(credentials=[secret], headers=[("authorization", "own")])
    assert place.origin.got[0].all("authorization") == [f"Bearer {secret.value}"]
    seen = repr((body, response.headers, response.url, place.bench.recorder.events))
    assert secret.value not in seen
    assert secret.value.encode().hex() not in seen
    assert secret.value not in repr(response)


def test_a_secret_goes_along_with_a_redirect_to_where_it_may_go(place: Place) -> None:
    secret = Secret(origins=(place.base,))
    place.origin.answer = lambda g: http() if "/b" in g.line else redirect("/b")
    place.fetch("/a", credentials=[secret])
    assert [g.all("authorization") for g in place.origin.got] == [[f"Bearer {secret.value}"]] * 2
    assert secret.asked == [place.base] * 2  # asked anew, not carried over


@pytest.mark.case("SEC-08")
def test_a_secret_is_masked_where_pieces_meet(place: Place) -> None:
    secret = Secret(origins=(place.base,))
    text = b"a" * 70_000 + secret.value.encode() + b"b" * 70_000

    def answer(_: Got) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text)
        for at in range(0, len(text), 7_001):
            yield text[at : at + 7_001]

    place.origin.answer = answer
    _, body = place.fetch(credentials=[secret])
    assert secret.value.encode() not in body
    assert body.startswith(b"a" * 70_000)
    assert body.endswith(b"b" * 70_000)


@pytest.mark.case("SEC-08")
def test_a_secret_is_masked_in_a_body_that_began_before_it_was_sent(place: Place) -> None:
    secret = Secret(origins=(place.base,))
    sent = threading.Event()

    def answer(got: Got) -> bytes | Iterator[bytes]:
        if "/other" in got.line:
            sent.set()
            return http()

        def stream() -> Iterator[bytes]:
            yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(secret.value)
            sent.wait(10)
            yield secret.value.encode()

        return stream()

    place.origin.answer = answer
    with in_call() as call:
        early = place.send(call, "/stream")
        place.send(call, "/other", credentials=[secret]).close()
        assert early.read_all(1000) == b"[secret:credential-0]"
        early.close()


@pytest.mark.case("SEC-08")
@pytest.mark.parametrize("form", ["{}", "Basic {}", "Token token={}", 'k="{}"'])
def test_a_secret_is_masked_whatever_its_header_s_form(place: Place, form: str) -> None:
    secret = Secret(origins=(place.base,), form=form, header="X-Key")
    place.origin.answer = lambda _: http(secret.value.encode())
    assert secret.value.encode() not in place.fetch(credentials=[secret])[1]
    # Nor does a later answer, to a request that went without it.
    assert secret.value.encode() not in place.fetch()[1]


@pytest.mark.case("SEC-08")
def test_refuses_a_redirect_that_carries_the_secret(place: Place) -> None:
    secret = Secret(origins=(place.base,))
    place.origin.answer = lambda g: http() if "/b" in g.line else redirect(f"/b?t={secret.value}")
    assert place.refused("/a", credentials=[secret]) == "denied"
    assert place.bench.recorder.events[-1].reason == "redirect-leak"
    assert secret.value not in repr(place.bench.recorder.events)
    assert len(place.origin.got) == 1


@pytest.mark.case("SEC-09")
def test_refuses_a_secret_for_an_origin_it_is_not_for(place: Place) -> None:
    for origins in ((), ("http://api.test:1",), (place.base + "0",)):
        assert place.refused(credentials=[Secret(origins=origins)]) == "denied"
    assert place.origin.connections == 0
    assert set(place.bench.reasons) == {"credential-denied"}


@pytest.mark.case("SEC-06")
def test_a_secret_revoked_between_two_hops_stops_the_second(place: Place) -> None:
    secret = Secret(origins=(place.base,))

    def answer(_: Got) -> bytes:
        secret.lease.revoke("operator")
        return redirect("/b")

    place.origin.answer = answer
    assert place.refused("/a", credentials=[secret]) == "closed"
    assert len(place.origin.got) == 1


@pytest.mark.case("SEC-06")
def test_a_secret_revoked_while_the_body_comes_ends_it(place: Place) -> None:
    secret = Secret(origins=(place.base,))
    with in_call() as call:
        response = place.send(call, credentials=[secret])
        secret.lease.revoke("operator")
        with pytest.raises(CapError) as caught:
            response.read(1)
        assert caught.value.word == "closed"


@pytest.mark.parametrize(
    ("header", "form"),
    [("Host", "{}"), ("Proxy-Authorization", "{}"), ("X-Key", "{}\r\nX: y"), ("X\n", "{}")],
)
def test_refuses_a_secret_that_does_not_fit_a_header(place: Place, header: str, form: str) -> None:
    secret = Secret(origins=(place.base,), header=header, form=form)
    assert place.refused(credentials=[secret]) == "denied"
    assert place.origin.connections == 0


def test_refuses_two_secrets_for_one_header(place: Place) -> None:
    secrets = [
        Secret(origins=(place.base,)),
        Secret("another-secret-value", (place.base,), "AUTHORIZATION"),
    ]
    assert place.refused(credentials=secrets) == "denied"
    assert place.fetch(credentials=secrets[:1])[1] == b"hello"


@pytest.mark.case("SEC-10")
def test_a_failure_s_traceback_holds_no_secret(place: Place) -> None:
    secret = Secret(origins=(place.base,))
    place.origin.answer = lambda _: [b"garbage\r\n\r\n", b""]
    with pytest.raises(CapError) as caught:
        place.fetch(credentials=[secret])
    seen, frame = "", caught.value.__traceback__
    while frame is not None:
        if "/caps/net/" in frame.tb_frame.f_code.co_filename:
            seen += "".join(map(repr, frame.tb_frame.f_locals.values()))
        frame = frame.tb_next
    assert seen
    assert "Bearer" not in seen
    assert caught.value.__cause__ is caught.value.__context__ is None
