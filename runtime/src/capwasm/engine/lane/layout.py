"""How values lie in memory: the component model's canonical ABI, with 32-bit pointers and UTF-8.

Sizes, alignments and offsets follow `CanonicalABI.md` ("Storing", "Flattening") of the component
model.  One rule gives both forms in which a value crosses: in memory a leaf has its own width, as a
flat value each leaf has a slot of eight bytes.  Flat types that the cases of a variant share
("joined") need no thought here: every value stands zero-extended in its slot, whatever the slot's
core type is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from capwasm.engine import types as t

__all__ = [
    "BASE",
    "FLAT_PARAMS",
    "FLAT_RESULTS",
    "MEMORY",
    "RBASE",
    "SLOT",
    "SLOTS",
    "Form",
    "aligned",
    "cases",
    "flat",
    "owned",
    "params_by_pointer",
    "result_by_pointer",
]

SLOT = 8
# So many flat values are passed one by one; more are passed by pointer.
FLAT_PARAMS, FLAT_RESULTS = 16, 1

# Where a block stands: what is below is the lane's own scratch.  An import's parameters end at
# RBASE, and its result begins there.
BASE = 64
RBASE = BASE + FLAT_PARAMS * SLOT

_WORDS = {1: "bool s8 u8", 2: "s16 u16", 4: "s32 u32 f32 char", 8: "s64 u64 f64"}
_WIDTHS = {word: width for width, words in _WORDS.items() for word in words.split()}


def aligned(offset: int, align: int) -> int:
    """`offset`, or the next multiple of `align` (a power of two) after it."""
    return (offset + align - 1) & -align


def cases(type_: t.ValType) -> tuple[t.ValType | None, ...] | None:
    """The payloads of a variant, an option or a result in order of the discriminant, else None."""
    match type_:
        case t.Variant(_, named):
            return tuple(payload for _, payload in named)
        case t.Option(payload):
            return (None, payload)
        case t.Result(ok, err):
            return (ok, err)
        case _:
            return None


def _counted(count: int) -> int:
    """The width of a discriminant that tells `count` cases apart."""
    return 1 if count <= 1 << 8 else 2 if count <= 1 << 16 else 4


class Form:
    """One of the two forms, `MEMORY` and `SLOTS`."""

    def __init__(self, slot: int | None) -> None:
        """Leaves of `slot` bytes, or of their own width."""
        self._slot = slot

    def leaf(self, width: int) -> int:
        """The size, and the alignment, of a leaf that is `width` bytes wide."""
        return self._slot or width

    def discriminant(self, count: int) -> int:
        """The size of what tells `count` cases apart."""
        return self.leaf(_counted(count))

    def size(self, type_: t.ValType) -> int:
        """Bytes of a value, without what it points to."""
        match type_:
            case t.Prim("string") | t.List():
                return 2 * self.leaf(4)
            case t.Prim(word):
                return self.leaf(_WIDTHS[word])
            case t.Enum(_, words):
                return self.discriminant(len(words))
            case t.Flags(_, words):
                return self.leaf(_flags_width(len(words)))
            case t.Own() | t.Borrow():
                return self.leaf(4)
            case t.Record() | t.Tuple():
                return self.fields(t.children(type_))[1]
            case _:
                return aligned(
                    self.payload(type_) + max(map(self.size, t.children(type_)), default=0),
                    self.align(type_),
                )

    def align(self, type_: t.ValType) -> int:
        """The alignment of a value."""
        match type_:
            case t.Prim("string") | t.List():
                return self.leaf(4)
            case t.Record() | t.Tuple():
                return max(map(self.align, t.children(type_)), default=1)
            case t.Variant() | t.Option() | t.Result():
                inner = max(map(self.align, t.children(type_)), default=1)
                return max(self.discriminant(len(cases(type_) or ())), inner)
            case _:
                return self.size(type_)

    def fields(self, types: Iterable[t.ValType]) -> tuple[tuple[int, ...], int]:
        """The offsets of values that stand one after the other as a tuple, and its size."""
        offsets, end, most = [], 0, 1
        for type_ in types:
            align = self.align(type_)
            most = max(most, align)
            offsets.append(aligned(end, align))
            end = offsets[-1] + self.size(type_)
        return tuple(offsets), aligned(end, most)

    def payload(self, type_: t.ValType) -> int:
        """The offset of the payload in a variant, an option or a result."""
        discriminant = self.discriminant(len(cases(type_) or ()))
        return aligned(discriminant, max(map(self.align, t.children(type_)), default=1))


MEMORY = Form(None)
SLOTS = Form(SLOT)


def _flags_width(count: int) -> int:
    # More than 32 are not chosen for this lane.
    return 1 if count <= 8 else 2 if count <= 16 else 4


def flat(type_: t.ValType | None) -> tuple[str, ...]:
    """The core types (`i32` …) of a value passed flat; none for no value."""
    match type_:
        case None:
            return ()
        case t.Prim("string") | t.List():
            return ("i32", "i32")
        case t.Prim(word):
            return ({"f32": "f32", "f64": "f64", "s64": "i64", "u64": "i64"}.get(word, "i32"),)
        case t.Record() | t.Tuple():
            return tuple(x for part in t.children(type_) for x in flat(part))
        case t.Variant() | t.Option() | t.Result():
            return ("i32", *_joined(map(flat, cases(type_) or ())))
        case _:
            return ("i32",)


def _joined(each: Iterable[tuple[str, ...]]) -> Iterator[str]:
    joined: list[str] = []
    for one in each:
        for i, core in enumerate(one):
            if i == len(joined):
                joined.append(core)
            elif joined[i] != core:
                joined[i] = "i32" if {joined[i], core} == {"i32", "f32"} else "i64"
    yield from joined


def params_by_pointer(type_: t.FuncType) -> bool:
    """Whether the parameters are too many to be passed one by one."""
    return sum(len(flat(x)) for _, x in type_.params) > FLAT_PARAMS


def result_by_pointer(type_: t.FuncType) -> bool:
    """Whether the result is more than one flat value."""
    return len(flat(type_.result)) > FLAT_RESULTS


def owned(type_: t.ValType | None, at: int = 0) -> Iterator[tuple[int, t.ResourceId]]:
    """The offset of each owned handle in a value in memory, in order of the type; none in lists."""
    match type_:
        case t.Own(resource):
            yield at, resource
        case t.Record() | t.Tuple():
            offsets, _ = MEMORY.fields(t.children(type_))
            for offset, part in zip(offsets, t.children(type_), strict=True):
                yield from owned(part, at + offset)
        case t.Variant() | t.Option() | t.Result():
            offset = MEMORY.payload(type_)
            for case in cases(type_) or ():
                yield from owned(case, at + offset)
        case _:
            return
