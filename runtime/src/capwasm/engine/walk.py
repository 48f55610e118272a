"""From a compiled component to its `ComponentTypes`, once; the only reader of the engine's types.

The engine's types carry no names.  What an interface exports as a named type is matched with the
types of its functions by structure, so that classes and messages can use the plugin author's words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import wasmtime
from wasmtime import component as wc

from capwasm.errors import LinkError
from capwasm.record.redact import printable

from . import types as t

__all__ = ["MAX_PARTS", "walk"]

# A few hundred bytes of types that use each other twice spell out to a million parts, and each
# later stage goes over them again.  A guest that imports every capability of ours has 600.
MAX_PARTS = 20_000

_PRIMS: dict[type, t.Prim] = {
    wc.Bool: t.Prim("bool"),
    wc.S8: t.Prim("s8"),
    wc.S16: t.Prim("s16"),
    wc.S32: t.Prim("s32"),
    wc.S64: t.Prim("s64"),
    wc.U8: t.Prim("u8"),
    wc.U16: t.Prim("u16"),
    wc.U32: t.Prim("u32"),
    wc.U64: t.Prim("u64"),
    wc.F32: t.Prim("f32"),
    wc.F64: t.Prim("f64"),
    wc.Char: t.Prim("char"),
    wc.String: t.Prim("string"),
}
_REFUSED: dict[type, str] = {
    wc.FutureType: "a future",
    wc.StreamType: "a stream",
    wc.ErrorContext: "an error-context",
}
_NAMED = (t.Record, t.Variant, t.Enum, t.Flags)


def walk(component: wc.Component, engine: wasmtime.Engine) -> t.ComponentTypes:
    """The imports and exports of `component`.

    Raises:
        LinkError: `link.unknown-import`: it uses what can't cross (a future, a stream, an error
            context, a map, an async function, a type too deep, more than `MAX_PARTS` types), or
            imports a module or component; the message says where (TYP-12, RES-23).
    """
    top = component.type
    names = _Names()
    imports = _Side(engine, imported=True, known=[], names=names)
    imports.read(top.imports(engine))
    # An exported interface may use an imported resource: what was seen first decides (TYP-09).
    exports = _Side(engine, imported=False, known=imports.known, names=names)
    exports.read(top.exports(engine))
    return t.ComponentTypes(imports.named(), exports.named())


@dataclass
class _Names:
    """Names of structures: by interface first, then whoever named it first."""

    local: dict[tuple[str, t.ValType], str] = field(default_factory=dict)
    any: dict[t.ValType, str] = field(default_factory=dict)
    parts: int = 0

    def count(self, where: str) -> None:
        """One more part was read."""
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise _refuse(where, f"its types have more than {MAX_PARTS} parts")

    def add(self, interface: str, name: str, type_: t.ValType) -> None:
        self.local.setdefault((interface, type_), name)
        self.any.setdefault(type_, name)

    def apply(self, interface: str, type_: t.ValType) -> t.ValType:
        """`type_` and its parts with their names; structure alone decides."""

        def go(x: t.ValType) -> t.ValType:
            return self.apply(interface, x)

        def maybe(x: t.ValType | None) -> t.ValType | None:
            return None if x is None else go(x)

        out = type_
        match type_:
            case t.List(element):
                out = t.List(go(element))
            case t.Option(payload):
                out = t.Option(go(payload))
            case t.Tuple(items):
                out = t.Tuple(tuple(map(go, items)))
            case t.Record(_, fields):
                out = t.Record(None, tuple((n, go(x)) for n, x in fields))
            case t.Variant(_, cases):
                out = t.Variant(None, tuple((n, maybe(x)) for n, x in cases))
            case t.Result(ok, err):
                out = t.Result(maybe(ok), maybe(err))
            case _:
                pass
        if isinstance(out, _NAMED):
            out = replace(out, name=self.local.get((interface, type_)) or self.any.get(type_))
        return out


class _Side:
    """The imports, or the exports."""

    def __init__(
        self,
        engine: wasmtime.Engine,
        *,
        imported: bool,
        known: list[tuple[wc.ResourceType, t.ResourceId]],
        names: _Names,
    ) -> None:
        self.engine = engine
        self.imported = imported
        self.known = list(known)
        self.names = names
        self.found: list[t.InterfaceType] = []

    def read(self, items: Mapping[str, Any]) -> None:
        rest: dict[str, Any] = {}
        for name, extern in items.items():
            item = _type_of(extern, f"{self._word} {name}")
            self.names.count(name)
            if isinstance(item, wc.ComponentInstanceType):
                self._interface(name, item.exports(self.engine))
            else:
                rest[name] = item
        if rest:
            self._interface("", rest)

    @property
    def _word(self) -> str:
        return "import" if self.imported else "export"

    def _interface(self, interface: str, items: Mapping[str, Any]) -> None:
        functions: list[tuple[str, t.FuncType]] = []
        resources: list[tuple[str, t.ResourceId]] = []
        types: list[tuple[str, t.ValType]] = []
        for name, extern in items.items():
            where = f"{self._word} {interface}: {name}" if interface else f"{self._word} {name}"
            self.names.count(where)
            item = _type_of(extern, where)
            if isinstance(item, wc.FuncType):
                functions.append((name, self._func(item, where)))
            elif isinstance(item, wc.ResourceType):
                resources.append((name, self._resource(item, interface, name)))
            elif isinstance(item, wc.ValType):
                type_ = self._value(item, where, 1)
                types.append((name, type_))
                self.names.add(interface, name, type_)
            else:
                raise _refuse(where, "only functions, resources, types and interfaces can cross")
        self.found.append(
            t.InterfaceType(interface, tuple(functions), tuple(resources), tuple(types))
        )

    def named(self) -> tuple[t.InterfaceType, ...]:
        """The interfaces with the names in place; called when all are read."""
        return tuple(self._name(interface) for interface in self.found)

    def _name(self, i: t.InterfaceType) -> t.InterfaceType:
        def go(x: t.ValType) -> t.ValType:
            return self.names.apply(i.name, x)

        functions = tuple(
            (
                name,
                t.FuncType(
                    tuple((n, go(x)) for n, x in f.params),
                    None if f.result is None else go(f.result),
                ),
            )
            for name, f in i.functions
        )
        return replace(i, functions=functions, types=tuple((n, go(x)) for n, x in i.types))

    def _func(self, func: wc.FuncType, where: str) -> t.FuncType:
        if wasmtime._bindings.wasmtime_component_func_type_async(func.ptr()):  # noqa: SLF001
            raise _refuse(where, "an async function can't cross")
        params = tuple(
            (name, self._value(x, f"{where}, parameter {name}", 1))
            for name, x in _guarded(lambda: func.params, where)
        )
        result = _guarded(lambda: func.result, f"{where}, result")
        return t.FuncType(
            params, None if result is None else self._value(result, f"{where}, result", 1)
        )

    def _resource(self, resource: wc.ResourceType, interface: str, name: str) -> t.ResourceId:
        for other, identity in self.known:
            if other == resource:
                return identity
        identity = t.ResourceId(interface, name, self.imported)
        self.known.append((resource, identity))
        return identity

    def _value(self, value: Any, where: str, level: int) -> t.ValType:
        self.names.count(where)
        if level > t.MAX_DEPTH:
            raise _refuse(where, f"a type nested deeper than {t.MAX_DEPTH} can't cross")
        kind = type(value)
        if kind in _REFUSED:
            raise _refuse(where, f"{_REFUSED[kind]} can't cross")
        match value:
            case wc.EnumType():
                return t.Enum(None, tuple(value.names))
            case wc.FlagsType():
                return t.Flags(None, tuple(value.names))
            case wc.OwnType():
                return t.Own(self._handle(value.ty, where))
            case wc.BorrowType():
                return t.Borrow(self._handle(value.ty, where))
            case _:
                return _PRIMS.get(kind) or self._compound(value, where, level + 1)

    def _compound(self, value: Any, where: str, level: int) -> t.ValType:
        def go(x: Any) -> t.ValType:
            return self._value(x, where, level)

        def maybe(x: Any) -> t.ValType | None:
            return None if x is None else go(x)

        def get(attribute: str) -> Any:
            return _guarded(lambda: getattr(value, attribute), where)

        match value:
            case wc.ListType():
                return t.List(go(get("element")))
            case wc.OptionType():
                return t.Option(go(get("payload")))
            case wc.TupleType():
                return t.Tuple(tuple(go(x) for x in get("elements")))
            case wc.RecordType():
                return t.Record(None, tuple((n, go(x)) for n, x in get("fields")))
            case wc.VariantType():
                return t.Variant(None, tuple((n, maybe(x)) for n, x in get("cases")))
            case wc.ResultType():
                return t.Result(maybe(get("ok")), maybe(get("err")))
            case _:
                raise _refuse(where, "a value of an unknown type can't cross")

    def _handle(self, resource: wc.ResourceType, where: str) -> t.ResourceId:
        for other, identity in self.known:
            if other == resource:
                return identity
        raise _refuse(where, "a handle whose resource no interface names can't cross")


def _type_of(extern: Any, where: str) -> Any:
    if not isinstance(extern, wc._types.ComponentExtern):  # noqa: SLF001
        return extern
    return _guarded(lambda: extern.ty, where)


def _guarded(read: Callable[[], Any], where: str) -> Any:
    try:
        return read()
    except TypeError as exc:
        # The wheel's word for a kind that it doesn't know: maps, fixed-length lists, what comes.
        raise _refuse(where, "a value of an unknown type can't cross") from exc


def _refuse(where: str, why: str) -> LinkError:
    return LinkError(f"{printable(where)[:300]}: {why}", code="link.unknown-import")
