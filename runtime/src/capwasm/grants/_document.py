"""What a manifest and a policy have in common: plain values, known words, tables of capabilities.

Each function returns faults instead of raising, so that a caller can tell all of them at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeVar

from capwasm._model import hidden
from capwasm._words import kebab
from capwasm.capability import Capability, Side
from capwasm.errors import Fault
from capwasm.lattice import Clause
from capwasm.limits import DEFAULTS, Limits

__all__ = [
    "AnyCapability",
    "Table",
    "join",
    "limit_units",
    "limits_schema",
    "parse_limits",
    "parse_tables",
    "plain_faults",
    "table_of",
    "text_fault",
    "told",
    "toml_table",
    "unknown_words",
]

AnyCapability = Capability[Any, Any]

# Resolution compares each clause asked for with each allowed: bounded, so that it takes milliseconds.
MAX_TABLES: Final = 64
MAX_CLAUSES: Final = 128
MAX_FAULTS: Final = 100

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
T = TypeVar("T")


def text_fault(text: str, *, allowed: str = "") -> str | None:
    r"""Why a reviewer could not see all of `text` as it is, or None (MAN-06).

    `parse_toml` looks at the source, where an escape such as \u202E is still harmless; this looks
    at what came of it.
    """
    found = hidden(text, allowed=allowed)
    return None if found is None else f"holds an invisible or control character, {found}"


def shown_text(text: str) -> str:
    """The text itself, for a model's validator, or `ValueError` if not all of it can be seen."""
    if (fault := text_fault(text)) is not None:
        raise ValueError(fault)
    return text


def join(path: str, word: str) -> str:
    """`path` and a word below it, as TOML would spell them."""
    spelled = word if _BARE.fullmatch(word) else _string(word)
    return f"{path}.{spelled}" if path else spelled


def plain_faults(doc: Mapping[str, Any], *, allowed: str = "") -> list[Fault]:
    """A fault for each value that is neither text, a 64-bit number, true/false, array nor table.

    `allowed` are control characters that text may hold.
    """
    faults: list[Fault] = []
    todo: list[tuple[str, Any]] = [("", doc)]
    while todo:
        path, node = todo.pop()
        message: str | None = None
        if isinstance(node, dict):
            for word, value in node.items():
                bad = text_fault(word)
                if bad:
                    faults.append(Fault(path, f"a word {bad}"))
                else:
                    todo.append((join(path, word[:64]), value))
        elif isinstance(node, list):
            todo.extend((f"{path}[{i}]", value) for i, value in enumerate(node))
        elif isinstance(node, str):
            message = text_fault(node, allowed=allowed)
        elif isinstance(node, bool):
            continue
        elif isinstance(node, int):
            message = None if -(2**63) <= node < 2**63 else "a number has more than 64 bits"
        elif isinstance(node, float):
            message = None if abs(node) < 2**63 else "not a number of this format"
        else:
            message = "write dates and times as text, in quotes"
        if message:
            faults.append(Fault(path, message))
    return sorted(faults, key=lambda f: f.path)


def told(faults: Sequence[Fault]) -> tuple[str, list[Fault]]:
    """A headline that counts the faults, and as many of them as a person could want to read."""
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    shown = list(faults[:MAX_FAULTS])
    if len(faults) > MAX_FAULTS:
        shown.append(Fault("", f"and {len(faults) - MAX_FAULTS} more"))
    return count, shown


def unknown_words(table: Mapping[str, Any], valid: Collection[str], path: str) -> Iterator[Fault]:
    """A fault for each word of `table` that is not valid there, which lists those that are."""
    for word in table:
        if word not in valid:
            known = ", ".join(sorted(valid))
            yield Fault(path, f"unknown word {word[:64]!r}; valid: {known}")


