"""What a component imports and exports, by the names in its outermost sections.

Read without an engine, for the config of an artifact: a label for indexes and for people, which
nothing decides by.  The true imports are what the engine finds when the component is loaded.
Follows the component model's binary format.
"""

from __future__ import annotations

from typing import Final, NoReturn

from capwasm.errors import RepositoryError

__all__ = ["world_of"]

_PREAMBLE: Final = b"\0asm\x0d\0\x01\0"
_IMPORTS: Final = 10
_EXPORTS: Final = 11
_MODULE: Final = 0x00
_NAMES: Final = (0x00, 0x01)
_SORTS: Final = range(6)
_BOUNDED: Final = (0x02, 0x03)  # a value, a type: an index, or a bound of its own
_MAX_NAMES: Final = 10_000


def world_of(code: memoryview) -> tuple[list[str], list[str]]:
    """Names of imports and exports, in their order.

    Raises:
        RepositoryError: `oci.layout`: it is no component that can be read.
    """
    if bytes(code[:8]) != _PREAMBLE:
        _refuse("not a component")
    imports: list[str] = []
    exports: list[str] = []
    reader = _Reader(code, 8)
    while not reader.is_over:
        kind = reader.byte()
        section = reader.part(reader.number())
        if kind == _IMPORTS:
            _read(section, imports, exported=False)
        elif kind == _EXPORTS:
            _read(section, exports, exported=True)
    return imports, exports


class _Reader:
    def __init__(self, data: memoryview, at: int = 0) -> None:
        self._data = data
        self._at = at

    @property
    def is_over(self) -> bool:
        return self._at == len(self._data)

    def byte(self) -> int:
        return self.part(1)[0]

    def part(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._data):
            _refuse("it is cut short")
        part = self._data[self._at : end]
        self._at = end
        return part

    def number(self) -> int:
        """An unsigned LEB128 of 32 bits."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if value >= 2**32 or shift > 35:
                _refuse("a number has more than 32 bits")
            if byte < 0x80:
                return value

    def name(self) -> str:
        if (form := self.byte()) not in _NAMES:
            _refuse(f"a name of form {form}")
        try:
            return str(self.part(self.number()), "utf-8")
        except UnicodeDecodeError:
            _refuse("a name is not UTF-8")

    def sort(self) -> int:
        sort = self.byte()
        if sort not in _SORTS:
            _refuse(f"a sort {sort}")
        if sort == _MODULE:
            self.byte()
        return sort

    def skip_type(self) -> None:
        """An external's type: a sort, and an index or a bound."""
        sort = self.sort()
        if sort in _BOUNDED:
            # A type: equal to an index, or (1) a fresh resource.  A value: (0) an index, (1) a type.
            form = self.byte()
            if sort == 0x03 and form == 1:
                return
        self.number()


def _read(section: memoryview, names: list[str], *, exported: bool) -> None:
    reader = _Reader(section)
    for _ in range(reader.number()):
        if len(names) == _MAX_NAMES:
            _refuse(f"more than {_MAX_NAMES} names")
        names.append(reader.name())
        if exported:
            reader.sort()
            reader.number()
            if reader.byte() == 1:
                reader.skip_type()
        else:
            reader.skip_type()


def _refuse(message: str) -> NoReturn:
    raise RepositoryError(f"the component can't be read: {message}", code="oci.layout")
