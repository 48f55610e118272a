"""Lists of plain elements, a column at a time: one C loop a field instead of Python for each element.

Plain is what has a fixed place and no cases: numbers, strings, bytes, enums, and records and tuples
of these.  What a column takes and gives is what the element-wise converters do.  On the way in, a column
knows the ordinary case alone: whatever is odd about the values is left to the element-wise
converter, which takes it or says what is wrong.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import add, attrgetter, itemgetter
from typing import Any, TypeAlias

from capwasm.engine import types as t
from capwasm.engine.classes import Classes, field_name
from capwasm.engine.crossing import EngineFault
from capwasm.engine.lift import FORMATS, WIDTHS

from .codec import Codec
from .layout import MEMORY

__all__ = ["Odd", "Rows", "rows_of"]


# So many bytes are copied more quickly than it is decided whether to.
_SPREAD = 4096


class Odd(Exception):
    """A column holds what it has no fast way for."""


# (the rows' memory, the column's values, the codec).
Fill: TypeAlias = Callable[[memoryview, Sequence[Any], Codec], None]
Read: TypeAlias = Callable[[memoryview, Codec], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Rows:
    """How the elements of one list type cross.

    Attributes:
        fill, read: into rows, and out of them.
        size, align: of an element in memory.
        cost: what each element is charged beyond a list's own, apart from strings and bytes.
    """

    fill: Fill
    read: Read
    size: int
    align: int
    cost: int

    def lower(self, items: Sequence[Any], codec: Codec) -> int | None:
        """Lay the elements out; their offset, or None where they have to go one by one.

        Raises:
            ValueLimitExceeded: they are too large.
        """
        left, top = codec.left, codec.top
        codec.charge(len(items) * self.cost)
        total = len(items) * self.size
        at = codec.alloc(total, self.align)
        try:
            self.fill(codec.buf[at : at + total], items, codec)
        except Odd:
            codec.left, codec.top = left, top
            return None
        return at

    def lift(self, at: int, count: int, codec: Codec) -> list[Any]:
        """The elements at that offset, which is within the block.

        Raises:
            EngineFault: they are none of the type.
            ValueLimitExceeded: they are too large.
        """
        codec.charge(count * self.cost)
        return list(self.read(codec.buf[at : at + count * self.size], codec))


def rows_of(type_: t.ValType, classes: Classes, hint: str) -> Rows | None:
    """How elements of that type cross a column at a time, or None if they can't."""
    if not _plain(type_):
        return None
    size = MEMORY.size(type_)
    fill, read = _column(type_, 0, size, classes, hint)
    return Rows(fill, read, size, MEMORY.align(type_), _cost(type_))


def _plain(type_: t.ValType) -> bool:
    match type_:
        case t.Prim(word):
            return word != "char"
        case t.List(element):
            return element == t.Prim("u8")
        case t.Record() | t.Tuple():
            return all(map(_plain, t.children(type_)))
        case _:
            return isinstance(type_, t.Enum)


def _cost(type_: t.ValType) -> int:
    own = {t.Record: 48, t.Tuple: 32}.get(type(type_), 0)
    return sum(own + _cost(x) for x in t.children(type_)) if own else 0


def _column(type_: t.ValType, at: int, size: int, classes: Classes, hint: str) -> tuple[Fill, Read]:
    """The converters of what stands at the offset `at` in each row of `size` bytes."""
    match type_:
        case t.Prim("string"):
            return _texts(at, size)
        case t.Prim(word):
            return _numbers(word, at, size)
        case t.List():
            return _blobs(at, size)
        case t.Enum():
            return _words(type_, at, size, classes, hint)
        case t.Record(_, fields):
            hints = [f"{hint}-{n}" for n, _ in fields]
            return _records(type_, _parts(type_, at, size, classes, hints), classes, hint)
        case _:
            hints = [f"{hint}-{i}" for i, _ in enumerate(t.children(type_))]
            return _tuples(_parts(type_, at, size, classes, hints))


def _parts(
    type_: t.ValType, at: int, size: int, classes: Classes, hints: list[str]
) -> list[tuple[Fill, Read]]:
    parts = tuple(t.children(type_))
    offsets, _ = MEMORY.fields(parts)
    return [
        _column(x, at + offset, size, classes, hint)
        for x, offset, hint in zip(parts, offsets, hints, strict=True)
    ]


