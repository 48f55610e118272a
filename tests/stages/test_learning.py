"""What was tried and refused becomes the least manifest that would ask for it."""

from __future__ import annotations

import contextlib
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capwasm._model import hidden
from capwasm.caps import standard_capabilities
from capwasm.errors import Fault, LinkError
from capwasm.events import ALLOWED, DENIED, FAILED, Event
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.learning import Attempt, Learner, Proposal
from capwasm.learning.learner import MAX_ATTEMPTS
from tests.kit import OPTIONAL, Prober, Refused, World, guest

ALL = standard_capabilities()
PLUGIN = {
    "id": "test.learned",
    "name": "Learned",
    "version": "0.1.0",
    "requires-core": ">=0",
    "kind": "component",
}


def denied(kind: str, action: str, target: str = "", reason: str = "", **details: Any) -> Event:
    return Event(kind, DENIED, "p", action, target, reason or "not-granted", details)


def learn(*events: Event, manifest: Manifest | None = None) -> Proposal:
    learner = Learner(ALL, manifest)
    for event in events:
        learner.record(event)
    return learner.propose(PLUGIN)


def tables(proposal: Proposal, name: str) -> list[dict[str, Any]]:
    found = tomllib.loads(proposal.text).get(name, [])
    return found if isinstance(found, list) else [found]


def manifest_of(body: str) -> Manifest:
    head = "\n".join(f'{word} = "{value}"' for word, value in PLUGIN.items())
    return parse_manifest(f"schema = 1\n[plugin]\n{head}\n{body}".encode(), ALL)


# --- each capability -------------------------------------------------------------------------


def test_nothing_tried_asks_for_nothing() -> None:
    found = learn(Event("fs", ALLOWED, "p", "open", "/data/x"))

    assert set(tomllib.loads(found.text)) == {"schema", "plugin"}
    assert found.attempts == {}


def test_files_become_the_directories_they_stand_in() -> None:
    found = learn(
        denied("fs", "open", "/data/a/x.txt", mode="read"),
        denied("fs", "stat", "/data/a/y.txt"),
        denied("fs", "list", "/etc/conf.d"),
    )

    assert tables(found, "fs") == [
        {"mount": "/data/a", "bind": "data-a", "access": "read"},
        {"mount": "/etc/conf.d", "bind": "etc-conf-d", "access": "read"},
    ]


@pytest.mark.parametrize(
    "event",
    [
        denied("fs", "open", "/data/x", mode="write"),
        denied("fs", "open", "/data/x", mode="append"),
        denied("fs", "make-directory", "/data/x"),
        denied("fs", "remove", "/data/x"),
        denied("fs", "open", "/data/x", "read-only"),
    ],
)
def test_what_changes_files_asks_to_change_them(event: Event) -> None:
    assert [t["access"] for t in tables(learn(event), "fs")] == ["read-write"]


def test_a_directory_within_another_is_no_mount_of_its_own() -> None:
    found = learn(
        denied("fs", "open", "/data/x", mode="read"),
        denied("fs", "open", "/data/deep/er/y", mode="write"),
        denied("fs", "open", "/database/z", mode="read"),
    )

    assert [(t["mount"], t["access"]) for t in tables(found, "fs")] == [
        ("/data", "read-write"),
        ("/database", "read"),
    ]


def test_a_mount_that_is_asked_for_is_widened_and_not_doubled() -> None:
    before = manifest_of('[[fs]]\nmount = "/data"\nbind = "app"\n')

    found = learn(denied("fs", "open", "/data/a/b", "read-only"), manifest=before)

    assert tables(found, "fs") == [{"mount": "/data", "bind": "app", "access": "read-write"}]


def test_a_fetch_becomes_its_origin_path_and_methods() -> None:
    found = learn(
        denied("net", "GET", "https://api.acme.com:443/v1/x"),
        denied("net", "POST", "https://api.acme.com:443/v1/x"),
        denied("net", "GET", "http://10.1.2.3:8080/"),
        denied("net", "GET", "https://[2001:db8::1]:443/y"),
    )

    assert tables(found, "net") == [
        {"allow": "http://10.1.2.3/32:8080/", "methods": ["GET"]},
        {"allow": "https://[2001:db8::1]/128:443/y", "methods": ["GET"]},
        {"allow": "https://api.acme.com:443/v1/x", "methods": ["GET", "POST"]},
    ]
    assert "without TLS" in found.text


