"""What the modules stand on that `capwasm bindgen` writes: they declare, and this does the rest.

Such a module holds classes, and a table of functions with their signatures.  A plugin is held
against that table once, when it is bound; then every result is made of the module's own classes.
Values without parts cross as they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final, NoReturn, Protocol, TypeAlias

from .engine import types as t
from .engine.abi import canonical, split_version
from .engine.classes import draft_of
from .engine.exports import Export, ExportTable
from .errors import Fault, LinkError
from .record.redact import printable
from .values import Err, Ok, Some, Variant

__all__ = ["AsyncCallee", "Binding", "Callee", "Function"]

_MAX_FAULTS: Final = 50


class Callee(Protocol):
    """What can be bound: a plugin, or a session with it."""

    @property
    def functions(self) -> ExportTable:
        """All that it offers."""

    def call(self, function: str, *args: Any) -> Any:
        """Call one."""


class AsyncCallee(Protocol):
    """What can be bound for asyncio: a plugin."""

    @property
    def functions(self) -> ExportTable:
        """All that it offers."""

    async def acall(self, function: str, *args: Any) -> Any:
        """Call one."""


# A class, or those of a variant's cases.
Made: TypeAlias = type[Any] | tuple[type[Any], ...]
Convert: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Function:
    """One function of a module.

    Attributes:
        place: the attribute of the bound object that has it, or "" for that object itself.
        declared: it as the module declares it: its name, its parameters, its docs.
        whole: the export's whole name.
        signature: its canonical signature.
        classes: those of its result, each as it is met from left to right, the outer before its
            parts.
    """

    place: str
    declared: Callable[..., Any]
    whole: str
    signature: str
    classes: tuple[Made, ...] = ()


class Binding:
    """The functions of one module.  Immutable."""

    def __init__(self, *functions: Function) -> None:
        """Keep them."""
        self._functions = functions

    def bind(self, callee: Callee) -> Any:
        """An object with the module's functions, which call those of `callee`.

        Raises:
            LinkError: `link.binding`: it exports other functions, with a fault for each.
        """
        call = callee.call
        return self._bound(callee.functions, lambda f, type_: _method(call, f, type_))

    def abind(self, callee: AsyncCallee) -> Any:
        """`bind`, for asyncio.

        Raises:
            LinkError: as `bind`.
        """
        acall = callee.acall
        return self._bound(callee.functions, lambda f, type_: _amethod(acall, f, type_))

    def _bound(
        self, table: ExportTable, make: Callable[[Function, Export], Callable[..., Any]]
    ) -> _Bound:
        found = _checked(self._functions, table)
        world: dict[str, Any] = {}
        places: dict[str, dict[str, Any]] = {"": world}
        for function in self._functions:
            place = places.get(function.place)
            if place is None:
                place = places[function.place] = {}
                world[function.place] = _Bound(place)
            method: Any = make(function, found[function.whole])
            name = function.declared.__name__
            method.__name__, method.__doc__ = name, function.declared.__doc__
            method.__qualname__ = function.declared.__qualname__
            method.__signature__ = _without_self(function.declared)
            place[name] = method
        return _Bound(world)


class _Bound:
    """The functions, as attributes."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.__dict__ = attributes

    def __repr__(self) -> str:
        return f"<bound: {', '.join(self.__dict__)}>"


def _without_self(declared: Callable[..., Any]) -> inspect.Signature:
    whole = inspect.signature(declared)
    return whole.replace(parameters=list(whole.parameters.values())[1:])


# -- is it the plugin that the module was made of? ---------------------------------------------


def _key(whole: str) -> tuple[object, ...]:
    """The name of a function, alike in versions of an interface that can stand for each other."""
    interface, _, name = whole.rpartition("#")
    try:
        bare, version = split_version(interface)
    except ValueError:
        return interface, name
    return bare, version[:1] if version[0] else version[:2], name


def _checked(functions: Iterable[Function], table: ExportTable) -> dict[str, Export]:
    """The export of each function, by the name that the module has for it."""
    there = {_key(export.whole): export for export in table}
    found: dict[str, Export] = {}
    faults: list[Fault] = []
    for function in functions:
        export = there.pop(_key(function.whole), None)
        if export is None:
            faults.append(Fault(_shown(function.whole), "the plugin has no such function"))
            continue
        found[function.whole] = export
        theirs = canonical(export.type)
        if theirs != function.signature:
            ours = _shown(function.signature)
            faults.append(Fault(_shown(export.whole), f"it is {_shown(theirs)}, and was {ours}"))
    faults += [Fault(_shown(e.whole), "the module knows no such function") for e in there.values()]
    if faults:
        if len(faults) > _MAX_FAULTS:
            more = len(faults) - _MAX_FAULTS
            faults[_MAX_FAULTS:] = [Fault("", f"and {more} faults more")]
        raise LinkError(
            "the plugin's functions are not those that this module was made of; run `capwasm "
            "bindgen` for this version of it",
            code="link.binding",
            faults=faults,
        )
    return found


def _shown(text: str) -> str:
    text = printable(text)
    return text if len(text) <= 400 else f"{text[:397]}..."


