"""Where the lane finds a plugin's functions, and that bytes which mean ill only keep it from that."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import component as wc

from capwasm.engine import types as t
from capwasm.engine.lane import sites
from capwasm.engine.lane.append import _Appended, compose
from capwasm.engine.lane.binary import COMPONENT, OddBinary, skeleton
from capwasm.engine.lane.choose import chosen, present
from capwasm.engine.lane.sites import sites_of, slots_of
from capwasm.engine.lane.spaces import FUNC, Imported, Spaces, read_spaces
from capwasm.engine.lane.wire import LANE_EXPORTS, VERSION, NotLaned, without_lane
from capwasm.engine.walk import walk
from tests.engine.echo import ENGINE
from tests.engine.laned import laned_wat
from tests.engine.test_lane_guests import HONEST, guest
from tests.engine.test_lane_handles import wat as handles_wat

PROBER = (Path(__file__).parents[1] / "guests/prober.wasm").read_bytes()


def types_of(code: bytes) -> t.ComponentTypes:
    return walk(wc.Component(ENGINE, skeleton(code)), ENGINE)


def laned(code: bytes) -> set[str]:
    """The functions that take the lane; the component compiles, and has its own types."""
    types = types_of(code)
    whole = compose(code, types, chosen(types), 64)
    assert whole.startswith(code), "nothing of the plugin is changed"
    found = walk(wc.Component(ENGINE, skeleton(whole)), ENGINE)
    assert without_lane(found) == types
    here = present(found, chosen(types))
    return {f"{f.interface}#{f.name}" for f in (*here.exports, *here.imports)}


def test_every_function_of_a_plugin_that_a_toolchain_made() -> None:
    functions = chosen(types_of(PROBER))
    every = {f"{f.interface}#{f.name}" for f in (*functions.exports, *functions.imports)}

    assert laned(PROBER) == every
    assert "capwasm:fs/files@0.1.0#[method]file.read" in every
    assert any(x.startswith("wasi:io/streams@") for x in every)


def test_a_component_within_another_runs_as_it_came() -> None:
    inner = guest(HONEST)
    text = f"""(component {inner.replace("(component", "(component $inner", 1)}
      (import "test:host/api@0.1.0" (instance $api (export "f" (func (param "x" (list string))))))
      (instance $i (instantiate $inner (with "test:host/api@0.1.0" (instance $api))))
      (export "g" (func $i "g")))"""
    code = bytes(wasmtime.wat2wasm(text))
    types = types_of(code)

    assert chosen(types)
    with pytest.raises(NotLaned, match="not lifted and lowered"):
        compose(code, types, chosen(types), 64)


@pytest.mark.case("TYP-10")
@pytest.mark.parametrize("side", ["import", "export"])
def test_a_plugin_that_uses_the_lanes_own_names_runs_as_it_came(side: str) -> None:
    text = guest(HONEST)
    if side == "import":
        text = text.replace("test:host/api@0.1.0", "capwasm:lane/imports@0.1.0")
    else:
        text = text.rstrip()[:-1] + f'(instance $none) (export "{LANE_EXPORTS}" (instance $none)))'
    code = bytes(wasmtime.wat2wasm(text))
    types = types_of(code)

    with pytest.raises(NotLaned, match="own names"):
        compose(code, types, chosen(types), 64)


@pytest.mark.case("RES-22", "RES-23")
def test_a_plugin_whose_types_are_out_of_proportion_runs_as_it_came() -> None:
    parts = "u8 (list u8) " * 12_000
    text = guest(HONEST, result=f"(tuple {parts})")
    code = bytes(wasmtime.wat2wasm(text))
    wide = t.Tuple((t.Prim("u8"), t.List(t.Prim("u8"))) * 12_000)
    function = t.FuncType((("x", t.List(t.Prim("u8"))),), wide)
    types = t.ComponentTypes((), (t.InterfaceType("", (("g", function),)),))

    with pytest.raises(NotLaned, match="too many types"):
        compose(code, types, chosen(types), 64)


@pytest.mark.case("TYP-02", "TYP-03")
def test_refuses_every_cut_and_takes_no_harm_of_any_change() -> None:
    functions = chosen(types_of(PROBER))
    code = skeleton(PROBER)
    rng = random.Random(11)
    verdicts = set()
    for round_ in range(1200):
        bent = bytearray(code)
        if round_ % 2:
            del bent[rng.randrange(8, len(bent)) :]
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(8, len(bent)) if len(bent) > 8 else 0
            bent[at : at + 1] = rng.choice(
                (bytes([rng.randrange(256)]), b"", b"\xff\xff\xff\xff\x0f", b"\x80")
            )
        try:
            spaces = read_spaces(bytes(bent))
            [*sites_of(spaces, functions)]
            [*slots_of(spaces, functions)]
            verdicts.add("read")
        except OddBinary:
            verdicts.add("odd")
    assert verdicts == {"read", "odd"}


@given(st.binary(max_size=60), st.sampled_from([2, 4, 5, 6, 7, 8, 10, 11]))
@settings(max_examples=300, deadline=None)
def test_random_sections_are_read_or_refused(payload: bytes, kind: int) -> None:
    with contextlib.suppress(OddBinary):
        read_spaces(COMPONENT + bytes([kind, len(payload)]) + payload)


@pytest.mark.case("RES-23")
@pytest.mark.parametrize("kind", [2, 5, 6, 7, 8, 10, 11])
def test_refuses_counts_without_what_they_count(kind: int) -> None:
    count = b"\xff\xff\xff\xff\x0f"

    with pytest.raises(OddBinary):
        read_spaces(COMPONENT + bytes([kind, len(count)]) + count)


def test_a_resource_without_a_proper_name_keeps_its_functions_as_they_were() -> None:
    # The engine takes no such name; were there one, it would be text of ours.
    functions = chosen(types_of(PROBER))
    spaces = read_spaces(PROBER)
    file = next(f for f in functions.imports if f.name == "[method]file.read")
    assert _Appended(spaces).knows(file)
    resource = t.ResourceId("capwasm:fs/files@0.1.0", 'file" (type)) (import "x', imported=True)
    params = (("self", t.Borrow(resource)), *file.type.params[1:])
    bad = replace(file, type=t.FuncType(params, file.type.result))
    assert not _Appended(spaces).knows(bad)


@pytest.mark.case("RES-22")
def test_a_nested_component_that_is_odd_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of exports may lead into the same one: it costs what one does."""
    odd = COMPONENT + b"\x09\x00"  # a section of the kind that starts something
    spaces = Spaces()
    spaces.components().append(odd)
    read: list[object] = []

    def reading(code: bytes, entries: object) -> Spaces:
        read.append(code)
        return read_spaces(code)

    monkeypatch.setattr(sites, "read_spaces", reading)

    assert [sites.read_component(spaces, 0) for _ in range(5)] == [None] * 5
    assert read == [odd]


