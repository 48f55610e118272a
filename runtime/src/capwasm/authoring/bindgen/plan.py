"""Which classes a module has, and what each WIT type is in one of its annotations."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from capwasm.engine import types as t
from capwasm.engine.classes import field_name
from capwasm.engine.exports import Export, ExportTable
from capwasm.engine.host import hint_of

from .names import Names

__all__ = ["Named", "Place", "Plan", "members"]

Named: TypeAlias = t.Record | t.Variant | t.Enum | t.Flags

_NAMED: Final = (t.Record, t.Variant, t.Enum, t.Flags)
_MODULES: Final = {
    "Err": "capwasm",
    "GuestResource": "capwasm",
    "Handle": "capwasm",
    "Iterable": "collections.abc",
    "Literal": "typing",
    "NewType": "typing",
    "Ok": "capwasm",
    "Protocol": "typing",
    "Result": "capwasm",
    "Sequence": "collections.abc",
    "Some": "capwasm",
    "StrEnum": "enum",
    "TypeAlias": "typing",
    "Variant": "capwasm",
    "dataclass": "dataclasses",
    "field": "dataclasses",
    "AsyncCallee": "capwasm.binding",
    "Binding": "capwasm.binding",
    "Callee": "capwasm.binding",
    "Function": "capwasm.binding",
}


@dataclass(frozen=True, slots=True)
class Place:
    """The functions that one attribute of the bound object has, or (attribute "") itself.

    Attributes:
        attribute: its name.   interface: whose functions.   name, async_name: of its classes.
        functions: by the names that they have in Python.
    """

    attribute: str
    interface: str
    name: str
    async_name: str
    functions: Mapping[str, Export]


class Plan:
    """The classes of a module, each made for one type."""

    def __init__(self, types: t.ComponentTypes, world: str) -> None:
        """Name everything: the world first, then types, then interfaces."""
        table = ExportTable(types)
        self._names = Names(members(table))
        self.world = self._names.take_class(world)
        self.async_world = self._names.take_class(f"Async{world}")
        self.classes: dict[Named, str] = {}
        self.cases: dict[t.Variant, tuple[str, ...]] = {}
        self.resources: dict[t.ResourceId, str] = {}
        self.homes: dict[Named | t.ResourceId, str] = {}
        self.used: dict[str, set[str]] = {}
        self.builtins = False
        for interface in types.exports:
            self._read(interface)
        self.places = tuple(self._places(table))

    # -- which there are ----------------------------------------------------------------------

    def _read(self, interface: t.InterfaceType) -> None:
        where = interface.name
        for name, resource in interface.resources:
            if not resource.imported and resource not in self.resources:
                self.resources[resource] = self._names.take(name, *self._longer(where, name))
                self.homes[resource] = where
        for name, type_ in interface.types:
            self._add(type_, where, name)
        for name, function in interface.functions:
            hint = hint_of(name)
            for param, type_ in function.params:
                self._add(type_, where, f"{hint}-{param}")
            if function.result is not None:
                self._add(function.result, where, f"{hint}-result")

    def _add(self, type_: t.ValType, where: str, hint: str) -> None:
        if isinstance(type_, _NAMED) and type_ not in self.classes:
            word = type_.name or hint
            name = self.classes[type_] = self._names.take(word, *self._longer(where, word))
            self.homes[type_] = where
            if isinstance(type_, t.Variant):
                bare = name.rstrip("_")
                self.cases[type_] = tuple(
                    self._names.take_class(bare + _camel(case)) for case, _ in type_.cases
                )
        for part in t.children(type_):
            self._add(part, where, hint)

    def _longer(self, interface: str, word: str) -> Iterator[str]:
        short = interface.partition("@")[0].rpartition("/")[2]
        if short:
            yield f"{short}-{word}"

    def _places(self, table: ExportTable) -> Iterator[Place]:
        own: dict[str, Export] = {}
        for attribute, found in table.attributes.items():
            if isinstance(found, Export):
                own[attribute] = found
                continue
            word = attribute.rstrip("_").replace("_", "-")
            name = self._names.take(word, f"{word}-interface")
            async_name = self._names.take_class(f"Async{name}")
            interface = next(iter(found.values())).interface
            yield Place(attribute, interface, name, async_name, found)
        yield Place("", "", self.world, self.async_world, own)

    # -- how they are written -----------------------------------------------------------------

    def use(self, name: str) -> str:
        """A name that the module imports."""
        self.used.setdefault(_MODULES[name], set()).add(name)
        return name

    def builtin(self, name: str, hidden: Container[str]) -> str:
        """A name of Python's own, where a class has a member that may be called so too."""
        if name not in hidden:
            return name
        self.builtins = True
        return f"_builtins.{name}"

    def annotation(  # noqa: C901 - one case a type
        self, type_: t.ValType | None, hidden: Container[str] = (), *, given: bool = False
    ) -> str:
        """A type as an annotation.

        Args:
            type_: None stands for no value.
            hidden: the names of the class's members, where it stands in a class.
            given: to the plugin, and so as wide as the runtime takes it.
        """

        def inner(x: t.ValType | None) -> str:
            return self.annotation(x, hidden, given=given)

        def own(name: str) -> str:
            return self.builtin(name, hidden)

        match type_:
            case None:
                return "None"
            case t.Prim("bool"):
                return own("bool")
            case t.Prim("f32" | "f64"):
                return own("float")
            case t.Prim("char" | "string"):
                return own("str")
            case t.Prim():
                return own("int")
            case t.List(t.Prim("u8")):
                return own("bytes")
            case t.List(element):
                return f"{self.use('Sequence') if given else own('list')}[{inner(element)}]"
            case t.Tuple(items):
                return f"{own('tuple')}[{', '.join(map(inner, items)) or '()'}]"
            case t.Flags():
                return (
                    f"{self.use('Iterable') if given else own('frozenset')}[{self.classes[type_]}]"
                )
            case t.Record() | t.Variant() | t.Enum():
                return self.classes[type_]
            case t.Option(t.Option() as payload):
                return f"{self.use('Some')}[{inner(payload)}] | None"
            case t.Option(payload):
                return f"{inner(payload)} | None"
            case t.Result(ok, err):
                return f"{self.use('Result')}[{inner(ok)}, {inner(err)}]"
            case t.Own(resource) | t.Borrow(resource):
                return self.resources.get(resource) or self.use("Handle")

    def made(self, type_: t.ValType | None) -> Iterator[str | tuple[str, ...]]:
        """The classes in a type, as `Function.classes` wants them."""
        match type_:
            case None:
                return
            case t.Variant():
                yield self.cases[type_]
            case t.Record() | t.Enum() | t.Flags():
                yield self.classes[type_]
            case _:
                pass
        for part in t.children(type_):
            yield from self.made(part)


def _camel(word: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in word.split("-"))


def members(table: ExportTable) -> set[str]:
    """The names of all attributes, methods and fields: within their class they hide others."""
    found: set[str] = set()
    seen: set[t.ValType] = set()

    def look(type_: t.ValType) -> None:
        if type_ in seen:
            return
        seen.add(type_)
        if isinstance(type_, t.Record):
            found.update(field_name(n) for n, _ in type_.fields)
        for part in t.children(type_):
            look(part)

    for attribute, inner in table.attributes.items():
        found.add(attribute)
        if not isinstance(inner, Export):
            found.update(inner)
    for export in table:
        for type_ in (*(x for _, x in export.type.params), export.type.result):
            if type_ is not None:
                look(type_)
    return found
