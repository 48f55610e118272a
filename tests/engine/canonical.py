"""The canonical ABI's storing and loading, straight from the definitions: slow, plain, for tests.

Written after `CanonicalABI.md` of the component model (alignment, elem_size, store, load, flatten,
lower_flat, lift_flat), for 32-bit memories and UTF-8.  Values are the plain words of
`test_plan_property.values`: mappings for records, words for enums.  Nothing here is shared with the
package.
"""

from __future__ import annotations

import math
import struct

from capwasm.engine import types as t
from capwasm.engine.classes import field_name
from capwasm.values import Err, Ok, Some, Variant


class Trap(Exception):
    """What the definitions call a trap."""


class Memory:
    """A linear memory with a realloc that bumps."""

    def __init__(self, size: int, top: int) -> None:
        self.bytes = bytearray(size)
        self.top = top

    def realloc(self, align: int, size: int) -> int:
        at = align_to(self.top, align)
        self.top = at + size
        if self.top > len(self.bytes):
            raise Trap("no memory")
        return at


def align_to(at: int, align: int) -> int:
    return math.ceil(at / align) * align


NUMBERS = {
    "bool": "B", "s8": "b", "u8": "B", "s16": "h", "u16": "H", "s32": "i", "u32": "I",
    "s64": "q", "u64": "Q", "f32": "f", "f64": "d", "char": "I",
}  # fmt: skip


def despecialize(type_: t.ValType) -> t.ValType:
    match type_:
        case t.Tuple(items):
            return t.Record(None, tuple((f"f{i}", x) for i, x in enumerate(items)))
        case t.Enum(_, words):
            return t.Variant(None, tuple((w, None) for w in words))
        case t.Option(payload):
            return t.Variant(None, (("none", None), ("some", payload)))
        case t.Result(ok, err):
            return t.Variant(None, (("ok", ok), ("error", err)))
        case _:
            return type_


def discriminant_size(count: int) -> int:
    return {0: 1, 1: 1, 2: 2, 3: 4}[math.ceil(math.log2(count) / 8)]


def flags_size(count: int) -> int:
    return 1 if count <= 8 else 2 if count <= 16 else 4


def alignment(type_: t.ValType) -> int:
    match despecialize(type_):
        case t.Prim("string") | t.List():
            return 4
        case t.Prim(word):
            return struct.calcsize(NUMBERS[word])
        case t.Record(_, fields):
            return max([1, *(alignment(x) for _, x in fields)])
        case t.Variant(_, cases):
            return max(
                [discriminant_size(len(cases)), *(alignment(x) for _, x in cases if x is not None)]
            )
        case t.Flags(_, names):
            return flags_size(len(names))
        case other:
            raise AssertionError(other)


def payload_at(cases: tuple[tuple[str, t.ValType | None], ...]) -> int:
    most = max([1, *(alignment(x) for _, x in cases if x is not None)])
    return align_to(discriminant_size(len(cases)), most)


def elem_size(type_: t.ValType) -> int:
    match despecialize(type_):
        case t.Prim("string") | t.List():
            return 8
        case t.Prim(word):
            return struct.calcsize(NUMBERS[word])
        case t.Record(_, fields) as record:
            at = 0
            for _, x in fields:
                at = align_to(at, alignment(x)) + elem_size(x)
            return align_to(at, alignment(record))
        case t.Variant(_, cases) as variant:
            most = max([0, *(elem_size(x) for _, x in cases if x is not None)])
            return align_to(payload_at(cases) + most, alignment(variant))
        case t.Flags(_, names):
            return flags_size(len(names))
        case other:
            raise AssertionError(other)


def number(word: str, value: object) -> int | float:
    return ord(value) if word == "char" else value if "f" in word else int(value)  # type: ignore[arg-type, call-overload]


def pointed(type_: t.ValType, value: object, m: Memory) -> tuple[int, int]:
    """A string or a list, stored: pointer and length."""
    if isinstance(type_, t.Prim):
        data = value.encode()
        at = m.realloc(1, len(data))
        m.bytes[at : at + len(data)] = data
        return at, len(data)
    size = elem_size(type_.element)
    at = m.realloc(alignment(type_.element), size * len(value))
    for i, item in enumerate(value):
        store(type_.element, item, at + i * size, m)
    return at, len(value)


