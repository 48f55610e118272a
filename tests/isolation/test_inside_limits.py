"""A guest in a process of its own meets the same limits, in the same words, as one in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import Linked
from capwasm.errors import CapwasmError, GuestTrap, ValueLimitExceeded
from capwasm.instance import Instance
from capwasm.limits import DEFAULTS
from capwasm_shim.protocol import Outcome
from tests.kit import ListServed, World, guest

from .conftest import Enter
from .scripted import Failed

ENDS: list[Any] = [
    pytest.param("trap", (), {}, id="unreachable"),
    pytest.param("divide", (1, 0), {}, id="division", marks=pytest.mark.case("LIFE-04")),
    pytest.param("outside", (), {}, id="memory", marks=pytest.mark.case("RES-26")),
    pytest.param("not-utf8", (), {}, id="utf8", marks=pytest.mark.case("TYP-06")),
    pytest.param("bad-char", (), {}, id="char", marks=pytest.mark.case("TYP-07")),
    pytest.param("bad-case", (), {}, id="case", marks=pytest.mark.case("TYP-07")),
    pytest.param("spin", (), {"fuel": 10**6}, id="fuel", marks=pytest.mark.case("RES-01")),
    pytest.param("recurse", (), {}, id="stack", marks=pytest.mark.case("RES-12")),
    pytest.param("claim", (5_000,), {"value_bytes": 50_000}, id="a list that is claimed"),
]


def in_process(engine: PluginEngine, linked: Linked, limits: dict[str, int]) -> Instance:
    instance = Instance(
        engine, linked, "test.guest@1.0.0", replace(DEFAULTS, **limits), ListServed([])
    )
    instance.start()
    return instance


@pytest.mark.parametrize(("name", "args", "limits"), ENDS)
def test_a_guest_ends_as_it_does_in_process(
    enter: Enter,
    linked: Callable[..., Linked],
    own_engine: PluginEngine,
    name: str,
    args: tuple[Any, ...],
    limits: dict[str, int],
) -> None:
    instance = in_process(own_engine, linked(guest("hostile")), limits)
    export = instance._linked.exports.find(name)
    with pytest.raises(CapwasmError) as caught:
        instance.call(export, args)
    survives = instance.alive
    instance.close()
    process = enter(guest("hostile"), **limits)
    with pytest.raises(Failed) as told:
        process.call(name, *args)
    assert told.value.outcome == Outcome.FAILED
    assert told.value.said == [caught.value.code, caught.value.message]
    assert bool(process.stats[1]) is survives
    if survives:
        process.close_instance()
        process.open()
        assert process.call("count") == 1
        return
    # It is gone, and another one starts on the same lane, as fresh as any.
    with pytest.raises(Failed) as closed:
        process.call("count")
    assert closed.value.code == "guest.closed"
    process.open()
    assert process.call("count") == 1


def test_limits_that_the_guest_is_told_of(enter: Enter) -> None:
    process = enter(guest("hostile"), memory=64 * 65536, table_elements=1000)
    assert process.call("grow-memory", 64) == -1
    assert process.call("grow-table", 1000) == -1
    assert process.call("grow-memory", 63) == 1
    assert process.call("grow-table", 999) == 1


@pytest.mark.case("RES-18")
def test_a_result_that_is_too_large_leaves_the_instance_as_it_was(enter: Enter) -> None:
    process = enter(guest("hostile"), value_bytes=100_000)
    assert process.call("count") == 1
    with pytest.raises(Failed) as told:
        process.call("bytes", 200_000)
    assert told.value.code == "limit.value"
    assert process.stats[1] > 0
    assert process.call("count") == 2


def test_lists_as_large_as_allowed_cross_by_the_window(enter: Enter) -> None:
    process = enter(guest("hostile"), value_bytes=4_000_000)
    assert process.call("size", bytes(4_000_000)) == 4_000_000
    assert process.call("bytes", 3_900_000) == b"a" * 3_900_000


@pytest.mark.case("RES-25")
def test_a_start_that_goes_over_a_limit(enter: Enter, linked: Callable[..., Linked]) -> None:
    spins = (
        "(component (core module $m (func $f (loop $l (br $l))) (start $f))"
        " (core instance (instantiate $m)))"
    )
    with pytest.raises(Failed) as told:
        enter(bytes(wasmtime.wat2wasm(spins)), fuel=10**6)
    assert told.value.code == "limit.fuel"
    with pytest.raises(Failed) as told:
        enter(guest("hostile"), memory=65536 // 2)
    assert told.value.code == "limit.memory"


def test_fuel_is_told(enter: Enter) -> None:
    process = enter(guest("hostile"))
    process.call("divide", 7, 2)
    few = process.stats[0]
    process.call("bytes", 100_000)
    assert 0 < few < 100 < 10_000 < process.stats[0]


# -- through the runtime, whose host side counts what the process must not be believed ----------------


def both_ways(root: Path, code: str, manifest: str, *call: Any) -> list[CapwasmError]:
    """What ends the call, in this process and in one of its own."""
    ends = []
    for way in ("in-process", "process"):
        (root / way).mkdir()
        world = World(root / way)
        own = '[isolation]\nprocess = ["test.*"]\n' if way == "process" else ""
        world.policy('[plugins."test.guest".log]\n[plugins."test.guest".clock]\n' + own)
        try:
            if code == "prober":
                plugin = world.prober(manifest, instance="pooled").plugin
            else:
                plugin = world.load(guest(code), manifest, instance="pooled")
            with pytest.raises(CapwasmError) as told:
                plugin.call(*call)
            ends.append(told.value)
        finally:
            world.close()
    return ends


LIMITS: list[Any] = [
    pytest.param(
        "hostile", "[limits]\nwall-ms = 100\n", ("spin",), marks=pytest.mark.case("RES-02")
    ),
    pytest.param(
        "hostile", "[limits]\nfuel = 100000\n", ("spin",), marks=pytest.mark.case("RES-01")
    ),
    pytest.param("hostile", "", ("recurse",), marks=pytest.mark.case("RES-12")),
    pytest.param("hostile", "[limits]\nvalue-bytes = 50000\n", ("bytes", 60_000)),
    pytest.param("hostile", "[limits]\nvalue-bytes = 50000\n", ("claim", 5_000)),
    pytest.param("hostile", "", ("trap",), marks=pytest.mark.case("LIFE-04")),
    pytest.param(
        "prober",
        "[limits]\nhost-calls = 10\n[clock]\n",
        ("run", "clock.loop", ["100"]),
        marks=pytest.mark.case("RES-14"),
    ),
    pytest.param(
        "prober",
        "[limits]\noutput-bytes = 1000\n[log]\n",
        ("run", "std.print-flood", ["5000"]),
        marks=pytest.mark.case("LOG-01"),
    ),
    pytest.param("prober", "[limits]\nmemory = 8388608\n", ("run", "alloc", ["100000000"])),
]


@pytest.mark.parametrize(("code", "manifest", "call"), LIMITS)
def test_the_caller_gets_the_same_error(
    tmp_path: Path, code: str, manifest: str, call: tuple[Any, ...]
) -> None:
    here, there = both_ways(tmp_path, code, manifest, *call)
    assert (type(there), there.code, there.message) == (type(here), here.code, here.message)


@pytest.mark.parametrize("way", ["in-process", "process"])
def test_a_result_that_is_too_large_costs_the_caller_no_state(tmp_path: Path, way: str) -> None:
    world = World(tmp_path)
    world.policy('[isolation]\nprocess = ["test.*"]\n' if way == "process" else "")
    try:
        plugin = world.load(guest("hostile"), "[limits]\nvalue-bytes = 50000\n", instance="single")
        assert plugin.call("count") == 1
        with pytest.raises(ValueLimitExceeded):
            plugin.call("bytes", 60_000)
        with pytest.raises(TypeError, match="expected u32"):
            plugin.call("divide", "1", 2)
        assert plugin.call("count") == 2
        with pytest.raises(GuestTrap):
            plugin.call("trap")
        assert plugin.call("count") == 1
    finally:
        world.close()
