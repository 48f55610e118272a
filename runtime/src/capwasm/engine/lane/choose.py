"""Which functions of a component take the lane.  The one place where that is decided.

The code in the component is made for these functions, and the host's plans for the same ones: the
number of a function on the wire is its place here.  So a change here is a change of the wire: raise
`wire.VERSION` with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from capwasm.engine import types as t

from .layout import owned
from .wire import LANE_EXPORTS, LANE_IMPORTS

__all__ = [
    "MAX_HANDLES",
    "MAX_OWNED",
    "Chosen",
    "Function",
    "chosen",
    "present",
]

# Handles among the parameters of one import: with the string, all are passed flat.
MAX_HANDLES = 14

# Handles that the result of one import may hold: each is a value of its own beside the string.
MAX_OWNED = 5
MAX_FLAGS = 32


@dataclass(frozen=True, slots=True)
class Function:
    """One function that takes the lane.

    Attributes:
        interface, name: as the component has them; "" is its top level.
        type: its own type, which the lane leaves as it is.
        number: on the wire.
    """

    interface: str
    name: str
    type: t.FuncType
    number: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The functions of one component that take the lane."""

    exports: tuple[Function, ...]
    imports: tuple[Function, ...]

    def __bool__(self) -> bool:
        return bool(self.exports or self.imports)

    def export(self, interface: str, name: str) -> int | None:
        """The number of that export, or None."""
        return _find(self.exports, interface, name)

    def host(self, interface: str, name: str) -> int | None:
        """The number of that import, or None."""
        return _find(self.imports, interface, name)

    def only(self, exports: Collection[int], imports: Collection[int]) -> Chosen:
        """Those with one of these numbers."""
        return Chosen(
            tuple(f for f in self.exports if f.number in exports),
            tuple(f for f in self.imports if f.number in imports),
        )


def _find(functions: tuple[Function, ...], interface: str, name: str) -> int | None:
    found = (f.number for f in functions if (f.interface, f.name) == (interface, name))
    return next(found, None)


def chosen(types: t.ComponentTypes) -> Chosen:
    """The functions of that component that take the lane."""
    named = (i for i in types.imports if i.name)
    return Chosen(tuple(_each(types.exports, _export_pays)), tuple(_each(named, _import_pays)))


def present(types: t.ComponentTypes, chosen: Chosen) -> Chosen:
    """Those of the chosen functions that a laned component with these types has on the lane."""

    def numbers(interface: t.InterfaceType | None) -> set[int]:
        return {int(name[1:]) for name, _ in interface.functions} if interface else set()

    return chosen.only(numbers(types.exported(LANE_EXPORTS)), numbers(types.imported(LANE_IMPORTS)))


def _each(
    interfaces: Iterable[t.InterfaceType], pays: Callable[[t.FuncType], bool]
) -> Iterator[Function]:
    number = itertools.count()
    for interface in interfaces:
        for name, type_ in interface.functions:
            if pays(type_):
                yield Function(interface.name, name, type_, next(number))


def _export_pays(type_: t.FuncType) -> bool:
    whole = [x for _, x in type_.params] + [x for x in (type_.result,) if x is not None]
    return (
        any(map(_has_list, whole))
        and not any(map(_strange, whole))
        and not any(map(_has_handle, whole))
    )


def _import_pays(type_: t.FuncType) -> bool:
    params = [x for _, x in type_.params]
    result = [x for x in (type_.result,) if x is not None]
    inner = [x for x in params if not isinstance(x, t.Own | t.Borrow)]
    return (
        any(map(_has_list, params + result))
        and not any(map(_strange, params + result))
        and not any(map(_has_handle, inner))
        and len(params) - len(inner) <= MAX_HANDLES
        and not any(map(_guests, params + result))
        and not any(x for x in result if _has_borrow(x) or _handle_in_list(x))
        and sum(1 for _ in owned(type_.result)) <= MAX_OWNED
    )


def _any(type_: t.ValType, what: Callable[[t.ValType], bool]) -> bool:
    return what(type_) or any(_any(x, what) for x in t.children(type_))


def _has_list(type_: t.ValType) -> bool:
    return _any(type_, lambda x: isinstance(x, t.List))


def _has_handle(type_: t.ValType) -> bool:
    return _any(type_, lambda x: isinstance(x, t.Own | t.Borrow))


def _has_borrow(type_: t.ValType) -> bool:
    return _any(type_, lambda x: isinstance(x, t.Borrow))


def _handle_in_list(type_: t.ValType) -> bool:
    return _any(type_, lambda x: isinstance(x, t.List) and _has_handle(x.element))


def _guests(type_: t.ValType) -> bool:
    """Whether it holds a handle of the component's own resources, which an import can't know."""
    return _any(type_, lambda x: isinstance(x, t.Own | t.Borrow) and not x.resource.imported)


def _strange(type_: t.ValType) -> bool:
    return _any(type_, lambda x: isinstance(x, t.Flags) and len(x.names) > MAX_FLAGS)
