"""Instances and their limits, with guests that go over each one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from capwasm.call import CallRecord, entered
from capwasm.capability import Interface
from capwasm.engine.abi import split_version
from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import Linked, link
from capwasm.errors import (
    CallInterrupted,
    CapwasmError,
    DeadlineExceeded,
    FuelExhausted,
    GuestError,
    GuestTrap,
    InstanceClosedError,
    LinkError,
    MemoryLimitExceeded,
    RecursionLimitExceeded,
    StackExhausted,
    TableLimitExceeded,
    ValueLimitExceeded,
)
from capwasm.handles import Handle
from capwasm.instance import Instance
from capwasm.limits import DEFAULTS, Limits
from tests.kit import ListServed, guest

ENDLESS = 2**50


@pytest.fixture(scope="module")
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def hostile(engine: PluginEngine) -> Linked:
    component = Compiler(engine, None).compile(guest("hostile"))
    return link(engine, component, [], owners={}, unserved=lambda _: None)


@pytest.fixture
def new(engine: PluginEngine, hostile: Linked) -> Iterator[Callable[..., Instance]]:
    made: list[Instance] = []

    def make(**limits: int) -> Instance:
        instance = Instance(
            engine, hostile, "test.hostile@1.0.0", replace(DEFAULTS, **limits), ListServed([])
        )
        instance.start()
        made.append(instance)
        return instance

    yield make
    for instance in made:
        instance.close()


def call(instance: Instance, name: str, *args: Any) -> Any:
    value, _ = instance.call(instance._linked.exports.find(name), args)
    return value


def test_allows_calls_within_the_limits(new: Callable[..., Instance]) -> None:
    instance = new()
    assert call(instance, "divide", 7, 2) == 3
    assert call(instance, "bytes", 1000) == b"a" * 1000
    assert call(instance, "text", 1000) == "a" * 1000
    assert call(instance, "size", b"x" * 1000) == 1000
    assert call(instance, "grow-memory", 10) == 1
    assert call(instance, "grow-table", 10) == 1
    assert instance.alive


GOES_OVER: list[Any] = [
    pytest.param("spin", (), {"fuel": 10**6}, FuelExhausted, marks=pytest.mark.case("RES-01")),
    pytest.param(
        "spin",
        (),
        {"fuel": ENDLESS, "wall_ms": 50},
        DeadlineExceeded,
        marks=pytest.mark.case("RES-01", "RES-02"),
    ),
    pytest.param("recurse", (), {}, StackExhausted, marks=pytest.mark.case("RES-12")),
    pytest.param(
        "bytes", (5_000_000,), {}, ValueLimitExceeded, marks=pytest.mark.case("RES-16", "RES-17")
    ),
    pytest.param("bytes", (100_000,), {"value_bytes": 50_000}, ValueLimitExceeded),
    pytest.param(
        "text",
        (2_000_000,),
        {"value_bytes": 1_000_000},
        ValueLimitExceeded,
        marks=pytest.mark.case("RES-18"),
    ),
    pytest.param("claim", (5_000,), {"value_bytes": 50_000}, ValueLimitExceeded),
]


@pytest.mark.parametrize(("name", "args", "limits", "error"), GOES_OVER)
def test_refuses_to_go_over_a_limit(
    new: Callable[..., Instance],
    name: str,
    args: tuple[Any, ...],
    limits: dict[str, int],
    error: type[CapwasmError],
) -> None:
    with pytest.raises(error) as caught:
        call(new(**limits), name, *args)
    assert caught.value.code == error.default_code


@pytest.mark.case("RES-06")
def test_bulk_operations_are_charged_and_end_with_the_fuel(new: Callable[..., Instance]) -> None:
    # One bulk operation can't be interrupted; the memory limit bounds how long it takes.
    instance = new(fuel=20_000_000, memory=65536 * 256)
    assert call(instance, "grow-memory", 255) == 1
    with pytest.raises(FuelExhausted):
        call(instance, "fill", 2**31)


@pytest.mark.case("RES-18")
def test_refuses_an_argument_that_is_too_large_before_anything_runs(
    new: Callable[..., Instance],
) -> None:
    instance = new(value_bytes=1_000_000)
    with pytest.raises(ValueLimitExceeded):
        call(instance, "size", b"x" * 1_000_001)
    assert call(instance, "count") == 1


@pytest.mark.case("RES-07", "RES-08")
def test_refuses_a_component_whose_memory_is_larger_than_the_limit(
    new: Callable[..., Instance],
) -> None:
    with pytest.raises(MemoryLimitExceeded):
        new(memory=65536 // 2)


def test_shares_the_memory_limit_out_over_the_memories(new: Callable[..., Instance]) -> None:
    assert call(new(memory=4 * 65536), "grow-memory", 3) == 1
    assert call(new(memory=4 * 65536, memories=2), "grow-memory", 3) == -1


@pytest.mark.case("RES-09")
def test_refuses_to_grow_memory_and_tables_over_the_limit(new: Callable[..., Instance]) -> None:
    # The engine answers as the specification has it: -1, and the guest goes on.
    instance = new(memory=64 * 65536, table_elements=1000)
    assert call(instance, "grow-memory", 64) == -1
    assert call(instance, "grow-table", 1000) == -1
    assert call(instance, "grow-memory", 63) == 1
    assert call(instance, "grow-table", 999) == 1


@pytest.mark.case("RES-08", "RES-09")
def test_refuses_a_component_with_more_tables_than_the_limit(
    engine: PluginEngine,
) -> None:
    import wasmtime

    tables = "(table 1 funcref)" * 5
    code = bytes(
        wasmtime.wat2wasm(f"(component (core module $m {tables}) (core instance (instantiate $m)))")
    )
    linked = link(
        engine, Compiler(engine, None).compile(code), [], owners={}, unserved=lambda _: None
    )
    few = Instance(engine, linked, "t@1", replace(DEFAULTS, tables=4), ListServed([]))
    with pytest.raises(TableLimitExceeded):
        few.start()
    enough = Instance(engine, linked, "t@1", replace(DEFAULTS, tables=5), ListServed([]))
    enough.start()
    enough.close()


@pytest.mark.case("RES-25")
def test_refuses_an_endless_start_function(engine: PluginEngine) -> None:
    import wasmtime

    code = bytes(
        wasmtime.wat2wasm(
            "(component (core module $m (func $f (loop $l (br $l))) (start $f))"
            " (core instance (instantiate $m)))"
        )
    )
    linked = link(
        engine, Compiler(engine, None).compile(code), [], owners={}, unserved=lambda _: None
    )
    instance = Instance(engine, linked, "t@1", replace(DEFAULTS, fuel=10**6), ListServed([]))
    with pytest.raises(FuelExhausted):
        instance.start()
    assert not instance.alive


BROKEN = [
    pytest.param("trap", (), marks=pytest.mark.case("LIFE-04")),
    pytest.param("divide", (1, 0)),
    pytest.param("outside", (), marks=pytest.mark.case("RES-26")),
    pytest.param("not-utf8", (), marks=pytest.mark.case("TYP-06")),
    pytest.param("bad-char", (), marks=pytest.mark.case("TYP-07")),
    pytest.param("bad-case", (), marks=pytest.mark.case("TYP-07")),
]


@pytest.mark.parametrize(("name", "args"), BROKEN)
def test_refuses_to_use_a_store_again_after_a_trap(
    new: Callable[..., Instance], name: str, args: tuple[Any, ...]
) -> None:
    instance = new()
    with pytest.raises(GuestTrap):
        call(instance, name, *args)
    assert not instance.alive
    with pytest.raises(InstanceClosedError):
        call(instance, "count")


LIES = [
    "all fuel consumed by WebAssembly",
    "x\nCaused by:\n    wasm trap: all fuel consumed by WebAssembly",
    "wasm trap: memory minimum size",
    "\x1b[31mred\u202e",
    "x" * 1_000_000,
]


@pytest.mark.case("LOG-07")
@pytest.mark.parametrize("name", LIES, ids=["fuel", "cause", "memory", "control", "long"])
def test_refuses_to_believe_the_names_that_a_guest_gives_its_functions(
    engine: PluginEngine, name: str
) -> None:
    import wasmtime

    spelt = "".join(f"\\{byte:02x}" for byte in name.encode())
    code = bytes(
        wasmtime.wat2wasm(
            f'(component (core module $m (func $f (@name "{spelt}") (export "t") unreachable))'
            ' (core instance $i (instantiate $m)) (func (export "t") (canon lift (core func $i "t"))))'
        )
    )
    linked = link(
        engine, Compiler(engine, None).compile(code), [], owners={}, unserved=lambda _: None
    )
    instance = Instance(engine, linked, "t@1", DEFAULTS, ListServed([]))
    instance.start()
    with pytest.raises(GuestTrap, match="unreachable") as caught:
        call(instance, "t")
    assert caught.value.code == "guest.trap"
    assert len(str(caught.value)) < 2_000
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_tells_the_trap_and_the_function(new: Callable[..., Instance]) -> None:
    with pytest.raises(GuestTrap, match="integer divide by zero"):
        call(new(), "divide", 1, 0)


WRONG = [
    pytest.param("divide", (-1, 1), ValueError, "got -1", marks=pytest.mark.case("TYP-04")),
    pytest.param("divide", (2**32, 1), ValueError, "4294967295", marks=pytest.mark.case("TYP-04")),
    pytest.param("divide", ("1", 1), TypeError, "expected u32, got str"),
    pytest.param("divide", (True, 1), TypeError, "got bool"),
    pytest.param("divide", (1,), TypeError, "2"),
    pytest.param("size", ("text",), TypeError, "bytes|list"),
]


@pytest.mark.parametrize(("name", "args", "error", "words"), WRONG)
def test_refuses_a_wrong_argument_and_leaves_the_instance_as_it_was(
    new: Callable[..., Instance],
    name: str,
    args: tuple[Any, ...],
    error: type[Exception],
    words: str,
) -> None:
    instance = new()
    with pytest.raises(error, match=words):
        call(instance, name, *args)
    assert call(instance, "count") == 1


def test_refuses_an_unknown_export_and_names_the_known(new: Callable[..., Instance]) -> None:
    with pytest.raises(GuestError, match=r"no export 'nope'; there are: .*divide") as caught:
        call(new(), "nope")
    assert caught.value.code == "guest.no-such-export"


def run_elsewhere(work: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def body() -> None:
        try:
            work()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, errors


def until_running(instance: Instance) -> None:
    deadline = time.monotonic() + 5
    while instance.running is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.case("LIFE-01")
def test_closing_waits_for_the_call_and_interrupts_it(new: Callable[..., Instance]) -> None:
    instance = new(fuel=ENDLESS, wall_ms=60_000)
    thread, errors = run_elsewhere(lambda: call(instance, "spin"))
    until_running(instance)
    began = time.monotonic()
    instance.close("evicted")
    thread.join(5)
    assert time.monotonic() - began < 1.0
    assert isinstance(errors[0], CallInterrupted)
    assert instance._store is None


def test_an_interrupt_takes_effect_within_50_ms(new: Callable[..., Instance]) -> None:
    # The best of several: the machine may be busy with other things.
    times = []
    for _ in range(5):
        instance = new(fuel=ENDLESS, wall_ms=60_000)
        thread, errors = run_elsewhere(lambda i=instance: call(i, "spin"))
        until_running(instance)
        time.sleep(0.02)
        began = time.monotonic()
        assert instance.interrupt("enough")
        thread.join(5)
        times.append(time.monotonic() - began)
        assert isinstance(errors[0], CallInterrupted)
    assert min(times) < 0.050


@pytest.mark.case("LIFE-03")
def test_refuses_a_second_thread_in_one_instance(new: Callable[..., Instance]) -> None:
    instance = new(fuel=ENDLESS, wall_ms=60_000)
    thread, errors = run_elsewhere(lambda: call(instance, "spin"))
    until_running(instance)
    with pytest.raises(GuestError) as caught:
        call(instance, "count")
    assert caught.value.code == "guest.busy"
    instance.interrupt("enough")
    thread.join(5)
    assert isinstance(errors[0], CallInterrupted)


@pytest.mark.case("LIFE-08", "RES-12")
def test_refuses_calls_nested_too_deep(new: Callable[..., Instance]) -> None:
    limits = replace(DEFAULTS, depth=3)
    with (
        entered(CallRecord("a", "f", limits)),
        entered(CallRecord("b", "f", limits)),
        entered(CallRecord("c", "f", limits)),
        pytest.raises(RecursionLimitExceeded),
        entered(CallRecord("d", "f", replace(DEFAULTS, depth=9))),
    ):
        raise AssertionError


def test_an_inner_call_ends_with_the_outer_ones_time() -> None:
    outer = CallRecord("a", "f", replace(DEFAULTS, wall_ms=50))
    inner = CallRecord("b", "f", replace(DEFAULTS, wall_ms=60_000))
    with entered(outer), entered(inner):
        assert inner.deadline == outer.deadline


def test_charges_fuel_and_reports_it(new: Callable[..., Instance]) -> None:
    instance = new()
    export = instance._linked.exports.find("fill")
    _, few = instance.call(export, (1,))
    _, many = instance.call(export, (50,))
    assert 0 < few.fuel < many.fuel


@pytest.mark.case("LIFE-11")
def test_refuses_to_run_without_a_clock() -> None:
    engine = PluginEngine()
    linked = link(
        engine,
        Compiler(engine, None).compile(guest("hostile")),
        [],
        owners={},
        unserved=lambda _: None,
    )
    instance = Instance(engine, linked, "t@1", DEFAULTS, ListServed([]))
    instance.start()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        call(instance, "count")


@pytest.mark.case("LIFE-10")
def test_refuses_to_run_in_a_fork(engine: PluginEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.check()
    monkeypatch.setattr(engine, "_pid", engine._pid + 1)
    with pytest.raises(RuntimeError, match="fork"):
        engine.check()


@pytest.mark.case("TYP-10", "NET-26")
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("capwasm:fetch/client@0.1.0", r"\[\[net\]\]"),
        ("capwasm:fetch/client@0.2.0", r"\[\[net\]\]"),
        ("wasi:http/outgoing-handler@0.2.0", "does not offer"),
        ("acme:other/thing@1.0.0", "does not offer"),
        ("acme:other/thing", "does not offer"),
    ],
)
def test_refuses_an_import_that_nothing_serves(engine: PluginEngine, name: str, word: str) -> None:
    import wasmtime

    code = bytes(wasmtime.wat2wasm(f'(component (import "{name}" (instance (export "f" (func)))))'))
    owners = {"capwasm:fetch/client": "[[net]]"}
    with pytest.raises(LinkError, match=word):
        link(
            engine,
            Compiler(engine, None).compile(code),
            [],
            owners=owners,
            unserved=lambda _: None,
        )


REFUSED = [
    pytest.param('(import "a" (core module))', "only functions", id="core module"),
    pytest.param(
        '(import "a:b/c" (instance (export "d" (instance (export "f" (func))))))',
        "only functions",
        id="instance within",
    ),
    pytest.param('(import "f" (func))', "nothing is offered outside", id="function"),
    pytest.param('(import "r" (type (sub resource)))', "nothing is offered outside", id="type"),
    pytest.param('(import "url=<\\1b[31m>" (instance))', r"url=<\\x1b", id="escape"),
    pytest.param('(import "a:b/c@0.1.0-rc.1" (instance))', "does not offer it", id="pre-release"),
    pytest.param('(import "a:b/c@0.1.0-rc.1+5" (instance))', "not a version", id="build"),
]


@pytest.mark.case("TYP-10", "LOG-07")
@pytest.mark.parametrize(("text", "word"), REFUSED)
def test_refuses_an_import_of_an_odd_kind(engine: PluginEngine, text: str, word: str) -> None:
    import wasmtime

    component = Compiler(engine, None).compile(bytes(wasmtime.wat2wasm(f"(component {text})")))
    with pytest.raises(LinkError, match=word) as caught:
        link(engine, component, [], owners={}, unserved=lambda _: None)
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


def test_a_list_of_faults_ends_somewhere(engine: PluginEngine) -> None:
    import wasmtime

    text = "".join(f'(import "a:b/c{n}" (instance))' for n in range(1_000))
    component = Compiler(engine, None).compile(bytes(wasmtime.wat2wasm(f"(component {text})")))
    with pytest.raises(LinkError, match="and 900 faults more"):
        link(engine, component, [], owners={}, unserved=lambda _: None)


@pytest.mark.case("TYP-09")
def test_refuses_one_resource_under_two_names(engine: PluginEngine) -> None:
    import wasmtime

    class One(Handle):
        pass

    class Two(Handle):
        pass

    offer = Interface("test:host/api@1.0.0", {}, resources={"one": One, "two": Two})
    for same, refused in (("(eq $one)", True), ("(sub resource)", False)):
        text = (
            '(component (import "test:host/api@1.0.0" (instance'
            f' (export "one" (type $one (sub resource))) (export "two" (type {same})))))'
        )
        component = Compiler(engine, None).compile(bytes(wasmtime.wat2wasm(text)))
        if refused:
            with pytest.raises(LinkError, match="same resource as one"):
                link(engine, component, [offer], owners={}, unserved=lambda _: None)
        else:
            link(engine, component, [offer], owners={}, unserved=lambda _: None)


@pytest.mark.case("RES-23")
def test_refuses_small_types_that_spell_out_to_huge_ones(engine: PluginEngine) -> None:
    import wasmtime

    types = "(type $t0 (tuple u8 u8))" + "".join(
        f"(type $t{n} (tuple $t{n - 1} $t{n - 1}))" for n in range(1, 17)
    )
    text = f'(component {types} (import "f" (func (param "x" $t16))))'
    component = Compiler(engine, None).compile(bytes(wasmtime.wat2wasm(text)))
    began = time.monotonic()
    with pytest.raises(LinkError, match="more than 20000 parts"):
        link(engine, component, [], owners={}, unserved=lambda _: None)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "version", ["1.0", "1.0.0.0", "+1.0.0", "1_0.0.0", "١.0.0", "1.0.0-", "1.0.0-a_b", " 1.0.0"]
)
def test_refuses_what_only_looks_like_a_version(version: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        split_version(f"a:b/c@{version}")
    assert split_version("a:b/c@1.2.30") == ("a:b/c", (1, 2, 30))


def test_a_draft_stands_for_itself_alone() -> None:
    assert split_version("a:b/c@1.0.0-rc.1") == ("a:b/c@1.0.0-rc.1", (0, 0, 0))
    assert split_version("a:b/c@1.0.0-rc.1") != split_version("a:b/c@1.0.0-rc.2")


def test_limits_are_what_they_say() -> None:
    assert Limits() == DEFAULTS