@pytest.mark.case("RES-22", "RES-23")
def test_a_chain_of_exports_has_one_link() -> None:
    names = [b"\x00\x03" + f"{i:03}".encode() + b"\x01" + bytes([i, 0]) for i in range(100)]
    imported = b"\x01\x00\x01f\x01\x00"  # one function of the type 0
    exports = bytes([len(names)]) + b"".join(names)
    spaces = read_spaces(
        COMPONENT + bytes([10, len(imported)]) + imported + b"\x0b\xa1\x06" + exports
    )

    assert len(spaces.of(FUNC)) == 101
    assert {spaces.of(FUNC)[i].index for i in range(1, 101)} == {0}
    assert spaces.get(FUNC, 100) == spaces.get(FUNC, 0) == Imported("f")


@pytest.mark.case("RES-22", "RES-23")
def test_a_function_with_thousands_of_slots_runs_as_it_came() -> None:
    slots = " ".join(f'(export "{i}" (func $lowered))' for i in range(5_000))
    text = guest(HONEST, host=f"(list (tuple {'u8 ' * 400}))").replace(
        '(export "0" (func $lowered))', slots
    )
    code = bytes(wasmtime.wat2wasm(text))
    types = types_of(code)
    began = time.thread_time()

    with pytest.raises(NotLaned, match="too many types"):
        compose(code, types, chosen(types), 64)
    assert time.thread_time() - began < 5  # it takes 0.05 s


EVERY = t.Record(
    None,
    (
        *((w, t.Prim(w)) for w in ("bool", "s8", "u16", "s32", "u64", "f32", "f64", "char")),
        ("text", t.Prim("string")),
        ("rows", t.List(t.Tuple((t.Prim("u8"), t.Prim("string"), t.List(t.Prim("u8")))))),
        ("words", t.Enum(None, tuple(f"w{i}" for i in range(300)))),
        ("flags", t.Flags(None, ("a", "b", "c"))),
        ("either", t.Result(t.Prim("f32"), t.List(t.Option(t.Prim("u64"))))),
    ),
)
# Of all that is appended to two guests, as text.  Whoever changes it raises `VERSION`: what is in a cache
# under that number was made by what there was before, and is called by numbers.
WIRE = (2, "12822edcb53fa336d2d139a95bc87e121e21f18182aca8472a03680ec1871aa7")


@pytest.mark.case("SIG-22", "TYP-11")
def test_a_change_of_the_wire_is_a_new_version_of_it() -> None:
    digest = hashlib.sha256()
    for text in (laned_wat(EVERY), laned_wat(t.List(t.Prim("u8"))), handles_wat()):
        code = bytes(wasmtime.wat2wasm(text))
        spaces, functions = read_spaces(code), chosen(types_of(code))
        found = [*sites_of(spaces, functions)], [*slots_of(spaces, functions)]
        digest.update(_Appended(spaces).text(*found, 64).encode())

    assert (VERSION, digest.hexdigest()) == WIRE


@pytest.mark.case("TYP-03")
@pytest.mark.parametrize("name", ["9" * 5000, "9" * 10, "\u0663", "00", "-1", " 1"], ids=ascii)
def test_a_place_in_the_table_is_a_number_as_toolchains_write_it(name: str) -> None:
    more = f'(export "0" (func $lowered)) (export "{name}" (func $lowered))'
    text = guest(HONEST).replace('(export "0" (func $lowered))', more)
    code = bytes(wasmtime.wat2wasm(text))
    types = types_of(code)

    assert [slot.place for slot in slots_of(read_spaces(code), chosen(types))] == [0]
    assert compose(code, types, chosen(types), 64)
