"""What the conformance plugin must do in every language: one table.

`guest-sdk/conformance/README.md` says what each operation does; `PORT` in an argument stands for the
port of the origin that the tests run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from capwasm.errors import (
    DeadlineExceeded,
    FuelExhausted,
    GuestError,
    GuestTrap,
    HostCallLimitExceeded,
    MemoryLimitExceeded,
    OutputLimitExceeded,
    StackExhausted,
)
from capwasm.values import Err, Ok, Some, Variant
from tests.isolation import ways

__all__ = [
    "BARE",
    "BARE_POLICY",
    "CALLS",
    "ENDS",
    "GIVES",
    "GRANTED",
    "POLICY",
    "REFUSES",
    "TYPES",
    "UNGRANTED",
    "Feature",
    "Limit",
]


# -- types ----------------------------------------------------------------------------------------

BYTES: Final = bytes(range(256)) * 4
POINT: Final = {"x": -1, "y": 2, "label": "here"}


@dataclass(frozen=True)
class Feature:
    """One function of `types`, values to send, and what shows that they came back."""

    function: str
    values: tuple[Any, ...]
    seen: Callable[[Any], Any] = lambda value: value


def _point(value: Any) -> Any:
    return {"x": value.x, "y": value.y, "label": value.label}


def _shape(value: Any) -> Any:
    return value.name, [_point(c) for c in value.corners], tuple(value.centre)


def _amount(value: Any) -> Any:
    inner = value.value
    return value.case, _point(inner) if value.case == "where" else inner


SHAPE: Final = {
    "name": "line",
    "corners": [POINT, {"x": 2**31 - 1, "y": -(2**31), "label": None}],
    "centre": (0.5, -0.0),
}

TYPES: Final[tuple[Feature, ...]] = (
    Feature("echo-bool", (True, False)),
    Feature("echo-u8", (0, 255)),
    Feature("echo-u16", (0, 2**16 - 1)),
    Feature("echo-u32", (0, 2**32 - 1)),
    Feature("echo-u64", (0, 2**53 + 1, 2**64 - 1)),
    Feature("echo-s8", (-128, 127)),
    Feature("echo-s16", (-(2**15), 2**15 - 1)),
    Feature("echo-s32", (-(2**31), 2**31 - 1)),
    Feature("echo-s64", (-(2**63), -(2**53) - 1, 2**63 - 1)),
    Feature("echo-f32", (0.0, -0.5, 1.5, math.inf)),
    Feature("echo-f64", (0.1, -math.inf, 1e300)),
    Feature("echo-char", ("a", "é", "\U0001f600")),
    Feature("echo-string", ("", "plain", "å, 漢字 and \U0001f600", "with\0nul")),
    Feature("echo-bytes", (b"", b"\0", BYTES, BYTES * 1024), bytes),
    Feature("echo-strings", ([], ["", "a", "ö"])),
    Feature("echo-numbers", ([], [0, 2**32 - 1], list(range(1000)))),
    Feature("echo-point", (POINT, {"x": 0, "y": 0, "label": None}), _point),
    Feature("echo-shape", (SHAPE, {"name": "", "corners": [], "centre": (0.0, 0.0)}), _shape),
    Feature("echo-tuple", ((7, "seven", True),), tuple),
    Feature(
        "echo-amount",
        (
            Variant("none"),
            Variant("count", 7),
            Variant("text", "many"),
            Variant("where", POINT),
        ),
        _amount,
    ),
    Feature("echo-colour", ("red", "dark-blue"), str),
    Feature(
        "echo-rights", ((), ("read",), ("read", "share-with-all")), lambda v: sorted(map(str, v))
    ),
    Feature("echo-option", (None, 0, 7)),
    Feature("echo-option-option", (None, Some(None), Some(7))),
    Feature("echo-result", (Ok(7), Err("no"))),
)


# Functions of `types` that are more than an echo, with their arguments and what each gives.
CALLS: Final[tuple[tuple[str, tuple[Any, ...], Any], ...]] = (
    ("checked", (7, None), Ok(7)),
    ("checked", (7, "a word"), Err("a word")),
    ("describe", ("boat", 3, "dark-blue"), "boat 3 dark-blue"),
    ("nothing", (), None),
)


def plain(feature: Feature, value: Any) -> Any:
    """What `seen` is to give for a value that was sent."""
    match feature.function:
        case "echo-shape":
            return value["name"], value["corners"], tuple(value["centre"])
        case "echo-amount":
            return value.case, value.value
        case "echo-rights":
            return sorted(value)
    return value


# -- capabilities ---------------------------------------------------------------------------------

GRANTED: Final = (
    ways.GRANTED
    + """[[exec]]
