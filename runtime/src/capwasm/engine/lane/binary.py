"""The outside of a component's binary form: its sections, and a skeleton of it.

Nothing here decodes a type, a name or an instruction; only lengths are read.  The bytes are not
trusted: every length is checked against what is there, and whatever looks odd is refused, not guessed
at.  The work is linear in the bytes, and in what a byte can stand for it is bounded: all this happens in
the host's process, before the engine has seen anything.  (Binary format of core modules and of the component
model: a preamble of eight bytes, then sections of an id, a length in LEB128 and so many bytes.)
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = [
    "COMPONENT",
    "MAX_ENTRIES",
    "MAX_NESTING",
    "Entries",
    "OddBinary",
    "read_leb",
    "sections",
    "skeleton",
]

# Components nest no deeper than this; those of composition tools nest two or three levels.
MAX_NESTING = 16

# Sections, and entries of those that are looked into, of a whole component: Python takes a microsecond
# and a hundred bytes for each.  18 MB of Python have 20,000.
MAX_ENTRIES = 500_000

COMPONENT = b"\0asm\x0d\0\x01\0"
_CORE = b"\0asm\x01\0\0\0"
# Section ids of a component, and of a core module; and the sorts of what a module imports and exports.
_CUSTOM, _CORE_MODULE, _NESTED = 0, 1, 4
_IMPORT, _FUNCTION, _EXPORT, _CODE = 2, 3, 7, 10
_FUNC, _TABLE, _MEMORY, _GLOBAL = 0, 1, 2, 3
# What is kept of a module, in order: types, imports, functions, tables, memories, globals, exports.
_KEPT = (1, _IMPORT, _FUNCTION, 4, 5, 6, _EXPORT)
_NOTHING = memoryview(b"\0")
# A function body: three bytes long, no locals, `unreachable`, `end`.
_BODY = b"\x03\x00\x00\x0b"


class OddBinary(Exception):
    """The bytes are not framed as expected.  Says nothing of whether an engine would take them."""


class Entries:
    """Counts what is looked at in one component, with all that nests in it."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        """None yet."""
        self._left = MAX_ENTRIES

    def take(self, count: int) -> int:
        """So many more: the same number, if there may be.

        Raises:
            OddBinary: they are too many.
        """
        self._left -= count
        if self._left < 0:
            raise OddBinary(f"it has more than {MAX_ENTRIES} entries")
        return count


def skeleton(code: bytes | memoryview) -> bytes:
    """The same component without what its functions do: the same types, to be compiled in no time.

    Of each core module the functions that it exports are left, as `unreachable`, with its types,
    imports, tables, memories and globals.

    Raises:
        OddBinary: it is not framed like a component.
    """
    return b"".join(_component(memoryview(code), 0, Entries()))


def _component(code: memoryview, depth: int, entries: Entries) -> list[bytes | memoryview]:
    if depth > MAX_NESTING:
        raise OddBinary(f"components nest deeper than {MAX_NESTING}")
    out: list[bytes | memoryview] = [COMPONENT]
    for kind, start, payload, end in sections(code, COMPONENT, entries):
        if kind == _CUSTOM:
            continue
        if kind == _CORE_MODULE:
            out += _framed(kind, _module(payload, entries))
        elif kind == _NESTED:
            out += _framed(kind, _component(payload, depth + 1, entries))
        else:
            out.append(code[start:end])
    return out


def _module(code: memoryview, entries: Entries) -> list[bytes | memoryview]:
    """The module with those functions alone that it exports."""
    found = {kind: payload for kind, _, payload, _ in sections(code, _CORE, entries)}
    imported = _imported_functions(found.get(_IMPORT, _NOTHING), entries)
    types = _numbers(found.get(_FUNCTION, _NOTHING), entries)
    exports = _exports(found.get(_EXPORT, _NOTHING), entries)
    kept: dict[int, int] = {}
    for _, kind, index in exports:
        if kind == _FUNC and index >= imported:
            if index - imported >= len(types):
                raise OddBinary("an export of a function that is not there")
            kept.setdefault(index, imported + len(kept))
    functions = [_leb(types[index - imported]) for index in kept]
    out: list[bytes | memoryview] = [_CORE]
    for kind in _KEPT:
        if kind == _FUNCTION:
            out += _framed(kind, [_leb(len(functions)), *functions])
        elif kind == _EXPORT:
            parts = [
                part
                for name, sort, index in exports
                for part in (
                    name,
                    bytes([sort]),
                    _leb(kept.get(index, index) if sort == _FUNC else index),
                )
            ]
            out += _framed(kind, [_leb(len(exports)), *parts])
        elif kind in found:
            out += _framed(kind, [found[kind]])
    return [*out, *_framed(_CODE, [_leb(len(kept)), _BODY * len(kept)])]


def _numbers(payload: memoryview, entries: Entries) -> list[int]:
    """The numbers of a vector."""
    count, at = read_leb(payload, 0)
    out = []
    for _ in range(entries.take(count)):
        number, at = read_leb(payload, at)
        out.append(number)
    return out


def _exports(payload: memoryview, entries: Entries) -> list[tuple[memoryview, int, int]]:
    """Each export: its name as it is written, its sort, its number."""
    count, at = read_leb(payload, 0)
    out = []
    for _ in range(entries.take(count)):
        size, end = read_leb(payload, at)
        end += size
        if end >= len(payload):
            raise OddBinary("an export is cut off")
        index, after = read_leb(payload, end + 1)
        out.append((payload[at:end], payload[end], index))
        at = after
    return out


def _imported_functions(payload: memoryview, entries: Entries) -> int:
    """How many functions a module imports."""
    count, at = read_leb(payload, 0)
    functions = 0
    for _ in range(entries.take(count)):
        for _ in range(2):
            size, at = read_leb(payload, at)
            at += size
        if at >= len(payload):
            raise OddBinary("an import is cut off")
        kind, at = payload[at], at + 1
        if kind == _FUNC:
            functions += 1
            _, at = read_leb(payload, at)
        elif kind == _GLOBAL:
            at += 2
        elif kind in (_TABLE, _MEMORY):
            at += kind == _TABLE
            flags, at = read_leb(payload, at)
            for _ in range(1 + (flags & 1)):
                _, at = read_leb(payload, at)
        else:
            raise OddBinary("an import of an unknown kind")
    if at != len(payload):
        raise OddBinary("imports of another form")
    return functions


def _framed(kind: int, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    return [bytes([kind]), _leb(sum(map(len, parts))), *parts]


def sections(
    code: memoryview, preamble: bytes, entries: Entries
) -> Iterator[tuple[int, int, memoryview, int]]:
    """Each section's id, where it begins, its payload, and where it ends."""
    if code[: len(preamble)] != preamble:
        raise OddBinary("not the expected preamble")
    at = len(preamble)
    while at < len(code):
        entries.take(1)
        start, kind = at, code[at]
        length, at = read_leb(code, at + 1)
        end = at + length
        if end > len(code):
            raise OddBinary("a section is longer than what holds it")
        yield kind, start, code[at:end], end
        at = end


def read_leb(code: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of 32 bits at `at`, and where it ends."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(code):
            raise OddBinary("a number is cut off")
        byte = code[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 32:
                break
            return value, at
    raise OddBinary("a number of more than 32 bits")


def _leb(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