def case_of(type_: t.ValType, value: object) -> tuple[int, object]:
    """Which case a value is, and its payload."""
    match type_, value:
        case t.Enum(_, words), _:
            return words.index(value), None
        case t.Option(), None:
            return 0, None
        case t.Option(t.Option()), Some(inner):
            return 1, inner
        case t.Option(), _:
            return 1, value
        case t.Result(), Ok(inner):
            return 0, inner
        case t.Result(), Err(inner):
            return 1, inner
        case t.Variant(_, cases), Variant(name, inner):
            return [n for n, _ in cases].index(name), inner
        case _:
            raise AssertionError((type_, value))


def items_of(type_: t.ValType, value: object) -> list[object]:
    if isinstance(type_, t.Record):
        return [value[field_name(n)] for n, _ in type_.fields]
    return list(value)


def bits(names: tuple[str, ...], value: frozenset[str]) -> int:
    return sum(1 << i for i, n in enumerate(names) if n in value)


def store(type_: t.ValType, value: object, at: int, m: Memory) -> None:
    match despecialize(type_):
        case t.Prim("string") | t.List():
            struct.pack_into("<II", m.bytes, at, *pointed(type_, value, m))
        case t.Prim(word):
            struct.pack_into(f"<{NUMBERS[word]}", m.bytes, at, number(word, value))
        case t.Record(_, fields):
            for (_, x), item in zip(fields, items_of(type_, value), strict=True):
                at = align_to(at, alignment(x))
                store(x, item, at, m)
                at += elem_size(x)
        case t.Variant(_, cases):
            index, inner = case_of(type_, value)
            size = discriminant_size(len(cases))
            m.bytes[at : at + size] = index.to_bytes(size, "little")
            if cases[index][1] is not None:
                store(cases[index][1], inner, at + payload_at(cases), m)
        case t.Flags(_, names):
            size = flags_size(len(names))
            m.bytes[at : at + size] = bits(names, value).to_bytes(size, "little")
        case other:
            raise AssertionError(other)


def made(type_: t.ValType, index: int, inner: object) -> object:
    match type_:
        case t.Enum(_, words):
            return words[index]
        case t.Option(payload):
            return None if not index else Some(inner) if isinstance(payload, t.Option) else inner
        case t.Result():
            return Err(inner) if index else Ok(inner)
        case t.Variant(_, cases):
            return Variant(cases[index][0], inner)
        case _:
            raise AssertionError(type_)


def together(type_: t.ValType, items: list[object]) -> object:
    if isinstance(type_, t.Record):
        return {field_name(n): x for (n, _), x in zip(type_.fields, items, strict=True)}
    return tuple(items)


def read_number(word: str, raw: float) -> object:
    if word == "bool":
        return bool(raw)
    if word == "char":
        if raw >= 0x110000 or 0xD800 <= raw <= 0xDFFF:
            raise Trap("no char")
        return chr(raw)
    return raw


def follow(type_: t.ValType, at: int, length: int, m: Memory) -> object:
    """A string or a list, loaded."""
    size = 1 if isinstance(type_, t.Prim) else elem_size(type_.element)
    align = 1 if isinstance(type_, t.Prim) else alignment(type_.element)
    if at != align_to(at, align) or at + size * length > len(m.bytes):
        raise Trap("misaligned, or out of the memory")
    if isinstance(type_, t.Prim):
        return m.bytes[at : at + length].decode()
    items = [load(type_.element, at + i * size, m) for i in range(length)]
    return bytes(items) if type_.element == t.Prim("u8") else items


