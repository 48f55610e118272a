"""Components that nobody made for capwasm send requests, under grants: Rust crates and the web's `fetch`."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm._shipped import guest_sdk
from capwasm.authoring.builders import Task, js
from capwasm.errors import LinkError
from capwasm.plugin import Plugin
from tests.builds import CACHE, compiled, files_of, missing, share
from tests.caps.net.servers import Got, Origin, http, redirect
from tests.kit import World, guest

REPOSITORY = Path(__file__).parents[2]
JS = REPOSITORY / "tests/guests/js/courier"
MIB = 1024 * 1024
NET = '[[{}net]]\nallow = "http://127.0.0.1/32:{}/v1/*"\nmethods = ["*"]\n'
REST = ("random", "clock", "log")


def answer(got: Got) -> Any:
    path = got.line.split()[1]
    if path == "/v1/away":
        return redirect("http://localhost:9/v1/")
    if path == "/v1/big":
        return big()
    return http(b"%d" % len(got.body) if got.body else path.encode())


def big() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (24 * MIB)
    for _ in range(24):
        yield (bytes([7]) + bytes(4095)) * 256


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(answer) as origin:
        yield origin


@pytest.fixture(params=["in-process", "process"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.way = '[isolation]\nprocess = ["test.*"]\n' if request.param == "process" else ""
    yield world
    world.close()


def load(world: World, origin: Origin, code: bytes, *, granted: bool = True) -> Plugin:
    """The component, which asks for the origin below /v1, and is granted it or nothing."""
    given = NET.format('plugins."test.guest".', origin.port) if granted else ""
    world.policy(given + "".join(f'[plugins."test.guest".{w}]\n' for w in REST) + world.way)
    asked = NET.format("", origin.port) + ("" if granted else "optional = true\n")
    limits = f"[limits]\nnet-bytes = {64 * MIB}\nfuel = 20000000000\n"
    return world.load(code, asked + "".join(f"[{w}]\n" for w in REST) + limits)


def net_events(world: World) -> list[tuple[str, str, str]]:
    world.runtime.recorder._audit.flush()  # type: ignore[attr-defined]
    return [(e["verdict"], e["action"], e["reason"]) for e in world.events("net")]


# -- Rust ----------------------------------------------------------------------------------------


def test_allows_rust_crates_what_was_granted(world: World, origin: Origin) -> None:
    errands = load(world, origin, guest("courier")).exports.errands
    url = f"http://127.0.0.1:{origin.port}/v1/x"

    for crate in ("waki", "wstd"):
        body = b"x" * 100_000
        headers = ([("x-own", "1")],) if crate == "waki" else ()
        assert getattr(errands, f"{crate}_get")(url, *headers).unwrap() == (200, b"/v1/x")
        assert getattr(errands, f"{crate}_post")(url, body).unwrap() == (200, b"100000")
    assert origin.got[0].all("x-own") == ["1"]
    allowed = [("allowed", m, r) for m in ("GET", "POST") for r in ("sent", "done")]
    assert net_events(world) == allowed * 2


@pytest.mark.case("NET-26")
def test_refuses_rust_crates_the_rest_in_words_of_their_own(world: World, origin: Origin) -> None:
    errands = load(world, origin, guest("courier")).exports.errands

    for url in ("http://127.0.0.1:{}/v2", "http://localhost:{}/v1/", "https://127.0.0.1:{}/v1/"):
        for answer in (
            errands.waki_get(url.format(origin.port), []),
            errands.wstd_get(url.format(origin.port)),
        ):
            assert "HttpRequestDenied" in answer.error
    assert origin.connections == 0
    assert {e[0] for e in net_events(world)} == {"denied"}
    assert len(net_events(world)) == 6


def test_refuses_everything_that_was_asked_for_and_not_granted(
    world: World, origin: Origin
) -> None:
    errands = load(world, origin, guest("courier"), granted=False).exports.errands

    answer = errands.wstd_get(f"http://127.0.0.1:{origin.port}/v1/x")
    assert "HttpRequestDenied" in answer.error
    assert net_events(world) == [("denied", "GET", "not-granted")]
    assert origin.connections == 0


@pytest.mark.case("NET-26")
def test_refuses_to_load_what_does_not_ask_for_the_network(world: World) -> None:
    world.policy("".join(f'[plugins."test.guest".{w}]\n' for w in REST) + world.way)

    with pytest.raises(LinkError, match=r"does not declare \[\[net\]\]") as caught:
        world.load(guest("courier"), "[random]\n[log]\n[clock]\n")
    assert caught.value.code == "link.undeclared-import"
    assert {f.fix for f in caught.value.faults} == {"[[net]]"}


def test_allows_bodies_to_stream_both_ways(world: World, origin: Origin) -> None:
    errands = load(world, origin, guest("courier")).exports.errands
    where = f"127.0.0.1:{origin.port}"

    tracemalloc.start()
    try:
        assert errands.download(where, "/v1/big").unwrap() == (24 * MIB, 24 * 256 * 7)
        # The listener's own pieces, of 1 MiB, are in it.
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert errands.upload(where, "/v1/up", 8 * MIB).unwrap() == (200, b"%d" % (8 * MIB))


class Echo(Origin):
    """Sends each chunk back as soon as it is here."""

    def _read(self, file: Any) -> Got | None:  # type: ignore[override]
        line = file.readline()
        while line and file.readline().rstrip():
            pass
        self.file = file
        return Got(line.decode().rstrip(), [], b"") if line else None

    def back(self, _: Got) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while size := int(self.file.readline(), 16):
            yield b"%x\r\n%b\r\n" % (size, self.file.read(size))
            self.file.readline()
        yield b"0\r\n\r\n"


def test_allows_an_answer_while_the_request_is_sent(world: World) -> None:
    with Echo() as echo:
        echo.answer = echo.back
        errands = load(world, echo, guest("courier")).exports.errands

        assert errands.duplex(f"127.0.0.1:{echo.port}", "/v1/", 20).unwrap() == 20


# -- JavaScript ----------------------------------------------------------------------------------


def courier_js() -> bytes:
    """The component of tests/guests/js/courier, built unless it was built from these files."""
    sdk = guest_sdk("js") / "tools"
    files = [*files_of([JS]).values(), sdk / "package-lock.json"]
    digest = hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()
    kept = CACHE / "components/js" / f"web-courier-{digest[:24]}.wasm"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as name:
            scratch, manifest = Path(name), None
            task = Task(JS, manifest, {}, scratch, compiled().parent / "js")  # type: ignore[arg-type]
            tools = js._tools(task, sdk.resolve())
            fresh = scratch / "courier.wasm"
            argv = ["node", JS / "build.mjs", tools, JS, fresh]
            subprocess.run(argv, check=True, capture_output=True)
            fresh.replace(kept)
    return kept.read_bytes()


@pytest.fixture
def web(tmp_path: Path, origin: Origin) -> Iterator[tuple[World, Plugin]]:
    if why := missing(REPOSITORY / "tests/guests/js/lab"):
        pytest.skip(why)
    world = World(tmp_path)
    world.way = ""
    share(compiled(), world.home / "cache")
    plugin = load(world, origin, courier_js())
    share(world.home / "cache", compiled())
    yield world, plugin
    world.close()


@pytest.mark.toolchain("node")
def test_allows_the_web_s_own_fetch_what_was_granted_and_refuses_the_rest(
    web: tuple[World, Plugin], origin: Origin
) -> None:
    world, plugin = web
    errands, url = plugin.exports.errands, f"http://127.0.0.1:{origin.port}/v1"

    assert errands.get(f"{url}/x", [("x-own", "1")]).unwrap() == (200, b"/v1/x")
    assert errands.post(f"{url}/x", b"x" * 100_000).unwrap() == (200, b"100000")
    assert errands.stream(f"{url}/x", 10, 50_000).unwrap() == (200, b"500000")
    several = errands.several([f"{url}/{n}" for n in range(5)]).unwrap()
    assert several == [f"/v1/{n}" for n in range(5)]
    assert {e[0] for e in net_events(world)} == {"allowed"}
    count = origin.connections

    for denied in (f"http://127.0.0.1:{origin.port}/v2", "https://example.com/", f"{url}/../v2"):
        assert "Error" in errands.get(denied, []).error
    assert origin.connections == count
    assert [e for e in net_events(world) if e[0] == "denied"] == [
        ("denied", "GET", "not-granted")
    ] * 3
