"""How a component is built: its modules with their sizes, memories, data and custom sections.

Only framing is read, by `lane.binary`, and no instruction but those that say where data lies.  The
bytes are not trusted, and the work is bounded (`Entries`).  Nothing here refuses: what does not hold
together ends the outline, which then says so in `fault` and keeps what came before.
(Binary format of core modules, 5.5, and of the component model: `Binary.md`.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .lane.binary import COMPONENT, MAX_NESTING, Entries, OddBinary, read_leb, sections

__all__ = ["Custom", "Data", "Limits", "Module", "Outline", "outline"]

CORE: Final = b"\0asm\x01\0\0\0"
# Section ids of a component.
_CUSTOM, _CORE_MODULE, _NESTED, _START_OF_COMPONENT = 0, 1, 4, 9
# Section ids of a core module.
_FUNCTION, _TABLE, _MEMORY, _START, _CODE, _DATA = 3, 4, 5, 8, 10, 11
_PAGE: Final = 65536
_MAX_NAME: Final = 1024
_MAX_CONSTANTS: Final = 64


@dataclass(frozen=True, slots=True)
class Custom:
    """A custom section.

    `module` is the place of what it stands in: `module[0]`, `component[1]` for one that nests, or
    empty for the component itself.
    """

    name: str
    offset: int
    payload: memoryview = field(repr=False)
    module: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """A data segment, or a whole section of them that has another form than is known here."""

    module: str
    offset: int
    payload: memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """A memory, in bytes, or a table, in elements: what it begins with and may grow to."""

    module: str
    offset: int
    least: int
    most: int | None


@dataclass(slots=True)
class Module:
    """A core module.  `place` counts them in order of the bytes: `module[0]`."""

    place: str
    offset: int
    size: int
    functions: int = 0
    code: int = 0
    starts: bool = False


@dataclass(slots=True)
class Outline:
    """A whole component, with all that nests in it.

    Attributes:
        modules, customs, data, memories, tables: in the order of the bytes.
        code, custom, other: bytes of sections: of functions, custom ones, all else of components.
        data_bytes: bytes of the sections of data.
        nested: how many components nest in it.   starts: whether one has a start section.
        fault: why the outline ends early, or empty.
    """

    modules: list[Module] = field(default_factory=list)
    customs: list[Custom] = field(default_factory=list)
    data: list[Data] = field(default_factory=list)
    memories: list[Limits] = field(default_factory=list)
    tables: list[Limits] = field(default_factory=list)
    code: int = 0
    data_bytes: int = 0
    custom: int = 0
    other_of_modules: int = 0
    other: int = 0
    nested: int = 0
    starts: bool = False
    fault: str = ""


def outline(code: bytes | memoryview) -> Outline:
    """The outline of what may be a component."""
    found = Outline()
    try:
        _component(memoryview(code), 0, "", found, Entries(), 0)
    except OddBinary as exc:
        found.fault = str(exc)
    return found


def _component(
    code: memoryview, base: int, place: str, found: Outline, entries: Entries, depth: int
) -> None:
    if depth > MAX_NESTING:
        raise OddBinary(f"components nest deeper than {MAX_NESTING}")
    for kind, start, payload, end in sections(code, COMPONENT, entries):
        inner = base + end - len(payload)
        if kind == _NESTED:
            found.nested += 1
            nested = f"component[{found.nested}]"
            _component(payload, inner, nested, found, entries, depth + 1)
        elif kind == _CORE_MODULE:
            _module(payload, inner, found, entries)
        elif kind == _CUSTOM:
            found.custom += end - start
            found.customs.append(_custom(payload, inner, place))
        else:
            found.other += end - start
            found.starts |= kind == _START_OF_COMPONENT


def _module(code: memoryview, base: int, found: Outline, entries: Entries) -> None:
    module = Module(f"module[{len(found.modules)}]", base, len(code))
    found.modules.append(module)
    for kind, start, payload, end in sections(code, CORE, entries):
        inner, size = base + end - len(payload), end - start
        if kind == _CUSTOM:
            found.custom += size
            found.customs.append(_custom(payload, inner, module.place))
        elif kind == _CODE:
            found.code += size
            module.code += size
            module.functions += read_leb(payload, 0)[0]
        elif kind == _DATA:
            found.data_bytes += size
            found.data += _data(payload, inner, module.place, entries)
        else:
            found.other_of_modules += size
            module.starts |= kind == _START
            if kind == _MEMORY:
                found.memories += _limits(payload, inner, module.place, entries, table=False)
            elif kind == _TABLE:
                found.tables += _limits(payload, inner, module.place, entries, table=True)


def _custom(payload: memoryview, offset: int, module: str) -> Custom:
    size, at = read_leb(payload, 0)
    if at + size > len(payload):
        raise OddBinary("the name of a custom section is cut off")
    name = bytes(payload[at : at + min(size, _MAX_NAME)]).decode("utf-8", "replace")
    return Custom(name, offset, payload[at + size :], module)


def _limits(
    payload: memoryview, offset: int, module: str, entries: Entries, *, table: bool
) -> list[Limits]:
    """Each memory or table of a section; what is of another form ends the list."""
    out: list[Limits] = []
    count, at = read_leb(payload, 0)
    scale = 1 if table else _PAGE
    for _ in range(entries.take(count)):
        first = at
        # A reference type of one byte; what has two, or a value to begin with, is new and rare.
        if table and (at >= len(payload) or payload[at] not in (0x70, 0x6F)):
            break
        at += table
        if at >= len(payload) or payload[at] > 7:
            break
        flags, at = payload[at], at + 1
        least, at = _long(payload, at)
        most: int | None = None
        if flags & 1:
            most, at = _long(payload, at)
        out.append(
            Limits(module, offset + first, least * scale, None if most is None else most * scale)
        )
    return out


def _data(payload: memoryview, offset: int, module: str, entries: Entries) -> list[Data]:
    try:
        out: list[Data] = []
        count, at = read_leb(payload, 0)
        for _ in range(entries.take(count)):
            mode, at = read_leb(payload, at)
            if mode == 2:
                _, at = read_leb(payload, at)
            if mode in (0, 2):
                at = _after_expression(payload, at)
            elif mode != 1:
                raise OddBinary("a data segment of an unknown kind")
            size, at = read_leb(payload, at)
            if at + size > len(payload):
                raise OddBinary("a data segment is cut off")
            out.append(Data(module, offset + at, payload[at : at + size]))
            at += size
        return out
    except OddBinary:
        # It is looked at all the same.
        return [Data(module, offset, payload)]


def _after_expression(payload: memoryview, at: int) -> int:
    """Where a constant expression ends that says where a segment lies."""
    for _ in range(_MAX_CONSTANTS):
        if at >= len(payload):
            break
        code, at = payload[at], at + 1
        if code == 0x0B:  # end
            return at
        if code in (0x41, 0x42, 0x23):  # i32.const, i64.const, global.get
            _, at = _long(payload, at)
        elif not (0x6A <= code <= 0x6C or 0x7C <= code <= 0x7E):  # add, sub, mul
            break
    raise OddBinary("a constant expression of another form")


def _long(payload: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, its sign not minded, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(payload):
            break
        byte, at = payload[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise OddBinary("a number is cut off, or has more than 64 bits")
