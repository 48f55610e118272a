"""Handles across the boundary: whose they are before, during and after a call."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import wasmtime
from wasmtime import component as wc

from capwasm.engine import types as t
from capwasm.engine.crossing import Boundary, EngineFault, GuestResource, HostKind
from capwasm.engine.plan import Plans, define_func, define_resource
from capwasm.engine.walk import walk
from capwasm.errors import CapError, HandleLimitExceeded, InternalError
from capwasm.handles import Handle, HandleTable, Lease
from tests.engine.echo import ENGINE

BOTH = pytest.mark.parametrize("fast", [True, False], ids=["fast", "slow"])
NAME = "test:res/things@1.0.0"

HOST_RESOURCES = f"""(component
  (import "{NAME}" (instance $t
    (export "thing" (type $thing (sub resource)))
    (export "other" (type $other (sub resource)))
    (type $e (enum "denied" "closed"))
    (export "error" (type $error (eq $e)))
    (export "make" (func (param "n" u32) (result (own $thing))))
    (export "pair" (func (param "n" u32) (result (tuple (own $thing) u8))))
    (export "[method]thing.value"
      (func (param "self" (borrow $thing)) (result (result u32 (error $error)))))
    (export "give" (func (param "t" (own $thing)) (result u32)))
    (export "offer" (func (param "t" (own $thing)) (result (result u32 (error $error)))))))
  (alias export $t "thing" (type $thing))
  (core module $mem (memory (export "mem") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 512)))
  (core instance $me (instantiate $mem))
  (alias core export $me "mem" (core memory $memory))
  (core func $make (canon lower (func $t "make")))
  (core func $pair (canon lower (func $t "pair") (memory $memory)))
  (core func $value (canon lower (func $t "[method]thing.value") (memory $memory)))
  (core func $give (canon lower (func $t "give")))
  (core func $offer (canon lower (func $t "offer") (memory $memory)))
  (core func $drop (canon resource.drop $thing))
  (core module $m
    (import "" "make" (func $make (param i32) (result i32)))
    (import "" "pair" (func $pair (param i32 i32)))
    (import "" "value" (func $value (param i32 i32)))
    (import "" "give" (func $give (param i32) (result i32)))
    (import "" "offer" (func $offer (param i32 i32)))
    (import "" "drop" (func $drop (param i32)))
    (import "" "mem" (memory 1))
    (global $kept (mut i32) (i32.const 0))
    ;; 1000 + the error's number for an error
    (func $ask (param i32) (result i32)
      (call $value (local.get 0) (i32.const 64))
      (if (result i32) (i32.load8_u (i32.const 64))
        (then (i32.add (i32.const 1000) (i32.load8_u (i32.const 68))))
        (else (i32.load (i32.const 68)))))
    (func (export "round") (param i32) (result i32) (local i32 i32)
      (local.set 1 (call $make (local.get 0)))
      (local.set 2 (call $ask (local.get 1)))
      (call $drop (local.get 1))
      (local.get 2))
    (func (export "keep") (param i32) (result i32)
      (global.set $kept (call $make (local.get 0))) (call $ask (global.get $kept)))
    (func (export "again") (param i32) (result i32) (call $ask (global.get $kept)))
    (func (export "hand-back") (param i32) (result i32) (call $give (call $make (local.get 0))))
    (func (export "offer") (param i32) (result i32)
      (call $offer (call $make (local.get 0)) (i32.const 64))
      (i32.add (i32.const 1000) (i32.load8_u (i32.const 68))))
    (func (export "both") (param i32) (result i32) (call $pair (local.get 0) (i32.const 64))
      (call $ask (i32.load (i32.const 64))))
    (func (export "twice") (param i32) (result i32) (local i32)
      (local.set 1 (call $make (local.get 0)))
      (drop (call $give (local.get 1))) (call $give (local.get 1)))
    (func (export "forge") (param i32) (result i32) (call $ask (local.get 0)))
    (func (export "pass") (param i32) (result i32) (call $make (local.get 0)))
    (func (export "lend") (param i32) (result i32) (local i32)
      (local.set 1 (call $ask (local.get 0))) (call $drop (local.get 0)) (local.get 1))
    (func (export "hold") (param i32) (result i32) (i32.const 0))
    (func (export "take") (param i32) (result i32) (local i32)
      (local.set 1 (call $ask (local.get 0))) (call $drop (local.get 0)) (local.get 1)))
  (core instance $i (instantiate $m (with "" (instance
    (export "make" (func $make)) (export "pair" (func $pair)) (export "value" (func $value))
    (export "give" (func $give)) (export "offer" (func $offer))
    (export "drop" (func $drop)) (export "mem" (memory $memory))))))
  {
    "".join(
        f'''(func (export "{n}") (param "n" u32) (result u32)
              (canon lift (core func $i "{n}")))'''
        for n in ("round", "keep", "again", "hand-back", "offer", "both", "twice", "forge")
    )
}
  (func (export "pass") (param "n" u32) (result (own $thing)) (canon lift (core func $i "pass")))
  (func (export "lend") (param "t" (borrow $thing)) (result u32)
    (canon lift (core func $i "lend")))
  (func (export "hold") (param "t" (borrow $thing)) (result u32)
    (canon lift (core func $i "hold")))
  (func (export "take") (param "t" (own $thing)) (result u32)
    (canon lift (core func $i "take")))
)"""


class Thing(Handle):
    __slots__ = ("n", "released")

    def __init__(self, n: int) -> None:
        super().__init__(Lease())
        self.n = n
        self.released = 0

    def release(self) -> None:
        self.released += 1


class Stranger(Handle):
    __slots__ = ()


class World:
    """One instance of the component above, with its table."""

    def __init__(self, *, fast: bool, limit: int = 8) -> None:
        component = wc.Component(ENGINE, HOST_RESOURCES)
        types = walk(component, ENGINE)
        self.plans = Plans(types, fast=fast)
        self.thing = dict(types.imported(NAME).resources)["thing"]
        self.table = HandleTable(limit)
        self.kinds = {self.thing: HostKind(7, Thing)}
        self.boundary = Boundary(self.table, self.kinds, 1 << 20)
        self.made: list[Thing] = []
        self.given: list[Thing] = []
        self.failures: list[BaseException] = []
        self.pair: object = None
        linker = wc.Linker(ENGINE)
        table, boundary, failures = self.table, self.boundary, self.failures
        functions = {
            "make": self._make,
            "pair": lambda _: self.pair,
            "[method]thing.value": self._value,
            "give": self._give,
            "offer": self._refuse,
        }

        def fail(exc: BaseException) -> str:
            failures.append(exc)
            return "failed"

        with linker.root() as root, root.add_instance(NAME) as instance:
            define_resource(instance, "thing", 7, table.drop, fail)
            define_resource(instance, "other", 8, table.drop, fail)
            for name, function in functions.items():
                define_func(
                    instance,
                    self.plans.host(NAME, name),
                    lambda args, go=function: go(*args),
                    fail,
                    lambda: boundary,
                )
        self.store = wasmtime.Store(ENGINE)
        self.instance = linker.instantiate(self.store, component)

    def call(self, name: str, *args: object) -> object:
        func = self.instance.get_func(self.store, name)
        return self.plans.export("", name).bind(self.store, func, self.boundary)(args)

    def _make(self, n: int) -> Thing:
        self.made.append(Thing(n))
        return self.made[-1]

    def _value(self, thing: Thing) -> int:
        thing.check()
        return thing.n

    def _refuse(self, thing: Thing) -> int:
        self.given.append(thing)
        raise CapError("closed")

    def _give(self, thing: Thing) -> int:
        self.given.append(thing)
        return thing.n


@BOTH
def test_a_handle_goes_in_is_used_and_its_drop_closes_it(fast) -> None:
    world = World(fast=fast)
    for n in range(50):
        assert world.call("round", n) == n
    assert len(world.table) == 0
    assert [x.released for x in world.made] == [1] * 50


@pytest.mark.case("TYP-08", "LIFE-06")
@BOTH
def test_a_handle_that_is_given_back_is_the_hosts_again(fast) -> None:
    world = World(fast=fast)
    assert world.call("hand-back", 5) == 5
    assert world.given == world.made
    assert world.given[0].alive, "the host function must close it; nobody else did"
    assert len(world.table) == 0


@BOTH
def test_a_handle_that_a_refusing_function_was_given_is_closed(fast) -> None:
    world = World(fast=fast)
    assert world.call("offer", 5) == 1001
    assert world.given[0].released == 1
    assert world.failures == []


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.case("RES-13")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_hundred_thousand_handles_leave_nothing_in_the_store_or_in_memory() -> None:
    # The engine's own table holds at most 100,000 at a time: what was not let go of would fill it.
    world = World(fast=True)
    thing = Thing(1)
    func = world.instance.get_func(world.store, "lend")
    lend = world.plans.export("", "lend").bind(world.store, func, world.boundary)
    func = world.instance.get_func(world.store, "round")
    round_ = world.plans.export("", "round").bind(world.store, func, world.boundary)

    def go(times: int) -> None:
        for i in range(times):
            lend((thing,))
            if i % 2:
                round_((1,))
                world.made.clear()

    go(2000)
    before = _resident()
    go(100_500)
    assert _resident() - before < 1 << 20


@pytest.mark.case("TYP-08", "LIFE-06")
@BOTH
def test_refuses_an_own_that_is_used_twice(fast) -> None:
    world = World(fast=fast)
    with pytest.raises(EngineFault):
        world.call("twice", 5)
    assert len(world.given) == 1


@pytest.mark.case("TYP-08", "LIFE-06")
@BOTH
@pytest.mark.parametrize("number", [0, 1, 7, 2**32 - 1])
def test_refuses_a_forged_handle(number, fast) -> None:
    world = World(fast=fast)
    with pytest.raises(EngineFault):
        world.call("forge", number)
    assert world.failures == []


@pytest.mark.case("LIFE-07")
@BOTH
def test_a_handle_that_the_host_closed_is_told_as_closed(fast) -> None:
    world = World(fast=fast)
    assert world.call("keep", 5) == 5
    world.table.drop(1)
    assert world.call("again", 0) == 1001, "the word `closed`"
    assert world.failures == []


@pytest.mark.case("TYP-09")
@BOTH
def test_refuses_a_handle_of_another_kind_of_the_same_shape(fast) -> None:
    world = World(fast=fast)
    assert world.call("keep", 5) == 5
    world.kinds[world.thing] = HostKind(8, Thing)
    assert world.call("again", 0) == 1001, "another number"
    world.kinds[world.thing] = HostKind(7, Stranger)
    assert world.call("again", 0) == 1001, "another class"
    world.kinds[world.thing] = HostKind(7, Thing)
    assert world.call("again", 0) == 5


@pytest.mark.case("TYP-05")
@BOTH
@pytest.mark.parametrize("returned", [None, 7, "thing", Stranger(Lease())])
def test_refuses_a_host_function_that_returns_no_such_handle(returned, fast) -> None:
    world = World(fast=fast)
    world.pair = (returned, 1)
    with pytest.raises(EngineFault):
        world.call("both", 1)
    (failure,) = world.failures
    assert isinstance(failure, InternalError)
    assert "result[0]: expected thing (Thing)" in str(failure)


@BOTH
def test_a_handle_is_taken_back_when_the_rest_of_the_result_does_not_fit(fast) -> None:
    world = World(fast=fast)
    thing = Thing(3)
    world.pair = (thing, 1)
    assert world.call("both", 1) == 3
    assert len(world.table) == 1
    lost = Thing(4)
    world.pair = (lost, 300)
    with pytest.raises(EngineFault):
        world.call("both", 1)
    assert len(world.table) == 1
    assert lost.released == 1


@pytest.mark.case("RES-14")
@BOTH
def test_refuses_more_handles_than_the_limit(fast) -> None:
    world = World(fast=fast, limit=2)
    world.call("keep", 1)
    world.call("keep", 2)
    with pytest.raises(EngineFault):
        world.call("keep", 3)
    assert [type(f) for f in world.failures] == [HandleLimitExceeded]
    assert world.made[2].released == 1


@BOTH
def test_the_caller_may_get_lend_and_give_handles(fast) -> None:
    world = World(fast=fast)
    thing = world.call("pass", 9)
    assert thing is world.made[0]
    assert thing.alive
    assert len(world.table) == 0
    for _ in range(30):
        assert world.call("lend", thing) == 9
    assert len(world.table) == 0
    assert thing.alive
    assert world.call("take", thing) == 9
    assert thing.released == 1
    assert len(world.table) == 0


@pytest.mark.case("TYP-08")
@BOTH
def test_refuses_a_borrow_that_is_kept_past_the_call(fast) -> None:
    world = World(fast=fast)
    thing = Thing(1)
    with pytest.raises(EngineFault):
        world.call("hold", thing)
    assert thing.alive
    assert len(world.table) == 0


@BOTH
def test_refuses_to_pass_a_handle_of_another_class_or_a_closed_instance(fast) -> None:
    world = World(fast=fast)
    for wrong in (Stranger(Lease()), None, 7):
        with pytest.raises(TypeError, match=r"argument t: expected thing \(Thing\)"):
            world.call("take", wrong)
    world.table.close_all()
    thing = Thing(1)
    with pytest.raises(CapError):
        world.call("take", thing)


# -- resources of the guest's own ----------------------------------------------------------------

GUEST_RESOURCES = """(component
  (core module $d (global $dropped (mut i32) (i32.const 0))
    (func (export "dtor") (param i32)
      (if (i32.eq (local.get 0) (i32.const 666)) (then unreachable))
      (global.set $dropped (i32.add (global.get $dropped) (i32.const 1))))
    (func (export "dropped") (result i32) (global.get $dropped)))
  (core instance $di (instantiate $d))
  (type $own (resource (rep i32) (dtor (core func $di "dtor"))))
  (export $counter "counter" (type $own))
  (core func $new (canon resource.new $own))
  (core func $rep (canon resource.rep $own))
  (core func $drop (canon resource.drop $own))
  (core module $m
    (import "" "new" (func $new (param i32) (result i32)))
    (import "" "rep" (func $rep (param i32) (result i32)))
    (import "" "drop" (func $drop (param i32)))
    (func (export "make") (param i32) (result i32) (call $new (local.get 0)))
    (func (export "read") (param i32) (result i32) (local.get 0))
    (func (export "take") (param i32) (result i32) (local i32)
      (local.set 1 (call $rep (local.get 0))) (call $drop (local.get 0)) (local.get 1))
    (func (export "two") (param i32 i32) (result i32) (i32.const 0)))
  (core instance $i (instantiate $m (with "" (instance
    (export "new" (func $new)) (export "rep" (func $rep)) (export "drop" (func $drop))))))
  (func (export "make") (param "n" u32) (result (own $counter)) (canon lift (core func $i "make")))
  (func (export "read") (param "c" (borrow $counter)) (result u32)
    (canon lift (core func $i "read")))
  (func (export "take") (param "c" (own $counter)) (result u32)
    (canon lift (core func $i "take")))
  (func (export "two") (param "a" (own $counter)) (param "b" (own $counter)) (result u32)
    (canon lift (core func $i "two")))
  (func (export "dropped") (result u32) (canon lift (core func $di "dropped"))))"""


class Guest:
    def __init__(self, *, fast: bool) -> None:
        component = wc.Component(ENGINE, GUEST_RESOURCES)
        self.plans = Plans(walk(component, ENGINE), fast=fast)
        self.boundary = Boundary(HandleTable(8), {}, 1 << 20)
        self.store = wasmtime.Store(ENGINE)
        self.instance = wc.Linker(ENGINE).instantiate(self.store, component)

    def call(self, name: str, *args: object) -> object:
        func = self.instance.get_func(self.store, name)
        return self.plans.export("", name).bind(self.store, func, self.boundary)(args)


@BOTH
def test_a_guests_resource_is_opaque_and_ends_when_dropped(fast) -> None:
    guest = Guest(fast=fast)
    counter = guest.call("make", 41)
    assert isinstance(counter, GuestResource)
    assert counter.resource == t.ResourceId("", "counter", imported=False)
    assert repr(counter) == "<guest resource counter>"
    assert guest.call("read", counter) == 41
    counter.drop_in_instance()
    counter.drop_in_instance()
    assert guest.call("dropped") == 1
    assert repr(counter).endswith("(gone)>")
    with pytest.raises(ValueError, match="argument c: the counter was dropped or given back"):
        guest.call("read", counter)


@pytest.mark.case("TYP-08")
@BOTH
def test_a_guests_resource_is_given_back_once(fast) -> None:
    guest = Guest(fast=fast)
    counter = guest.call("make", 41)
    assert guest.call("take", counter) == 41
    assert not counter.alive
    assert guest.call("dropped") == 1
    with pytest.raises(ValueError, match="dropped or given back"):
        guest.call("take", counter)
    twice = guest.call("make", 42)
    with pytest.raises(ValueError, match="argument b: one resource can't be given back twice"):
        guest.call("two", twice, twice)
    assert twice.alive
    assert guest.call("read", twice) == 42


@pytest.mark.case("TYP-08", "LIFE-06")
@BOTH
def test_refuses_a_guests_resource_in_another_instance(fast) -> None:
    guest, other = Guest(fast=fast), Guest(fast=fast)
    other.call("make", 1)
    counter = guest.call("make", 41)
    with pytest.raises(ValueError, match="argument c: this counter belongs to another instance"):
        other.call("read", counter)
    for wrong in (None, 41, Thing(1)):
        with pytest.raises(TypeError, match="argument c: expected counter, got"):
            guest.call("read", wrong)
    assert guest.call("read", counter) == 41


@BOTH
def test_a_destructor_that_traps_is_told(fast) -> None:
    guest = Guest(fast=fast)
    counter = guest.call("make", 666)
    with pytest.raises(EngineFault, match="unreachable"):
        counter.drop_in_instance()
    assert not counter.alive


@BOTH
def test_a_guests_resource_may_outlive_its_instance(fast) -> None:
    guest = Guest(fast=fast)
    counter = guest.call("make", 1)
    guest.store.close()
    del guest
    gc.collect()
    assert counter.alive
    del counter
    gc.collect()
