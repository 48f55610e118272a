"""The lane from the compiler to an instance: which plugins get it, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from capwasm.engine import compile as module
from capwasm.engine.compile import CompileLimits, Compiler
from capwasm.engine.compiled import Compiled
from capwasm.engine.engine import PluginEngine
from capwasm.engine.lane.wire import LANE_EXPORTS, LANE_IMPORTS, MODULE, pages_for
from capwasm.engine.link import Linked, link
from capwasm.errors import (
    ArtifactError,
    CapwasmError,
    DeadlineExceeded,
    FuelExhausted,
    GuestTrap,
    LinkError,
    MemoryLimitExceeded,
    ValueLimitExceeded,
)
from capwasm.instance import Instance
from capwasm.limits import DEFAULTS
from tests.kit import ListServed, guest

BOTH = pytest.mark.parametrize("lane", [True, False], ids=["lane", "plain"])


@pytest.fixture(scope="module")
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def linked(engine: PluginEngine) -> Callable[..., Linked]:
    """A guest without imports, compiled with the lane or without."""
    made: dict[Any, Linked] = {}

    def make(code: bytes, *, lane: bool = True, value_bytes: int = DEFAULTS.value_bytes) -> Linked:
        key = code, lane, value_bytes
        if key not in made:
            compiled = Compiler(engine, None, lane=lane).compile(code, value_bytes=value_bytes)
            assert compiled.laned == lane
            made[key] = link(engine, compiled, [], owners={}, unserved=lambda _: None)
        return made[key]

    return make


@pytest.fixture
def new(engine: PluginEngine, linked: Callable[..., Linked]) -> Iterator[Callable[..., Instance]]:
    made = []

    def make(code: bytes = b"", *, lane: bool = True, **limits: int) -> Instance:
        value_bytes = limits.get("value_bytes", DEFAULTS.value_bytes)
        found = linked(code or guest("hostile"), lane=lane, value_bytes=value_bytes)
        instance = Instance(engine, found, "t@1", replace(DEFAULTS, **limits), ListServed([]))
        instance.start()
        made.append(instance)
        return instance

    yield make
    for instance in made:
        instance.close()


def call(instance: Instance, name: str, *args: Any) -> Any:
    return instance.call(instance._linked.exports.find(name), args)[0]


def wasm(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(f"(component {text})"))


# -- who gets it ---------------------------------------------------------------------------------------


def test_says_which_functions_take_it(linked: Callable[..., Linked]) -> None:
    assert linked(guest("hostile")).laned == ("bytes", "claim", "outside", "size")
    assert linked(guest("hostile"), lane=False).laned == ()


@pytest.mark.parametrize("name", ["keeper", "caller", "resource", "deep"])
def test_a_plugin_without_lists_is_compiled_as_it_came(engine: PluginEngine, name: str) -> None:
    compiled = Compiler(engine, None).compile(guest(name))
    assert not compiled.laned
    assert compiled.types is not None


def test_what_a_plugin_imports_and_exports_is_its_own(linked: Callable[..., Linked]) -> None:
    laned, plain = (linked(guest("hostile"), lane=lane) for lane in (True, False))
    assert laned.types == plain.types
    assert [e.whole for e in laned.exports] == [e.whole for e in plain.exports]


MIMIC = """
  (core module $m (memory (export "m") 1)
    (func (export "f") (param i32 i32) (result i32) (i32.store (i32.const 4) (i32.const 7))
      (i32.const 0))
    (func (export "r") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
  (core instance $i (instantiate $m))
  (func $f (param "args" string) (result string)
    (canon lift (core func $i "f") (memory (core memory $i "m")) (realloc (core func $i "r"))))
  (func $g (param "x" (list u8)) (result string)
    (canon lift (core func $i "f") (memory (core memory $i "m")) (realloc (core func $i "r"))))
  (instance $e (export "f0" (func $f)) (export "g" (func $g)))
  (export "{name}" (instance $e))
  (export "g" (func $g))
"""


@pytest.mark.case("TYP-10")
def test_a_plugin_that_calls_an_export_as_ours_has_only_a_name(engine: PluginEngine) -> None:
    compiled = Compiler(engine, None).compile(wasm(MIMIC.format(name=LANE_EXPORTS)))
    assert not compiled.laned
    linked = link(engine, compiled, [], owners={}, unserved=lambda _: None)
    assert linked.laned == ()
    instance = Instance(engine, linked, "t@1", DEFAULTS, ListServed([]))
    instance.start()
    assert call(instance, f"{LANE_EXPORTS}#f0", "x") == "\0\0\0\0\7\0\0", "as any other of its own"
    assert call(instance, f"{LANE_EXPORTS}#g", b"x") == "\0\0\0\0\7\0\0"
    instance.close()
    # Under another name it has the lane, and all of its functions are what they were.
    other = Compiler(engine, None).compile(wasm(MIMIC.format(name="test:x/y@1.0.0")))
    assert other.laned


@pytest.mark.case("TYP-10")
def test_refuses_a_plugin_that_imports_what_is_ours(engine: PluginEngine) -> None:
    text = f'(import "{LANE_IMPORTS}" (instance (export "f0" (func (param "args" string)))))'
    compiled = Compiler(engine, None).compile(wasm(text))
    assert not compiled.laned
    with pytest.raises(LinkError) as caught:
        link(engine, compiled, [], owners={}, unserved=lambda _: None)
    assert caught.value.code == "link.unknown-import"
    assert caught.value.faults[0].path == LANE_IMPORTS


def test_refuses_an_invalid_plugin_in_the_same_words(engine: PluginEngine) -> None:
    # The body of one function returns nothing; its skeleton is a good component.
    code = guest("hostile").replace(b"\x20\x01\x0b", b"\x01\x01\x0b", 1)
    assert code != guest("hostile")
    told = []
    for lane in (True, False):
        with pytest.raises(ArtifactError) as caught:
            Compiler(engine, None, lane=lane).compile(code)
        told.append(caught.value.message)
    assert told[0] == told[1]


@pytest.mark.case("RES-22")
def test_a_plugin_that_takes_all_the_time_there_is_does_not_get_it_twice(
    engine: PluginEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def slow(code: bytes, *_: object) -> None:
        asked.append(code)
        monkeypatch.setattr(module.time, "monotonic", lambda: 1e9)
        raise ArtifactError("compiling was stopped", code="artifact.compile-limit")

    monkeypatch.setattr(module, "compile_apart", slow)
    with pytest.raises(ArtifactError, match="was stopped"):
        Compiler(engine, None, CompileLimits(seconds=10)).compile(guest("hostile"))
    assert len(asked) == 1


# -- the cache -----------------------------------------------------------------------------------------


def entries(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.glob("*.cwasm"))


def was_compiled(compiler: Compiler, code: bytes, **how: int) -> tuple[bool, Compiled]:
    real, count = module.compile_apart, []
    module.compile_apart = lambda *a: (count.append(1), real(*a))[1]  # type: ignore[assignment]
    try:
        compiled = compiler.compile(code, **how)
    finally:
        module.compile_apart = real
    return bool(count), compiled


@pytest.mark.case("SIG-22", "PER-04")
def test_refuses_an_entry_that_was_given_another_kind(engine: PluginEngine, tmp_path: Path) -> None:
    Compiler(engine, tmp_path).compile(guest("hostile"))
    (name,) = entries(tmp_path)
    assert name.endswith(".laned.cwasm")
    (tmp_path / name).rename(tmp_path / name.replace(".laned", ""))
    fresh, compiled = was_compiled(Compiler(engine, tmp_path), guest("hostile"))
    assert fresh
    assert compiled.laned
    assert entries(tmp_path) == [name]


@pytest.mark.case("SIG-22", "PER-04")
def test_refuses_a_plain_entry_as_one_with_the_lane(engine: PluginEngine, tmp_path: Path) -> None:
    Compiler(engine, tmp_path).compile(wasm(MIMIC.format(name=LANE_EXPORTS)))
    (name,) = entries(tmp_path)
    (tmp_path / name).rename(tmp_path / name.replace(".cwasm", ".laned.cwasm"))
    fresh, compiled = was_compiled(
        Compiler(engine, tmp_path), wasm(MIMIC.format(name=LANE_EXPORTS))
    )
    assert fresh
    assert not compiled.laned


def test_the_cache_keeps_what_was_compiled_with_and_without(
    engine: PluginEngine, tmp_path: Path
) -> None:
    for lane in (True, False, True, False):
        fresh, compiled = was_compiled(Compiler(engine, tmp_path, lane=lane), guest("hostile"))
        assert compiled.laned == lane
        assert fresh == (len(entries(tmp_path)) < 3 and fresh)
    assert len(entries(tmp_path)) == 2


def test_limits_of_one_class_share_an_entry(engine: PluginEngine, tmp_path: Path) -> None:
    fresh = [
        was_compiled(Compiler(engine, tmp_path), guest("hostile"), value_bytes=size)[0]
        for size in (4 << 20, 3 << 20, 4_000_000, 5 << 20, 8 << 20)
    ]
    assert fresh == [True, False, False, True, False]
    assert pages_for(1) < pages_for(1 << 20) < pages_for(1 << 28) < 1 << 15


# -- the same values, limits and ends -----------------------------------------------------------------


@BOTH
def test_allows_the_same_calls(new: Callable[..., Instance], lane: bool) -> None:
    instance = new(lane=lane)
    assert call(instance, "claim", 3) == [b"", b"", b""]
    for size in (0, 1, 15, 16, 17, 1000, 200_000):
        assert call(instance, "bytes", size) == b"a" * size
        assert call(instance, "size", bytes(size)) == size
    assert call(instance, "text", 10) == "a" * 10


SAME_END: list[Any] = [
    ("trap", (), {}, GuestTrap),
    ("outside", (), {}, GuestTrap),
    ("bytes", (2_000_000,), {"value_bytes": 100_000}, ValueLimitExceeded),
    ("size", (b"x" * 200_000,), {"value_bytes": 100_000}, ValueLimitExceeded),
    ("size", (b"x" * 200_000,), {"memory": 4 * 65536}, GuestTrap),
    ("bytes", (3_000_000,), {"fuel": 2_000_000}, FuelExhausted),
]


@pytest.mark.case("RES-16", "RES-17", "TYP-06")
@BOTH
@pytest.mark.parametrize(("name", "args", "limits", "error"), SAME_END)
def test_ends_alike(
    new: Callable[..., Instance],
    lane: bool,
    name: str,
    args: tuple[Any, ...],
    limits: dict[str, int],
    error: type[Exception],
) -> None:
    instance = new(lane=lane, **limits)
    with pytest.raises(error) as caught:
        call(instance, name, *args)
    assert type(caught.value) is error
    assert MODULE not in str(caught.value), "the plugin's author is told of the plugin's code"
    # Arguments are measured before the guest is entered.
    assert instance.alive == (name == "size" and error is ValueLimitExceeded) or name == "bytes"


@pytest.mark.case("RES-17")
def test_refuses_what_is_larger_than_the_lanes_memory_by_its_name(
    new: Callable[..., Instance],
) -> None:
    # More than the host would read: the lane has no room for it.
    with pytest.raises(ValueLimitExceeded, match="value-bytes"):
        call(new(value_bytes=1_000), "bytes", 1_000_000)


@pytest.mark.case("RES-07")
def test_the_lanes_memory_is_under_the_plugins_limit_too(new: Callable[..., Instance]) -> None:
    # The guest takes seventeen pages, which is all; the lane would take more than that.
    instance = new(memory=17 * 65536)
    assert call(instance, "bytes", 900_000) == b"a" * 900_000
    with pytest.raises(MemoryLimitExceeded):
        call(new(memory=17 * 65536), "bytes", 950_000)


@pytest.mark.case("RES-03")
def test_what_is_copied_is_paid_for(new: Callable[..., Instance]) -> None:
    instance = new()
    export = instance._linked.exports.find("size")
    small, large = (instance.call(export, (bytes(n),))[1].fuel for n in (1_000, 1_000_000))
    assert large - small > 500_000


def pointing(instance: Instance) -> Instance:
    """With room for four million empty lists, which the guest has only to point at."""
    assert call(instance, "grow-memory", 600) == 1
    return instance


@pytest.mark.case("RES-01", "RES-16")
def test_the_lanes_own_work_ends_with_the_fuel(new: Callable[..., Instance]) -> None:
    instance = pointing(new(value_bytes=64 << 20, fuel=3_000_000))
    with pytest.raises(FuelExhausted):
        call(instance, "claim", 4_000_000)


@pytest.mark.case("RES-01", "RES-16")
def test_the_lanes_own_work_ends_with_the_time(new: Callable[..., Instance]) -> None:
    instance = pointing(new(value_bytes=64 << 20, fuel=2**60))
    instance.limits = replace(instance.limits, wall_ms=1)
    with pytest.raises(DeadlineExceeded):
        call(instance, "claim", 4_000_000)


SETS = {
    "memories": ('(core module $m (memory 1) (memory 1) (memory (export "m") 1)', "memories", 3),
    "tables": (
        '(core module $m (table 1 funcref) (table 1 funcref) (memory (export "m") 1)',
        "tables",
        2,
    ),
    "instances": (
        """(core module $n) (core instance (instantiate $n)) (core instance (instantiate $n))
          (core module $m (memory (export "m") 1)""",
        "instances",
        3,
    ),
}
REST = """
    (func (export "size") (param i32 i32) (result i32) (local.get 1))
    (func (export "r") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
  (core instance $i (instantiate $m))
  (func (export "size") (param "x" (list u8)) (result u32)
    (canon lift (core func $i "size") (memory (core memory $i "m")) (realloc (core func $i "r"))))
"""


@pytest.mark.case("RES-07", "RES-08", "RES-09")
@BOTH
@pytest.mark.parametrize("kind", SETS)
def test_a_plugins_limits_count_what_is_its_own(
    new: Callable[..., Instance], lane: bool, kind: str
) -> None:
    head, limit, count = SETS[kind]
    limits = {"memories": 8, "tables": 8, "instances": 8}
    assert call(new(wasm(head + REST), lane=lane, **limits | {limit: count}), "size", b"abc") == 3
    with pytest.raises(CapwasmError, match=f"limits.{limit}"):
        new(wasm(head + REST), lane=lane, **limits | {limit: count - 1})


def test_ten_thousand_calls_leave_nothing(new: Callable[..., Instance]) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    instance = new()
    size = instance._linked.exports.find("size")
    echo = bytes(range(256)) * 40
    for _ in range(500):
        instance.call(size, (echo,))
        instance.call(size, (b"",))
    instance = new()
    before = resident()
    for _ in range(5_000):
        instance.call(size, (b"",))
        instance.call(instance._linked.exports.find("claim"), (5,))
    assert resident() - before < 4 << 20