def table_of(doc: Mapping[str, Any], word: str, path: str, faults: list[Fault]) -> dict[str, Any]:
    """The table at `word`, empty if there is none; something else there is a fault."""
    value = doc.get(word, {})
    if isinstance(value, dict):
        return value
    faults.append(Fault(join(path, word), f"must be a table: write [{join(path, word)}]"))
    return {}


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a capability, parsed.

    Attributes:
        path: where it stands: `net[2]`, or `log` for a capability with one table.
        words: as written.
        clauses: what it means.
    """

    path: str
    words: Mapping[str, Any]
    clauses: tuple[Clause, ...]


def parse_tables(
    capability: AnyCapability,
    value: Any,
    side: Side,
    path: str,
    faults: list[Fault],
    *,
    max_tables: int = MAX_TABLES,
) -> list[Table]:
    """The tables of one capability, each with its clauses; faults are added to `faults`."""
    rows = value if capability.repeated else [value]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        form = f"[[{path}]]" if capability.repeated else f"[{path}]"
        also = ", once for each" if capability.repeated else ", once"
        faults.append(Fault(path, f"must be written as {form}{also}"))
        return []
    if len(rows) > max_tables:
        faults.append(Fault(path, f"{len(rows)} tables; at most {max_tables}"))
        return []
    # The whole first: a capability may refuse what two tables say together.
    whole = capability.parse(rows, side)
    if whole.faults:
        faults.extend(
            Fault(_place(path, f.path, capability), f.message, f.fix) for f in whole.faults
        )
        return []
    tables = []
    for index, row in enumerate(rows):
        parsed = capability.parse([row], side)
        place = f"{path}[{index}]" if capability.repeated else path
        faults.extend(Fault(place, f.message, f.fix) for f in parsed.faults)
        tables.append(Table(place, row, parsed.clauses))
    if sum(len(t.clauses) for t in tables) > MAX_CLAUSES * max_tables // MAX_TABLES:
        faults.append(Fault(path, "asks for too many things at once"))
        return []
    return tables


def _place(path: str, relative: str, capability: AnyCapability) -> str:
    """A capability's `[0].allow` below `path`: the index means nothing where there is one table."""
    if not capability.repeated:
        relative = relative.removeprefix("[0]")
    if relative and relative[0] not in ".[":
        relative = f".{relative}"
    return path + relative


def parse_limits(table: Mapping[str, Any], path: str, base: Limits, faults: list[Fault]) -> Limits:
    """`base` with the limits of a table; a fault for each that is unknown or out of range."""
    good = {}
    for word, value in table.items():
        try:
            Limits.from_table({word: value}, DEFAULTS)
        except ValueError as exc:
            faults.append(Fault(join(path, word[:64]), str(exc)))
        else:
            good[word] = value
    return Limits.from_table(good, base)


_UNITS: Final = {"bytes": " In bytes.", "ms": " In milliseconds."}


def limit_units() -> dict[str, str]:
    """The unit of each limit."""
    return {kebab(f.name): f.metadata["unit"] for f in fields(Limits)}


def limits_schema() -> dict[str, Any]:
    """JSON Schema of a `[limits]` table."""
    ceiling, default = Limits.ceiling().to_table(), DEFAULTS.to_table()
    docs = {kebab(f.name): f.metadata for f in fields(Limits)}
    return {
        "type": "object",
        "additionalProperties": False,
        "description": "Upper bounds; what is left out is the default.",
        "properties": {
            word: {
                "type": "integer",
                "minimum": 1,
                "maximum": ceiling[word],
                "default": default[word],
                "description": docs[word]["doc"] + _UNITS.get(docs[word]["unit"], ""),
            }
            for word in default
        },
    }


def toml_table(header: str, table: Mapping[str, Any]) -> str:
    """A table of TOML: `header` with its brackets, then one line a word."""
    return "\n".join([header, *(f"{join('', k)} = {_value(v)}" for k, v in table.items())])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{join('', k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"{type(value).__name__} has no place in a table")


def _string(text: str) -> str:
    # A string of JSON is one of TOML, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
