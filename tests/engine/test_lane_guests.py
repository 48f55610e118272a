"""Guests that mean ill, on the lane: what they pass is a value, or the call's failure; never more.

The code that moves values between a plugin's memory and the lane's runs inside of the plugin; here the
plugin lies to it about pointers, lengths, cases and text, and calls where nobody expects it.
"""

from __future__ import annotations

import contextlib
import weakref

import pytest
import wasmtime
from wasmtime import component as wc

from capwasm.engine import types as t
from capwasm.engine.crossing import Boundary, EngineFault
from capwasm.engine.lane.append import compose
from capwasm.engine.lane.choose import chosen, present
from capwasm.engine.lane.wire import LANE_IMPORTS, without_lane
from capwasm.engine.plan import Plans, define_func
from capwasm.engine.walk import walk
from capwasm.errors import ValueLimitExceeded
from capwasm.handles import HandleTable
from tests.engine.echo import ENGINE

API = "test:host/api@0.1.0"
PAGES = 64  # of the lane's memory: 4 MiB

REALLOC = """
  (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (local.get $at))"""
PAIR = """
  (func $pair (param i32 i32) (result i32)
    (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1))
    (i32.const 16))"""


def guest(
    main: str,
    *,
    given: str = "(list u8)",
    result: str = "(list u8)",
    realloc: str = REALLOC,
    post: str = "",
    host: str = "(list string)",
) -> str:
    """A component as toolchains make it: it exports `g`, and imports `f: func(x: host)`."""
    canon = '(memory (core memory $m "memory")) (realloc (core func $m "realloc"))'
    lift = f'{canon} (post-return (core func $m "post"))' if post else canon
    return f"""(component
  (import "{API}" (instance $api (export "f" (func (param "x" {host})))))
  (alias export $api "f" (func $f))
  (core module $main
    (import "api" "f" (func $f (param i32 i32)))
    (memory (export "memory") 2)
    (global $top (mut i32) (i32.const 1024))
    (global $depth (mut i32) (i32.const 0))
    {PAIR} {realloc} {post}
    (func (export "g") (param $p i32) (param $n i32) (result i32) {main}))
  (core module $shim
    (type $t (func (param i32 i32))) (table (export "$imports") 1 1 funcref)
    (func (export "0") (type $t)
      (call_indirect (type $t) (local.get 0) (local.get 1) (i32.const 0))))
  (core module $fixup
    (import "" "0" (func $f (param i32 i32))) (import "" "$imports" (table 1 1 funcref))
    (elem (i32.const 0) func $f))
  (core instance $s (instantiate $shim))
  (core instance $m (instantiate $main (with "api" (instance (export "f" (func $s "0"))))))
  (core func $lowered (canon lower (func $f) {canon}))
  (core instance (instantiate $fixup (with "" (instance
    (export "$imports" (table $s "$imports")) (export "0" (func $lowered))))))
  (func (export "g") (param "x" {given}) (result {result}) (canon lift (core func $m "g") {lift})))
  """


class Guest:
    """An instance of it, laned; every call is a call of `g`."""

    def __init__(self, wat: str, *, value_bytes: int = 1 << 20) -> None:
        code = bytes(wasmtime.wat2wasm(wat))
        types = walk(wc.Component(ENGINE, code), ENGINE)
        self.component = wc.Component(ENGINE, compose(code, types, chosen(types), PAGES))
        found = walk(self.component, ENGINE)
        assert without_lane(found) == types
        lane = present(found, chosen(types))
        assert [f.name for f in (*lane.exports, *lane.imports)] == ["g", "f"]
        self.plans = Plans(types, lane=lane)
        self.boundary = boundary = Boundary(HandleTable(10), {}, value_bytes)
        self.seen: list[object] = []
        self.failures: list[BaseException] = []
        self.linker = wc.Linker(ENGINE)
        me = weakref.ref(self)
        with self.linker.root() as root:
            for name, plan in (
                (API, self.plans.host(API, "f")),
                (LANE_IMPORTS, self.plans.lane_host(API, "f")),
            ):
                with root.add_instance(name) as instance:
                    define_func(
                        instance,
                        plan,
                        lambda args: me().seen.append(args[0]),
                        lambda exc: me().fail(exc),
                        lambda: boundary,
                    )
        self.open()

    def open(self) -> None:
        self.store = wasmtime.Store(ENGINE)
        instance = self.linker.instantiate(self.store, self.component)
        plan = self.plans.export("", "g")
        interface, name = plan.where
        index = instance.get_export_index(self.store, interface)
        index = instance.get_export_index(self.store, name, index)
        self.bound = plan.bind(self.store, instance.get_func(self.store, index), self.boundary)

    def fail(self, exc: BaseException) -> str:
        self.failures.append(exc)
        return "told on the record"

    def __call__(self, x: object) -> object:
        return self.bound((x,))


