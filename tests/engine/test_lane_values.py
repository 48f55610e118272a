"""Values as blocks, and blocks as strings: against the canonical ABI's own definitions."""

from __future__ import annotations

import ctypes
import os
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from capwasm.engine import types as t
from capwasm.engine.classes import Classes
from capwasm.engine.crossing import BadValue, EngineFault
from capwasm.engine.lane import layout
from capwasm.engine.lane.codec import Codec, Codecs
from capwasm.engine.lane.layout import BASE, MEMORY, RBASE, SLOTS, Form
from capwasm.engine.lane.lift import lifter
from capwasm.engine.lane.lower import lowerer
from capwasm.engine.lane.rows import rows_of
from capwasm.engine.lane.wire import GROUP, PACKED
from capwasm.errors import ValueLimitExceeded
from capwasm.values import Err, Ok, Some, Variant
from tests.engine import canonical
from tests.engine.echo import plain
from tests.engine.test_plan_property import JUNK, TYPED, TYPES, values

U8, U32, STRING, F64, BOOL = (t.Prim(w) for w in ("u8", "u32", "string", "f64", "bool"))
LIMIT = 1 << 24
CLASSES = Classes()
AROUND = b"canary!!" * (1 << 13)
_SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FORMS = pytest.mark.parametrize("form", [MEMORY, SLOTS], ids=["memory", "slots"])


def codec(limit: int = LIMIT) -> Codec:
    made = Codec()
    made.begin(limit)
    return made


REUSED = codec()


def lowered(
    type_: t.ValType, value: object, form: Form, at: int = BASE, limit: int = LIMIT
) -> bytes:
    """The block of a value that begins at `at`."""
    c = REUSED
    c.begin(limit)
    c.open(at, form.size(type_))
    lowerer(type_, form, CLASSES, "x")(value, c.buf, at, c)
    return c.buf[at : c.top].tobytes()


def lifted(
    type_: t.ValType, block: bytes, form: Form, at: int = RBASE, limit: int = LIMIT
) -> object:
    """The value of a block that stands at `at`, with canaries around it."""
    c = REUSED
    c.begin(limit)
    c.buf[: len(AROUND)] = AROUND
    c.buf[at : at + len(block)] = block
    c.buf[at + len(block) : at + len(block) + len(AROUND)] = AROUND
    c.low, c.high = at, at + len(block)
    if form.size(type_) > len(block):
        raise EngineFault("the plan has looked at that")
    return lifter(type_, form, CLASSES, "x")(c.buf, at, c)


# -- the codec -----------------------------------------------------------------------------------


def encoded(block: bytes) -> bytes:
    """The definition: the low bits of sixteen bytes, then their high bits in seven, seven and two."""
    out = bytearray()
    block += bytes(-len(block) % GROUP)
    for i in range(0, len(block), GROUP):
        group = block[i : i + GROUP]
        high = sum((byte >> 7) << k for k, byte in enumerate(group))
        out += bytes(byte & 0x7F for byte in group)
        out += bytes((high & 0x7F, high >> 7 & 0x7F, high >> 14))
    return bytes(out)


def crossed(block: bytes, at: int) -> tuple[bytes, bytes]:
    """A block as a string, and what comes out of that in another codec, at another place."""
    ours, theirs = codec(), codec()
    ours.open(BASE, 0)
    ours.put(block)
    length = ours.lend(BASE)
    text = ours.buf[BASE : BASE + length].tobytes()
    memory = ctypes.create_string_buffer(text, max(1, len(text)))
    theirs.decode(at, length, ctypes.addressof(memory))
    return text, theirs.buf[theirs.low : theirs.high].tobytes()


@given(st.binary(max_size=200), st.sampled_from([BASE, RBASE - 8, RBASE, 1000]))
@example(b"", BASE)
@example(b"\x80" * 16, BASE)
@example(b"\xff" * 17, RBASE)
@_SETTINGS
def test_a_block_is_a_string_of_ascii_and_comes_back(block: bytes, at: int) -> None:
    text, back = crossed(block, at)

    assert text == encoded(block)
    assert text.isascii()
    assert back == block + bytes(-len(block) % GROUP)


