"""The header, the tables of the shim and the WIT packages say the same."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from capwasm.engine import abi
from capwasm_shim import native_abi
from capwasm_shim.native_host import Tables
from capwasm_shim.native_table import DESCRIPTOR, SERVED, TABLES, Function, Table

ROOT = Path(__file__).parents[2]
HEADER = (ROOT / "native-shim/include/capwasm_plugin.h").read_text()
CODE = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)

FUNCTIONS = [(table, function) for table in TABLES for function in table.functions]
ASKED = [(t, f) for t, f in FUNCTIONS if f.name and f.gives != "descriptor"]


def of(table: Table, function: Function) -> str:
    return f"{table.member}.{function.member}"


# -- against wit/ ---------------------------------------------------------------------------------

RESOURCES = {
    "file": "capwasm:fs/files.file",
    "secret": "capwasm:secrets/store.secret",
    "response": "capwasm:fetch/client.response",
}
PAIRS = "list<record{name: string, value: string}>"
INFO = "record{name: string, kind: enum{file, directory, link, other}, size: u64, modified-ns: u64}"
NAMED = {
    "list<field>": "list<record{key: string, value: string}>",
    "list<header>": PAIRS,
    "list<setting>": "list<tuple<string, string>>",
    "list<mount>": (
        "list<record{path: string, access: enum{read, read-write}, quota-bytes: option<u64>,"
        " used-bytes: u64}>"
    ),
    "info": INFO,
    "list<info>": f"list<{INFO}>",
    "request": (
        f"record{{method: string, url: string, headers: {PAIRS}, body: option<list<u8>>,"
        " timeout-ms: option<u32>, redirects: enum{follow, manual, refuse}}"
    ),
    "output": (
        "record{code: option<s32>, stdout: list<u8>, stderr: list<u8>, stdout-truncated: bool,"
        " stderr-truncated: bool}"
    ),
    "list<secret>": f"list<borrow<{RESOURCES['secret']}>>",
    "": "_",
}


def taken(kind: str) -> str:
    return f"borrow<{RESOURCES[kind]}>" if kind in RESOURCES else NAMED.get(kind, kind)


def given(kind: str) -> str:
    return f"own<{RESOURCES[kind]}>" if kind in RESOURCES else NAMED.get(kind, kind)


def plain(signature: str) -> str:
    """A signature without the names of its parameters, and with enums as our kinds have them."""
    inside, _, result = signature.removeprefix("func(").partition(") -> ")
    parts = re.findall(r"(?:^|, )[a-z-]+: ((?:[^,<{]|<[^>]*>+|\{(?:[^{}]|\{[^{}]*\})*\})+)", inside)
    params = ", ".join(f"enum {p.count(',') + 1}" if p.startswith("enum{") else p for p in parts)
    error = re.fullmatch(r"result<(.*), enum\{[^}]*\}>", result)
    return f"({params}) -> {error[1]} or error" if error else f"({params}) -> {result}"


@pytest.mark.parametrize(("table", "function"), ASKED, ids=lambda x: getattr(x, "member", ""))
def test_a_function_carries_what_its_twin_in_wit_does(table: Table, function: Function) -> None:
    interface, name = SERVED[[f for _, f in FUNCTIONS if f.name].index(function)]
    signature = abi.table()[interface.partition("@")[0]][name]

    params = ", ".join(map(taken, function.takes))
    ours = f"({params}) -> {given(function.gives)}{' or error' if function.fails else ''}"

    assert plain(signature) == ours


def test_every_function_of_ours_in_wit_is_served_once() -> None:
    wanted = {(i, n) for i, names in abi.table().items() for n in names if i.startswith("capwasm:")}

    served = [(interface.partition("@")[0], name) for interface, name in SERVED]

    assert len(served) == len(set(served))
    assert set(served) - {("capwasm:fs/native", "descriptor")} == wanted


def test_what_has_no_twin_in_wit_can_not_be_imported_by_a_component() -> None:
    assert DESCRIPTOR in SERVED
    assert DESCRIPTOR[0].partition("@")[0] not in abi.table()


def test_the_interfaces_have_the_versions_of_wit() -> None:
    packages = set()
    for path in ROOT.glob("wit/*/*.wit"):
        packages |= set(re.findall(r"^package (\S+);", path.read_text(), re.MULTILINE))

    ours = {i for i, _ in SERVED} - {DESCRIPTOR[0]}

    assert {re.sub("/.*@", "@", interface) for interface in ours} <= packages


def enums() -> dict[str, list[tuple[str, int]]]:
    """`fs_error` → cases with their numbers, as the header has them."""
    found = {}
    for name, body in re.findall(r"enum capwasm_(\w+) \{(.*?)\}", CODE, re.DOTALL):
        cases = re.findall(r"(CAPWASM_\w+) = (-?\d+)", body)
        found[name] = [(case, int(number)) for case, number in cases]
    return found


def test_every_enum_of_wit_is_in_the_header_case_by_case() -> None:
    ours = enums()
    expected: dict[str, list[tuple[str, int]]] = {}
    for path in ROOT.glob("wit/*/*.wit"):
        text = re.sub(r"///.*", "", path.read_text())
        for name, body in re.findall(r"enum ([\w-]+) \{(.*?)\}", text, re.DOTALL):
            first = 1 if name == "error" else 0
            key = f"{path.parent.name}_{name}"
            cases = [c.strip().replace("-", "_") for c in body.split(",") if c.strip()]
            expected[key] = [
                (f"CAPWASM_{key}_{case}".upper(), number)
                for number, case in enumerate(cases, first)
            ]

    assert {k: v for k, v in ours.items() if k not in {"status_word", "call_result"}} == expected


def test_closed_is_the_number_that_it_has_in_the_header() -> None:
    numbers = {case: number for cases in enums().values() for case, number in cases}

    for table in TABLES:
        handles = any(f.member == "close" for f in table.functions)
        word = f"CAPWASM_{table.member.upper()}_ERROR_CLOSED"
        assert table.closed == (numbers[word] if handles else 0)


# -- against the header ---------------------------------------------------------------------------

SPANS = {
    "string": ("const char *", "size_t"),
    "option<string>": ("const char *", "size_t"),
    "list<u8>": ("const uint8_t *", "size_t"),
    "option<list<u8>>": ("const uint8_t *", "size_t"),
    "list<string>": ("const capwasm_text *", "size_t"),
    "list<field>": ("const capwasm_log_field *", "size_t"),
    "list<secret>": ("const capwasm_handle *", "size_t"),
    "option<u64>": ("const uint64_t *",),
    "request": ("const capwasm_fetch_request *",),
    "u16": ("uint16_t",),
    "u32": ("uint32_t",),
    "u64": ("uint64_t",),
    "s64": ("int64_t",),
}
OUTS = {
    "": (),
    "bool": ("uint8_t *",),
    "string": ("capwasm_text *",),
    "option<string>": ("capwasm_text *",),
    "list<u8>": ("capwasm_bytes *",),
    "option<list<u8>>": ("capwasm_bytes *",),
    "list<string>": ("const capwasm_text **", "size_t *"),
    "list<mount>": ("const capwasm_fs_mount **", "size_t *"),
    "list<info>": ("const capwasm_fs_info **", "size_t *"),
    "list<header>": ("const capwasm_fetch_header **", "size_t *"),
    "list<setting>": ("const capwasm_config_setting **", "size_t *"),
    "info": ("capwasm_fs_info *",),
    "output": ("capwasm_exec_output *",),
    "descriptor": ("int *",),
}


def struct(name: str) -> str:
    found = re.search(
        rf"typedef struct capwasm_{name} \{{(.*?)\}} capwasm_{name};", CODE, re.DOTALL
    )
    assert found, name
    return found[1]


def parameters(text: str) -> tuple[str, ...]:
    """The types, without the names."""
    flat = re.sub(r"\s+", " ", text)
    return tuple(re.sub(r"\w+$", "", p.strip()).strip() for p in flat.split(",") if p != "void")


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.member)
def test_a_table_has_the_functions_of_the_header_in_its_order(table: Table) -> None:
    body = struct(table.member)
    functions = re.findall(r"capwasm_status \(\*(\w+)\)\((.*?)\);", body, re.DOTALL)

    expected = []
    for function in table.functions:
        types: tuple[str, ...] = ()
        for kind in function.takes:
            if kind in RESOURCES:
                types += ("capwasm_handle",)
            else:
                types += ("int32_t",) if kind.startswith("enum ") else SPANS[kind]
        if function.gives in RESOURCES:
            types += ("capwasm_handle *",)
        else:
            types += OUTS.get(function.gives) or tuple(
                f"{t} *" for t in SPANS.get(function.gives, ()) if function.gives[:1] in "us"
            )
        expected.append((function.member, types))

    assert [(name, parameters(text)) for name, text in functions] == expected
    assert re.match(r"\s*size_t size;", body)


STRUCTS = {
    "text": native_abi.Span,
    "bytes": native_abi.Span,
    "fs_mount": native_abi.Mount,
    "fs_info": native_abi.Info,
    "fetch_request": native_abi.Request,
    "exec_output": native_abi.Output,
    "host": native_abi.Host,
    "description": native_abi.Description,
    "result": native_abi.Result,
}
TYPES = {
    "size_t": ctypes.c_size_t,
    "uint8_t": ctypes.c_uint8,
    "uint32_t": ctypes.c_uint32,
    "int32_t": ctypes.c_int32,
    "uint64_t": ctypes.c_uint64,
    "capwasm_bytes": native_abi.Span,
    "capwasm_text": native_abi.Span,
}


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_has_the_members_of_the_header(name: str) -> None:
    members = re.findall(r"^\s*([\w *]+?)(\w+);", struct(name), re.MULTILINE)

    expected = [
        (member, ctypes.c_void_p if type_.endswith("*") else TYPES[type_.strip()])
        for type_, member in members
    ]

    # `Out` has the layout of `Span`: the one is written, the other read.
    ours = [
        (member, native_abi.Span if type_ is native_abi.Out else type_)
        for member, type_ in STRUCTS[name]._fields_
    ]
    assert ours == expected


@pytest.mark.parametrize("name", ["log_field", "fetch_header", "config_setting"])
def test_a_pair_is_two_texts(name: str) -> None:
    assert re.findall(r"^\s*(\w+) \w+;", struct(name), re.MULTILINE) == ["capwasm_text"] * 2


def test_both_forms_of_text_have_one_layout() -> None:
    for read, written in (
        (native_abi.Span, native_abi.Out),
        (native_abi.SpanPair, native_abi.OutPair),
    ):
        assert ctypes.sizeof(read) == ctypes.sizeof(written)
        for (one, _), (other, _) in zip(read._fields_, written._fields_, strict=True):
            assert getattr(read, one).offset == getattr(written, other).offset


def test_the_common_numbers_are_those_of_the_header() -> None:
    assert enums()["status_word"] == [
        ("CAPWASM_OK", native_abi.OK),
        ("CAPWASM_ABORTED", native_abi.ABORTED),
        ("CAPWASM_BAD_ARGUMENT", native_abi.BAD_ARGUMENT),
        ("CAPWASM_TOO_LARGE", native_abi.TOO_LARGE),
    ]
    assert f"#define CAPWASM_ABI {native_abi.ABI}\n" in HEADER


def test_the_tables_say_their_sizes() -> None:
    tables = Tables()

    assert (tables.host.abi, tables.host.size) == (1, ctypes.sizeof(native_abi.Host))
    for table in TABLES:
        at = getattr(tables.host, table.member)
        size = ctypes.c_size_t.from_address(at).value
        assert size == ctypes.sizeof(ctypes.c_size_t) * (1 + len(table.functions))


@pytest.mark.case("NAT-20")
def test_refuses_memory_for_functions_that_a_fork_would_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maps = Path("/proc/self/maps").read_text()
    shared = "7f0000000000-7f0000001000 r-xs 00000000 00:01 1  /memfd:libffi (deleted)\n"
    monkeypatch.setattr(Path, "read_text", lambda *_: maps + shared)

    with pytest.raises(OSError, match="shared between processes"):
        Tables()


def test_the_header_says_what_is_owned_by_whom() -> None:
    """Every function and type of the header has a comment of its own."""
    bare = re.findall(r"(?<!\*/)\n\n?    capwasm_status \(\*(\w+)\)", HEADER)
    assert bare == []
