"""Handles beside the lane's string: as they are on the other way across."""

from __future__ import annotations

import pytest
import wasmtime
from wasmtime import component as wc

from capwasm.engine.crossing import Boundary, EngineFault, HostKind
from capwasm.engine.lane.append import compose
from capwasm.engine.lane.choose import Chosen, chosen, present
from capwasm.engine.lane.wire import LANE_EXPORTS, LANE_IMPORTS
from capwasm.engine.plan import Plans, define_func, define_resource
from capwasm.engine.walk import walk
from capwasm.errors import CapError, HandleLimitExceeded, InternalError, ValueLimitExceeded
from capwasm.handles import HandleTable
from capwasm.values import Err, Variant
from tests.engine.echo import ENGINE
from tests.engine.test_handles import Stranger, Thing

BOTH = pytest.mark.parametrize("lane", [True, False], ids=["lane", "values"])
NAME = "test:res/things@1.0.0"

# Core signatures of the imports that take the lane, and the types of their interface.
WIDE = " ".join(f'(param "a{i}" u64)' for i in range(16))
SELF = '(param "self" (borrow $thing))'
SEVERAL = "(tuple (own $thing) (list u8) (option (own $thing)) u16)"
TYPED = {
    "[method]thing.read": (
        SELF + ' (param "n" u32) (result (result (list u8) (error $failure)))',
        "i32 i32 i32",
        "",
    ),
    "open": (
        f'(param "path" (list u8)) (result {SEVERAL})',
        "i32 i32 i32",
        "",
    ),
    "give": ('(param "t" (own $thing)) (param "x" (list u8)) (result u32)', "i32 i32 i32", "i32"),
    "birth": ('(param "x" (list u8)) (result (own $thing))', "i32 i32", "i32"),
    "wide": (
        f'(param "t" (borrow $thing)) {WIDE} (param "x" (list u8)) (result (list u8))',
        "i32 i32",
        "",
    ),
}


def _signature(name: str) -> str:
    _, params, result = TYPED[name]
    return f"(param {params}) {f'(result {result})' if result else ''}"


def wat() -> str:
    """A guest in the shape of a toolchain's; each export is `func(n: u32) -> list<u32>`."""
    numbered = dict(enumerate(TYPED))
    gets = {n: " ".join(f"(local.get {i})" for i in range(TYPED[n][1].count("i32"))) for n in TYPED}
    shim = "".join(
        f'(type $t{i} (func {_signature(n)})) (func (export "{i}") (type $t{i}) {gets[n]}'
        f" (call_indirect (type $t{i}) (i32.const {i})))"
        for i, n in numbered.items()
    )
    fixup = "".join(f'(import "" "{i}" (func $f{i} {_signature(n)}))' for i, n in numbered.items())
    lowered = "".join(
        f'(core func $f{i} (canon lower (func $t "{n}") (memory (core memory $m "mem"))'
        ' (realloc (core func $m "realloc"))))'
        for i, n in numbered.items()
    )
    imports = "".join(
        f'(import "" "{n}" (func ${n.rpartition(".")[2]} {_signature(n)}))' for n in TYPED
    )
    given = "".join(f'(export "{n}" (func $s "{i}"))' for i, n in numbered.items())
    table = "".join(f'(export "{i}" (func $f{i}))' for i in numbered)
    functions = "".join(f'(export "{n}" (func {x[0]}))' for n, x in TYPED.items())
    exports = "".join(
        f'(func (export "{n}") (param "n" u32) (result (list u32)) (canon lift (core func $m "{n}")'
        ' (memory (core memory $m "mem")) (realloc (core func $m "realloc"))))'
        for n in ("read", "open", "give", "birth", "wide")
    )
    return f"""(component
  (import "{NAME}" (instance $t
    (export "thing" (type $thing (sub resource)))
    (type $v (variant (case "lost" (own $thing)) (case "closed") (case "denied")))
    (export "failure" (type $failure (eq $v)))
    {functions}))
  (alias export $t "thing" (type $thing))
  (core func $drop (canon resource.drop $thing))
  (core module $shim (table (export "$imports") 5 5 funcref) {shim})
  (core module $fixup {fixup} (import "" "$imports" (table 5 5 funcref))
    (elem (i32.const 0) func $f0 $f1 $f2 $f3 $f4))
  (core module $main
    {imports} (import "" "drop" (func $drop (param i32)))
    (memory (export "mem") 2)
    (global $top (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    ;; `count` words that stand at 256.
    (func $words (param $count i32) (result i32)
      (i32.store (i32.const 16) (i32.const 256)) (i32.store (i32.const 20) (local.get $count))
      (i32.const 16))
    (func (export "birth") (param i32) (result i32) (local $h i32)
      (local.set $h (call $birth (i32.const 64) (local.get 0)))
      (i32.store (i32.const 256) (local.get $h))
      (call $drop (local.get $h))
      (call $words (i32.const 1)))
    ;; What is read: the case, then the length and the last byte, or the case of the failure.
    (func (export "read") (param i32) (result i32) (local $h i32)
      (local.set $h (call $birth (i32.const 64) (i32.const 0)))
      (call $read (local.get $h) (local.get 0) (i32.const 128))
      (call $drop (local.get $h))
      (i32.store (i32.const 256) (i32.load8_u (i32.const 128)))
      (if (i32.load8_u (i32.const 128))
        (then
          (i32.store (i32.const 260) (i32.load8_u (i32.const 132)))
          (i32.store (i32.const 264) (i32.const 0))
          (if (i32.eqz (i32.load8_u (i32.const 132))) (then (call $drop (i32.load (i32.const 136))))))
        (else
          (i32.store (i32.const 260) (i32.load (i32.const 136)))
          (i32.store (i32.const 264) (i32.load8_u
            (i32.sub (i32.add (i32.load (i32.const 132)) (i32.load (i32.const 136))) (i32.const 1))))))
      (call $words (i32.const 3)))
    ;; The number of bytes, whether there is a second handle, the number behind it.
    (func (export "open") (param i32) (result i32)
      (call $open (i32.const 64) (local.get 0) (i32.const 128))
      (call $drop (i32.load (i32.const 128)))
      (i32.store (i32.const 256) (i32.load (i32.const 136)))
      (i32.store (i32.const 260) (i32.load8_u (i32.const 140)))
      (i32.store (i32.const 264) (i32.load16_u (i32.const 148)))
      (if (i32.load8_u (i32.const 140)) (then (call $drop (i32.load (i32.const 144)))))
      (call $words (i32.const 3)))
    (func (export "give") (param i32) (result i32)
      (i32.store (i32.const 256) (call $give
        (call $birth (i32.const 64) (i32.const 0)) (i32.const 64) (local.get 0)))
      (call $words (i32.const 1)))
    ;; All by pointer: a handle, sixteen numbers, a list.
    (func (export "wide") (param i32) (result i32) (local $h i32) (local $i i32)
      (local.set $h (call $birth (i32.const 64) (i32.const 0)))
      (i32.store (i32.const 1024) (local.get $h))
      (loop $next
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (i64.store (i32.add (i32.const 1024) (i32.shl (local.get $i) (i32.const 3)))
          (i64.extend_i32_u (local.get $i)))
        (br_if $next (i32.lt_u (local.get $i) (i32.const 16))))
      (i32.store (i32.const 1160) (i32.const 64)) (i32.store (i32.const 1164) (local.get 0))
      (call $wide (i32.const 1024) (i32.const 128))
      (call $drop (local.get $h))
      (i32.store (i32.const 256) (i32.load (i32.const 132)))
      (call $words (i32.const 1))))
  (core instance $s (instantiate $shim))
  (core instance $m (instantiate $main (with "" (instance {given} (export "drop" (func $drop))))))
  {lowered}
  (core instance (instantiate $fixup (with "" (instance
    (export "$imports" (table $s "$imports")) {table}))))
  {exports})"""


