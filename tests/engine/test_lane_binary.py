"""The skeleton of a component: the same types, next to no code, and no trust in the bytes."""

from __future__ import annotations

import contextlib
import random

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import component as wc

from capwasm.engine.config import make_config
from capwasm.engine.lane.binary import COMPONENT, MAX_ENTRIES, MAX_NESTING, OddBinary, skeleton
from capwasm.engine.lane.spaces import read_spaces
from capwasm.engine.walk import walk
from tests.kit import guest

ENGINE = wasmtime.Engine(make_config())
CORE = b"\0asm\x01\0\0\0"


def framed(kind: int, payload: bytes) -> bytes:
    size, out = len(payload), bytearray([kind])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size]) + payload


def with_module(*sections: bytes) -> bytes:
    return COMPONENT + framed(1, CORE + b"".join(sections))


def wasm(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(component {text})"))


GUESTS = ["prober", "hostile", "caller", "keeper", "resource", "deep"]


@pytest.mark.parametrize("name", GUESTS)
def test_a_skeleton_has_the_same_types(name: str) -> None:
    code = guest(name)
    bare = skeleton(code)
    assert walk(wc.Component(ENGINE, bare), ENGINE) == walk(wc.Component(ENGINE, code), ENGINE)
    assert len(bare) < len(code)
    assert skeleton(memoryview(code)) == bare


def test_only_what_is_exported_is_left_of_the_functions() -> None:
    text = """
      (core module $m
        (import "a" "f" (func $f)) (import "a" "t" (table 1 2 funcref))
        (import "a" "m" (memory 1)) (import "a" "g" (global (mut i64)))
        (table 3 funcref) (global i32 (i32.const 7)) (data (i32.const 0) "gone")
        (elem (i32.const 0) func $hidden $b) (start $hidden)
        (func $hidden (drop (i32.const 1)))
        (func $b (param i64) (result f32) (f32.const 1))
        (func $also (call $hidden))
        (func $c (param i32))
        (export "c" (func $c)) (export "b" (func $b)) (export "again" (func $b))
        (export "f" (func $f)) (export "t" (table 1)) (export "g" (global 1)))
      (core module $needs
        (import "x" "b" (func (param i64) (result f32))) (import "x" "again" (func (param i64) (result f32)))
        (import "x" "c" (func (param i32))) (import "x" "f" (func))
        (import "x" "t" (table 3 funcref)) (import "x" "g" (global i32)))
      (core module $a (func (export "f")) (table (export "t") 1 2 funcref) (memory (export "m") 1)
        (global (export "g") (mut i64) (i64.const 1)))
      (core instance $ai (instantiate $a))
      (core instance $i (instantiate $m (with "a" (instance $ai))))
      (core instance (instantiate $needs (with "x" (instance $i))))
    """
    bare = skeleton(wasm(text))
    wc.Component(ENGINE, bare)  # what each export is, the engine checks against `$needs`
    assert b"gone" not in bare
    assert bare.count(b"\x03\x00\x00\x0b") == 3


def test_nested_components_are_stripped_too() -> None:
    inner = '(core module (func (export "f") (drop (i64.const 123456789))))'
    text = f"(component (component {inner})) {inner}"
    bare = skeleton(wasm(text))
    wc.Component(ENGINE, bare)
    assert bare.count(b"\x03\x00\x00\x0b") == 2
    assert b"\x42\x95\x9a\xef\x3a" in wasm(text)
    assert b"\x42\x95\x9a\xef\x3a" not in bare


@pytest.mark.case("RES-23")
def test_refuses_what_nests_without_end() -> None:
    code = COMPONENT
    for _ in range(MAX_NESTING):
        code = COMPONENT + framed(4, code)
    assert skeleton(code) == code
    with pytest.raises(OddBinary, match="nest"):
        skeleton(COMPONENT + framed(4, code))


MANY = b"\xff\xff\xff\xff\x0f"
ODD = {
    "nothing": b"",
    "a core module": CORE,
    "a longer section than there is": COMPONENT + b"\x0b\x05a",
    "a length without end": COMPONENT + b"\x0b\x80\x80",
    "a length of 35 bits": COMPONENT + b"\x0b\xff\xff\xff\xff\x1f",
    "a length of six bytes": COMPONENT + b"\x0b\x80\x80\x80\x80\x80\x00",
    "a component as a module": COMPONENT + framed(1, COMPONENT),
    "a module as a component": COMPONENT + framed(4, CORE),
    "a module that is cut": COMPONENT + framed(1, CORE[:5]),
    "functions that are not there": with_module(framed(3, MANY)),
    "exports that are not there": with_module(framed(7, MANY)),
    "imports that are not there": with_module(framed(2, MANY)),
    "an import that is cut": with_module(framed(2, b"\x01\x01a\x01b")),
    "an import of a tag": with_module(framed(2, b"\x01\x01a\x01b\x04\x00\x00")),
    "bytes behind the imports": with_module(framed(2, b"\x00\x00")),
    "an import's name without end": with_module(framed(2, b"\x01" + MANY)),
    "an export's name without end": with_module(framed(7, b"\x01" + MANY)),
    "an export without a number": with_module(framed(7, b"\x01\x01a\x00")),
    "an export of no function": with_module(framed(7, b"\x01\x01a\x00\x05")),
}


@pytest.mark.case("TYP-03", "RES-23")
@pytest.mark.parametrize("kind", ODD)
def test_refuses(kind: str) -> None:
    with pytest.raises(OddBinary):
        skeleton(ODD[kind])


@pytest.mark.case("TYP-03", "RES-23")
@pytest.mark.parametrize("name", ["prober", "hostile"])
def test_changed_bytes_are_refused_or_cost_no_more(name: str) -> None:
    rng = random.Random(7)
    code = guest(name)
    places = len(code) if name == "hostile" else 30_000
    for round_ in range(400):
        bent = bytearray(code)
        if round_ % 4 == 0:
            del bent[rng.randrange(len(bent)) :]
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(min(places, len(bent)) or 1)
            bent[at : at + 1] = rng.choice(
                (bytes([rng.randrange(256)]), b"", MANY, b"\x80", b"\x00")
            )
        with contextlib.suppress(OddBinary):
            assert len(skeleton(bytes(bent))) <= len(bent) + 64


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 4, 6, 7, 10]), st.binary(max_size=40))))
@settings(max_examples=400, deadline=None)
def test_random_sections_are_refused_or_kept(made: list[tuple[int, bytes]]) -> None:
    with contextlib.suppress(OddBinary):
        skeleton(with_module(*(framed(kind, payload) for kind, payload in made)))