HONEST = "(call $pair (local.get $p) (local.get $n))"


def test_allows_what_an_honest_one_does() -> None:
    honest = Guest(guest(HONEST))

    for size in (0, 1, 15, 16, 17, 1000, 60_000):
        assert honest(b"\xfe" * size) == b"\xfe" * size


def test_what_was_taken_by_the_guest_is_given_back_to_it() -> None:
    posted = Guest(
        guest(
            HONEST,
            post="""(func (export "post") (param i32)
              (if (i32.ne (local.get 0) (i32.const 16)) (then (unreachable)))
              (global.set $top (i32.const 1024)))""",
        )
    )

    for _ in range(100):
        assert posted(b"x" * 10_000) == b"x" * 10_000


LIES = {
    "a result before nothing": "(i32.const -4)",
    "a result behind the memory": "(i32.const 131072)",
    "a pointer behind the memory": "(call $pair (i32.const 131072) (i32.const 1))",
    "a length over its end": "(call $pair (i32.const 131000) (i32.const 100))",
    "all that can be counted": "(call $pair (i32.const 0) (i32.const -1))",
}


@pytest.mark.case("RES-26")
@pytest.mark.parametrize("lie", LIES)
def test_refuses(lie: str) -> None:
    liar = Guest(guest(LIES[lie]))

    with pytest.raises(EngineFault):
        liar(b"abc")


@pytest.mark.case("RES-16", "RES-17")
@pytest.mark.parametrize("element", ["u8", "u16", "u64", "f64", "string", "(tuple u64 u64)"])
@pytest.mark.parametrize("count", [2**29, 2**29 + 1, 2**31, 2**32 - 1])
def test_refuses_lists_whose_size_wraps_around(element: str, count: int) -> None:
    liar = Guest(
        guest(f"(call $pair (i32.const 0) (i32.const {count}))", result=f"(list {element})")
    )

    with pytest.raises((EngineFault, ValueLimitExceeded)):
        liar(b"")


@pytest.mark.parametrize("number", [0, 1, 2, 256, 2**31, 2**32 - 1])
def test_a_bool_is_true_by_any_of_its_bits(number: int) -> None:
    whole = Guest(guest(f"(i32.const {number})", result="bool"))
    stored = Guest(
        guest(
            f"(i32.store8 (i32.const 40) (i32.const {number})) (call $pair (i32.const 40) (i32.const 1))",
            result="(list bool)",
        )
    )

    assert whole(b"") is (number != 0)
    assert stored(b"") == [number & 0xFF != 0]


NO_VALUES = {
    "text that is not UTF-8": ("string", "\\c3\\28", "(i32.const 1024) (i32.const 2)", "UTF-8"),
    "a list of such text": ("(list string)", "\\08\\04\\00\\00\\02\\00\\00\\00\\c3\\28",
                            "(i32.const 1024) (i32.const 1)", "UTF-8"),
    "a case that is none": ("(list (option u8))", "\\07\\00", "(i32.const 1024) (i32.const 1)",
                            "case"),
    "a char that is a surrogate": ("(list char)", "\\00\\d8\\00\\00",
                                   "(i32.const 1024) (i32.const 1)", "char"),
}  # fmt: skip


@pytest.mark.case("TYP-06", "TYP-07")
@pytest.mark.parametrize("name", NO_VALUES)
def test_refuses_a_result_with(name: str) -> None:
    result, data, pair, message = NO_VALUES[name]
    liar = Guest(
        guest(
            f"(call $pair {pair})",
            result=result,
            realloc=f'{REALLOC} (data (i32.const 1024) "{data}")',
        )
    )

    with pytest.raises(EngineFault, match=message):
        liar(b"")