@pytest.mark.parametrize("size", [*range(200), 16_383, 16_384, 300_000, 5_000_001])
def test_every_size_comes_back(size: int) -> None:
    block = os.urandom(size)

    text, back = crossed(block, BASE)

    assert back[:size] == block
    assert not any(back[size:])
    assert len(text) == -(-size // GROUP) * PACKED
    assert text.isascii()


def test_refuses_a_string_that_is_no_whole_number_of_groups() -> None:
    memory = ctypes.create_string_buffer(100)

    for length in (1, 18, 20, 37):
        with pytest.raises(EngineFault, match="cut off"):
            codec().decode(BASE, length, ctypes.addressof(memory))


@pytest.mark.case("RES-16")
def test_refuses_a_string_that_is_out_of_proportion() -> None:
    text = b"\0" * (PACKED * 100_000)
    memory = ctypes.create_string_buffer(text)

    with pytest.raises(ValueLimitExceeded):
        codec(1000).decode(BASE, len(text), ctypes.addressof(memory))


def test_a_codec_that_grew_keeps_its_place_and_its_bytes() -> None:
    c = codec(1 << 26)
    c.open(BASE, 0)
    first = c.buf
    at = c.put(b"here")
    base = c.base
    c.put(bytes(10 << 20))

    assert len(c.buf) > len(first)
    assert c.base == base
    first[at : at + 4] = b"tell"
    assert c.buf[at : at + 4] == b"tell"


def test_keeps_small_codecs_and_no_large_ones() -> None:
    codecs = Codecs()
    small, large = codecs.take(LIMIT), codecs.take(1 << 26)
    large.open(BASE, 0)
    large.put(bytes(8 << 20))

    codecs.give_back(small)
    codecs.give_back(large)

    assert codecs.free == [small]
    assert codecs.take(LIMIT) is small


@FORMS
def test_nothing_of_another_crossing_is_in_a_block(form: Form) -> None:
    type_ = t.Tuple((U8, F64, t.Option(t.Tuple((F64, F64))), STRING, t.List(t.Tuple((U8, F64)))))
    value = (1, 2.0, None, "x", [(1, 1.0)] * 2)
    c = codec()
    c.buf[:] = b"\xaa" * len(c.buf)

    c.open(BASE, form.size(type_))
    lowerer(type_, form, CLASSES, "x")(value, c.buf, BASE, c)
    end = c.top + -c.top % GROUP
    length = c.lend(BASE)
    text = c.buf[BASE : BASE + length].tobytes()
    memory = ctypes.create_string_buffer(text, length)
    c.decode(BASE, length, ctypes.addressof(memory))

    assert c.high == end
    assert b"\xaa" not in c.buf[BASE:end].tobytes()


# -- values --------------------------------------------------------------------------------------


@given(TYPES)
@_SETTINGS
def test_sizes_are_those_of_the_canonical_abi(type_: t.ValType) -> None:
    assert MEMORY.size(type_) == canonical.elem_size(type_)
    assert MEMORY.align(type_) == canonical.alignment(type_)
    assert list(layout.flat(type_)) == canonical.flatten(type_)
    assert SLOTS.size(type_) == 8 * len(canonical.flatten(type_))


@given(TYPED)
@_SETTINGS
def test_what_is_lowered_is_what_the_canonical_abi_loads(typed) -> None:
    type_, samples = typed
    for value in samples:
        memory = canonical.Memory(BASE, BASE)
        memory.bytes += lowered(type_, value, MEMORY)
        assert plain(canonical.load(type_, BASE, memory)) == plain(value)


@given(TYPED)
@_SETTINGS
def test_what_is_lowered_flat_is_what_the_canonical_abi_lifts(typed) -> None:
    type_, samples = typed
    for value in samples:
        memory = canonical.Memory(BASE, BASE)
        memory.bytes += lowered(type_, value, SLOTS)
        words = [
            bytes(memory.bytes[BASE + 8 * i : BASE + 8 * i + 8])
            for i in range(len(canonical.flatten(type_)))
        ]
        expected = canonical.lower_flat(type_, value, canonical.Memory(1 << 16, BASE))
        assert plain(canonical.lift_flat(type_, list(words), memory)) == plain(value)
        for got, want, flat in zip(words, expected, canonical.flatten(type_), strict=True):
            # Pointers may differ, and with them whatever shares their slots; sign and zeros not.
            assert got[4:] == want[4:] or flat in {"i64", "f64"}


@given(TYPED)
@_SETTINGS
def test_what_the_canonical_abi_stores_is_lifted(typed) -> None:
    type_, samples = typed
    for value in samples:
        memory = canonical.Memory(1 << 16, RBASE)
        at = memory.realloc(8, canonical.elem_size(type_))
        canonical.store(type_, value, at, memory)
        block = bytes(memory.bytes[RBASE : memory.top])
        assert plain(lifted(type_, block, MEMORY)) == plain(value)


@given(TYPED)
@_SETTINGS
def test_what_the_canonical_abi_lowers_flat_is_lifted(typed) -> None:
    type_, samples = typed
    for value in samples:
        memory = canonical.Memory(1 << 16, RBASE + 8 * len(canonical.flatten(type_)))
        words = canonical.lower_flat(type_, value, memory)
        block = b"".join(words) + bytes(memory.bytes[RBASE + 8 * len(words) : memory.top])
        assert plain(lifted(type_, block, SLOTS)) == plain(value)


NUMBER = st.sampled_from([t.Prim(w) for w in ("bool", "s8", "u16", "s32", "u64", "f32", "f64")])
PLAIN = st.recursive(
    st.one_of(
        NUMBER,
        st.just(STRING),
        st.just(t.List(U8)),
        st.just(t.Enum(None, ("red", "green", "blue"))),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda x: t.Tuple(tuple(x))),
        st.lists(inner, min_size=1, max_size=4).map(
            lambda x: t.Record(None, tuple((f"f{i}", part) for i, part in enumerate(x)))
        ),
    ),
    max_leaves=6,
)
ROWS = PLAIN.flatmap(lambda x: st.tuples(st.just(x), st.lists(values(x), min_size=3, max_size=9)))


