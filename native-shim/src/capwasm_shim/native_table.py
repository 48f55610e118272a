"""The tables of `capwasm_plugin.h`: which functions there are, in which order, and what they carry.

The place of a function in `SERVED` is its number in an ASK.  It holds no decision: the host looks the
function up and serves it as it serves a component's import of the same name.  Tests hold it against the
header and against the WIT packages, so that neither can change alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["DESCRIPTOR", "SERVED", "TABLES", "Function", "Table"]


class Function(NamedTuple):
    """A member of a table.

    Attributes:
        member: its name in C.
        name: its name in WIT; empty for `close`, which the shim answers by itself.
        takes: kind of each argument: a WIT type, or a word of `native_values`.
        gives: kind of the value; empty for none.
        fails: whether it returns a `result`, so that an error's number is its case's index plus 1.
    """

    member: str
    name: str
    takes: tuple[str, ...] = ()
    gives: str = ""
    fails: bool = True


class Table(NamedTuple):
    """A capability.

    Attributes:
        member: its name in `capwasm_host`.
        interface: that of its functions, unless one names its own before a `#`.
        closed: what an operation with a dead handle returns, if it can fail; 0 where nothing is open.
        functions: in the order of the header.
    """

    member: str
    interface: str
    closed: int
    functions: tuple[Function, ...]


DESCRIPTOR: Final = ("capwasm:fs/native@0.1.0", "descriptor")
"""`descriptor: func(file: borrow<file>) -> result<_, error>`, with a descriptor in its ANSWER.

It has an interface of its own, which no WIT package has and no component can import."""

# In the order of the members of `capwasm_host`.
TABLES: Final = (
    Table(
        "fs",
        "capwasm:fs/files@0.1.0",
        10,
        (
            Function("mounts", "mounts", (), "list<mount>", fails=False),
            Function("open", "open", ("string", "enum 5"), "file"),
            Function("read", "[method]file.read", ("file", "u64", "u32"), "list<u8>"),
            Function("write", "[method]file.write", ("file", "u64", "list<u8>")),
            Function("get_size", "[method]file.size", ("file",), "u64"),
            Function("set_size", "[method]file.set-size", ("file", "u64")),
            Function("sync", "[method]file.sync", ("file",)),
            Function("close", "", ("file",)),
            Function("stat", "stat", ("string",), "info"),
            Function("list", "list", ("string", "option<string>"), "list<info>"),
            Function("make_directory", "make-directory", ("string",)),
            Function("remove", "remove", ("string",)),
            Function("rename", "rename", ("string", "string")),
            Function("descriptor", "#".join(DESCRIPTOR), ("file",), "descriptor"),
        ),
    ),
    Table(
        "fetch",
        "capwasm:fetch/client@0.1.0",
        5,
        (
            Function("send", "send", ("request", "list<secret>"), "response"),
            Function("status", "[method]response.status", ("response",), "u16", fails=False),
            Function(
                "headers", "[method]response.headers", ("response",), "list<header>", fails=False
            ),
            Function("url", "[method]response.url", ("response",), "string", fails=False),
            Function("read", "[method]response.read", ("response", "u32"), "list<u8>"),
            Function("read_all", "[method]response.read-all", ("response", "u32"), "list<u8>"),
            Function("close", "", ("response",)),
        ),
    ),
    Table(
        "secrets",
        "capwasm:secrets/store@0.1.0",
        2,
        (
            Function("get", "get", ("string",), "secret"),
            Function("name", "[method]secret.name", ("secret",), "string", fails=False),
            Function("lease_ms", "[method]secret.lease-ms", ("secret",), "u64", fails=False),
            Function("reveal", "capwasm:secrets/reveal@0.1.0#reveal", ("secret",), "list<u8>"),
            Function("close", "", ("secret",)),
        ),
    ),
    Table(
        "kv",
        "capwasm:kv/store@0.1.0",
        0,
        (
            Function("get", "get", ("string",), "option<list<u8>>"),
            Function("set", "set", ("string", "list<u8>", "option<u64>")),
            Function(
                "compare_and_set",
                "compare-and-set",
                ("string", "option<list<u8>>", "list<u8>"),
                "bool",
            ),
            Function("increment", "increment", ("string", "s64"), "s64"),
            Function("remove", "delete", ("string",), "bool"),
            Function("keys", "keys", ("string", "option<string>"), "list<string>"),
        ),
    ),
    Table(
        "log",
        "capwasm:log/log@0.1.0",
        0,
        (Function("write", "write", ("enum 4", "string", "list<field>"), fails=False),),
    ),
    Table(
        "clock",
        "capwasm:clock/clock@0.1.0",
        0,
        (
            Function("now", "now", (), "u64", fails=False),
            Function("monotonic", "monotonic", (), "u64", fails=False),
            Function("sleep", "sleep", ("u64",), fails=False),
        ),
    ),
    Table(
        "random",
        "capwasm:random/random@0.1.0",
        0,
        (
            Function("bytes", "bytes", ("u32",), "list<u8>"),
            Function("next_u64", "next-u64", (), "u64", fails=False),
        ),
    ),
    Table(
        "config",
        "capwasm:config/config@0.1.0",
        0,
        (
            Function("get", "get", ("string",), "option<string>", fails=False),
            Function("all", "all", (), "list<setting>", fails=False),
        ),
    ),
    Table(
        "exec",
        "capwasm:exec/commands@0.1.0",
        0,
        (Function("run", "run", ("string", "list<string>", "list<u8>"), "output"),),
    ),
)


def _served(table: Table, function: Function) -> tuple[str, str]:
    interface, _, name = function.name.rpartition("#")
    return interface or table.interface, name


SERVED: Final = tuple(_served(t, f) for t in TABLES for f in t.functions if f.name)
"""`(interface, function)` of each function that is asked for, in the order of their numbers."""
