"""The functions that a plugin offers, by every name that finds exactly one of them.

`acme:weather/api@1.0.0#forecast` is the whole name.  `acme:weather/api#forecast`, `api.forecast` and
`forecast` find it too, as long as only one export answers to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capwasm.errors import GuestError

from .types import ComponentTypes, FuncType

__all__ = ["Export", "ExportTable", "Namespace"]


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
    def signature(self) -> str:
        """As WIT writes it: `api.forecast(city: string) -> result<forecast, string>`."""
        return self.type.signature(self.short)


def _short(interface: str) -> str:
    return interface.split("@", maxsplit=1)[0].rpartition("/")[2]


def _listed(names: Sequence[str]) -> str:
    """For a message: the component decides how many there are, and how long."""
    shown = [n if len(n) <= 100 else f"{n[:97]}..." for n in names[:50]]
    more = f", and {len(names) - 50} more" if len(names) > 50 else ""
    return ", ".join(shown) + more


class ExportTable:
    """All exports of a component.  Immutable."""

    def __init__(self, types: ComponentTypes) -> None:
        """Index every function under each of its names."""
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
        interface: str | None = None,
    ) -> None:
        """Offer `table`'s functions, of one interface or of the world; `bind` makes each once."""
        self._table = table
        self._bind = bind
        self._interface = interface

    def __dir__(self) -> list[str]:
        if self._interface is not None:
            found = {e.name for e in self._table if e.interface == self._interface}
        else:
            found = {_short(e.interface) if e.interface else e.name for e in self._table}
        return sorted(name.replace("-", "_") for name in found)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # No WIT name begins so; and Python asks for such names before `__init__` has run.
            raise AttributeError(name)
        word = name.replace("_", "-")
        if self._interface is None:
            interfaces = {
                e.interface for e in self._table if e.interface and _short(e.interface) == word
            }
            if len(interfaces) == 1:
                return self._keep(name, Namespace(self._table, self._bind, interfaces.pop()))
        wanted = self._interface or ""
        for export in self._table:
            if export.interface == wanted and export.name == word:
                return self._keep(name, self._named(export))
        raise AttributeError(f"no export {name!r}; there are: {_listed(dir(self))}")

    def _keep(self, name: str, value: Any) -> Any:
        # An attribute from now on: `__getattr__` is asked only for what there is not.
        self.__dict__[name] = value
        return value

    def _named(self, export: Export) -> Callable[..., Any]:
        function = self._bind(export)
        function.__name__ = export.name.replace("-", "_")
        function.__doc__ = export.signature
        return function

    def __repr__(self) -> str:
        shown = [e for e in self._table if self._interface in (None, e.interface)]
        return "\n".join(e.signature for e in shown) or "no exports"