@given(ROWS, st.booleans())
@_SETTINGS
def test_columns_and_elements_make_the_same_of_a_list(typed, again: bool) -> None:
    element, items = typed
    type_ = t.List(element)
    rows = rows_of(element, CLASSES, "x")
    assert rows is not None
    c = codec()
    c.open(BASE, 0)
    assert rows.lower(items, c) is not None, "all that is ordinary goes by columns"
    block = lowered(type_, items, MEMORY)
    memory = canonical.Memory(BASE, BASE)
    memory.bytes += block
    assert plain(canonical.load(type_, BASE, memory)) == plain(items)
    out = lifted(type_, block, MEMORY, at=BASE)
    assert plain(out) == plain(items)
    if again:
        assert lowered(type_, out, MEMORY) == block, "instances go as mappings do"


@given(ROWS, st.integers(0, 8), JUNK)
@_SETTINGS
def test_an_odd_element_is_told_of_as_elements_are(typed, index: int, junk: object) -> None:
    element, items = typed
    index %= len(items)
    items = [*items[:index], junk, *items[index + 1 :]]
    verdicts = []
    for type_, value in ((t.List(element), items), (element, junk)):
        try:
            block = lowered(type_, value, MEMORY)
        except BadValue as fault:
            verdicts.append((fault.message, [*fault.path]))
        else:
            verdicts.append((plain(lifted(type_, block, MEMORY, at=BASE)), None))
    (among, path), (alone, inner) = verdicts
    if inner is None:
        assert among[index] == alone
    else:
        assert among == alone
        assert path == [*inner, f"[{index}]"]


def test_objects_that_look_like_the_record_go_by_columns() -> None:
    class Sample:
        def __init__(self, number: int, name: str) -> None:
            self.number, self.name = number, name

    record = t.Record(None, (("number", U32), ("name", STRING)))
    rows = rows_of(record, CLASSES, "x")
    items = [Sample(i, f"n{i}") for i in range(5)]
    c = codec()
    c.open(BASE, 0)
    assert rows.lower(items, c) is not None
    out = lifted(t.List(record), lowered(t.List(record), items, MEMORY), MEMORY, at=BASE)
    assert [(x.number, x.name) for x in out] == [(i, f"n{i}") for i in range(5)]
    del items[3].name
    with pytest.raises(BadValue, match="lacks name") as fault:
        lowered(t.List(record), items, MEMORY)
    assert fault.value.path == ["[3]"]


