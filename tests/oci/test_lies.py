"""A registry that lies is believed nothing, and learns nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from capwasm.oci.layout import CAPSULE_TYPE, INDEX_TYPE, MANIFEST_TYPE, digest_of
from capwasm.web import Patience
from tests.caps.net.servers import Got, Origin, http, make_tls, redirect
from tests.capsules import FILES, signed

from .servers import CAPSULE, CREDENTIALS, USER, Registry, code_of, when

BLOB = f"GET /v2/acme/weather/blobs/{digest_of(CAPSULE)} "
TAG = "GET /v2/acme/weather/manifests/1.2.0 "


def endless(_: bytes = b"") -> Iterator[bytes]:
    yield b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n"
    yield f"Content-Type: {MANIFEST_TYPE}\r\n\r\n".encode()
    while True:
        yield b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


def manifest(data: bytes, kind: str = MANIFEST_TYPE, *more: tuple[str, str]) -> bytes:
    return http(data, 200, [("Content-Type", kind), *more])


# -- blobs -----------------------------------------------------------------------------------------


@pytest.mark.case("SIG-01", "SIG-19", "PER-03")
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http(CAPSULE[:-1] + b"\x01"), "oci.digest"),
        (http(CAPSULE[:-1]), "oci.size"),
        (http(b""), "oci.size"),
        (http(CAPSULE + b"\0"), "oci.size"),
        (http(CAPSULE * 100), "oci.size"),
        (endless, "oci.size"),
        (b"HTTP/1.1 200 X\r\nContent-Length: 99999999999\r\n\r\n", "oci.size"),
        (http(b"", 204), "oci.status"),
        (http(CAPSULE, 206), "oci.status"),
        (http(b"", 403), "oci.denied"),
        (http(b"no", 404), "oci.no-capsule"),
        (http(b"", 500), "oci.status"),
    ],
)
def test_a_blob_that_is_not_what_was_declared(pushed: Registry, answer: Any, code: str) -> None:
    pushed.lie = when(BLOB, answer)
    assert code_of(pushed.pull) == code


def test_a_blob_that_breaks_off_or_never_comes(pushed: Registry) -> None:
    cut = f"HTTP/1.1 200 X\r\nContent-Length: {len(CAPSULE)}\r\n\r\n".encode() + CAPSULE[:100]
    pushed.lie = when(BLOB, lambda: [cut, b""])
    assert code_of(pushed.pull) == "repository.protocol"

    def drip() -> Iterator[bytes]:
        yield cut
        pushed.origin.gone.wait(5)

    pushed.origin.gone.clear()
    pushed.lie = when(BLOB, drip)
    quick = Patience(idle=0.3, total=0.6)
    assert code_of(lambda: pushed.pull(patience=quick)) == "repository.timeout"


# -- manifests -------------------------------------------------------------------------------------


@pytest.mark.case("SIG-06", "SIG-19")
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (manifest(b"{}"), "oci.manifest"),
        (manifest(b"not json"), "oci.manifest"),
        (manifest(b"[" * 100_000), "oci.manifest"),
        (manifest(b"\xff"), "oci.manifest"),
        (manifest(b" " * (4 * 1024 * 1024 + 1)), "oci.size"),
        (endless, "oci.size"),
        (manifest(b"{}", INDEX_TYPE), "oci.media-type"),
        (manifest(b"{}", "text/html; charset=utf-8"), "oci.media-type"),
        (http(b"{}"), "oci.media-type"),
        (manifest(b"{}", MANIFEST_TYPE, ("Docker-Content-Digest", digest_of(b""))), "oci.digest"),
    ],
)
def test_a_manifest_that_is_none(pushed: Registry, answer: Any, code: str) -> None:
    pushed.lie = when(TAG, answer)
    assert code_of(pushed.pull) == code


@pytest.mark.case("SIG-06")
def test_a_digest_is_exact(pushed: Registry) -> None:
    kind, data = pushed.manifests["1.2.0"]
    exact = pushed.reference.at(digest_of(data))
    assert pushed.pull(exact).capsule == CAPSULE
    pushed.manifests[digest_of(data)] = kind, data + b" "
    assert code_of(lambda: pushed.pull(exact)) == "oci.digest"


def notes(**words: str) -> Callable[[dict[str, Any]], object]:
    def edit(doc: dict[str, Any]) -> None:
        doc["annotations"] = {f"dev.capwasm.capsule.{k}": v for k, v in words.items()}

    return edit


def as_type(kind: str) -> Callable[[dict[str, Any]], object]:
    return lambda doc: doc.update(mediaType=kind)


@pytest.mark.case("SIG-06", "SIG-19")
@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (as_type(INDEX_TYPE), "oci.media-type"),
        (lambda d: d["config"].update(mediaType="application/vnd.oci.image.config.v1+json"),
         "oci.media-type"),
        (lambda d: d["layers"][0].update(mediaType=CAPSULE_TYPE), "oci.media-type"),
        (lambda d: d["layers"].append(d["layers"][0]), "oci.media-type"),
        (lambda d: d.update(layers=[]), "oci.media-type"),
        (lambda d: d.update(schemaVersion=1), "oci.manifest"),
        (lambda d: d["layers"][0].update(digest="sha256:zz"), "oci.manifest"),
        (lambda d: d["layers"][0].update(digest=digest_of(b"other code")), "oci.layout"),
        (lambda d: d.pop("annotations"), "oci.no-capsule"),
        (notes(digest="md5:00", size="1"), "oci.manifest"),
        (notes(digest="sha256:../../x", size="1"), "oci.manifest"),
        (notes(digest=digest_of(CAPSULE), size="-1"), "oci.manifest"),
        (notes(digest=digest_of(CAPSULE), size="\u0661"), "oci.manifest"),
        (notes(digest=digest_of(CAPSULE)), "oci.manifest"),
        (notes(digest=digest_of(CAPSULE), size="67108865"), "oci.size"),
        (notes(digest=digest_of(CAPSULE), size="10"), "oci.size"),
        (notes(digest=digest_of(CAPSULE), size=str(len(CAPSULE) + 1)), "oci.size"),
        (notes(digest=digest_of(FILES["plugin.wasm"]), size="8"), "oci.layout"),
    ],
)  # fmt: skip
def test_a_manifest_about_something_else(
    pushed: Registry, edit: Callable[[dict[str, Any]], object], code: str
) -> None:
    pushed.edit(edit)
    assert code_of(pushed.pull) == code


@pytest.mark.case("SIG-06", "SIG-21")
def test_the_capsule_of_other_code_than_the_layer(pushed: Registry) -> None:
    code = FILES["plugin.wasm"] + b"\0\x02\x01x"
    other = signed(members={**FILES, "plugin.wasm": code})
    pushed.blobs[digest_of(other)] = other
    pushed.edit(notes(digest=digest_of(other), size=str(len(other))))
    assert code_of(pushed.pull) == "oci.layout"


# -- where it leads to -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to", ["http://{0}/x", "//{0}/x", "file:///etc/passwd", "http://u@{0}/", ""]
)
def test_a_blob_is_not_taken_from_another_place_in_the_clear(pushed: Registry, to: str) -> None:
    with Origin(lambda _: http(CAPSULE)) as other:
        pushed.lie = when(BLOB, redirect(to.format(f"127.0.0.1:{other.port}")))
        assert code_of(pushed.pull) == "oci.redirect"
    assert other.connections == 0


def test_a_redirect_within_the_registry_is_followed_but_not_for_ever(pushed: Registry) -> None:
    pushed.lie = lambda got: (
        redirect("/elsewhere") if BLOB in got.line
        else http(CAPSULE) if "/elsewhere" in got.line else None
    )  # fmt: skip
    assert pushed.pull().capsule == CAPSULE
    pushed.lie = when("/blobs/", redirect(BLOB.split(" ")[1]))
    assert code_of(pushed.pull) == "oci.redirect"


def test_a_manifest_is_not_redirected(pushed: Registry) -> None:
    pushed.lie = when(TAG, redirect("/v2/acme/weather/manifests/other"))
    assert code_of(pushed.pull) == "oci.redirect"


def test_a_blob_from_another_host_is_asked_for_without_credentials(tmp_path: Path) -> None:
    ca_file, tls = make_tls(tmp_path)
    with Registry(tls=tls) as registry, Origin(lambda _: http(CAPSULE), tls=tls) as store:
        registry.push(ca_file=str(ca_file))
        registry.login = (CREDENTIALS.basic, 'Basic realm="x"')
        registry.lie = when(BLOB, redirect(f"https://127.0.0.1:{store.port}/blob?signed=1"))
        found = registry.pull(ca_file=str(ca_file), credentials=CREDENTIALS)
        assert found.capsule == CAPSULE
        assert registry.shown == {CREDENTIALS.basic}
        [got] = store.got
        assert got.all("authorization") == []
        # And is believed as little.
        store.answer = lambda _: http(CAPSULE[:-1] + b"\x01")
        assert code_of(
            lambda: registry.pull(ca_file=str(ca_file), credentials=CREDENTIALS)
        ) == "oci.digest"  # fmt: skip
        challenge = [("WWW-Authenticate", 'Basic realm="x"')]
        store.answer = lambda _: http(b"", 401, challenge)
        assert code_of(
            lambda: registry.pull(ca_file=str(ca_file), credentials=CREDENTIALS)
        ) == "oci.redirect"  # fmt: skip
        assert all(got.all("authorization") == [] for got in store.got)


def test_from_https_nothing_leads_down_to_http(tmp_path: Path) -> None:
    ca_file, tls = make_tls(tmp_path)
    with Registry(tls=tls) as registry, Origin() as clear:
        registry.push(ca_file=str(ca_file))
        registry.lie = when(BLOB, redirect(f"http://{registry.authority}/x"))
        assert code_of(lambda: registry.pull(ca_file=str(ca_file))) == "oci.redirect"
        where = f"http://127.0.0.1:{clear.port}/token"
        registry.lie = lambda _: http(
            b"", 401, [("WWW-Authenticate", f'Bearer realm="{where}",service="x"')]
        )
        assert code_of(lambda: registry.pull(ca_file=str(ca_file))) == "oci.realm"
        assert clear.connections == 0
        # Nor is a server that speaks no TLS asked without it.
        quick = Patience(idle=0.3, total=0.6)
        with Registry() as other:
            assert code_of(lambda: other.pull(ca_file=str(ca_file), patience=quick)) == (
                "repository.timeout"
            )
            assert not any("/v2/" in line for line in other.lines)


@pytest.mark.parametrize(
    "to", ["http://127.0.0.1:{0}/up", "https://evil.example/up", "http://127.0.0.1:{0}/up?x=1", ""]
)
def test_an_upload_goes_nowhere_else(registry: Registry, to: str) -> None:
    with Origin() as other:
        place = [("Location", to.format(other.port))]
        registry.lie = when("POST /v2", http(b"", 202, place))
        assert code_of(registry.push) == "oci.redirect"
    assert other.connections == 0
    assert registry.blobs == registry.manifests == {}


def test_the_place_of_an_upload_does_not_say_what_is_uploaded(registry: Registry) -> None:
    place = [("Location", "/v2/acme/weather/blobs/uploads/1?digest=sha256:00")]
    registry.lie = when("POST /v2", http(b"", 202, place))
    assert code_of(registry.push) == "oci.redirect"


# -- while pushing ---------------------------------------------------------------------------------


def index(*digests: str) -> bytes:
    listed = [{"mediaType": MANIFEST_TYPE, "digest": d, "size": 1} for d in digests]
    doc = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": listed}
    return json.dumps(doc).encode()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (manifest(index(), INDEX_TYPE), "oci.referrers"),
        (manifest(index(digest_of(b"")), INDEX_TYPE), "oci.referrers"),
        (manifest(b"[]", INDEX_TYPE), "oci.manifest"),
        (manifest(index("sha1:00"), INDEX_TYPE), "oci.manifest"),
        (manifest(index(*[digest_of(b"")] * 1001), INDEX_TYPE), "oci.manifest"),
        (http(b"", 500), "oci.status"),
        (http(b"", 404), "oci.referrers"),
        (endless, "oci.size"),
    ],
)
def test_referrers_that_lie(registry: Registry, answer: Any, code: str) -> None:
    registry.lie = when("/referrers/", answer)
    assert code_of(registry.push) == code
    assert "1.2.0" not in registry.manifests  # a tag comes last


def test_without_the_referrers_api_a_tag_stands_for_it() -> None:
    with Registry(api=False) as registry:
        sent = registry.push()
        tag = (sent.reference.digest or "").replace(":", "-")
        kind, data = registry.manifests[tag]
        assert kind == INDEX_TYPE
        assert [m["digest"] for m in json.loads(data)["manifests"]] == list(sent.referrers)
        # What others attached stays.
        doc = json.loads(index(digest_of(b"theirs")))
        doc["annotations"] = {"of": "theirs"}
        registry.manifests[tag] = INDEX_TYPE, json.dumps(doc).encode()
        registry.push()
        after = json.loads(registry.manifests[tag][1])
        assert [m["digest"] for m in after["manifests"]] == [digest_of(b"theirs"), *sent.referrers]
        assert after["annotations"] == {"of": "theirs"}
        # And what is no list is not overwritten.
        registry.manifests[tag] = MANIFEST_TYPE, b"{}"
        assert code_of(registry.push) == "oci.media-type"
        assert registry.manifests[tag] == (MANIFEST_TYPE, b"{}")


@pytest.mark.parametrize(
    "part", ["PUT /v2/acme/weather/manifests/1.2.0", "PUT /v2/acme/weather/bl"]
)
def test_what_was_written_is_not_called_something_else(registry: Registry, part: str) -> None:
    registry.lie = when(part, http(b"", 201, [("Docker-Content-Digest", digest_of(b""))]))
    assert code_of(registry.push) == "oci.digest"


def test_its_words_are_told_if_they_are_plain(registry: Registry) -> None:
    registry.lie = when("GET", http(b"quota used up", 403))
    with pytest.raises(Exception, match="denies it: 'quota used up'"):
        registry.push()
    registry.lie = when("GET", http(b"\x1b]0;evil\x07", 403))
    with pytest.raises(Exception, match=r"denies it$"):
        registry.push()


def test_a_push_needs_a_tag_and_takes_no_digest_but_its_own(registry: Registry) -> None:
    sent = registry.push()
    registry.reference = sent.reference
    assert registry.push().uploaded == 0
    registry.reference = sent.reference.at(digest_of(b""))
    assert code_of(registry.push) == "oci.reference"
    registry.reference = replace(sent.reference, tag=None)
    assert code_of(registry.push) == "oci.reference"


# -- again -----------------------------------------------------------------------------------------


def failing(times: int, answer: bytes) -> Callable[[Got], bytes | None]:
    left = [times]

    def lie(_: Got) -> bytes | None:
        left[0] -= 1
        return answer if left[0] >= 0 else None

    return lie


@pytest.mark.parametrize(
    "answer", [http(b"", 503), http(b"", 429), b""], ids=["503", "429", "gone"]
)
def test_what_does_no_harm_is_asked_again_a_few_times(pushed: Registry, answer: bytes) -> None:
    pauses: list[float] = []
    pushed.lie = failing(2, answer)
    assert pushed.pull(pause=pauses.append).capsule == CAPSULE
    assert len(pauses) == 2
    pushed.lie = failing(3, answer)
    pushed.origin.got.clear()
    assert code_of(pushed.pull) in ("oci.status", "repository.protocol", "repository.unreachable")
    assert len(pushed.lines) == 3


def test_an_upload_is_not_begun_twice_by_itself(registry: Registry) -> None:
    registry.lie = when("POST /v2", http(b"", 503))
    assert code_of(registry.push) == "oci.status"
    assert len([line for line in registry.lines if line.startswith("POST")]) == 1
    registry.lie = lambda _: None
    assert registry.push().uploaded == 5


def test_this_machine_is_asked_by_its_name_too(pushed: Registry) -> None:
    pushed.reference = replace(pushed.reference, host="localhost")
    assert pushed.pull().capsule == CAPSULE


def test_it_says_nothing_of_who_pulls(pushed: Registry) -> None:
    pushed.pull(credentials=CREDENTIALS)
    assert pushed.shown == set()  # nobody asked
    sent = str([got.headers for got in pushed.origin.got])
    assert USER not in sent
    assert len(pushed.lines) == 2
