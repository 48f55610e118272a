"""The reference of every word is made from what parses the words.

`python -m tests.house.test_reference --write` fills the tables of docs/manifest.md, policy.md,
isolation.md and permissions.md.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from capwasm._shipped import wit_packages
from capwasm.caps import standard_capabilities
from capwasm.engine.abi import table as table_of_functions
from capwasm.engine.witdoc import wit_docs
from capwasm.grants.manifest import parse_manifest
from capwasm.grants.policy import Policy
from capwasm.grants.schema import manifest_schema, policy_schema
from capwasm_shim.layers import DEFAULT_REQUIRED, Layer
from capwasm_shim.probe import _STOPS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("manifest.md", "policy.md", "isolation.md", "permissions.md")
_PART = re.compile(r"<!-- made: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def made(which: str) -> str:
    """The tables of one part of a page."""
    if which == "layers":
        return layers()
    if which == "permissions":
        return permissions()
    known = standard_capabilities()
    manifest, policy = manifest_schema(known), policy_schema(known)
    if which in ("plugin", "limits"):
        return table(manifest["properties"][which], manifest)
    if which in ("governance", "trust", "consent", "updates", "strikes", "revocation", "isolation"):
        return table(policy["properties"][which], policy)
    if which == "budget":
        return table(policy["$defs"]["updates.ErrorBudget"], policy)
    if which == "points":
        return table(policy["$defs"]["strikes.Points"], policy)
    if which == "head":
        words = {w: policy["properties"][w] for w in ("owner", "review-by")}
        return table({"properties": words}, policy)
    schema = manifest if which == "manifest" else policy
    tables = (
        schema["properties"] if which == "manifest" else schema["properties"]["deny"]["properties"]
    )
    parts = []
    for capability in known:
        form = tables[capability.name]
        head = f"[[{capability.name}]]" if capability.repeated else f"[{capability.name}]"
        parts.append(f"### {head}: {capability.title}\n\n{table(form.get('items', form), schema)}")
    return "\n".join(parts)


# One table of each kind that differs in risk.
ASKED = {
    "clock": ["[clock]"],
    "random": ["[random]"],
    "config": ['[config]\nkeys = ["units"]'],
    "log": ["[log]"],
    "kv": ["[kv]"],
    "fs": [
        '[[fs]]\nmount = "/data"\nbind = "reports"\naccess = "read"',
        '[[fs]]\nmount = "/data"\nbind = "reports"\naccess = "read-write"\nquota = "10MiB"',
    ],
    "secret": [
        (
            '[[secret]]\nname = "api-token"\nuse = "inject"\nfor = ["https://api.example.com"]\n'
            'header = "Authorization: Bearer {}"'
        ),
        '[[secret]]\nname = "api-token"\nuse = "reveal"',
    ],
    "net": ['[[net]]\nallow = "https://api.example.com/v1/*"\nmethods = ["GET"]'],
    "exec": ['[[exec]]\ncommand = "thumbnail"'],
}
HEAD = b"""schema = 1
[plugin]
id = "acme.example"
name = "Example"
version = "1.0.0"
requires-core = ">=0"
kind = "component"
"""


def permissions() -> str:
    """Each capability: its risks, with the tables that ask for them, and its functions."""
    known, packages = standard_capabilities(), wit_packages()
    parts = []
    for capability in known:
        lines = [f"## {capability.title}", ""]
        for text in ASKED[capability.name]:
            manifest = parse_manifest(HEAD + text.encode(), known)
            (asked,) = manifest.requests[capability.name].asked
            for clause in asked.clauses:
                risk, why = capability.risk(clause)
                lines += [f"**{risk.value}**: {clause.describe()}. {why}", ""]
            lines += [*(f"    {line}" for line in text.splitlines()), ""]
        for interface in capability.interfaces:
            name = interface.partition("@")[0]
            package = name.partition("/")[0].removeprefix("capwasm:")
            found = wit_docs(packages[package].values())
            lines += [f"`{interface}`:", ""]
            for function in table_of_functions()[name]:
                said = found.get((interface, *path_of(function)), "")
                assert said, f"{interface}: {function}"
                lines.append(f"- `{function}`: {said.split('. ')[0].rstrip('.')}.")
            lines.append("")
        parts.append("\n".join(lines))
    return "\n".join(parts)


def path_of(function: str) -> tuple[str, ...]:
    """`[method]file.read` as WIT nests it: `file`, `read`."""
    return tuple(function.rpartition("]")[2].split("."))


def layers() -> str:
    """Each layer of the sandbox, and what it is there for."""
    lines = ["| layer | stops | required by default |", "| --- | --- | --- |"]
    for layer in Layer:
        required = "yes" if layer in DEFAULT_REQUIRED else "no"
        lines.append(f"| `{layer}` | {_STOPS[layer]} | {required} |")
    return "\n".join(lines) + "\n"


def table(form: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The words of one table of TOML."""
    lines = ["| word | value | if left out | meaning |", "| --- | --- | --- | --- |"]
    required = form.get("required", [])
    for word, spec in form["properties"].items():
        if word in ("optional", "why"):
            continue
        default = spec.get("default")
        left_out = "-" if default is None else f"`{json.dumps(default)}`"
        left_out = "must stand" if word in required else left_out
        cells = (f"`{word}`", "; ".join(kinds(spec, schema)), left_out, spec.get("description", ""))
        lines.append(f"| {' | '.join(c.replace('|', '&#124;') for c in cells)} |")
    return "\n".join(lines) + "\n"