# -- what a hostile plugin might send ------------------------------------------------------------


def texts(value: object) -> Iterator[bytes]:
    """All strings and bytes within a plain value."""
    match value:
        case bytes():
            yield value
        case str():
            yield value.encode()
        case list() | tuple() | frozenset():
            for x in value:
                yield from texts(x)
        case dict():
            yield from texts(list(value.values()))
        case Ok(inner) | Some(inner) | Variant(_, inner) | Err(inner):
            yield from texts(inner)
        case _:
            return


@st.composite
def mutated(draw: st.DrawFn) -> tuple[t.ValType, bytes, Form]:
    """A type and a block of it in which something is not as it was."""
    type_ = draw(TYPES)
    value = draw(values(type_))
    form = draw(st.sampled_from([MEMORY, SLOTS]))
    block = bytearray(lowered(type_, value, form, at=RBASE))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(block) - 1)))
        word = draw(
            st.one_of(
                st.binary(min_size=1, max_size=4),
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\0\0\0\x80", b"\xc0\x00\x00\x00"]),
            )
        )
        block[at : at + len(word)] = word
    cut = draw(st.integers(0, len(block)) | st.just(len(block)))
    return type_, bytes(block[:cut]), form


@pytest.mark.case("TYP-07", "RES-26")
@given(mutated(), st.sampled_from([100, 5000, LIMIT]))
@_SETTINGS
def test_whatever_stands_in_a_block_is_a_value_or_an_ordinary_error(made, limit: int) -> None:
    type_, block, form = made
    try:
        value = lifted(type_, block, form, limit=limit)
    except (EngineFault, ValueLimitExceeded):
        return
    for text in texts(plain(value)):
        assert b"canary!!" not in text


RECORD = t.Record(None, (("number", U32), ("name", STRING), ("kind", t.Enum(None, ("a", "b")))))
BROKEN = {
    "a string before the block": (STRING, (BASE, 4)),
    "a string after it": (STRING, (RBASE + 8, 1)),
    "a string over its end": (STRING, (RBASE + 7, 2)),
    "a string of 4 GiB": (STRING, (RBASE, 2**32 - 1)),
    "bytes before the block": (t.List(U8), (0, 1)),
    "bytes over its end": (t.List(U8), (RBASE + 1, 8)),
    "numbers over its end": (t.List(U32), (RBASE, 3)),
    "records over its end": (t.List(RECORD), (RBASE, 1)),
    "lists over its end": (t.List(t.Option(U32)), (RBASE, 2)),
}


@pytest.mark.case("RES-26")
@pytest.mark.parametrize("name", BROKEN)
def test_refuses(name: str) -> None:
    type_, (pointer, size) = BROKEN[name]
    block = pointer.to_bytes(4, "little") + size.to_bytes(4, "little")

    with pytest.raises((EngineFault, ValueLimitExceeded)):
        lifted(type_, block, MEMORY, limit=2**33)


@pytest.mark.case("TYP-07")
@pytest.mark.parametrize(
    ("type_", "block"),
    [
        (t.Prim("char"), b"\0\xd8\0\0"),
        (t.Prim("char"), b"\0\0\x11\0"),
        (t.Enum(None, ("a", "b")), b"\2"),
        (t.Option(U8), b"\2\0"),
        (t.Result(U8, None), b"\xff\0"),
        (t.Variant(None, (("a", None), ("b", U8))), b"\2\0"),
    ],
    ids=str,
)
@pytest.mark.parametrize("listed", [False, True])
def test_refuses_what_is_no_value(type_: t.ValType, block: bytes, listed: bool) -> None:
    if listed:
        block = (RBASE + 8).to_bytes(4, "little") + b"\1\0\0\0" + block
        type_ = t.List(type_)

    with pytest.raises(EngineFault):
        lifted(type_, block, MEMORY)