class World:
    """One instance of it.  What the host's functions do is in `does`, by name."""

    def __init__(self, *, lane: bool, limit: int = 8) -> None:
        code = bytes(wasmtime.wat2wasm(wat()))
        types = walk(wc.Component(ENGINE, code), ENGINE)
        functions = chosen(types)
        assert {f.name for f in functions.imports} == set(TYPED)
        served = [NAME]
        if lane:
            code = compose(code, types, functions, 64)
            served.append(LANE_IMPORTS)
        component = wc.Component(ENGINE, code)
        here = present(walk(component, ENGINE), functions)
        assert here == (functions if lane else Chosen((), ()))
        self.plans = plans = Plans(types, lane=here)
        thing = dict(types.imported(NAME).resources)["thing"]
        self.table = HandleTable(limit)
        self.boundary = boundary = Boundary(self.table, {thing: HostKind(7, Thing)}, 1 << 20)
        self.made: list[Thing] = []
        self.failures: list[BaseException] = []
        self.does = does = {"birth": lambda x: self.thing(len(x))}
        table, failures = self.table, self.failures

        def fail(exc: BaseException) -> str:
            failures.append(exc)
            return "failed"

        linker = wc.Linker(ENGINE)
        with linker.root() as root:
            for interface in served:
                with root.add_instance(interface) as instance:
                    if interface == NAME:
                        define_resource(instance, "thing", 7, table.drop, fail)
                    for f in functions.imports:
                        find = plans.host if interface == NAME else plans.lane_host
                        define_func(
                            instance,
                            find(NAME, f.name),
                            lambda args, name=f.name: does[name](*args),
                            fail,
                            lambda: boundary,
                        )
        self.store = wasmtime.Store(ENGINE)
        self.instance = linker.instantiate(self.store, component)

    def thing(self, n: int) -> Thing:
        self.made.append(Thing(n))
        return self.made[-1]

    def call(self, name: str, n: int) -> object:
        plan = self.plans.export("", name)
        interface, found = plan.where
        assert (interface == LANE_EXPORTS) == bool(self.plans._lane)
        parent = self.instance.get_export_index(self.store, interface) if interface else None
        index = self.instance.get_export_index(self.store, found, parent)
        func = self.instance.get_func(self.store, index)
        return plan.bind(self.store, func, self.boundary)((n,))


