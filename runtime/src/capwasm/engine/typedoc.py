"""`ComponentTypes` as a small document that is kept beside the compiled code, and back.

Asking the engine for the types of a component that imports all of WASI takes longer than mapping its
code.  The document is JSON: a table in which each different type stands once, after its parts, then
the interfaces, which name types by their place in it.  It comes from the same authenticated cache as
the code that it tells of; so what decodes is believed, and what does not is read from the engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from . import types as t

__all__ = ["decode", "encode"]

_VERSION = 1


def encode(types: t.ComponentTypes) -> bytes:
    """The document of these types."""
    writer = _Writer()
    sides = [[writer.interface(i) for i in side] for side in (types.imports, types.exports)]
    return json.dumps([_VERSION, writer.rows, *sides], separators=(",", ":")).encode()


def decode(data: bytes) -> t.ComponentTypes:
    """The types of a document.

    Raises:
        ValueError: it is none of ours, or of another version.
    """
    try:
        version, rows, imports, exports = json.loads(data)
        if version != _VERSION:
            raise ValueError("another version")
        table: list[t.ValType] = []
        for row in rows:
            table.append(_type(row, table))
        return t.ComponentTypes(_interfaces(imports, table), _interfaces(exports, table))
    except (ValueError, TypeError, LookupError, RecursionError) as exc:
        raise ValueError(f"not a document of types: {exc}") from exc


class _Writer:
    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self._places: dict[t.ValType, int] = {}

    def interface(self, i: t.InterfaceType) -> list[Any]:
        return [
            i.name,
            [
                [name, [[n, self.place(x)] for n, x in f.params], self.maybe(f.result)]
                for name, f in i.functions
            ],
            [[name, *_resource_row(resource)] for name, resource in i.resources],
            [[name, self.place(x)] for name, x in i.types],
        ]

    def maybe(self, type_: t.ValType | None) -> int | None:
        return None if type_ is None else self.place(type_)

    def place(self, type_: t.ValType) -> int:
        found = self._places.get(type_)
        if found is None:
            row = self._row(type_)  # first its parts
            found = self._places[type_] = len(self.rows)
            self.rows.append(row)
        return found

    def _row(self, type_: t.ValType) -> list[Any]:
        match type_:
            case t.Prim(word):
                return ["p", word]
            case t.List(element):
                return ["l", self.place(element)]
            case t.Option(payload):
                return ["o", self.place(payload)]
            case t.Tuple(items):
                return ["t", [self.place(x) for x in items]]
            case t.Result(ok, err):
                return ["x", self.maybe(ok), self.maybe(err)]
            case t.Record(name, fields):
                return ["r", name, [[n, self.place(x)] for n, x in fields]]
            case t.Variant(name, cases):
                return ["v", name, [[n, self.maybe(x)] for n, x in cases]]
            case t.Enum(name, words):
                return ["e", name, words]
            case t.Flags(name, words):
                return ["f", name, words]
            case t.Own(resource):
                return ["w", *_resource_row(resource)]
            case t.Borrow(resource):
                return ["b", *_resource_row(resource)]
        raise TypeError(type_)


def _resource_row(resource: t.ResourceId) -> list[Any]:
    return [resource.interface, resource.name, resource.imported]


def _type(row: list[Any], table: list[t.ValType]) -> t.ValType:
    def at(place: int | None) -> t.ValType | None:
        return None if place is None else table[place]

    match row:
        case ["p", word]:
            return t.Prim(word)
        case ["l", element]:
            return t.List(table[element])
        case ["o", payload]:
            return t.Option(table[payload])
        case ["t", items]:
            return t.Tuple(tuple([table[x] for x in items]))
        case ["x", ok, err]:
            return t.Result(at(ok), at(err))
        case ["r", name, fields]:
            return t.Record(name, _pairs(fields, table))
        case ["v", name, cases]:
            return t.Variant(name, tuple([(n, at(x)) for n, x in cases]))
        case ["e", name, words]:
            return t.Enum(name, tuple(words))
        case ["f", name, words]:
            return t.Flags(name, tuple(words))
        case ["w", *resource]:
            return t.Own(t.ResourceId(*resource))
        case ["b", *resource]:
            return t.Borrow(t.ResourceId(*resource))
    raise ValueError("an unknown kind of type")


def _pairs(pairs: Iterable[Any], table: list[t.ValType]) -> tuple[tuple[str, t.ValType], ...]:
    return tuple([(name, table[place]) for name, place in pairs])


def _interfaces(side: Iterable[Any], table: list[t.ValType]) -> tuple[t.InterfaceType, ...]:
    return tuple(
        [
            t.InterfaceType(
                name,
                tuple(
                    [
                        (n, t.FuncType(_pairs(params, table), None if r is None else table[r]))
                        for n, params, r in functions
                    ]
                ),
                tuple([(n, t.ResourceId(*resource)) for n, *resource in resources]),
                _pairs(types, table),
            )
            for name, functions, resources, types in side
        ]
    )