@pytest.mark.case("TYP-06")
@pytest.mark.parametrize("rows", [1, 5])
def test_refuses_what_is_not_utf_8(rows: int) -> None:
    text = RBASE + 8 + 8 * rows
    one = text.to_bytes(4, "little") + b"\2\0\0\0"
    block = (
        (RBASE + 8).to_bytes(4, "little") + rows.to_bytes(4, "little") + one * rows + b"\xc3\x28"
    )

    with pytest.raises(EngineFault, match="UTF-8"):
        lifted(t.List(STRING), block, MEMORY)


@pytest.mark.case("RES-16")
def test_refuses_a_short_block_that_points_to_one_text_a_million_times() -> None:
    count = 50_000
    text = RBASE + 8 + 8 * count
    one = text.to_bytes(4, "little") + (1000).to_bytes(4, "little")
    head = (RBASE + 8).to_bytes(4, "little") + count.to_bytes(4, "little")

    with pytest.raises(ValueLimitExceeded):
        lifted(t.List(STRING), head + one * count + b"x" * 1000, MEMORY)


@pytest.mark.parametrize("gap", [0, 5_000, 300_000], ids="{} between".format)
@pytest.mark.parametrize("before", [0, 300_000], ids="{} before".format)
@pytest.mark.parametrize("text", ["plain", "\u00fcber"])
def test_pieces_of_a_list_may_lie_anywhere_in_the_block(before: int, gap: int, text: str) -> None:
    data = text.encode()
    at = RBASE + 8 + 24 + before
    places = [at, at + len(data) + gap, at + 3]
    words = [RBASE + 8, 3, places[0], len(data), places[1], len(data), 0, 0]
    head = b"".join(x.to_bytes(4, "little") for x in words)
    block = head + bytes(before) + data + bytes(gap) + data

    assert lifted(t.List(STRING), block, MEMORY) == [text, text, ""]
    assert lifted(t.List(t.List(U8)), block, MEMORY) == [data, data, b""]


@pytest.mark.case("RES-16")
@pytest.mark.parametrize("leaf", [STRING, t.List(U8)], ids=str)
def test_many_short_lists_in_a_large_block_cost_what_they_hold(leaf: t.ValType) -> None:
    """Ten thousand lists whose one text stands at a block's end: not 40 GB that are copied."""
    count, size = 10_000, 4_000_000
    inner = RBASE + 8 + 8 * count
    words = [(RBASE + 8, count), *[(inner, 1)] * count, (RBASE + size - 1, 1)]
    head = b"".join(x.to_bytes(4, "little") + y.to_bytes(4, "little") for x, y in words)
    c = codec()
    c.open(RBASE, 0)
    c.put(head + b"x" * (size - len(head)))
    c.low, c.high = RBASE, RBASE + size
    lift = lifter(t.List(t.List(leaf)), MEMORY, CLASSES, "x")
    began = time.thread_time()

    assert len(lift(c.buf, RBASE, c)) == count
    assert time.thread_time() - began < 5  # it takes 0.04 s


@pytest.mark.case("RES-16")
def test_refuses_what_is_small_and_lies_large() -> None:
    """Each none of an option takes as much of the block as the largest value would."""
    wide = t.Option(t.Tuple((F64,) * 500))

    with pytest.raises(ValueLimitExceeded):
        lowered(t.List(wide), [None] * 10_000, MEMORY, limit=400_000)
    assert len(lowered(t.List(wide), [None] * 10, MEMORY, limit=400_000)) > 40_000


def test_random_bytes_are_never_worse_than_an_ordinary_error() -> None:
    rng = random.Random(7)
    type_ = t.List(t.Tuple((STRING, t.Option(t.List(U32)), t.Result(RECORD, t.List(STRING)))))
    for _ in range(2000):
        block = bytearray(rng.randbytes(rng.randrange(8, 300)))
        for at in range(0, len(block) - 4, 4):
            if rng.random() < 0.7:  # words that look like places and like short lengths
                word = rng.choice((rng.randrange(8), RBASE + rng.randrange(len(block))))
                block[at : at + 4] = word.to_bytes(4, "little")
        try:
            value = lifted(type_, bytes(block), MEMORY, limit=1 << 20)
        except (EngineFault, ValueLimitExceeded):
            continue
        assert all(b"canary!!" not in x for x in texts(plain(value)))