def test_many_paths_of_one_origin_become_the_directory_they_share() -> None:
    found = learn(*(denied("net", "GET", f"https://a.example:443/v1/user-{n}") for n in range(9)))

    assert [t["allow"] for t in tables(found, "net")] == ["https://a.example:443/v1/*"]


def test_a_secret_is_asked_to_be_sent_and_not_to_be_seen() -> None:
    found = learn(
        denied("secret", "get", "acme-token", "not granted"),
        denied("net", "GET", "https://api.acme.com:443/v1"),
    )

    (table,) = tables(found, "secret")
    assert (table["use"], table["for"]) == ("inject", ["https://api.acme.com:443"])
    assert "decide: in which header?" in found.text


def test_settings_are_named_one_by_one() -> None:
    found = learn(
        denied("config", "get", "region", "not granted"),
        denied("config", "get", "city", "not granted"),
    )

    assert tables(found, "config") == [{"keys": ["city", "region"]}]


def test_a_clock_is_asked_for_what_was_read_of_it() -> None:
    only = learn(denied("clock", "monotonic", reason="not granted"))
    both = learn(
        denied("clock", "wall", reason="not granted"),
        denied("wasi", "wasi:clocks/monotonic-clock.subscribe-duration", table="clock"),
    )

    assert tables(only, "clock") == [{"wall": False, "sleep": False}]
    assert tables(both, "clock") == [{"wall": True, "sleep": True}]


def test_what_a_clock_was_asked_for_before_stays() -> None:
    before = manifest_of("[clock]\nsleep = false\n")

    found = learn(denied("clock", "sleep", reason="not granted"), manifest=before)

    assert tables(found, "clock")[0]["wall"] is True
    assert tables(found, "clock")[0]["sleep"] is True


def test_random_bytes_are_as_many_as_were_drawn_at_once() -> None:
    found = learn(denied("random", "bytes", reason="not granted, or revoked", length=32))

    assert tables(found, "random") == [{"bytes-per-call": 32}]


def test_commands_are_asked_for_by_name() -> None:
    found = learn(denied("exec", "run", "thumbnail", "not granted"))

    assert tables(found, "exec") == [{"command": "thumbnail"}]


def test_the_rest_is_a_bare_table() -> None:
    found = learn(
        denied("kv", "set", reason="denied"),
        denied("log", "drop", reason="revoked"),
        denied("wasi", "wasi:cli/stdout.write", table="log"),
    )

    assert tables(found, "kv") == [{}]
    assert tables(found, "log") == [{}]


# --- what no table gives ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        denied("fs", "open", "/data/x", "link"),
        denied("net", "GET", "https://a.example:443/", "redirect-denied"),
        denied("net", "GET", "https://intern.example:443/", "private-address"),
        denied("kv", "set", reason="quota"),
        denied("wasi", "wasi:sockets/tcp.[method]tcp-socket.start-connect", reason="access-denied"),
    ],
)
def test_a_refusal_that_no_permission_mends_is_only_told(event: Event) -> None:
    found = learn(event)

    assert set(tomllib.loads(found.text)) == {"schema", "plugin"}
    assert len(found.notes) == 1


@pytest.mark.parametrize(
    "event",
    [
        denied("secret", "get", "Not A Name", "not granted"),
        denied("exec", "run", "../../bin/sh", "not granted"),
        denied("net", "GET", "gopher://x/"),
        denied("net", "BAD METHOD", "https://a.example:443/"),
        denied("net", "GET", 'https://a.example:443/"\n[[fs]]'),
        denied("fs", "open", "/proc/self/../x\u202e", mode="read"),
        denied("fs", "open", "relative", mode="read"),
        denied("fs", "open", "/top", mode="read"),
        denied("config", "get", "x" * 64, "not granted"),
    ],
)
def test_what_a_manifest_can_not_say_leaves_one_that_parses(event: Event) -> None:
    found = learn(event)

    assert parse_manifest(found.text.encode(), ALL)
    assert found.attempts
    assert found.tables or found.notes


