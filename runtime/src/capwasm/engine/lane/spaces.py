"""The index spaces of a component: what each number in its binary form stands for.

Read once, in order, section by section (`Binary.md` of the component model); types are only counted,
and no instruction is looked at.  The bytes are not trusted: what is not known here is refused, and so
is too much of it (`binary.MAX_ENTRIES`).  The engine validates them all the same, before anything of them runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .binary import COMPONENT, Entries, OddBinary, read_leb, sections

__all__ = [
    "CORE_FUNC",
    "CORE_INSTANCE",
    "CORE_MEMORY",
    "CORE_MODULE",
    "CORE_TABLE",
    "FUNC",
    "INSTANCE",
    "TYPE",
    "Alias",
    "Canon",
    "Exported",
    "Imported",
    "Inline",
    "Instantiated",
    "Spaces",
    "read_spaces",
]

# Sorts: those of core items, and those of components.
CORE_FUNC, CORE_TABLE, CORE_MEMORY, CORE_GLOBAL = 0x00, 0x01, 0x02, 0x03
CORE_TYPE, CORE_MODULE, CORE_INSTANCE = 0x10, 0x11, 0x12
FUNC, TYPE, COMPONENT_SORT, INSTANCE = 0x01, 0x03, 0x04, 0x05
_CORE = 0x00
_UTF8, _MEMORY, _REALLOC, _POST_RETURN = 0x00, 0x03, 0x04, 0x05


@dataclass(frozen=True, slots=True)
class Imported:
    """An import, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Exported:
    """An export of what has another number already, which is none of an export: a second number."""

    index: int


@dataclass(frozen=True, slots=True)
class Alias:
    """An export of an instance."""

    instance: int
    name: str


@dataclass(frozen=True, slots=True)
class Inline:
    """An instance made of items: name to sort and number."""

    items: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Instantiated:
    """An instance of a component, or of a core module (then each argument is an instance)."""

    of: int
    args: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Canon:
    """A function that was lifted (of the core function `of`), or lowered (of the function `of`).

    Attributes:
        utf8: strings are UTF-8.
        memory, realloc, post_return: as its options have them, or None.
    """

    of: int
    utf8: bool
    memory: int | None
    realloc: int | None
    post_return: int | None


@dataclass
class Spaces:
    """What each number stands for; None where nobody asks."""

    core: dict[int, list[Any]] = field(default_factory=dict)
    own: dict[int, list[Any]] = field(default_factory=dict)
    exports: dict[str, tuple[int, int]] = field(default_factory=dict)
    entries: Entries = field(default_factory=Entries)

    def of(self, sort: int) -> list[Any]:
        """The space of functions, instances, types or components."""
        return self.own.setdefault(sort, [])

    def of_core(self, sort: int) -> list[Any]:
        """The space of core functions, tables, memories, modules or instances."""
        return self.core.setdefault(sort, [])

    def components(self) -> list[Any]:
        """The nested components: their bytes, or None for what is no component in here."""
        return self.of(COMPONENT_SORT)

    def get(self, sort: int, index: int) -> Any:
        """What that number stands for, also if it is a second number for it."""
        found = self._at(sort, index)
        return self._at(sort, found.index) if isinstance(found, Exported) else found

    def _at(self, sort: int, index: int) -> Any:
        space = self.of(sort)
        return space[index] if index < len(space) else None

    def get_core(self, sort: int, index: int) -> Any:
        """What that number of a core space stands for."""
        space = self.of_core(sort)
        return space[index] if index < len(space) else None


class _Reader:
    """A section's payload, read from its beginning."""

    def __init__(self, payload: memoryview, entries: Entries) -> None:
        self.payload, self.entries = payload, entries
        self.at = 0

    def byte(self) -> int:
        if self.at >= len(self.payload):
            raise OddBinary("a section is cut off")
        self.at += 1
        return self.payload[self.at - 1]

    def number(self) -> int:
        value, self.at = read_leb(self.payload, self.at)
        return value

    def text(self) -> str:
        size = self.number()
        end = self.at + size
        if end > len(self.payload):
            raise OddBinary("a name is cut off")
        raw = bytes(self.payload[self.at : end])
        self.at = end
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise OddBinary("a name is not UTF-8") from None

    def name(self) -> str:
        """The name of an import or an export."""
        if self.byte() > 0x01:
            raise OddBinary("a name of an unknown kind")
        return self.text()

    def sort(self) -> tuple[bool, int]:
        """A sort: whether it is a core one, and which."""
        sort = self.byte()
        return (True, self.byte()) if sort == _CORE else (False, sort)

    def item(self) -> tuple[int, int]:
        """A sort that is none of core, and a number; a core one gives the sort -1."""
        core, sort = self.sort()
        return (-1 if core else sort), self.number()

    def count(self) -> int:
        """How many entries follow."""
        return self.entries.take(self.number())

    def each(self, read: Callable[[], Any]) -> list[Any]:
        return [read() for _ in range(self.count())]


