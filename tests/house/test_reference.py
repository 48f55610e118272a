"""The reference of every word is made from what parses the words.

`python -m tests.house.test_reference --write` fills the tables of docs/manifest.md, policy.md,
isolation.md, governance.md and permissions.md.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from capwasm.caps import standard_capabilities
from capwasm.governance.cases import Case
from capwasm.governance.catalogue import EXAMPLES, catalogue, words
from capwasm.governance.rules import RULES
from capwasm.grants.manifest import parse_manifest
from capwasm.grants.policy import Policy
from capwasm.grants.schema import manifest_schema, policy_schema
from capwasm.scan.scanners import catalogue as catalogue_of_scanners
from capwasm.scan.scanners import standard_scanners
from capwasm_shim.layers import DEFAULT_REQUIRED, Layer
from capwasm_shim.probe import _STOPS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("manifest.md", "policy.md", "isolation.md", "governance.md", "permissions.md", "scan.md")
_PART = re.compile(r"<!-- made: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def made(which: str) -> str:
    """The tables of one part of a page."""
    if which == "layers":
        return layers()
    if which == "permissions":
        return permissions()
    if which == "rules":
        return scan_rules()
    if which == "lint":
        return lint_rules()
    if which == "cases":
        return case_words()
    known = standard_capabilities()
    manifest, policy = manifest_schema(known), policy_schema(known)
    if which in ("plugin", "limits"):
        return table(manifest["properties"][which], manifest)
    if which in (
        "governance",
        "trust",
        "consent",
        "updates",
        "review",
        "audit",
        "strikes",
        "scan",
        "revocation",
        "isolation",
    ):
        return table(policy["properties"][which], policy)
    if which == "budget":
        return table(policy["$defs"]["updates.ErrorBudget"], policy)
    if which == "points":
        return table(policy["$defs"]["strikes.Points"], policy)
    if which == "head":
        of_head = {w: policy["properties"][w] for w in ("owner", "review-by")}
        return table({"properties": of_head}, policy)
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


def permissions() -> str:
    """Each capability: its risks, with the tables that ask for them, and its functions."""
    parts = []
    for entry in catalogue(standard_capabilities()):
        lines = [f"## {entry.title}", ""]
        for toml in dict.fromkeys(example.toml for example in entry.examples):
            for example in (e for e in entry.examples if e.toml == toml):
                lines += [f"**{example.risk.value}**: {example.text}. {example.why}", ""]
            lines += [*(f"    {line}" for line in toml.splitlines()), ""]
        for interface, functions in entry.interfaces.items():
            lines += [f"`{interface}`:", ""]
            for function, said in functions:
                assert said, f"{interface}: {function}"
                lines.append(f"- `{function}`: {said}.")
            lines.append("")
        parts.append("\n".join(lines))
    return "\n".join(parts)


def lint_rules() -> str:
    """Each rule of `policy lint`."""
    lines = ["| rule | severity | finds | why |", "| --- | --- | --- | --- |"]
    for name, rule in RULES.items():
        lines.append(f"| `{name}` | {rule.severity} | {rule.finds} | {rule.why} |")
    return "\n".join(lines) + "\n"


def case_words() -> str:
    """Each word of a case."""
    return table(Case.model_json_schema(), Case.model_json_schema())


def layers() -> str:
    """Each layer of the sandbox, and what it is there for."""
    lines = ["| layer | stops | required by default |", "| --- | --- | --- |"]
    for layer in Layer:
        required = "yes" if layer in DEFAULT_REQUIRED else "no"
        lines.append(f"| `{layer}` | {_STOPS[layer]} | {required} |")
    return "\n".join(lines) + "\n"


def scan_rules() -> str:
    """Every rule of every scanner."""
    lines = [
        "| rule | severity | what is wrong | what its author can do |",
        "| --- | --- | --- | --- |",
    ]
    for rule in sorted(catalogue_of_scanners(standard_scanners()).values(), key=lambda r: r.id):
        cells = (f"`{rule.id}`", f"{rule.severity}", rule.meaning, rule.fix)
        lines.append(f"| {' | '.join(c.replace('|', '&#124;') for c in cells)} |")
    return "\n".join(lines) + "\n"


def table(form: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The words of one table of TOML."""
    lines = ["| word | value | if left out | meaning |", "| --- | --- | --- | --- |"]
    for word in words(form, schema):
        left_out = "must stand" if word.required else f"`{word.default}`" if word.default else "-"
        cells = (f"`{word.name}`", word.values, left_out, word.meaning)
        lines.append(f"| {' | '.join(c.replace('|', '&#124;') for c in cells)} |")
    return "\n".join(lines) + "\n"


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
    assert list(EXAMPLES) == [c.name for c in standard_capabilities()]
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