def _only(kind: type, values: Sequence[Any]) -> None:
    """Pass if all are exactly of that class: a subclass may lie about itself."""
    if set(map(type, values)) != {kind}:
        raise Odd


# -- leaves ------------------------------------------------------------------------------------


def _numbers(word: str, at: int, size: int) -> tuple[Fill, Read]:
    code: Any = FORMATS[word]
    width = WIDTHS[word]
    first, step = at // width, size // width
    kind: type = {"?": bool, "f": float, "d": float}.get(code, int)

    def fill(rows: memoryview, values: Sequence[Any], _codec: Codec) -> None:
        _only(kind, values)
        try:
            # Packed, since an array of f32 takes what is too large, as infinity.
            packed = struct.pack(f"={len(values)}{code}", *values)
        except (struct.error, OverflowError):
            raise Odd from None
        rows.cast(code)[first::step] = memoryview(packed).cast(code)

    def read(rows: memoryview, _codec: Codec) -> Sequence[Any]:
        return rows.cast(code)[first::step].tolist()

    return fill, read


def _words(type_: t.Enum, at: int, size: int, classes: Classes, hint: str) -> tuple[Fill, Read]:
    members = list(classes.words(type_, hint).values())
    numbers: dict[Any, int] = {word: i for i, word in enumerate(type_.cases)}
    width = MEMORY.size(type_)
    code: Any = {1: "B", 2: "H", 4: "I"}[width]
    first, step = at // width, size // width
    kinds = {str, type(members[0])}

    def fill(rows: memoryview, values: Sequence[Any], _codec: Codec) -> None:
        if not set(map(type, values)) <= kinds:
            raise Odd
        try:
            rows.cast(code)[first::step] = array(code, map(numbers.__getitem__, values))
        except KeyError:
            raise Odd from None

    def read(rows: memoryview, _codec: Codec) -> Sequence[Any]:
        try:
            return list(map(members.__getitem__, rows.cast(code)[first::step]))
        except IndexError:
            raise EngineFault("a case that is none of its enum's") from None

    return fill, read


class _Spans:
    """The columns of pointers and lengths of strings, or of bytes."""

    __slots__ = ("_first", "_step")

    def __init__(self, at: int, size: int) -> None:
        self._first, self._step = at // 4, size // 4

    def put(self, rows: memoryview, data: bytes, sizes: Sequence[int], codec: Codec) -> None:
        """Point each row to its piece of `data`."""
        start = codec.put(data)
        ends = array("I", accumulate(sizes, initial=start))
        ends.pop()
        words = rows.cast("I")
        words[self._first :: self._step] = ends
        words[self._first + 1 :: self._step] = array("I", sizes)

    def take(
        self, rows: memoryview, codec: Codec
    ) -> tuple[list[int], list[int], int, bytes | None]:
        """Where each row's piece begins and ends, where the first does, and a copy of what is there.

        Copied in one go is no more than a few times what is charged here: a block of many short lists
        must not be copied for each of them.  Where the pieces lie further apart there is no copy,
        and the places are those in `codec.buf`.

        Raises:
            EngineFault: a piece is not within the block.
            ValueLimitExceeded: all together are too large.
        """
        words = rows.cast("I")
        starts = words[self._first :: self._step].tolist()
        sizes = words[self._first + 1 :: self._step].tolist()
        whole = sum(sizes)
        codec.charge(whole)
        if not all(sizes):
            # What is empty may point anywhere.
            starts = [s if n else codec.low for s, n in zip(starts, sizes, strict=True)]
        ends = list(map(add, starts, sizes))
        low, high = min(starts), max(ends)
        if low < codec.low or high > codec.high:
            raise EngineFault("a list points out of its block")
        most = _SPREAD + 8 * (whole + 32 * len(sizes))
        if high <= most:
            # From the very beginning of the memory: no place needs a conversion.
            return starts, ends, low, codec.buf[:high].tobytes()
        if high - low > most:
            return starts, ends, low, None
        data = codec.buf[low:high].tobytes()
        return [s - low for s in starts], [e - low for e in ends], 0, data