TOO_MANY = MAX_ENTRIES + 1
COUNT = bytes([TOO_MANY & 0x7F | 0x80, TOO_MANY >> 7 & 0x7F | 0x80, TOO_MANY >> 14])


@pytest.mark.case("RES-22", "RES-23")
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(with_module(framed(3, COUNT + bytes(TOO_MANY))), id="functions"),
        pytest.param(with_module(framed(7, COUNT + bytes(3 * TOO_MANY))), id="exports"),
        pytest.param(with_module(framed(2, COUNT + bytes(4 * TOO_MANY))), id="imports"),
        pytest.param(with_module(b"\x00\x01\x00" * TOO_MANY), id="sections of a module"),
        pytest.param(COMPONENT + b"\x07\x01\x00" * TOO_MANY, id="sections"),
        pytest.param(
            COMPONENT + framed(1, CORE + b"\x00\x01\x00" * 1000) * (TOO_MANY // 1000),
            id="all modules together",
        ),
    ],
)
def test_refuses_more_than_can_be_looked_at_in_good_time(code: bytes) -> None:
    """A byte can be an entry: 8 MB of functions took 1.6 GB and 11 s, before any limit."""
    with pytest.raises(OddBinary, match="more than"):
        skeleton(code)
    if code[8] != 1:
        with pytest.raises(OddBinary, match="more than"):
            read_spaces(code)


def test_allows_as_many_as_large_plugins_have() -> None:
    count = 300_000
    number = bytes([count & 0x7F | 0x80, count >> 7 & 0x7F | 0x80, count >> 14])
    code = with_module(framed(1, b"\x01\x60\x00\x00"), framed(3, number + bytes(count)))

    assert len(skeleton(code)) < 64