command = "echo-input"
"""
)

POLICY: Final = (
    ways.POLICY
    + """[[plugins."test.guest".exec]]
command = "echo-input"
program = "/bin/cat"
"""
)


def _is_now(text: str) -> bool:
    return abs(int(text) / 1e9 - time.time()) < 60


# Operation and arguments, in this order, and what each gives, or what holds of it.
GIVES: Final[tuple[tuple[tuple[str, ...], str | Callable[[str], bool]], ...]] = (
    (("fs.mounts",), "/data read-write 100000 5\n/fixed read - 5"),
    (("fs.read", "/data/a.txt"), "hello"),
    (("fs.stat", "/data/a.txt"), "file 5"),
    (("fs.stat", "/data"), "directory 0"),
    (("fs.size", "/data/a.txt"), "5"),
    (("fs.list", "/fixed"), "a.txt"),
    (("fs.hold", "/data/a.txt", "20"), "20"),
    (("fs.write", "/data/new.txt", "text"), ""),
    (("fs.append", "/data/new.txt", " and more"), ""),
    (("fs.read", "/data/new.txt"), "text and more"),
    (("fs.truncate", "/data/new.txt", "4"), ""),
    (("fs.read", "/data/new.txt"), "text"),
    (("fs.create", "/data/fresh.txt", "fresh"), ""),
    (("fs.remove", "/data/fresh.txt"), ""),
    (("fs.write", "/data/large.txt", "x" * 90_000), ""),
    (("fs.read", "/data/large.txt"), "x" * 90_000),
    (("fs.remove", "/data/large.txt"), ""),
    (("fs.mkdir", "/data/sub"), ""),
    (("fs.rename", "/data/new.txt", "/data/sub/moved.txt"), ""),
    (("fs.read", "/data/sub/moved.txt"), "text"),
    (("fs.remove", "/data/sub/moved.txt"), ""),
    (("fs.remove", "/data/sub"), ""),
    (("fetch", "GET", "http://127.0.0.1:PORT/open/x"), "200 GET /open/x "),
    (("fetch", "GET", "http://127.0.0.1:PORT/open/x", "secret:sent"), "200 GET /open/x [secret:credential-0] "),
    (("fetch", "POST", "http://127.0.0.1:PORT/open/x", "x-one=1", "body:some"), "200 POST /open/x some"),
    (("fetch.header", "GET", "http://127.0.0.1:PORT/open/x", "x-kind"), "test"),
    (("fetch.header", "GET", "http://127.0.0.1:PORT/open/x", "x-none"), "(none)"),
    (("fetch.stream", "POST", "http://127.0.0.1:PORT/open/large"), "50000"),
    (("secret.get", "sent"), "sent"),
    (("secret.lease", "sent"), "yes"),
    (("secret.reveal", "shown"), "s3cret-value"),
    (("kv.get", "none"), "(none)"),
    (("kv.set", "k", "värde"), ""),
    (("kv.get", "k"), "värde"),
    (("kv.set", "brief", "gone", "1"), ""),
    (("kv.cas", "k", "other", "new"), "no"),
    (("kv.cas", "k", "värde", "new"), "yes"),
    (("kv.cas", "fresh", "(none)", "first"), "yes"),
    (("kv.delete", "fresh"), "yes"),
    (("kv.delete", "fresh"), "no"),
    (("kv.increment", "n", "5"), "5"),
    (("kv.increment", "n", "-7"), "-2"),
    (("kv.keys", "k"), "k"),
    (("log", "warn", "a line"), ""),
    (("clock.now",), _is_now),
    (("clock.monotonic",), "yes"),
    (("clock.sleep", "1000"), ""),
    (("clock.loop", "50"), ""),
    (("random", "32"), "32"),
    (("random.differ",), "yes"),
    (("config.get", "colour"), "red"),
    (("config.get", "none"), "(none)"),
    (("config.all",), "colour=red"),
    (("exec", "echo-input", "to and fro"), "0\nto and fro"),
    (("std.print", "printed"), ""),
    (("alloc", "4"), "4"),
)  # fmt: skip

# The same with what was not granted, or not in that shape: the word that the guest is told.
REFUSES: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("fs.read", "/data/none"), "not-found"),
    (("fs.read", "/etc/passwd"), "denied"),
    (("fs.read", "/data/../secret.txt"), "denied"),
    (("fs.read", "/data/out"), "denied"),
    (("fs.read", "relative"), "invalid"),
    (("fs.read", "/data"), "is-directory"),
    (("fs.read", "/data/a.txt/x"), "not-directory"),
    (("fs.write", "/fixed/new.txt", "x"), "denied"),
    (("fs.create", "/data/a.txt", "x"), "exists"),
    (("fs.remove", "/fixed/a.txt"), "denied"),
    (("fs.write", "/data/big", "x" * 200_000), "quota"),
    (("fetch", "GET", "http://127.0.0.1:PORT/shut"), "denied"),
    (("fetch", "DELETE", "http://127.0.0.1:PORT/open/x"), "denied"),
    (("fetch", "GET", "http://127.0.0.2:PORT/open/x"), "denied"),
    (("fetch", "GET", "not a url"), "invalid"),
    (("secret.get", "none"), "denied"),
    (("secret.reveal", "sent"), "denied"),
    (("kv.set", "", "x"), "invalid"),
    (("kv.set", "k", "v" * 200_000), "too-large"),
    (("random", "65537"), "too-large"),
    (("exec", "other", ""), "denied"),
    (("exec", "echo-input", "", "argument"), "denied"),
    (("no.such", ), "no operation no.such"),
)  # fmt: skip

# The same plugin, with nothing granted but the seed that Python and Go draw when they start, and the
# clock that Go reads then: every other table is asked for as optional.
BARE: Final = "[clock]\n[random]\n"
BARE_POLICY: Final = '[plugins."test.guest".clock]\n[plugins."test.guest".random]\n'
UNGRANTED: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("fs.read", "/data/a.txt"), "denied"),
    (("fetch", "GET", "http://127.0.0.1:PORT/open/x"), "denied"),
    (("secret.get", "shown"), "denied"),
    (("kv.get", "k"), "denied"),
    (("exec", "echo-input", ""), "denied"),
)


# -- limits ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """What ends a call, and how.

    Attributes:
        name: of the row.
        call: the operation that goes over it.
        error: what the caller meets.
        limits: lines of the manifest's `[limits]`.
        instead: language → its own exception, which comes before the engine's limit, ends the call
            as a trap if the plugin lets it pass, and is named in the log.
    """

    name: str
    call: tuple[str, ...]
    error: type[GuestError]
    limits: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)


TIGHT: Final = f"fuel = {2**50}\nwall-ms = 700\nhost-calls = 1000\n"

ENDS: Final[tuple[Limit, ...]] = (
    Limit("fuel", ("spin",), FuelExhausted),
    Limit("deadline", ("spin",), DeadlineExceeded, TIGHT),
    Limit(
        "memory",
        ("alloc", "4000"),
        MemoryLimitExceeded,
        instead={"python": "MemoryError", "js": "out of memory", "go": "out of memory"},
    ),
    Limit(
        "stack",
        ("recurse",),
        StackExhausted,
        instead={"python": "RecursionError", "js": "too much recursion"},
    ),
    Limit("output", ("log.flood", "2000"), OutputLimitExceeded),
    Limit("host-calls", ("clock.loop", "2000"), HostCallLimitExceeded, TIGHT),
    Limit("panic", ("panic", "a word of its own"), GuestTrap),
)
