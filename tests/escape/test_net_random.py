"""Random URLs, redirects and resolvers never reach a listener that isn't granted.

The judge is not the engine but real listeners: one that is granted, and others on the same port of
other addresses and on other ports, which count whoever connects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.caps.net.request import RequestSpec
from capwasm.errors import CapError
from tests.caps.net.servers import Bench, Got, Origin, http, local, redirect, rules
from tests.helpers import in_call

WORDS = {"denied", "invalid", "unavailable", "too-large", "timeout", "closed", "insecure"}


class World:
    """The listeners, and an engine that may reach one of them at one path of one name."""

    def __init__(self) -> None:
        self.locations: list[str] = []
        self.answers: list[list[str]] = []
        self.granted = Origin(self._answer)
        port = self.granted.port
        self.forbidden = [
            Origin(),
            Origin(host="127.0.0.2", port=port),
            Origin(host="127.0.0.2"),
            Origin(host="::1", port=port),
            Origin(host="::1"),
        ]
        self.bench = Bench()
        self.bench.engine._lookups._resolve = self._resolve
        self.grant = rules(
            local(f"http://good.test:{port}/ok/*", ["GET"]),
            # Names that may lead into public space alone, which is none of these listeners.
            {"allow": f"http://*.wild.test:{port}"},
            {"allow": "http://wild.test:1-65535"},
            deny=[local(f"http://good.test:{port}/ok/denied/*")],
        )

    def _answer(self, _: Got) -> bytes:
        return redirect(self.locations.pop(0)) if self.locations else http()

    def _resolve(self, _name: str, _port: int) -> list[str]:
        if len(self.answers) > 1:
            return self.answers.pop(0)
        return self.answers[0]

    def try_(self, url: str, answers: list[list[str]], locations: list[str]) -> None:
        """Send, and look whether anything came where it should not."""
        self.answers, self.locations = list(answers), list(locations)
        before = len(self.granted.got)
        with in_call() as call:
            try:
                spec = RequestSpec("GET", url, timeout_ms=3_000)
                response = self.bench.engine.request(self.grant, spec, call)
                response.read_all(1_000)
                response.close()
            except CapError as exc:
                word = exc.word
            else:
                word = "denied"
        assert word in WORDS
        assert [o.connections for o in self.forbidden] == [0] * len(self.forbidden)
        for got in self.granted.got[before:]:
            method, target, version = got.line.split(" ")
            path = target.partition("?")[0]
            assert (method, version) == ("GET", "HTTP/1.1")
            assert path.startswith("/ok/")
            assert not path.startswith("/ok/denied/")
            assert not {".", ".."} & set(path.split("/"))
            assert got.all("host") == [f"good.test:{self.granted.port}"]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.bench.engine.close()
    # Else the tests above passed because nothing got anywhere.
    assert len(world.granted.got) > 100, len(world.granted.got)
    for origin in (world.granted, *world.forbidden):
        origin.__exit__()


HOSTS = (
    "good.test", "GOOD.test.", "good。test", "ｇood.test", "good.test\0.wild.test", "xn--good-.test",
    "evil.test", "wild.test", "a.wild.test", "a.b.wild.test", "evilwild.test", "good.test.evil.test",
    "127.0.0.1", "127.0.0.2", "127.1", "0x7f.1", "0177.0.0.2", "2130706433", "2130706434", "0", "0x7f000002",
    "①②⑦.⓪.⓪.②", "127。0。0。2", "１２７.0.0.2", "[::1]", "[::ffff:127.0.0.2]", "[::ffff:7f00:1]",
    "[::7f00:2]", "[64:ff9b::7f00:2]", "[2002:7f00:2::]", "[::1]good.test", "[good.test]", "[::1%25lo]",
    "localhost", "169.254.169.254", "[fd00:ec2::254]", "0.0.0.0", "[::]", "good.test\\", "good.test%2f", "",
)  # fmt: skip
GOOD = ["127.0.0.1"]
ANSWERS = (
    GOOD, GOOD, GOOD, ["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["::1"], ["127.0.0.1", "::1"],
    ["::ffff:127.0.0.2"], ["::ffff:127.0.0.1"], ["::7f00:2"], ["64:ff9b::7f00:2"], ["169.254.169.254"],
    ["10.0.0.1"], ["0.0.0.0"], ["::"], ["255.255.255.255"], ["ff02::1"], ["0x7f.2"], ["localhost"], [],
)  # fmt: skip
PATHS = (
    "/ok/x", "/ok/", "/ok", "/no", "/ok/../no", "/ok/%2e%2e/no", "/ok/%2E./no", "/ok/..%2fno", "/ok/..;/no",
    "/ok/%252e%252e/no", "/ok/..\\no", "/ok/denied/x", "/ok//denied/x", "/ok/./denied/x", "/ok/%64enied/x",
    "/./ok/x", "//ok/x", "/ok/x\r\nHost: evil.test", "/ok/x HTTP/1.1\r\n\r\nGET /no", "", "?/ok/", "#/ok/",
    "/ok/x?../../no", "/ok/%00", "\\ok\\x", "/ok/%c0%ae%c0%ae/no",
)  # fmt: skip


def urls(world: World) -> st.SearchStrategy[str]:
    ports = st.sampled_from(
        ["", ":", ":80", ":080", ":0", ":８０", f":0{world.granted.port}"]
        + [f":{world.granted.port}"] * 24
        + [f":{o.port}" for o in world.forbidden]
    )
    hosts = st.sampled_from(HOSTS) | st.just("good.test")
    return st.builds(
        "{}{}{}{}{}".format,
        st.sampled_from(
            ["http://"] * 24
            + [
                "HTTP://",
                "https://",
                "http:/",
                "http:",
                "//",
                "http:\\\\",
                "http:///",
                "file://",
                " http://",
                "\thttp://",
            ]
        ),
        st.sampled_from(
            [""] * 24 + ["good.test@", "u:p@", f"good.test:{world.granted.port}@", "@", "a@b@"]
        ),
        hosts,
        ports,
        st.sampled_from(PATHS) | st.just("/ok/x"),
    )


SETTINGS = settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.case(
    *(f"NET-{n:02}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 25))
)
@given(data=st.data())
@SETTINGS
def test_refuses_every_way_to_a_listener_that_is_not_granted(world: World, data: Any) -> None:
    url = data.draw(urls(world))
    answers = data.draw(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4))
    references = urls(world) | st.sampled_from(PATHS)
    locations = data.draw(st.lists(references, max_size=3))
    world.try_(url, answers, [x for x in locations if not set(x) & set("\r\n\0") and x.isascii()])


@pytest.mark.case("NET-07", "NET-09")
@given(
    answers=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=6),
    hops=st.integers(min_value=0, max_value=6),
)
@SETTINGS
def test_refuses_a_resolver_that_changes_its_answer(
    world: World, answers: list[list[str]], hops: int
) -> None:
    base = f"http://good.test:{world.granted.port}/ok/"
    world.try_(base, answers, [f"{base}{n}" for n in range(hops)])


@given(text=st.text(max_size=40), at=st.integers(min_value=0, max_value=60))
@SETTINGS
def test_refuses_what_grows_out_of_a_good_url(world: World, text: str, at: int) -> None:
    good = f"http://good.test:{world.granted.port}/ok/x?q"
    world.try_(good[:at] + text + good[at:], [["127.0.0.2"] if "evil" in text else GOOD], [])


def test_allows_the_one_way_that_is_granted(world: World) -> None:
    before = len(world.granted.got)
    base = f"http://good.test:{world.granted.port}/ok/"
    world.try_(f"{base}x", [GOOD], [f"{base}y", "../ok/z"])
    assert [g.line.split()[1] for g in world.granted.got[before:]] == ["/ok/x", "/ok/y", "/ok/z"]
