"""What a component imports and exports, as plain values: immutable, hashable, picklable.

`walk` (in `walk.py`) makes these once a component; everything after it (linking, call plans,
`inspect`) reads them and never asks the engine again.  `str(type)` is the WIT spelling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "MAX_DEPTH",
    "Borrow",
    "ComponentTypes",
    "Enum",
    "Flags",
    "FuncType",
    "InterfaceType",
    "List",
    "Option",
    "Own",
    "Prim",
    "Record",
    "ResourceId",
    "Result",
    "Tuple",
    "ValType",
    "Variant",
    "children",
    "depth",
]

# Types nest no deeper than this; a conversion takes two Python frames a level.
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class ResourceId:
    """Which resource it is, wherever it is named: the interface that defines it, and its name there.

    Attributes:
        interface: `capwasm:fs/files@0.1.0`, or "" for the world itself.
        name: `file`.
        imported: a resource of the host (True), or one that the component defines and exports.
    """

    interface: str
    name: str
    imported: bool

    def __str__(self) -> str:
        return f"{self.interface}.{self.name}" if self.interface else self.name


@dataclass(frozen=True, slots=True)
class Prim:
    """A type without parts, by its WIT word: `bool`, `s8`..`u64`, `f32`, `f64`, `char`, `string`."""

    word: str

    def __str__(self) -> str:
        return self.word


@dataclass(frozen=True, slots=True)
class List:
    """A list of one type; `list<u8>` is bytes."""

    element: ValType

    def __str__(self) -> str:
        return f"list<{self.element}>"


@dataclass(frozen=True, slots=True)
class Record:
    """Named fields, in order.  `name` is None where no interface names the type."""

    name: str | None
    fields: tuple[tuple[str, ValType], ...]

    def __str__(self) -> str:
        return self.name or f"record {{ {', '.join(f'{n}: {t}' for n, t in self.fields)} }}"


@dataclass(frozen=True, slots=True)
class Tuple:
    """Unnamed fields, in order."""

    items: tuple[ValType, ...]

    def __str__(self) -> str:
        return f"tuple<{', '.join(map(str, self.items))}>"


@dataclass(frozen=True, slots=True)
class Variant:
    """Exactly one of the cases, each with a value or without."""

    name: str | None
    cases: tuple[tuple[str, ValType | None], ...]

    def __str__(self) -> str:
        words = ", ".join(n if t is None else f"{n}({t})" for n, t in self.cases)
        return self.name or f"variant {{ {words} }}"


@dataclass(frozen=True, slots=True)
class Enum:
    """Exactly one of the words."""

    name: str | None
    cases: tuple[str, ...]

    def __str__(self) -> str:
        return self.name or f"enum {{ {', '.join(self.cases)} }}"


@dataclass(frozen=True, slots=True)
class Option:
    """A value or none."""

    payload: ValType

    def __str__(self) -> str:
        return f"option<{self.payload}>"


@dataclass(frozen=True, slots=True)
class Result:
    """A good case or a bad case, each with a value or without."""

    ok: ValType | None
    err: ValType | None

    def __str__(self) -> str:
        if self.err is None:
            return "result" if self.ok is None else f"result<{self.ok}>"
        return f"result<{'_' if self.ok is None else self.ok}, {self.err}>"


@dataclass(frozen=True, slots=True)
class Flags:
    """Any of the words."""

    name: str | None
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.name or f"flags {{ {', '.join(self.names)} }}"


@dataclass(frozen=True, slots=True)
class Own:
    """A handle that is handed over."""

    resource: ResourceId

    def __str__(self) -> str:
        return self.resource.name


@dataclass(frozen=True, slots=True)
class Borrow:
    """A handle that is lent for the call."""

    resource: ResourceId

    def __str__(self) -> str:
        return f"borrow<{self.resource.name}>"


ValType: TypeAlias = (
    Prim | List | Record | Tuple | Variant | Enum | Option | Result | Flags | Own | Borrow
)


def children(type_: ValType) -> Iterator[ValType]:
    """The types that `type_` is directly made of."""
    match type_:
        case List(element):
            yield element
        case Option(payload):
            yield payload
        case Record(_, fields):
            yield from (t for _, t in fields)
        case Tuple(items):
            yield from items
        case Variant(_, cases):
            yield from (t for _, t in cases if t is not None)
        case Result(ok, err):
            yield from (t for t in (ok, err) if t is not None)
        case _:
            return


def depth(type_: ValType) -> int:
    """How deep the type nests; 1 for a type without parts."""
    return 1 + max(map(depth, children(type_)), default=0)


@dataclass(frozen=True, slots=True)
class FuncType:
    """A function: named parameters, and a result or None."""

    params: tuple[tuple[str, ValType], ...]
    result: ValType | None

    def signature(self, name: str) -> str:
        """The function as WIT and error messages show it: `greet(name: string) -> string`."""
        head = f"{name}({', '.join(f'{n}: {t}' for n, t in self.params)})"
        return head if self.result is None else f"{head} -> {self.result}"

    def __str__(self) -> str:
        return self.signature("func")


@dataclass(frozen=True, slots=True)
class InterfaceType:
    """One imported or exported instance, or (name "") what stands at the component's top level.

    Attributes:
        name: `capwasm:fs/files@0.1.0`, or "" for the world itself.
        functions: `open`, `[method]file.read`, … with their types, in order.
        resources: the local name of each resource with its identity; one whose identity names
            another interface is only used here.
        types: the named types, in order.
    """

    name: str
    functions: tuple[tuple[str, FuncType], ...] = ()
    resources: tuple[tuple[str, ResourceId], ...] = ()
    types: tuple[tuple[str, ValType], ...] = ()

    def function(self, name: str) -> FuncType | None:
        """The type of that function, or None."""
        return next((t for n, t in self.functions if n == name), None)


@dataclass(frozen=True, slots=True)
class ComponentTypes:
    """All that a component wants and offers.

    Attributes:
        imports, exports: the interfaces, in order; the top level's own items, if any, are one
            named "".
    """

    imports: tuple[InterfaceType, ...]
    exports: tuple[InterfaceType, ...]

    def imported(self, interface: str) -> InterfaceType | None:
        """The imported interface of that exact name, or None."""
        return next((i for i in self.imports if i.name == interface), None)

    def exported(self, interface: str) -> InterfaceType | None:
        """The exported interface of that exact name, or None."""
        return next((i for i in self.exports if i.name == interface), None)
