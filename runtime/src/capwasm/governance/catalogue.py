"""The catalogue of permissions: what each is, how it is asked for, how grave it is.  Made of the code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from capwasm._shipped import wit_packages
from capwasm.capability import Capability, Risk
from capwasm.engine.abi import table as table_of_functions
from capwasm.engine.witdoc import wit_docs
from capwasm.grants.manifest import parse_manifest
from capwasm.grants.schema import manifest_schema

__all__ = ["Entry", "Example", "Word", "catalogue", "kinds", "words"]

# One table of each kind that differs in risk.
EXAMPLES: Final = {
    "clock": ("[clock]",),
    "random": ("[random]",),
    "config": ('[config]\nkeys = ["units"]',),
    "log": ("[log]",),
    "kv": ("[kv]",),
    "fs": (
        '[[fs]]\nmount = "/data"\nbind = "reports"\naccess = "read"',
        '[[fs]]\nmount = "/data"\nbind = "reports"\naccess = "read-write"\nquota = "10MiB"',
    ),
    "secret": (
        (
            '[[secret]]\nname = "api-token"\nuse = "inject"\nfor = ["https://api.example.com"]\n'
            'header = "Authorization: Bearer {}"'
        ),
        '[[secret]]\nname = "api-token"\nuse = "reveal"',
    ),
    "net": ('[[net]]\nallow = "https://api.example.com/v1/*"\nmethods = ["GET"]',),
    "exec": ('[[exec]]\ncommand = "thumbnail"',),
}
_HEAD: Final = b"""schema = 1
[plugin]
id = "acme.example"
name = "Example"
version = "1.0.0"
requires-core = ">=0"
kind = "component"
"""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a table: its values, its default (empty if it must stand or is open), its meaning."""

    name: str
    values: str
    default: str
    required: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Example:
    """A table that asks for a permission, what it means, and how grave that is."""

    toml: str
    text: str
    risk: Risk
    why: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One capability.

    Attributes:
        name, title: `fs`, `Files`.   header: `[[fs]]`, as a manifest writes it.
        examples: one for each of its risks.   words: those of its table in a manifest.
        interfaces: by name, its functions, each with a sentence.
    """

    name: str
    title: str
    header: str
    examples: tuple[Example, ...]
    words: tuple[Word, ...]
    interfaces: Mapping[str, Sequence[tuple[str, str]]]


def catalogue(capabilities: Sequence[Capability[Any, Any]]) -> tuple[Entry, ...]:
    """An entry for each capability, in their order."""
    schema = manifest_schema(capabilities)
    return tuple(_entry(c, capabilities, schema) for c in capabilities)


def _entry(
    capability: Capability[Any, Any],
    capabilities: Sequence[Capability[Any, Any]],
    schema: Mapping[str, Any],
) -> Entry:
    examples = []
    for text in EXAMPLES.get(capability.name, ()):
        manifest = parse_manifest(_HEAD + text.encode(), capabilities)
        for asked in manifest.requests[capability.name].asked:
            examples += [Example(text, c.describe(), *capability.risk(c)) for c in asked.clauses]
    form = schema["properties"][capability.name]
    return Entry(
        name=capability.name,
        title=capability.title,
        header=f"[[{capability.name}]]" if capability.repeated else f"[{capability.name}]",
        examples=tuple(examples),
        words=tuple(words(form.get("items", form), schema)),
        interfaces={i: tuple(_functions(i)) for i in capability.interfaces},
    )


@cache
def _packages() -> Mapping[str, Mapping[str, str]]:
    return wit_packages()


def _functions(interface: str) -> Iterator[tuple[str, str]]:
    """Each function, with the first sentence that its WIT says; nothing for one that is not ours."""
    name = interface.partition("@")[0]
    files = _packages().get(name.partition("/")[0].removeprefix("capwasm:"), {})
    said = wit_docs(files.values())
    for function in table_of_functions().get(name, ()):
        # `[method]file.read`, as WIT nests it: `file`, `read`.
        path = tuple(function.rpartition("]")[2].split("."))
        yield function, said.get((interface, *path), "").split(". ")[0].rstrip(".")


def words(form: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Word]:
    """The words of one table of TOML, less those that belong to every table of a manifest.

    Args:
        form: the table's JSON Schema.
        schema: the document's, where the definitions are.
    """
    required = form.get("required", [])
    for name, spec in form["properties"].items():
        if name in ("optional", "why"):
            continue
        default = spec.get("default")
        yield Word(
            name,
            "; ".join(kinds(spec, schema)),
            "" if default is None else json.dumps(default),
            name in required,
            spec.get("description", ""),
        )


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
        numbers = spec.get("additionalProperties", {}) == {"type": "integer"}
        free = "table of numbers" if numbers else "table of text"
        yield "table" if "properties" in spec else free
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
