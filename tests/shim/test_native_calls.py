"""Every function of a native plugin: what is asked, and what the plugin sees of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm_shim import native_table
from tests.shim.native_peer import NativePeer, Refused, Turns, answers, library

FS = "capwasm:fs/files@0.1.0"
FETCH = "capwasm:fetch/client@0.1.0"
SECRETS = "capwasm:secrets/store@0.1.0"
KV = "capwasm:kv/store@0.1.0"


@pytest.fixture(scope="module")
def process() -> Iterator[NativePeer]:
    peer = NativePeer(library("prober"))
    yield peer
    assert peer.close() == 0


@pytest.fixture
def peer(process: NativePeer) -> NativePeer:
    """The one process, with nothing asked yet."""
    process.asked.clear()
    process.drops.clear()
    return process


OK: Any = [0, None]

# Operation and arguments, the answers to what it asks, the text that comes of it, what was asked.
CALLS: list[tuple[str, tuple[str, ...], dict[str, Any], str, list[tuple[str, str, list[Any]]]]] = [
    (
        "fs.mounts",
        (),
        {"mounts": [["/data", 1, [1000], 7], ["/é", 0, None, 0]]},
        "/data Access::ReadWrite Some(1000) 7\n/é Access::Read None 0",
        [(FS, "mounts", [])],
    ),
    ("fs.mounts", (), {"mounts": []}, "", [(FS, "mounts", [])]),
    (
        "fs.read",
        ("/data/x",),
        {"open": [0, 5], "read": Turns([[0, b"ab"], [0, b"c"], [0, b""]])},
        "abc",
        [
            (FS, "open", ["/data/x", 0]),
            (FS, "[method]file.read", [5, 0, 65536]),
            (FS, "[method]file.read", [5, 2, 65536]),
            (FS, "[method]file.read", [5, 3, 65536]),
        ],
    ),
    (
        "fs.read-at",
        ("/x", str(2**64 - 1), str(2**32 - 1)),
        {"open": [0, 5], "read": [0, b"z"]},
        "z",
        [(FS, "open", ["/x", 0]), (FS, "[method]file.read", [5, 2**64 - 1, 2**32 - 1])],
    ),
    *(
        (
            f"fs.{word}",
            ("/x", "new"),
            {"open": [0, 2**32 - 1], "write": OK},
            "",
            [(FS, "open", ["/x", mode]), (FS, "[method]file.write", [2**32 - 1, 0, b"new"])],
        )
        for mode, word in enumerate(("write", "append", "update", "create"), 1)
    ),
    (
        "fs.size",
        ("/x",),
        {"open": [0, 1], "size": [0, 2**64 - 1]},
        str(2**64 - 1),
        [(FS, "open", ["/x", 0]), (FS, "[method]file.size", [1])],
    ),
    (
        "fs.set-size",
        ("/x", "10"),
        {"open": [0, 1], "set_size": OK},
        "",
        [(FS, "open", ["/x", 3]), (FS, "[method]file.set-size", [1, 10])],
    ),
    (
        "fs.sync",
        ("/x",),
        {"open": [0, 1], "sync": OK},
        "",
        [(FS, "open", ["/x", 0]), (FS, "[method]file.sync", [1])],
    ),
    (
        "fs.list",
        ("/data",),
        {"list": [0, [["a", 0, 1, 2], ["b", 1, 0, 0]]]},
        "a\nb",
        [(FS, "list", ["/data", None])],
    ),
    ("fs.list", ("/data", ""), {"list": [0, []]}, "", [(FS, "list", ["/data", [""]])]),
    ("fs.list", ("/data", "a"), {"list": [0, []]}, "", [(FS, "list", ["/data", ["a"]])]),
    ("fs.stat", ("/x",), {"stat": [0, ["x", 2, 9, 1]]}, "Kind::Link 9", [(FS, "stat", ["/x"])]),
    ("fs.mkdir", ("/d",), {"make_directory": OK}, "", [(FS, "make-directory", ["/d"])]),
    ("fs.remove", ("/d",), {"remove": OK}, "", [(FS, "remove", ["/d"])]),
    ("fs.rename", ("/a", "/b"), {"rename": OK}, "", [(FS, "rename", ["/a", "/b"])]),
    (
        "fetch",
        ("POST", "https://x/", "secret:token", "X-A=b=c", "body:hello"),
        {"get": [0, 3], "send": [0, 9], "status": 65535, "read_all": [0, b"there"]},
        "65535 there",
        [
            (SECRETS, "get", ["token"]),
            (FETCH, "send", [["POST", "https://x/", [["X-A", "b=c"]], [b"hello"], None, 0], [3]]),
            (FETCH, "[method]response.status", [9]),
            (FETCH, "[method]response.read-all", [9, 1 << 20]),
        ],
    ),
    (
        "fetch.stream",
        ("GET", "https://x/"),
        {"send": [0, 9], "read": Turns([[0, b"a" * 1000], [0, b"b"], [0, b""]])},
        "a" * 1000 + "b",
        [
            (FETCH, "send", [["GET", "https://x/", [], None, None, 0], []]),
            *[(FETCH, "[method]response.read", [9, 1000])] * 3,
        ],
    ),
    (
        "fetch.headers",
        ("GET", "https://x/"),
        {"send": [0, 9], "url": "https://y/", "headers": [["a", "1"], ["b", ""]]},
        "https://y/\na=1\nb=",
        [
            (FETCH, "send", [["GET", "https://x/", [], None, None, 0], []]),
            (FETCH, "[method]response.url", [9]),
            (FETCH, "[method]response.headers", [9]),
        ],
    ),
    (
        "secret.get",
        ("token",),
        {"get": [0, 3], "name": "token", "lease_ms": 77},
        "token 77",
        [
            (SECRETS, "get", ["token"]),
            (SECRETS, "[method]secret.name", [3]),
            (SECRETS, "[method]secret.lease-ms", [3]),
        ],
    ),
    (
        "secret.reveal",
        ("token",),
        {"get": [0, 3], "reveal": [0, b"s3cret"]},
        "s3cret",
        [(SECRETS, "get", ["token"]), ("capwasm:secrets/reveal@0.1.0", "reveal", [3])],
    ),
    ("kv.get", ("k",), {"get": [0, [b"v\0w"]]}, "v\0w", [(KV, "get", ["k"])]),
    ("kv.get", ("k",), {"get": [0, [b""]]}, "", [(KV, "get", ["k"])]),
    ("kv.get", ("k",), {"get": [0, None]}, "(none)", [(KV, "get", ["k"])]),
    ("kv.set", ("k", "v"), {"set": OK}, "", [(KV, "set", ["k", b"v", None])]),
    ("kv.set", ("k", "v", "5"), {"set": OK}, "", [(KV, "set", ["k", b"v", [5]])]),
    (
        "kv.compare-and-set",
        ("k", "v"),
        {"compare_and_set": [0, True]},
        "true",
        [(KV, "compare-and-set", ["k", None, b"v"])],
    ),
    (
        "kv.compare-and-set",
        ("k", "v", ""),
        {"compare_and_set": [0, False]},
        "false",
        [(KV, "compare-and-set", ["k", [b""], b"v"])],
    ),
    (
        "kv.increment",
        ("k", str(2**63)),
        {"increment": [0, -(2**63)]},
        str(-(2**63)),
        [(KV, "increment", ["k", -(2**63)])],
    ),
    ("kv.delete", ("k",), {"delete": [0, True]}, "true", [(KV, "delete", ["k"])]),
    ("kv.keys", ("p",), {"keys": [0, ["p1", "p2"]]}, "p1\np2", [(KV, "keys", ["p", None])]),
    ("kv.keys", ("p", "p2"), {"keys": [0, []]}, "", [(KV, "keys", ["p", ["p2"]])]),
    (
        "log",
        ("warn", "careful"),
        {"write": None},
        "",
        [("capwasm:log/log@0.1.0", "write", [2, "careful", [["from", "guest"]]])],
    ),
    (
        "clock.now",
        (),
        {"now": 2**64 - 1},
        str(2**64 - 1),
        [("capwasm:clock/clock@0.1.0", "now", [])],
    ),
    (
        "clock.monotonic",
        (),
        {"monotonic": 1},
        "1",
        [("capwasm:clock/clock@0.1.0", "monotonic", [])],
    ),
    ("clock.sleep", ("9",), {"sleep": None}, "", [("capwasm:clock/clock@0.1.0", "sleep", [9])]),
    (
        "random",
        ("4",),
        {"bytes": [0, b"1234"]},
        "4",
        [("capwasm:random/random@0.1.0", "bytes", [4])],
    ),
    ("random.next", (), {"next_u64": 8}, "8", [("capwasm:random/random@0.1.0", "next-u64", [])]),
    ("config", ("k",), {"get": ["red"]}, "red", [("capwasm:config/config@0.1.0", "get", ["k"])]),
    ("config", ("k",), {"get": None}, "(none)", [("capwasm:config/config@0.1.0", "get", ["k"])]),
    (
        "config.all",
        (),
        {"all": [["a", "1"], ["b", "ü"]]},
        "a=1\nb=ü",
        [("capwasm:config/config@0.1.0", "all", [])],
    ),
    (
        "exec",
        ("convert", "in", "x", "y"),
        {"run": [0, [[-3], b"out", b"err", True, False]]},
        "-3 (true, false)\nout\nerr",
        [("capwasm:exec/commands@0.1.0", "run", ["convert", ["x", "y"], b"in"])],
    ),
    (
        "exec",
        ("convert",),
        {"run": [0, [None, b"", b"", False, True]]},
        "- (false, true)\n\n",
        [("capwasm:exec/commands@0.1.0", "run", ["convert", [], b""])],
    ),
]


@pytest.mark.parametrize(
    ("operation", "arguments", "given", "text", "asked"), CALLS, ids=[c[0] for c in CALLS]
)
def test_a_function_asks_what_it_was_called_with_and_gives_what_was_answered(
    peer: NativePeer,
    operation: str,
    arguments: tuple[str, ...],
    given: dict[str, Any],
    text: str,
    asked: list[tuple[str, str, list[Any]]],
) -> None:
    turns = {k: Turns(v) if isinstance(v, Turns) else v for k, v in given.items()}

    said = peer.ask(operation, *arguments, script=answers(**turns))

    assert said.decode() == text
    assert peer.asked == asked


# Operation and arguments, what goes well first, the function that fails, its words.
FILE = "denied not-found exists not-directory is-directory not-empty invalid quota too-large closed"
FAILURES: list[tuple[str, tuple[str, ...], dict[str, Any], str, str]] = [
    ("fs.open", ("/x",), {}, "open", f"{FILE} unavailable"),
    ("fs.read", ("/x",), {"open": [0, 1]}, "read", f"{FILE} unavailable"),
    ("fs.write", ("/x", "y"), {"open": [0, 1]}, "write", f"{FILE} unavailable"),
    ("fs.size", ("/x",), {"open": [0, 1]}, "size", f"{FILE} unavailable"),
    ("fs.set-size", ("/x",), {"open": [0, 1]}, "set_size", f"{FILE} unavailable"),
    ("fs.sync", ("/x",), {"open": [0, 1]}, "sync", f"{FILE} unavailable"),
    ("fs.list", ("/x",), {}, "list", f"{FILE} unavailable"),
    ("fs.stat", ("/x",), {}, "stat", f"{FILE} unavailable"),
    ("fs.mkdir", ("/x",), {}, "make_directory", f"{FILE} unavailable"),
    ("fs.remove", ("/x",), {}, "remove", f"{FILE} unavailable"),
    ("fs.rename", ("/x", "/y"), {}, "rename", f"{FILE} unavailable"),
    ("abi.descriptor", ("/x",), {"open": [0, 1]}, "descriptor", f"{FILE} unavailable"),
    (
        "fetch",
        ("GET", "https://x/"),
        {},
        "send",
        "denied invalid too-large timeout closed unavailable insecure",
    ),
    (
        "fetch",
        ("GET", "https://x/"),
        {"send": [0, 1], "status": 200},
        "read_all",
        "denied invalid too-large timeout closed unavailable insecure",
    ),
    (
        "fetch.stream",
        ("GET", "https://x/"),
        {"send": [0, 1]},
        "read",
        "denied invalid too-large timeout closed unavailable insecure",
    ),
    ("secret.get", ("s",), {}, "get", "denied closed unavailable"),
    ("secret.reveal", ("s",), {"get": [0, 1]}, "reveal", "denied closed unavailable"),
    ("kv.get", ("k",), {}, "get", "denied invalid quota too-large closed unavailable"),
    ("kv.set", ("k",), {}, "set", "denied invalid quota too-large closed unavailable"),
    (
        "kv.compare-and-set",
        ("k",),
        {},
        "compare_and_set",
        "denied invalid quota too-large closed unavailable",
    ),
    ("kv.increment", ("k",), {}, "increment", "denied invalid quota too-large closed unavailable"),
    ("kv.delete", ("k",), {}, "delete", "denied invalid quota too-large closed unavailable"),
    ("kv.keys", ("k",), {}, "keys", "denied invalid quota too-large closed unavailable"),
    ("random", ("1",), {}, "bytes", "denied too-large"),
    ("exec", ("c",), {}, "run", "denied invalid too-large timeout closed unavailable"),
]


@pytest.mark.parametrize(
    ("operation", "arguments", "before", "function", "words"),
    FAILURES,
    ids=[f"{f[0]}:{f[3]}" for f in FAILURES],
)
def test_a_failure_is_the_word_of_wit(
    peer: NativePeer,
    operation: str,
    arguments: tuple[str, ...],
    before: dict[str, Any],
    function: str,
    words: str,
) -> None:
    for case, word in enumerate(words.split()):
        with pytest.raises(Refused) as caught:
            peer.ask(operation, *arguments, script=answers(**before, **{function: [1, case]}))

        assert str(caught.value) == word


def test_every_function_is_called_by_a_test() -> None:
    called = {(interface, name) for *_, asked in CALLS for interface, name, _ in asked}

    assert called == set(native_table.SERVED) - {native_table.DESCRIPTOR}


def test_what_is_closed_is_told_with_the_next_question_and_with_the_end(peer: NativePeer) -> None:
    handles = Turns([[0, 11], [0, 12], [0, 13]])

    assert peer.ask("fs.hold", "/x", "3", script=answers(open=handles)) == b"3"
    assert peer.drops == [11, 12, 13]

    peer.drops.clear()
    peer.ask("secret.get", "s", script=answers(get=[0, 21], name="s", lease_ms=0))
    assert peer.drops == [21]


def test_a_credential_is_closed_before_the_response_is_read(peer: NativePeer) -> None:
    seen: list[list[int]] = []

    def status(_response: int) -> int:
        seen.append(list(peer.drops))
        return 200

    peer.ask(
        "fetch",
        "GET",
        "https://x/",
        "secret:s",
        script=answers(get=[0, 3], send=[0, 4], status=status, read_all=[0, b""]),
    )

    assert seen == [[3]]
    assert peer.drops == [3, 4]


def test_the_plugin_describes_itself(peer: NativePeer) -> None:
    kind, version, (abi, name, topics) = peer.hello

    assert (kind, version, abi, name) == (8, 1, 1, "prober")
    assert {"fs.read", "abi.thread"} <= set(topics)


def test_an_unknown_topic_is_the_plugins_own_error(peer: NativePeer) -> None:
    with pytest.raises(Refused, match=r"^no operation fs\.fly$"):
        peer.ask("fs.fly")


def test_state_stays_from_call_to_call(peer: NativePeer) -> None:
    first = int(peer.ask("count"))

    assert int(peer.ask("count")) == first + 1


def test_a_handle_stays_from_call_to_call(peer: NativePeer, tmp_path: Path) -> None:
    peer.ask("abi.keep", "/x", script=answers(open=[0, 40]))
    assert peer.drops == []

    parts = Turns([[0, b"later"], [0, b""]])
    assert peer.ask("abi.kept", script=answers(read=parts)) == b"later"
    assert peer.asked[-1] == (FS, "[method]file.read", [40, 5, 65536])