# -- calls -------------------------------------------------------------------------------------


def _method(call: Callable[..., Any], function: Function, export: Export) -> Callable[..., Any]:
    whole, arrange, convert = export.whole, _arranger(function), _converter(function, export)
    if convert is None:

        def plain(*args: Any, **named: Any) -> Any:
            return call(whole, *(arrange(args, named) if named else args))

        return plain

    def method(*args: Any, **named: Any) -> Any:
        return convert(call(whole, *(arrange(args, named) if named else args)))

    return method


def _amethod(acall: Callable[..., Any], function: Function, export: Export) -> Callable[..., Any]:
    whole, arrange = export.whole, _arranger(function)
    convert = _converter(function, export) or (lambda value: value)

    async def method(*args: Any, **named: Any) -> Any:
        return convert(await acall(whole, *(arrange(args, named) if named else args)))

    return method


def _arranger(function: Function) -> Callable[[tuple[Any, ...], Mapping[str, Any]], list[Any]]:
    signature = _without_self(function.declared)
    names = tuple(signature.parameters)

    def arrange(args: tuple[Any, ...], named: Mapping[str, Any]) -> list[Any]:
        rest = names[len(args) :]
        if len(args) + len(named) != len(names) or any(n not in named for n in rest):
            signature.bind(*args, **named)  # says what is wrong
        return [*args, *(named[n] for n in rest)]

    return arrange


# -- from the runtime's classes to the module's --------------------------------------------------


def _converter(function: Function, export: Export) -> Convert | None:
    """What makes the module's values of a result; None if there is nothing to make."""
    if export.type.result is None:
        return None
    classes = iter(function.classes)
    made = _convert(export.type.result, classes)
    if next(classes, None) is not None:
        _odd(function.classes)
    return made


def _odd(of: object) -> NoReturn:
    raise TypeError(f"the module was changed by hand: classes that don't fit a result: {of!r}")


def _next(classes: Iterator[Made]) -> Any:
    found = next(classes, None)
    return _odd("too few") if found is None else found


def _convert(type_: t.ValType, classes: Iterator[Made]) -> Convert | None:
    match type_:
        case t.Record():
            return _record(type_, classes)
        case t.Variant():
            return _variant(type_, classes)
        case t.Enum():
            members = {str(m): m for m in _next(classes)}
            return members.__getitem__
        case t.Flags():
            flags = {str(m): m for m in _next(classes)}
            return lambda value: frozenset([flags[word] for word in value])
        case t.List(element):
            one = _convert(element, classes)
            return None if one is None else lambda value: [one(x) for x in value]
        case t.Tuple(items):
            each = [_convert(x, classes) for x in items]
            return _tuple(each) if any(each) else None
        case t.Option(payload):
            return _option(_convert(payload, classes), wrapped=isinstance(payload, t.Option))
        case t.Result(ok, err):
            good = None if ok is None else _convert(ok, classes)
            return _result(good, None if err is None else _convert(err, classes))
        case _:
            return None


def _record(type_: t.Record, classes: Iterator[Made]) -> Convert:
    final = _next(classes)
    each = [_convert(x, classes) for _, x in type_.fields]
    names, draft = [f.name for f in fields(final)], draft_of(final)
    if len(names) != len(each):
        _odd(final)
    get: Any = attrgetter(*names)
    if any(each) or len(names) == 1:
        steps = [(attrgetter(n), go) for n, go in zip(names, each, strict=True)]

        def get(value: Any) -> list[Any]:
            return [pick(value) if go is None else go(pick(value)) for pick, go in steps]

    def record(value: Any) -> Any:
        made = draft(*get(value))
        made.__class__ = final
        return made

    return record


def _variant(type_: t.Variant, classes: Iterator[Made]) -> Convert:
    own = _next(classes)
    if not isinstance(own, tuple) or len(own) != len(type_.cases):
        _odd(own)
    cases: dict[str, tuple[Any, Convert | None]] = {}
    empty: dict[str, Any] = {}
    for made, (case, payload) in zip(own, type_.cases, strict=True):
        if payload is None:
            empty[case] = made()
        else:
            cases[case] = made, _convert(payload, classes)

    def variant(value: Variant) -> Any:
        case = value.case
        if case in empty:
            return empty[case]
        made, go = cases[case]
        return made(value.value if go is None else go(value.value))

    return variant


def _tuple(each: list[Convert | None]) -> Convert:
    def items(value: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple([x if go is None else go(x) for go, x in zip(each, value, strict=True)])

    return items


def _option(go: Convert | None, *, wrapped: bool) -> Convert | None:
    if go is None:
        return None
    if wrapped:
        return lambda value: None if value is None else Some(go(value.value))
    return lambda value: None if value is None else go(value)


def _result(ok: Convert | None, err: Convert | None) -> Convert | None:
    if ok is None and err is None:
        return None

    def result(value: Ok[Any] | Err[Any]) -> Any:
        if isinstance(value, Ok):
            return value if ok is None else Ok(ok(value.value))
        return value if err is None else Err(err(value.error))

    return result