def kinds(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """What a value may be, in words."""
    if "$ref" in spec:
        yield from kinds(schema["$defs"][spec["$ref"].removeprefix("#/$defs/")], schema)
    for choice in spec.get("anyOf", ()):
        yield from kinds(choice, schema)
    if "enum" in spec or "const" in spec:
        yield ", ".join(f"`{v}`" for v in spec.get("enum", [spec.get("const")]))
    elif spec.get("type") == "array":
        inner = "; ".join(kinds(spec["items"], schema))
        yield f"array of {inner}"
    elif spec.get("type") == "object":
        yield "table" if "properties" in spec else "table of text"
    elif spec.get("type") == "integer":
        low, high = spec.get("minimum"), spec.get("maximum")
        bounds = (
            "" if low is None else f" from {low:,}" if high is None else f" {low:,} to {high:,}"
        )
        yield f"number{bounds}"
    elif spec.get("type") == "boolean":
        yield "`true`, `false`"
    elif spec.get("type") == "string":
        size = "a size such as `64KiB`" if "KiB" in spec.get("pattern", "") else "text"
        most = f", at most {spec['maxLength']}" if "maxLength" in spec else ""
        yield size + most


def filled(page: str) -> str:
    """A page with its tables as they should be."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return _PART.sub(lambda m: f"<!-- made: {m[1]} -->\n{made(m[1])}<!-- end -->", text)


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_up_to_date(page: str) -> None:
    assert (DOCS / page).read_text(encoding="utf-8") == filled(page), (
        "run: python -m tests.house.test_reference --write"
    )


def test_the_catalogue_has_each_capability_with_each_of_its_risks() -> None:
    assert list(ASKED) == [c.name for c in standard_capabilities()]
    page = (DOCS / "permissions.md").read_text(encoding="utf-8")
    for risk in ("low", "medium", "high"):
        assert f"**{risk}**: " in page


@pytest.mark.parametrize("page", PAGES[:3])
def test_every_word_has_a_meaning(page: str) -> None:
    rows = [line for line in filled(page).splitlines() if line.startswith("| `")]

    assert rows
    assert [row for row in rows if row.endswith("|  |") or "|  |" in row] == []


@pytest.mark.parametrize("page", PAGES[:2])
def test_the_example_at_the_top_is_sound(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    example = re.search(r"(?:^    .*\n|^\n)+", text[text.index("    schema = 1") :], re.MULTILINE)
    assert example is not None
    lines = "\n".join(line.removeprefix("    ") for line in example[0].splitlines()).encode()

    assert tomllib.loads(lines.decode())
    if page == "manifest.md":
        assert parse_manifest(lines, standard_capabilities()).requests
    else:
        assert Policy.load(lines, standard_capabilities()).patterns


if __name__ == "__main__":
    for name in PAGES:
        if "--write" in sys.argv:
            (DOCS / name).write_text(filled(name), encoding="utf-8")
        elif (DOCS / name).read_text(encoding="utf-8") != filled(name):
            sys.exit(f"docs/{name} is out of date")
