"""The functions that a plugin offers, by every name that finds exactly one of them.

`acme:weather/api@1.0.0#forecast` is the whole name.  `acme:weather/api#forecast`, `api.forecast` and
`forecast` find it too, as long as only one export answers to them.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from capwasm.errors import GuestError
from capwasm.record.redact import printable

from .classes import field_name
from .types import ComponentTypes, FuncType
from .witdoc import Docs, wit_docs

__all__ = ["Export", "ExportTable", "Namespace", "attribute"]


@dataclass(frozen=True, slots=True)
class Export:
    """One exported function.

    Attributes:
        interface: the exported interface's whole name, or "" for the world itself.
        name: the function's own WIT name.
        type: its parameters and result.
        index: its place in the component, for call plans.
        short: `api.forecast`, or the bare name of a world-level function.
    """

    interface: str
    name: str
    type: FuncType
    index: int
    short: str = field(init=False)

    def __post_init__(self) -> None:
        """Work the short name out."""
        short = f"{_short(self.interface)}.{self.name}" if self.interface else self.name
        object.__setattr__(self, "short", short)

    @property
    def whole(self) -> str:
        """The one name that is always unambiguous."""
        return f"{self.interface}#{self.name}" if self.interface else self.name

    @property
    def path(self) -> tuple[str, ...]:
        """Where WIT has it within its interface: `[method]blob.size` is `size` of `blob`."""
        kind, _, name = self.name.rpartition("]")
        return (name, "constructor") if kind == "[constructor" else tuple(name.split("."))

    @property
    def signature(self) -> str:
        """As WIT writes it: `api.forecast(city: string) -> result<forecast, string>`."""
        return self.type.signature(self.short)


def _short(interface: str) -> str:
    return interface.split("@", maxsplit=1)[0].rpartition("/")[2]


def _identifier(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text)


def attribute(name: str) -> str:
    """The Python name of a function: `[method]blob.max-size` → `blob_max_size`, `class` → `class_`.

    That of a constructor is its resource's.  What is no WIT name gets "", and is called by its own.
    """
    try:
        return field_name(name.rpartition("]")[2].replace(".", "-"))
    except ValueError:
        return ""


def _free(wanted: Sequence[str], taken: Collection[str]) -> str:
    """The first of these that nobody has, or the last with underscores; WIT names end with none."""
    for name in wanted:
        if name not in taken:
            return name
    name = wanted[-1]
    while name in taken:
        name += "_"
    return name


def _listed(names: Sequence[str]) -> str:
    """For a message: the component decides how many there are, and how long."""
    shown = [n if len(n) <= 100 else f"{n[:97]}..." for n in names[:50]]
    more = f", and {len(names) - 50} more" if len(names) > 50 else ""
    return ", ".join(shown) + more


class ExportTable:
    """All exports of a component.  Immutable."""

    def __init__(self, types: ComponentTypes, wit: Sequence[str] = ()) -> None:
        """Index every function under each of its names; `wit` are files with their docs."""
        self._types, self._wit = types, wit
        functions = [(i.name, n, t) for i in types.exports for n, t in i.functions]
        self._exports = tuple(Export(i, n, t, k) for k, (i, n, t) in enumerate(functions))
        names: dict[str, Export | None] = {}
        for export in self._exports:
            for name in self._names(export):
                # Two that answer to one name: neither does.
                names[name] = None if name in names else export
        for export in self._exports:
            names[export.whole] = export
        self._by_name: Mapping[str, Export | None] = names

    def with_docs(self, wit: Sequence[str]) -> Self:
        """The same functions, with the docs that these WIT files have; read when first asked for."""
        return type(self)(self._types, wit)

    @cached_property
    def docs(self) -> Docs:
        """What the author says of them; of nothing at all, if there is no WIT."""
        return wit_docs(self._wit)

    @cached_property
    def attributes(self) -> Mapping[str, Export | Mapping[str, Export]]:
        """The functions as Python names, those of an interface within its name.

        Interfaces of one short name have longer ones: `acme_weather_api`.
        """
        inner: dict[str, dict[str, Export]] = {}
        for export in self._exports:
            if name := attribute(export.name):
                found = inner.setdefault(export.interface, {})
                found[_free([name], found)] = export
        shorts = Counter(_short(i) for i in inner)
        out: dict[str, Export | Mapping[str, Export]] = {}
        for interface, functions in inner.items():
            if interface:
                bare, _, version = interface.partition("@")
                long = _identifier(bare)
                wanted = [long, _identifier(f"{long}_{version}")]
                if shorts[_short(interface)] == 1:
                    wanted.insert(0, attribute(_short(interface)) or long)
                out[_free(wanted, out)] = functions
        for name, export in inner.get("", {}).items():
            out[_free([name], out)] = export
        return out

    @staticmethod
    def _names(export: Export) -> set[str]:
        bare = export.interface.split("@")[0]
        names = {export.name, export.short}
        if bare:
            names.add(f"{bare}#{export.name}")
        return names | {n.replace("-", "_") for n in names}

    def __iter__(self) -> Iterator[Export]:
        return iter(self._exports)

    def find(self, name: str) -> Export:
        """The export of that name.

        Raises:
            GuestError: `guest.no-such-export`: none or several; the message lists the valid names.
        """
        export = self._by_name.get(name)
        if export is not None:
            return export
        if name in self._by_name:
            several = _listed([e.whole for e in self._exports if name in self._names(e)])
            raise GuestError(f"{name[:200]!r} is ambiguous: {several}", code="guest.no-such-export")
        valid = _listed([e.short for e in self._exports]) or "none at all"
        raise GuestError(
            f"no export {name[:200]!r}; there are: {valid}", code="guest.no-such-export"
        )


class Namespace:
    """`plugin.exports`: the functions as attributes, so that a REPL can complete them."""

    def __init__(
        self,
        table: ExportTable,
        bind: Callable[[Export], Callable[..., Any]],
        within: str | None = None,
    ) -> None:
        """Offer `table`'s functions, or those within one attribute; `bind` makes each once."""
        self._table = table
        self._bind = bind
        self._within = within

    @property
    def _found(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._table.attributes
        if self._within is not None:
            found = found[self._within]
        return found

    def __dir__(self) -> list[str]:
        return sorted(self._found)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # No WIT name begins so; and Python asks for such names before `__init__` has run.
            raise AttributeError(name)
        found = self._found.get(name)
        if found is None:
            raise AttributeError(f"no export {name!r}; there are: {_listed(dir(self))}")
        if isinstance(found, Export):
            made: Any = self._named(name, found)
        else:
            made = Namespace(self._table, self._bind, name)
        # An attribute from now on: `__getattr__` is asked only for what there is not.
        self.__dict__[name] = made
        return made

    def _named(self, name: str, export: Export) -> Callable[..., Any]:
        function: Any = self._bind(export)
        function.__name__ = function.__qualname__ = name
        doc = self._table.docs.get((export.interface, *export.path), "")
        lines = [export.signature, *(["", *map(printable, doc.split("\n"))] if doc else [])]
        function.__doc__ = "\n".join(lines)
        function.__signature__ = _signature(export.type)
        return function  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        found = self._found.values()
        shown = [e for x in found for e in ([x] if isinstance(x, Export) else x.values())]
        return "\n".join(e.signature for e in shown) or "no exports"


class _Text(str):
    """A WIT type as an annotation, which `help` shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _signature(type_: FuncType) -> inspect.Signature:
    params = [
        inspect.Parameter(
            field_name(name), inspect.Parameter.POSITIONAL_ONLY, annotation=_Text(wit)
        )
        for name, wit in type_.params
    ]
    result = None if type_.result is None else _Text(type_.result)
    return inspect.Signature(params, return_annotation=result)
