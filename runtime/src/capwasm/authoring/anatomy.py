"""What a component is made of: its true imports and exports with their types, and its sizes.

It may be anybody's: its sections are only framed, its types are read from a skeleton of it, which is
compiled in a process apart, and nothing of it is run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from capwasm.engine.compile import check_component, types_of
from capwasm.engine.exports import ExportTable
from capwasm.engine.lane.binary import OddBinary
from capwasm.engine.lane.choose import chosen
from capwasm.engine.outline import outline
from capwasm.engine.types import (
    Enum,
    Flags,
    InterfaceType,
    Record,
    ValType,
    Variant,
)
from capwasm.errors import CapwasmError
from capwasm.record.redact import printable

__all__ = ["anatomy"]


def anatomy(code: bytes) -> dict[str, Any]:
    """All that can be said of a component without running it.

    Returns:
        `size`, `sections` (bytes of core modules by kind, and how many modules), `imports` and
        `exports` (by interface: types, functions with signatures); functions whose lists take the
        lane say so.  What can't be read is left out, and `fault` says why.
    """
    report: dict[str, Any] = {"size": len(code)}
    try:
        check_component(code)
        built = outline(code)
        if built.fault:
            raise OddBinary(built.fault)
        report["sections"] = {
            "modules": len(built.modules),
            "code": built.code,
            "data": built.data_bytes,
            "custom": built.custom,
            "other": built.other + built.other_of_modules,
        }
        types = types_of(code)
    except OddBinary as exc:
        return report | {"fault": f"it is not framed as a component is: {exc}"}
    except CapwasmError as exc:
        return report | {"fault": printable(exc.message)[:500]}
    if types is None:
        return report | {"fault": "it has types that capwasm does not know"}
    lane = chosen(types)
    report["imports"] = [
        _told(i, {f.name for f in lane.imports if f.interface == i.name}) for i in types.imports
    ]
    report["exports"] = [
        _told(i, {f.name for f in lane.exports if f.interface == i.name}) for i in types.exports
    ]
    for interface, row in zip(types.exports, report["exports"], strict=True):
        names = {e.name: e.short for e in ExportTable(types) if e.interface == interface.name}
        for function in row["functions"]:
            function["short"] = names[function["name"]]
    return report


def _told(interface: InterfaceType, laned: set[str]) -> dict[str, Any]:
    return {
        "interface": interface.name,
        "types": [_definition(name, type_) for name, type_ in interface.types],
        "resources": [name for name, _ in interface.resources],
        "functions": [
            {"name": name, "signature": type_.signature(name), "lane": name in laned}
            for name, type_ in interface.functions
        ],
    }


def _definition(name: str, type_: ValType) -> str:
    """As WIT has it: `record greeting { text: string, before: u32 }`."""
    match type_:
        case Record(_, fields):
            return _braces("record", name, (f"{n}: {t}" for n, t in fields))
        case Variant(_, cases):
            return _braces("variant", name, (n if t is None else f"{n}({t})" for n, t in cases))
        case Enum(_, words):
            return _braces("enum", name, words)
        case Flags(_, words):
            return _braces("flags", name, words)
        case _:
            return f"type {name} = {type_}"


def _braces(word: str, name: str, inner: Iterable[str]) -> str:
    return f"{word} {name} {{ {', '.join(inner)} }}"