def test_limits_and_crashes_are_told() -> None:
    found = learn(
        Event("limit", DENIED, "p", "call", reason="limit.fuel"),
        Event("crash", FAILED, "p", "call", reason="guest.trap"),
    )

    assert found.notes == ("limit: limit.fuel", "crash: guest.trap")


def test_undeclared_imports_become_tables_and_unknown_ones_notes() -> None:
    learner = Learner(ALL)
    learner.undeclared(
        [
            Fault("capwasm:kv/store@0.1.0", "the manifest does not declare [kv]", "[kv]"),
            Fault("capwasm:fs/files@0.1.0", "the manifest does not declare [[fs]]", "[[fs]]"),
            Fault("wasi:http/types@0.2.3", "not served yet"),
        ]
    )

    found = learner.propose(PLUGIN)

    assert {"kv", "fs"} <= set(tomllib.loads(found.text))
    assert any("wasi:http" in note for note in found.notes)


def test_what_is_asked_for_already_is_not_asked_for_again() -> None:
    before = manifest_of(
        '[[net]]\nallow = "https://a.example/*"\noptional = true\nwhy = "news"\n[limits]\nfuel = 9\n'
    )

    found = learn(denied("net", "GET", "https://a.example:443/x"), manifest=before)

    assert len(tables(found, "net")) == 1
    assert tables(found, "net")[0]["why"] == "news"
    assert any("policy or consent" in note for note in found.notes)
    assert tomllib.loads(found.text)["limits"] == {"fuel": 9}


# --- hostile plugins -------------------------------------------------------------------------


@pytest.mark.case("RES-21")
def test_a_flood_of_attempts_is_bounded() -> None:
    found = learn(*(denied("fs", "open", f"/d{n}/x", mode="read") for n in range(MAX_ATTEMPTS * 2)))

    assert len(found.attempts) == MAX_ATTEMPTS
    assert found.left_off == MAX_ATTEMPTS
    assert len(tables(found, "fs")) == 64
    assert any("more tables than fit" in note for note in found.notes)


@pytest.mark.case("MAN-01")
def test_a_flood_of_what_no_table_gives_is_bounded() -> None:
    found = learn(
        *(denied("net", "GET", f"https://a{n}.example/{'x' * 400}", "tls") for n in range(2000))
    )

    assert len(found.notes) == 101
    assert len(found.text) < 64 * 1024


def test_attempts_are_counted_and_not_repeated() -> None:
    found = learn(*[denied("config", "get", "x", "not granted")] * 5)

    assert list(found.attempts.values()) == [5]


def test_many_threads_may_tell_it() -> None:
    learner = Learner(ALL)

    def tell() -> None:
        for n in range(300):
            learner.record(denied("config", "get", f"k{n}", "not granted"))

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(learner.propose(PLUGIN).attempts.values()) == {4}


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PATHS = st.lists(WORDS, max_size=4).map(lambda parts: "/" + "/".join(parts))
EVENTS = st.builds(
    denied,
    st.sampled_from([c.name for c in ALL] + ["wasi", "load"]),
    st.one_of(WORDS, st.sampled_from(["open", "GET", "get", "run", "wall", "bytes"])),
    st.one_of(
        WORDS, PATHS, WORDS.map(lambda w: f"https://{w}"), PATHS.map("https://x.example{}".format)
    ),
    st.sampled_from(["not-granted", "not granted", "denied", "read-only", "link", "x"]),
)


@pytest.mark.case("MAN-06")
@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_whatever_is_tried_the_proposal_parses(events: list[Event]) -> None:
    """And nothing in it acts on a terminal, or ends a comment and begins a table."""
    found = learn(*events)

    asked = parse_manifest(found.text.encode(), ALL)
    assert set(asked.requests) <= {t.capability for t in found.tables}
    assert hidden(found.text, allowed="\n") is None


