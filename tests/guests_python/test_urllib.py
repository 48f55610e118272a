"""A plugin that uses the standard library's `urllib.request` reaches what it was granted, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capwasm.plugin import Plugin
from tests.caps.net.servers import Got, Origin, http, redirect

from .bench import REPOSITORY, Author

COURIER = REPOSITORY / "tests/guests/python/courier"
pytestmark = pytest.mark.toolchain("componentize-py")


def answer(got: Got) -> bytes:
    match got.line.split()[1]:
        case "/v1/away":
            return redirect("http://localhost:9/v1/")
        case "/v1/near":
            return redirect("/v1/x")
        case "/v1/none":
            return http(b"nothing", 404)
        case path:
            return http(got.body or f"{path}\nend".encode(), headers=[("X-Kind", "plain")])


@pytest.fixture
def served() -> Iterator[Origin]:
    with Origin(answer) as origin:
        yield origin


@pytest.fixture
def courier(author: Callable[[Path, str], Author], served: Origin) -> tuple[Author, Plugin]:
    made = author(COURIER, "test.courier")
    where = f"http://127.0.0.1/32:{served.port}"
    made.manifest = made.manifest.replace("https://api.acme.com", where)
    made.allow(f'[[net]]\nallow = "{where}/v1/*"\nmethods = ["*"]\n[random]\n[clock]\n')
    return made, made.load()


def test_allows_urllib_what_was_granted_and_refuses_the_rest(
    courier: tuple[Author, Plugin], served: Origin
) -> None:
    author, plugin = courier
    url = f"http://127.0.0.1:{served.port}"
    errands = plugin.exports.errands

    assert errands.get(f"{url}/v1/x") == ["200", "plain", "/v1/x\nend"]
    assert errands.post(f"{url}/v1/x", b"a body") == ["200", "plain", "a body"]
    assert served.got[1].all("x-own") == ["1"]
    assert errands.get(f"{url}/v1/near") == ["200", "plain", "/v1/x\nend"]
    assert errands.get(f"{url}/v1/none") == ["404", "Not Found", "nothing"]
    assert errands.built(f"{url}/v1/x") == ["/v1/x\n", "end"]
    count = len(served.got)

    for denied in (
        f"{url}/v2",
        "https://example.com/",
        f"{url.replace('127.0.0.1', 'localhost')}/v1/",
    ):
        assert errands.get(denied)[:2] == ["URLError", "PermissionError"]
    assert len(served.got) == count
    # urllib follows by itself; where it may not, that is one more request, and refused.
    assert errands.get(f"{url}/v1/away")[:2] == ["URLError", "PermissionError"]
    author.world.runtime.recorder._audit.flush()  # type: ignore[attr-defined]
    denied = [e["target"] for e in author.world.events("net") if e["verdict"] == "denied"]
    assert len(denied) == 4