@BOTH
def test_a_result_that_is_a_handle_alone(lane) -> None:
    world = World(lane=lane)

    for n in range(20):
        assert len(world.call("birth", n)) == 1
    assert [x.n for x in world.made] == [*range(20)]
    assert [x.released for x in world.made] == [1] * 20
    assert len(world.table) == 0


@BOTH
def test_a_lent_handle_and_each_case_of_a_result_with_a_handle(lane) -> None:
    world = World(lane=lane)
    lent: list[Thing] = []

    def read(self: Thing, n: int) -> object:
        lent.append(self)
        if n == 1:
            return Err(Variant("lost", world.thing(77)))
        if n == 2:
            raise CapError("denied")
        return bytes(range(n)) + b"\xfe"

    world.does["[method]thing.read"] = read

    assert world.call("read", 200) == [0, 201, 254]
    assert world.call("read", 1) == [1, 0, 0]
    assert world.call("read", 2) == [1, 2, 0]
    assert world.call("read", 0) == [0, 1, 254]
    assert [x.released for x in world.made] == [1] * 5
    assert {x.n for x in lent} == {0}
    assert len(world.table) == 0
    assert world.failures == []


@BOTH
@pytest.mark.parametrize("second", [True, False])
def test_several_handles_in_a_result(lane, second: bool) -> None:
    world = World(lane=lane)

    def open_(path: bytes) -> object:
        other = world.thing(2) if second else None
        return (world.thing(1), path * 2, other, 0xBEEF)

    world.does["open"] = open_

    for _ in range(3):
        assert world.call("open", 40) == [80, int(second), 0xBEEF]
    assert all(x.released == 1 for x in world.made)
    assert len(world.table) == 0


@pytest.mark.case("TYP-08", "LIFE-06")
@BOTH
def test_a_handle_that_is_given_away_is_the_hosts(lane) -> None:
    world = World(lane=lane)
    taken: list[Thing] = []

    def give(thing: Thing, data: bytes) -> int:
        taken.append(thing)
        return len(data) + 1

    world.does["give"] = give

    assert world.call("give", 30) == [31]
    assert taken == world.made
    assert taken[0].alive
    assert len(world.table) == 0


@BOTH
def test_a_handle_among_parameters_by_pointer(lane) -> None:
    world = World(lane=lane)
    seen: list[object] = []

    def wide(thing: Thing, *rest: object) -> bytes:
        seen.extend((thing.n, *rest))
        return rest[-1] * 3

    world.does["wide"] = wide

    assert world.call("wide", 9) == [27]
    assert seen == [0, *range(1, 17), bytes(9)]
    assert len(world.table) == 0


@BOTH
def test_a_refusal_closes_what_was_given(lane) -> None:
    world = World(lane=lane)
    given: list[Thing] = []

    def give(thing: Thing, data: bytes) -> int:
        given.append(thing)
        raise RuntimeError("broken")

    world.does["give"] = give

    with pytest.raises(EngineFault):
        world.call("give", 1)
    assert given[0].released == 1
    assert [type(x) for x in world.failures] == [RuntimeError]


@pytest.mark.case("TYP-05")
@BOTH
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda w: (Stranger(w.thing(0).lease), b"", None, 1), "result[0]: expected thing (Thing)"),
        (lambda w: (w.thing(1), b"", Stranger(w.thing(0).lease), 1), "result[2]: expected thing"),
        (lambda w: (w.thing(1), b"", w.thing(2), 70_000), "result[3]: expected u16"),
        (lambda w: (w.thing(1), "text", w.thing(2), 1), "result[1]: expected list<u8>"),
    ],
)
def test_a_result_that_does_not_fit_takes_its_handles_back(lane, value, words) -> None:
    world = World(lane=lane)
    world.does["open"] = lambda _: value(world)

    with pytest.raises(EngineFault):
        world.call("open", 1)
    (failure,) = world.failures
    assert isinstance(failure, InternalError)
    assert words in str(failure)
    assert len(world.table) == 0


@pytest.mark.case("RES-14")
@BOTH
def test_refuses_more_handles_than_the_limit(lane) -> None:
    world = World(lane=lane, limit=1)
    world.does["open"] = lambda _: (world.thing(1), b"", world.thing(2), 1)

    with pytest.raises(EngineFault):
        world.call("open", 1)
    assert [type(x) for x in world.failures] == [HandleLimitExceeded]
    assert [x.released for x in world.made] == [1, 1]
    assert len(world.table) == 0


@pytest.mark.case("RES-16")
@BOTH
def test_a_result_too_large_to_cross_takes_its_handles_back(lane) -> None:
    world = World(lane=lane)
    world.does["open"] = lambda _: (world.thing(1), bytes((1 << 20) + 1), None, 1)

    with pytest.raises(EngineFault):
        world.call("open", 1)
    assert [type(x) for x in world.failures] == [ValueLimitExceeded]
    assert [x.released for x in world.made] == [1]
    assert len(world.table) == 0