# --- real plugins ----------------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[tuple[Learner, Prober]]:
    """A plugin that imports everything, is granted nothing, and is watched."""
    learner = Learner(ALL)
    world = World(tmp_path, hook=learner.record)
    optional = "".join(OPTIONAL.values())
    world.policy("")
    capsule = world.capsule(guest("prober"), optional)
    try:
        yield learner, Prober(world.runtime.load(capsule))
    finally:
        world.close()


TRIES: list[tuple[tuple[str, ...], str, Callable[[dict[str, Any]], bool]]] = [
    (("fs.read", "/data/in/x.txt"), "fs", lambda t: t["mount"] == "/data/in"),
    (("fs.write", "/out/y", "z"), "fs", lambda t: t["access"] == "read-write"),
    (("fs.list", "/var/lib"), "fs", lambda t: t["mount"] == "/var/lib"),
    (
        ("fetch", "GET", "https://api.acme.com/v1/x?key=hush"),
        "net",
        lambda t: t["allow"] == "https://api.acme.com:443/v1/x" and t["methods"] == ["GET"],
    ),
    (("secret.get", "token"), "secret", lambda t: t["name"] == "token"),
    (("kv.set", "key", "value"), "kv", lambda t: t == {}),
    (("random", "48"), "random", lambda t: t == {"bytes-per-call": 48}),
    (("config", "region"), "config", lambda t: t == {"keys": ["region"]}),
    (("clock.now",), "clock", lambda t: not t["sleep"]),
    (("std.time",), "clock", lambda t: t["wall"]),
]


@pytest.mark.parametrize(("tries", "name", "says"), TRIES, ids=lambda x: str(x)[:24])
def test_a_real_plugin_is_learned_from_what_it_calls(
    refused: tuple[Learner, Prober],
    tries: tuple[str, ...],
    name: str,
    says: Callable[[dict[str, Any]], bool],
) -> None:
    learner, prober = refused
    with contextlib.suppress(Exception):  # how it is told is not what is tested here
        prober(*tries)

    found = learner.propose(PLUGIN)

    assert any(says(t) for t in tables(found, name)), found.text
    assert "hush" not in found.text
    assert "value" not in [a.target for a in found.attempts]


def test_what_is_proposed_is_what_is_missing(tmp_path: Path) -> None:
    """Granted as proposed, and bound by an operator, the same calls go through."""
    learner = Learner(ALL)
    (tmp_path / "one").mkdir()
    world = World(tmp_path / "one", hook=learner.record)
    prober = Prober(world.runtime.load(world.capsule(guest("prober"), "".join(OPTIONAL.values()))))
    wishes = [("fs.write", "/out/y", "hello"), ("fs.read", "/out/y"), ("kv.set", "a", "b"),
              ("random", "8"), ("kv.get", "a")]  # fmt: skip
    for wish in wishes:
        with pytest.raises(Refused):
            prober(*wish)
    world.close()
    text = learner.propose(PLUGIN | {"id": "test.guest", "version": "1.0.0"}).text
    (tmp_path / "two").mkdir()
    (tmp_path / "files").mkdir()
    second = World(tmp_path / "two")
    second.policy(
        '[plugins."*".kv]\n[plugins."*".random]\n'
        f'[[plugins."*".fs]]\nbind = "out"\npath = "{tmp_path}/files"\naccess = "read-write"\n'
    )
    body = text.partition('kind = "component"\n')[2]
    granted = second.prober(body)
    try:
        for wish in wishes:
            granted(*wish)
        assert (tmp_path / "files" / "y").read_text() == "hello"
    finally:
        second.close()


def test_a_capsule_that_declares_too_little_is_learned_from_its_imports(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        with pytest.raises(LinkError) as caught:
            world.load(guest("prober"))
    finally:
        world.close()
    learner = Learner(ALL)
    learner.undeclared(caught.value.faults)

    found = learner.propose(PLUGIN)

    assert {"kv", "fs", "net", "config"} <= set(tomllib.loads(found.text))


def test_an_attempt_reads_as_one_line() -> None:
    attempt = Attempt("fs", "open", "/x\n\u202e", "not-granted", "read")

    assert str(attempt).isprintable()
    assert str(attempt).endswith("(read): not-granted")
    assert str(Attempt("kv", "keys", "", "denied")) == "keys: denied"