def load(type_: t.ValType, at: int, m: Memory) -> object:
    match despecialize(type_):
        case t.Prim("string") | t.List():
            return follow(type_, *struct.unpack_from("<II", m.bytes, at), m)
        case t.Prim(word):
            return read_number(word, *struct.unpack_from(f"<{NUMBERS[word]}", m.bytes, at))
        case t.Record(_, fields):
            items = []
            for _, x in fields:
                at = align_to(at, alignment(x))
                items.append(load(x, at, m))
                at += elem_size(x)
            return together(type_, items)
        case t.Variant(_, cases):
            size = discriminant_size(len(cases))
            index = int.from_bytes(m.bytes[at : at + size], "little")
            if index >= len(cases):
                raise Trap("no such case")
            x = cases[index][1]
            return made(type_, index, None if x is None else load(x, at + payload_at(cases), m))
        case t.Flags(_, names):
            size = flags_size(len(names))
            found = int.from_bytes(m.bytes[at : at + size], "little")
            return frozenset(n for i, n in enumerate(names) if found >> i & 1)
        case other:
            raise AssertionError(other)


# -- flat ----------------------------------------------------------------------------------------


def flatten(type_: t.ValType) -> list[str]:
    match despecialize(type_):
        case t.Prim("string") | t.List():
            return ["i32", "i32"]
        case t.Prim(word):
            code = NUMBERS[word]
            return [{"f": "f32", "d": "f64", "q": "i64", "Q": "i64"}.get(code, "i32")]
        case t.Record(_, fields):
            return [x for _, part in fields for x in flatten(part)]
        case t.Variant(_, cases):
            flat: list[str] = []
            for _, case in cases:
                for i, x in enumerate([] if case is None else flatten(case)):
                    if i < len(flat):
                        flat[i] = join(flat[i], x)
                    else:
                        flat.append(x)
            return ["i32", *flat]
        case t.Flags():
            return ["i32"]
        case other:
            raise AssertionError(other)


def join(a: str, b: str) -> str:
    if a == b:
        return a
    return "i32" if {a, b} == {"i32", "f32"} else "i64"


def lower_flat(type_: t.ValType, value: object, m: Memory) -> list[bytes]:
    """Each flat value as a word of eight bytes, little-endian, with zeros above."""

    def word(code: str, raw: float) -> bytes:
        return struct.pack(f"<{code}", raw).ljust(8, b"\0")

    match despecialize(type_):
        case t.Prim("string") | t.List():
            return [word("I", x) for x in pointed(type_, value, m)]
        case t.Prim(name):
            # Signed ones are i32 of the same value; the rest of them is what has no sign.
            code = {"s8": "i", "s16": "i"}.get(name, NUMBERS[name])
            return [word(code, number(name, value))]
        case t.Record(_, fields):
            items = zip(fields, items_of(type_, value), strict=True)
            return [x for (_, part), item in items for x in lower_flat(part, item, m)]
        case t.Variant(_, cases):
            index, inner = case_of(type_, value)
            x = cases[index][1]
            payload = [] if x is None else lower_flat(x, inner, m)
            rest = len(flatten(type_)) - 1 - len(payload)
            # To coerce a flat value to a wider, joined one is to keep its bits and add zeros.
            return [word("I", index), *payload, *[bytes(8)] * rest]
        case t.Flags(_, names):
            return [word("I", bits(names, value))]
        case other:
            raise AssertionError(other)


def lift_flat(type_: t.ValType, words: list[bytes], m: Memory) -> object:
    """Takes what it needs off the front of `words`."""

    def next_(code: str) -> object:
        return struct.unpack_from(f"<{code}", words.pop(0))[0]

    match despecialize(type_):
        case t.Prim("string") | t.List():
            at, length = next_("I"), next_("I")
            return follow(type_, at, length, m)
        case t.Prim(name):
            return read_number(name, next_(NUMBERS[name]))
        case t.Record(_, fields):
            return together(type_, [lift_flat(x, words, m) for _, x in fields])
        case t.Variant(_, cases):
            index = next_("I")
            if index >= len(cases):
                raise Trap("no such case")
            rest = [words.pop(0) for _ in range(len(flatten(type_)) - 1)]
            x = cases[index][1]
            return made(type_, index, None if x is None else lift_flat(x, rest, m))
        case t.Flags(_, names):
            found = next_("I")
            return frozenset(n for i, n in enumerate(names) if found >> i & 1)
        case other:
            raise AssertionError(other)