def read_spaces(code: bytes | memoryview, entries: Entries | None = None) -> Spaces:
    """The index spaces of that component.

    Args:
        code: the component.
        entries: if it is nested in another, that one's.

    Raises:
        OddBinary: it holds something that is not known here, or too much.
    """
    spaces = Spaces(entries=entries or Entries())
    for kind, _, payload, _ in sections(memoryview(code), COMPONENT, spaces.entries):
        if kind == 0:
            continue
        if kind == 1:
            spaces.of_core(CORE_MODULE).append(None)
        elif kind == 4:
            spaces.of(COMPONENT_SORT).append(payload)
        elif kind in _SECTIONS:
            reader = _Reader(payload, spaces.entries)
            for _ in range(reader.count()):
                _SECTIONS[kind](reader, spaces)
            if reader.at != len(payload):
                raise OddBinary("a section is longer than what is in it")
        elif kind == 7:
            spaces.of(TYPE).extend([None] * _Reader(payload, spaces.entries).count())
        elif kind != 3:
            raise OddBinary(f"a section of the unknown kind {kind}")
    return spaces


def _core_instance(reader: _Reader, spaces: Spaces) -> None:
    def argument() -> tuple[str, tuple[int, int]]:
        name = reader.text()
        return name, (reader.byte(), reader.number())

    kind = reader.byte()
    made: Any
    if kind == 0:
        module = reader.number()
        made = Instantiated(module, dict(reader.each(argument)))
    elif kind == 1:
        made = Inline(dict(reader.each(argument)))
    else:
        raise OddBinary("a core instance of an unknown kind")
    spaces.of_core(CORE_INSTANCE).append(made)


def _instance(reader: _Reader, spaces: Spaces) -> None:
    kind = reader.byte()
    made: Any
    if kind == 0:
        component = reader.number()
        made = Instantiated(component, dict(reader.each(lambda: (reader.text(), reader.item()))))
    elif kind == 1:
        made = Inline(dict(reader.each(lambda: (reader.name(), reader.item()))))
    else:
        raise OddBinary("an instance of an unknown kind")
    spaces.of(INSTANCE).append(made)


def _alias(reader: _Reader, spaces: Spaces) -> None:
    core, sort = reader.sort()
    target = reader.byte()
    if target in (0, 1):
        made: Any = Alias(reader.number(), reader.text())
    elif target == 2:
        reader.number()
        reader.number()
        made = None
    else:
        raise OddBinary("an alias of an unknown kind")
    (spaces.of_core if core else spaces.of)(sort).append(made)


def _canon(reader: _Reader, spaces: Spaces) -> None:
    kind = reader.byte()
    if kind in (0, 1):
        if reader.byte() != 0:
            raise OddBinary("an unknown canonical function")
        of = reader.number()
        made = _options(reader, of)
        if kind == 0:
            reader.number()
            spaces.of(FUNC).append(made)
        else:
            spaces.of_core(CORE_FUNC).append(made)
    elif kind in (2, 3, 4):
        reader.number()
        spaces.of_core(CORE_FUNC).append(None)
    else:
        raise OddBinary(f"a canonical function of the unknown kind {kind}")


def _options(reader: _Reader, of: int) -> Canon:
    utf8, found = True, {_MEMORY: None, _REALLOC: None, _POST_RETURN: None}
    options: dict[int, int | None] = {**found}
    for _ in range(reader.count()):
        option = reader.byte()
        if option in options:
            options[option] = reader.number()
        elif option in (0, 1, 2):
            utf8 = option == _UTF8
        else:
            raise OddBinary("an unknown canonical option")
    return Canon(of, utf8, options[_MEMORY], options[_REALLOC], options[_POST_RETURN])


def _description(reader: _Reader) -> tuple[bool, int]:
    """The type of an import or an export: its sort."""
    sort = reader.byte()
    if sort == _CORE:
        if reader.byte() != CORE_MODULE:
            raise OddBinary("an import of an unknown kind")
        reader.number()
        return True, CORE_MODULE
    if sort == TYPE:
        if reader.byte() == 0:
            reader.number()
        return False, sort
    if sort not in (FUNC, COMPONENT_SORT, INSTANCE):
        raise OddBinary("an import of an unknown kind")
    reader.number()
    return False, sort


def _import(reader: _Reader, spaces: Spaces) -> None:
    name = reader.name()
    core, sort = _description(reader)
    (spaces.of_core if core else spaces.of)(sort).append(Imported(name))


def _export(reader: _Reader, spaces: Spaces) -> None:
    name = reader.name()
    core, sort = reader.sort()
    index = reader.number()
    if reader.byte():
        _description(reader)
    if core:
        spaces.of_core(sort).append(Exported(index))
    else:
        # Never a chain of them: each could be asked for by thousands of names.
        space = spaces.of(sort)
        found = space[index] if index < len(space) else None
        space.append(found if isinstance(found, Exported) else Exported(index))
        spaces.exports[name] = sort, index


_SECTIONS: dict[int, Callable[[_Reader, Spaces], None]] = {
    2: _core_instance,
    5: _instance,
    6: _alias,
    8: _canon,
    10: _import,
    11: _export,
}