@pytest.mark.case("TYP-06")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("\\08\\04\\00\\00\\02\\00\\00\\00\\c3\\28", None),
        ("\\08\\04\\00\\00\\02\\00\\00\\00\\c3\\a9", ["é"]),
    ],
)
def test_a_host_function_is_given_text_or_is_not_called(data: str, words: object) -> None:
    caller = Guest(
        guest(
            f"(call $f (i32.const 1024) (i32.const 1)) {HONEST}",
            realloc=f'{REALLOC} (data (i32.const 1024) "{data}")',
        )
    )

    if words is not None:
        assert caller(b"") == b""
        assert caller.seen == [words]
        return
    with pytest.raises(EngineFault):
        caller(b"")
    assert caller.seen == []
    assert [type(x) for x in caller.failures] == [EngineFault]


@pytest.mark.case("RES-26")
@pytest.mark.parametrize("place", [-16, 131072, 131071, 2**31, 0, 16])
def test_an_allocator_that_returns_nonsense_hurts_itself_alone(place: int) -> None:
    nonsense = Guest(
        guest(
            HONEST,
            realloc=f"""(func (export "realloc") (param i32 i32 i32 i32) (result i32)
              (i32.const {place}))""",
        )
    )

    if place in (0, 16):  # over its own result: whatever comes of it
        with contextlib.suppress(EngineFault):
            assert isinstance(nonsense(b"x" * 64), bytes)
        return
    with pytest.raises(EngineFault):
        nonsense(b"x" * 64)


@pytest.mark.case("RES-16")
def test_refuses_one_text_that_is_pointed_to_a_thousand_times() -> None:
    """In the guest it is 60 kB; spelled out it is 400 MB, which the lane's memory can't become."""
    many = Guest(
        guest(
            """(local $i i32)
            (loop $next
              (i32.store offset=65536 (i32.shl (local.get $i) (i32.const 3)) (i32.const 0))
              (i32.store offset=65540 (i32.shl (local.get $i) (i32.const 3)) (i32.const 60000))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $next (i32.lt_u (local.get $i) (i32.const 7000))))
            (call $pair (i32.const 65536) (i32.const 7000))""",
            result="(list (list u8))",
        )
    )

    with pytest.raises(EngineFault, match="lane-value-limit"):
        many(b"")


@pytest.mark.case("TYP-13", "RES-26")
@pytest.mark.parametrize("where", ["realloc", "post-return"])
def test_a_host_call_from_where_none_should_come_changes_nothing_of_the_host(where: str) -> None:
    """The guest's own value may be lost by it; what it passes is checked like any other."""
    call = "(call $f (i32.const 64) (i32.const 3))"
    odd = Guest(
        guest(
            HONEST,
            realloc=REALLOC.replace(
                "(local $at i32)", f"(local $at i32) {call if where == 'realloc' else ''}"
            ),
            post=f'(func (export "post") (param i32) {call})' if where != "realloc" else "",
        )
    )

    for size in (0, 40, 5000):
        try:
            assert isinstance(odd(b"y" * size), bytes)
        except EngineFault:
            odd.open()
        assert all(x == ["", "", ""] for x in odd.seen)
    assert odd.seen


@pytest.mark.case("RES-16", "RES-18")
def test_refuses_what_is_larger_than_may_cross() -> None:
    small = Guest(guest(HONEST), value_bytes=1000)

    assert small(b"x" * 1000) == b"x" * 1000
    with pytest.raises(ValueLimitExceeded):
        small(b"x" * 1001)
    giver = Guest(guest("(call $pair (i32.const 0) (i32.const 1001))"), value_bytes=1000)
    with pytest.raises(ValueLimitExceeded):
        giver(b"")


def test_a_type_with_handles_in_its_exports_does_not_take_the_lane() -> None:
    borrow = t.Borrow(t.ResourceId("a:b/c", "r", imported=True))
    function = t.FuncType((("x", borrow), ("y", t.List(t.Prim("u8")))), None)
    types = t.ComponentTypes((), (t.InterfaceType("", (("g", function),)),))

    assert not chosen(types)
    assert chosen(t.ComponentTypes((t.InterfaceType("a:b/c", (("g", function),)),), ()))