def _texts(at: int, size: int) -> tuple[Fill, Read]:
    spans = _Spans(at, size)

    def fill(rows: memoryview, values: Sequence[Any], codec: Codec) -> None:
        _only(str, values)
        text = "".join(values)
        codec.charge(len(text))
        try:
            data = text.encode()
            if len(data) == len(text):
                sizes = list(map(len, values))
            else:
                sizes = list(map(len, map(str.encode, values)))
                codec.charge(len(data) - len(text))
        except UnicodeEncodeError:
            raise Odd from None
        spans.put(rows, data, sizes, codec)

    def read(rows: memoryview, codec: Codec) -> Sequence[Any]:
        starts, ends, low, data = spans.take(rows, codec)
        try:
            if data is None:
                buf = codec.buf
                return [str(buf[s:e], "utf-8") for s, e in zip(starts, ends)]  # noqa: B905
            if data[low:].isascii():
                # One character a byte, whatever stands before the texts.
                text = data.decode("latin-1")
                return [text[s:e] for s, e in zip(starts, ends)]  # noqa: B905 - as many
            return [data[s:e].decode() for s, e in zip(starts, ends)]  # noqa: B905
        except UnicodeDecodeError:
            raise EngineFault("a string that is not UTF-8") from None

    return fill, read


def _blobs(at: int, size: int) -> tuple[Fill, Read]:
    spans = _Spans(at, size)

    def fill(rows: memoryview, values: Sequence[Any], codec: Codec) -> None:
        _only(bytes, values)
        sizes = list(map(len, values))
        codec.charge(sum(sizes))
        spans.put(rows, b"".join(values), sizes, codec)

    def read(rows: memoryview, codec: Codec) -> Sequence[Any]:
        starts, ends, _, data = spans.take(rows, codec)
        if data is None:
            buf = codec.buf
            return [buf[s:e].tobytes() for s, e in zip(starts, ends)]  # noqa: B905 - as many
        return [data[s:e] for s, e in zip(starts, ends)]  # noqa: B905 - as many

    return fill, read


# -- with parts --------------------------------------------------------------------------------


def _tuples(parts: list[tuple[Fill, Read]]) -> tuple[Fill, Read]:
    count = len(parts)

    def fill(rows: memoryview, values: Sequence[Any], codec: Codec) -> None:
        if set(map(type, values)) - {tuple, list} or set(map(len, values)) != {count}:
            raise Odd
        _fill(parts, rows, values, codec)

    def read(rows: memoryview, codec: Codec) -> Sequence[Any]:
        return list(zip(*[go(rows, codec) for _, go in parts], strict=True))

    return fill, read


def _records(
    type_: t.Record, parts: list[tuple[Fill, Read]], classes: Classes, hint: str
) -> tuple[Fill, Read]:
    final, draft = classes.record(type_, hint), classes.draft(type_, hint)
    names = tuple(field_name(n) for n, _ in type_.fields)
    attributes, keys, lone = attrgetter(*names), itemgetter(*names), len(names) == 1

    def fill(rows: memoryview, values: Sequence[Any], codec: Codec) -> None:
        kinds = set(map(type, values))
        if kinds == {dict} and set(map(len, values)) == {len(names)}:
            get: Callable[[Any], Any] = keys
        elif kinds == {final} or (len(kinds) == 1 and _is_likeness(*kinds)):
            get = attributes
        else:
            raise Odd
        try:
            taken = list(map(get, values))
        except (AttributeError, KeyError):
            raise Odd from None
        _fill(parts, rows, [(x,) for x in taken] if lone else taken, codec)

    def read(rows: memoryview, codec: Codec) -> Sequence[Any]:
        made: list[Any] = list(map(draft, *[go(rows, codec) for _, go in parts]))
        for one in made:
            one.__class__ = final
        return made

    return fill, read


def _is_likeness(kind: type) -> bool:
    """Whether objects of that class are taken for records by their attributes; see `as_fields`."""
    return not issubclass(kind, Mapping | str | int | float | bytes | list | tuple | type(None))


def _fill(
    parts: list[tuple[Fill, Read]], rows: memoryview, taken: Sequence[Any], codec: Codec
) -> None:
    for (go, _), column in zip(parts, zip(*taken, strict=True), strict=True):
        go(rows, column, codec)
