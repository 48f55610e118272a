"""One table of what a plugin may do and what it is refused, for all three ways to run it.

The broker of a process makes no decision of its own (IPC-10): so whatever way the prober runs, the same
operation gives the same answer, the same refusal, and the same record.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from capwasm.plugin import Plugin
from tests.caps.net.servers import Origin
from tests.kit import Refused, World

from .ways import GRANTED, WAYS, Probe, granted_world, load_way

# operation and arguments, and what it gives; PORT stands for the origin's.
GIVES: list[tuple[tuple[str, ...], str]] = [
    (("fs.read", "/data/a.txt"), "hello"),
    (("fs.read", "/fixed/a.txt"), "fixed"),
    (("fs.stat", "/data/a.txt"), "Kind::File 5"),
    (("fs.list", "/fixed"), "a.txt"),
    (("fs.open", "/data/a.txt"), ""),
    (("fs.hold", "/data/a.txt", "20"), "20"),
    (("fs.write", "/data/new.txt", "text"), ""),
    (("fs.read", "/data/new.txt"), "text"),
    (("fs.append", "/data/new.txt", " and"), ""),
    (("fs.update", "/data/new.txt", "T"), ""),
    (("fs.size", "/data/new.txt"), "8"),
    (("fs.read-at", "/data/new.txt", "1", "5"), "ext a"),
    (("fs.read-at", "/data/new.txt", "8", "5"), ""),
    (("fs.set-size", "/data/new.txt", "4"), ""),
    (("fs.sync", "/data/new.txt"), ""),
    (("fs.read", "/data/new.txt"), "Text"),
    (("fs.create", "/data/other.txt", "other"), ""),
    (("fs.list", "/data", "new.txt"), "other.txt\nout"),
    (("fs.remove", "/data/other.txt"), ""),
    (("fs.write", "/data/large.txt", "x" * 90_000), ""),
    (("fs.read", "/data/large.txt"), "x" * 90_000),
    (("fs.remove", "/data/large.txt"), ""),
    (("fs.mkdir", "/data/sub"), ""),
    (("fs.rename", "/data/new.txt", "/data/sub/moved.txt"), ""),
    (("fs.read", "/data/sub/moved.txt"), "Text"),
    (("fs.remove", "/data/sub/moved.txt"), ""),
    (("fs.remove", "/data/sub"), ""),
    (("fetch", "GET", "http://127.0.0.1:PORT/open/x"), "200 GET /open/x "),
    (("fetch", "POST", "http://127.0.0.1:PORT/open/x", "body:" + "b" * 20_000), "200 POST /open/x " + "b" * 20_000),
    (("fetch", "GET", "http://127.0.0.1:PORT/open/x", "secret:sent"), "200 GET /open/x [secret:credential-0] "),
    (("fetch.stream", "POST", "http://127.0.0.1:PORT/open/x", "body:" + "b" * 2500), "POST /open/x " + "b" * 2500),
    (("secret.reveal", "shown"), "s3cret-value"),
    (("kv.get", "none"), "(none)"),
    (("kv.set", "k", "värde"), ""),
    (("kv.get", "k"), "värde"),
    (("kv.set", "large", "v" * 30_000), ""),
    (("kv.get", "large"), "v" * 30_000),
    (("kv.set", "brief", "x", "1"), ""),
    (("kv.compare-and-set", "c", "1"), "true"),
    (("kv.compare-and-set", "c", "2"), "false"),
    (("kv.compare-and-set", "c", "2", "1"), "true"),
    (("kv.get", "c"), "2"),
    (("kv.delete", "c"), "true"),
    (("kv.delete", "c"), "false"),
    (("kv.increment", "n", "5"), "5"),
    (("kv.increment", "n", "2"), "7"),
    (("clock.sleep", "2000000"), ""),
    (("kv.get", "brief"), "(none)"),
    (("kv.keys", ""), "k\nlarge\nn"),
    (("kv.keys", "", "k"), "large\nn"),
    (("kv.keys", "la"), "large"),
    (("log", "warn", "a line"), ""),
    (("clock.sleep", "1000"), ""),
    (("clock.loop", "50"), ""),
    (("random", "32"), "32"),
    (("random", "65536"), "65536"),
    (("config", "colour"), "red"),
    (("config", "size"), "(none)"),
    (("config.all",), "colour=red"),
]  # fmt: skip

REFUSES: list[tuple[tuple[str, ...], str]] = [
    (("fs.read", "/data/none"), "not-found"),
    (("fs.read", "/etc/passwd"), "denied"),
    (("fs.read", "/data/../secret.txt"), "denied"),
    (("fs.read", "/data/out"), "denied"),
    (("fs.read", "relative"), "invalid"),
    (("fs.read", "/data/" + "n" * 5000), "invalid"),
    (("fs.read", "/data/nul\x00"), "invalid"),
    (("fs.read", "/data"), "is-directory"),
    (("fs.read", "/data/a.txt/x"), "not-directory"),
    (("fs.append", "/data", "x"), "is-directory"),
    (("fs.create", "/data/a.txt", "x"), "exists"),
    (("fs.update", "/data/none", "x"), "not-found"),
    (("fs.size", "/data/none"), "not-found"),
    (("fs.sync", "/etc/passwd"), "denied"),
    (("fs.set-size", "/fixed/a.txt", "0"), "denied"),
    (("fs.set-size", "/data/a.txt", str(2**62)), "quota"),
    (("fs.list", "/data/a.txt"), "not-directory"),
    (("fs.remove", "/data/none"), "not-found"),
    (("fs.write", "/fixed/new.txt", "x"), "denied"),
    (("fs.remove", "/fixed/a.txt"), "denied"),
    (("fs.rename", "/data/a.txt", "/fixed/b.txt"), "denied"),
    (("fs.write", "/data/big", "x" * 200_000), "quota"),
    (("fs.mkdir", "/data/a.txt"), "exists"),
    (("fetch", "GET", "http://127.0.0.1:PORT/shut"), "denied"),
    (("fetch", "DELETE", "http://127.0.0.1:PORT/open/x"), "denied"),
    (("fetch", "GET", "http://127.0.0.1:1/open/x"), "denied"),
    (("fetch", "GET", "http://other.test/open/x"), "denied"),
    (("fetch", "GET", "https://api.test:PORT/open/x"), "denied"),
    (("fetch", "GET", "http://127.0.0.2:PORT/open/x"), "denied"),
    (("fetch.stream", "GET", "http://127.0.0.1:PORT/shut"), "denied"),
    (("fetch", "GET", "not a url"), "invalid"),
    (("fetch", "GET", "http://127.0.0.1:PORT/open/x", "Host=evil"), "denied"),
    (("fetch", "GET", "http://127.0.0.1:PORT/open/x", "secret:none"), "denied"),
    (("fetch", "GET", "http://127.0.0.1:PORT/open/x", "secret:shown"), "denied"),
    (("secret.get", "none"), "denied"),
    (("secret.reveal", "sent"), "denied"),
    (("secret.reveal", "none"), "denied"),
    (("kv.set", "", "x"), "invalid"),
    (("kv.set", "a\nb", "x"), "invalid"),
    (("kv.delete", "x" * 513), "invalid"),
    (("kv.compare-and-set", "", "x"), "invalid"),
    (("kv.increment", "", "1"), "invalid"),
    (("kv.set", "k", "v" * 2_000_000), "too-large"),
    (("random", "65537"), "too-large"),
]


@pytest.fixture(params=WAYS, scope="module")
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def granted(
    way: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, Origin, Plugin, Probe]]:
    root = tmp_path_factory.mktemp("granted")
    with granted_world(root, way) as (world, origin):
        plugin, probe = load_way(world, way, GRANTED.format(port=origin.port))
        yield world, origin, plugin, probe


def with_port(arguments: tuple[str, ...], origin: Origin) -> list[str]:
    return [a.replace("PORT", str(origin.port)) for a in arguments]


@pytest.mark.case("IPC-10")
def test_what_is_granted_works_the_same_way(granted: Any) -> None:
    _, origin, _, probe = granted
    for arguments, expected in GIVES:
        assert probe(*with_port(arguments, origin)) == expected, arguments[:2]
    # The plugin never saw it, not even where the origin sent it back; the origin did.
    assert [v for got in origin.got for v in got.all("authorization")] == ["Bearer t0ken-value"]


@pytest.mark.case("IPC-10", "IPC-11")
def test_what_is_refused_is_refused_with_the_same_word(granted: Any) -> None:
    world, origin, _, probe = granted
    connections = origin.connections
    for arguments, word in REFUSES:
        with pytest.raises(Refused) as caught:
            probe(*with_port(arguments, origin))
        assert caught.value.word == word, arguments[:2]
    assert origin.connections == connections
    assert (world.home.parent / "secret.txt").read_text() == "not for guests"
    assert sorted(p.name for p in (world.home.parent / "fixed").iterdir()) == ["a.txt"]


def test_what_no_two_calls_give_alike_is_of_the_same_kind(granted: Any) -> None:
    _, origin, _, probe = granted

    before = int(probe("clock.monotonic"))
    assert int(probe("clock.monotonic")) >= before
    assert abs(int(probe("clock.now")) - time.time_ns()) < 60 * 10**9
    assert all(0 <= int(probe("random.next")) < 2**64 for _ in range(3))
    url, *headers = probe("fetch.headers", "GET", f"http://127.0.0.1:{origin.port}/open/x").split(
        "\n"
    )
    assert url == f"http://127.0.0.1:{origin.port}/open/x"
    assert all("=" in header for header in headers)
