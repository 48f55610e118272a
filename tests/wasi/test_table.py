"""What is served, against the facts of the WIT texts, and docs/wasi.md against what is served.

`python -m tests.wasi.test_table --write` renews the table in docs/wasi.md.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.capability import Interface
from capwasm.engine.abi import table
from capwasm.handles import Handle
from capwasm.wasi import (
    DECLARED,
    DRAFTS,
    NEEDS,
    UNSERVED,
    VERSION,
    served_functions,
    unserved_reason,
)

from .served import Wasi

ROOT = Path(__file__).parents[2]
FACTS = ROOT / "tests/data/wasi-0.2.txt"
DOCS = ROOT / "docs/wasi.md"
MARKS = ("<!-- table: made by tests/wasi/test_table.py -->", "<!-- end of table -->")


def facts() -> dict[str, tuple[set[str], set[str]]]:
    """Interface -> (functions, resources)."""
    out: dict[str, tuple[set[str], set[str]]] = {}
    functions: set[str] = set()
    resources: set[str] = set()
    for line in FACTS.read_text().splitlines():
        words = line.split()
        if line.startswith("wasi:"):
            functions, resources = out.setdefault(words[0], (set(), set()))
        elif line.startswith("    resource "):
            resources.add(words[1])
        elif line.startswith("    "):
            functions.add(words[0])
    return out


def is_draft(name: str) -> bool:
    return name.partition("/")[0] in {p.removeprefix("wasi:") for p in DRAFTS}


def everything() -> dict[str, Interface]:
    """All that is served to a plugin to which the network was granted."""
    return Wasi({"net": None}).interfaces


def test_allows_every_function_and_resource_of_wasi() -> None:
    served = {
        f"wasi:{name}": (set(i.functions), set(i.resources))
        for name, i in everything().items()
        if not is_draft(name)
    }

    assert served == facts()
    assert len(served) == 30
    assert sum(len(f) for f, _ in served.values()) == 178


def test_allows_imports_of_the_newest_version_in_the_facts() -> None:
    [last] = re.findall(r"^versions 0\.2\.0 \.\. (.*)$", FACTS.read_text(), re.MULTILINE)

    assert last == VERSION
    standard = [i for name, i in everything().items() if not is_draft(name)]
    assert {i.name.partition("@")[2] for i in standard} == {VERSION}


def test_allows_the_drafts_in_the_versions_that_are_in_use() -> None:
    drafts = {name: len(i.functions) for name, i in Wasi().interfaces.items() if is_draft(name)}

    assert drafts == {
        "keyvalue/store@0.2.0-draft": 6,
        "keyvalue/atomics@0.2.0-draft": 1,
        "keyvalue/batch@0.2.0-draft": 3,
        "keyvalue/store@0.2.0-draft2": 6,
        "keyvalue/atomics@0.2.0-draft2": 4,
        "keyvalue/batch@0.2.0-draft2": 3,
        "config/store@0.2.0-rc.1": 2,
        "logging/logging": 1,
        "logging/logging@0.1.0-draft": 1,
    }


def test_allows_one_class_a_resource() -> None:
    classes = [c for i in everything().values() for c in i.resources.values()]

    assert all(issubclass(c, Handle) for c in classes)
    # A class that is another's base would let a handle of one kind pass for the other.
    assert not [(a, b) for a in classes for b in classes if a is not b and issubclass(a, b)]


def test_refuses_exactly_sockets_and_links() -> None:
    refused = {
        f"{interface}.{name}"
        for interface, functions in served_functions().items()
        for name, verdict in functions.items()
        if verdict == "refused"
    }

    sockets = {
        f"{interface}.{name}"
        for interface, (functions, _) in facts().items()
        for name in functions
        if interface.startswith("wasi:sockets/")
    }
    harmless = {
        "wasi:sockets/instance-network.instance-network",
        "wasi:sockets/network.network-error-code",
    }
    links = {
        f"wasi:filesystem/types.[method]descriptor.{name}-at"
        for name in ("link", "readlink", "symlink")
    }
    assert refused == sockets - harmless | links


def test_allows_only_functions_that_take_what_their_signature_says() -> None:
    for name, interface in everything().items():
        signatures = table().get(f"wasi:{name}", {}) | interface.signatures
        assert set(signatures) == set(interface.functions)
        for function, text in signatures.items():
            inspect.signature(interface.functions[function]).bind(*parameters(text))


def parameters(signature: str) -> list[str]:
    """`func(a: list<u8>, b: record{c: u8}) -> _` as ["a", "b"]."""
    inside = signature.removeprefix("func(").rpartition(") -> ")[0].partition(") -> ")[0]
    depth, names, rest = 0, [], ""
    for char in inside + ",":
        depth += {**dict.fromkeys("{(<", 1), **dict.fromkeys("})>", -1)}.get(char, 0)
        if char == "," and depth == 0:
            names += [rest.partition(":")[0].strip()] if rest else []
            rest = ""
        else:
            rest += char
    return names


def test_allows_a_need_only_of_what_is_served() -> None:
    assert set(NEEDS) <= set(served_functions())


@pytest.mark.case("NET-26")
@pytest.mark.parametrize(
    ("interface", "word"),
    [
        ("wasi:http/incoming-handler@0.2.0", "[[net]]"),
        ("wasi:tls/client@0.2.0-draft", "capwasm:fetch"),
        ("wasi:keyvalue/store@0.2.0-draft3", "capwasm:kv"),
        ("wasi:config/runtime@0.2.0-draft", "capwasm:config"),
        ("wasi:logging/other", "capwasm:log"),
    ],
)
def test_refuses_what_is_not_served_and_says_what_to_use(interface: str, word: str) -> None:
    assert word in str(unserved_reason(interface))
    never = tuple(p for p in UNSERVED if p not in (*DRAFTS, "wasi:http"))
    assert not any(name.startswith(never) for name in served_functions())


def test_refuses_to_guess_about_what_it_does_not_know() -> None:
    assert unserved_reason("wasi:io/streams@0.2.0") is None
    assert unserved_reason("acme:http/types") is None


def rows() -> Iterator[str]:
    """The table of docs/wasi.md."""
    yield "| Interface | Needs | Served | Refused |"
    yield "| --- | --- | --- | --- |"
    for interface, functions in sorted(served_functions().items()):
        need = _TABLES[DECLARED.get(interface) or NEEDS.get(interface, "")]
        sides = [
            ", ".join(f"`{_short(n)}`" for n, v in functions.items() if v == verdict)
            for verdict in ("ours", "refused")
        ]
        yield f"| `{interface}` | {need} | {sides[0] or '–'} | {sides[1] or '–'} |"


_TABLES = {"": "–"} | {n: f"`[{n}]`" for n in NEEDS.values()}
_TABLES |= {"fs": "`[[fs]]`", "net": "`[[net]]`"}


def _short(name: str) -> str:
    return name.removeprefix("[method]")


def rewritten() -> str:
    text = DOCS.read_text()
    head, _, rest = text.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    return "\n".join([head + MARKS[0], "", *rows(), "", MARKS[1] + tail])


def test_allows_no_stale_table_in_the_docs() -> None:
    text = DOCS.read_text()

    assert text == rewritten()
    for package in UNSERVED:
        assert f"`{package}`" in text


if __name__ == "__main__" and "--write" in sys.argv:
    DOCS.write_text(rewritten())
