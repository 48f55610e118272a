"""Slots of a pool: nothing of one instance is left for the next, and a machine may have none."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from capwasm.engine import pool
from capwasm.engine.compiled import Compiled
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import Linked, link
from capwasm.engine.pool import Capacity
from capwasm.errors import (
    CapwasmError,
    FuelExhausted,
    GuestTrap,
    InstanceClosedError,
    InstancesExceeded,
)
from capwasm.instance import Instance
from capwasm.limits import DEFAULTS
from tests.kit import GUESTS, ListServed

PAGE = 65536
END = 20 * PAGE
IMAGES = {"": "", "image": '(data (i32.const 100) "abc") (data (i32.const 900000) "de")'}


def tenant(engine: PluginEngine, image: str = "") -> Linked:
    text = (GUESTS / "tenant.wat").read_text().replace(";; IMAGE\n", IMAGES[image] + "\n", 2)
    component = wasmtime.component.Component(engine.wasm, bytes(wasmtime.wat2wasm(text)))
    return link(engine, Compiled(component), [], owners={}, unserved=lambda _: None)


def opened(engine: PluginEngine, linked: Linked, **limits: int) -> Instance:
    instance = Instance(engine, linked, "t@1", replace(DEFAULTS, **limits), ListServed([]))
    instance.start()
    return instance


def call(instance: Instance, name: str, *args: Any) -> Any:
    return instance.call(instance._linked.exports.find(name), args)[0]


@pytest.fixture
def one_slot(monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginEngine]:
    """A pool with one place for a memory and one for a table: whoever comes next has to take it."""
    for name, value in {"FEWEST_MEMORIES": 1, "FEWEST_TABLES": 1, "TABLES_EACH": 1}.items():
        monkeypatch.setattr(pool, name, value)
    engine = PluginEngine(Capacity(1))
    assert engine.why_not_pooled == ""
    yield engine
    engine.close()


@pytest.fixture
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine(Capacity(100))
    yield engine
    engine.close()


# -- what the next one finds -------------------------------------------------------------------------


def returns(_instance: Instance) -> None:
    pass


def traps(instance: Instance) -> None:
    with pytest.raises(GuestTrap):
        call(instance, "trap")


def runs_out(instance: Instance) -> None:
    with pytest.raises(FuelExhausted):
        call(instance, "spin")


@pytest.mark.parametrize("end", [returns, traps, runs_out])
@pytest.mark.parametrize("first", IMAGES)
@pytest.mark.parametrize("then", IMAGES)
def test_refuses_to_show_what_another_left_in_the_slot(
    one_slot: PluginEngine, first: str, then: str, end: Callable[[Instance], None]
) -> None:
    before, after = tenant(one_slot, first), tenant(one_slot, then)
    own = {"": 0, "image": 5}

    instance = opened(one_slot, before, fuel=50_000_000)
    assert call(instance, "traces", 0, END) == own[first]
    # Past its first size too, and more of the table than is wiped by hand.
    assert call(instance, "grow", 20) == 20
    call(instance, "mark", 0, 2 * END)
    assert call(instance, "traces", 0, 2 * END) == 2 * END + 2020 + 7
    end(instance)
    instance.close()

    instance = opened(one_slot, after, fuel=50_000_000)
    assert call(instance, "traces", 0, END) == own[then]
    with pytest.raises(GuestTrap, match="out of bounds"):
        call(instance, "traces", 0, END + 1)
    instance.close()
    instance = opened(one_slot, after, fuel=50_000_000)
    assert call(instance, "grow", 20) == 20
    assert call(instance, "traces", 0, 2 * END) == own[then]
    instance.close()


# -- how many ------------------------------------------------------------------------------------------


def test_refuses_more_instances_than_there_is_room_for(one_slot: PluginEngine) -> None:
    linked = tenant(one_slot)
    first = opened(one_slot, linked)
    with pytest.raises(InstancesExceeded, match=r"Capacity\.instances") as caught:
        opened(one_slot, linked)
    assert caught.value.code == "limit.capacity"
    first.close()
    opened(one_slot, linked).close()


def test_refuses_by_the_same_word_when_the_engine_has_no_slot(one_slot: PluginEngine) -> None:
    # A plugin with several memories takes several slots, which only the engine counts.
    one_slot.instances = 10
    linked = tenant(one_slot)
    first = opened(one_slot, linked)
    with pytest.raises(InstancesExceeded) as caught:
        opened(one_slot, linked)
    assert caught.value.code == "limit.capacity"
    assert call(first, "traces", 0, END) == 0
    assert one_slot.live == 1
    first.close()
    opened(one_slot, linked).close()
    assert one_slot.live == 0


def test_the_count_holds_without_a_pool_too() -> None:
    engine = PluginEngine(Capacity(2, pooled=False))
    linked = tenant(engine)
    held = [opened(engine, linked) for _ in range(2)]
    with pytest.raises(InstancesExceeded):
        opened(engine, linked)
    held.pop().close()
    opened(engine, linked).close()
    held.pop().close()
    engine.close()


@pytest.mark.parametrize("count", [0, -1, 10_001, 1.0, True, "10"])
def test_refuses_a_capacity_that_bounds_nothing(count: Any) -> None:
    with pytest.raises(ValueError, match="from 1 to 10000"):
        Capacity(count)


@pytest.mark.parametrize("count", [-1, 17, 1.0, True])
def test_refuses_to_keep_more_ready_than_a_few(count: Any) -> None:
    with pytest.raises(ValueError, match="from 0 to 16"):
        Capacity(ready=count)
    assert Capacity(ready=0).ready == 0


def test_allows_every_capacity_from_one_to_ten_thousand() -> None:
    for count in (1, 10_000):
        engine = PluginEngine(Capacity(count))
        assert (engine.instances, engine.why_not_pooled) == (count, "")
        opened(engine, tenant(engine)).close()
        engine.close()


# -- machines that have no room ----------------------------------------------------------------------------


def _works(engine: PluginEngine) -> None:
    instance = opened(engine, tenant(engine, "image"))
    call(instance, "mark", 0, END)
    instance.close()
    instance = opened(engine, tenant(engine, "image"))
    assert call(instance, "traces", 0, END) == 5
    instance.close()
    engine.close()


WITHOUT = [
    ("/proc/sys/vm/overcommit_memory", "2\n", "overcommit_memory"),
    ("", "", "no address space for 100 instances"),
]


@pytest.mark.parametrize(("path", "text", "word"), WITHOUT)
def test_allows_instances_without_a_pool_and_says_why(
    monkeypatch: pytest.MonkeyPatch, path: str, text: str, word: str
) -> None:
    read = pool._read
    monkeypatch.setattr(pool, "_read", lambda p: text if p == path else read(p))
    if not path:
        monkeypatch.setattr(pool, "_has_room", lambda *_: False)
    engine = PluginEngine(Capacity(100))
    assert word in engine.why_not_pooled
    _works(engine)


def test_a_switched_off_pool_is_none() -> None:
    engine = PluginEngine(Capacity(100, pooled=False))
    assert engine.why_not_pooled == "switched off"
    _works(engine)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_process_with_little_address_space_starts_without_a_pool(limit: str) -> None:
    # The engine itself would abort the process.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                f"""
                import resource
                resource.setrlimit(resource.{limit}, (64 << 30, 64 << 30))
                from tests.engine.test_pool import PluginEngine, _works
                engine = PluginEngine()
                print(engine.why_not_pooled)
                _works(engine)
                """
            ),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("no address space for 1024 instances")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_engine_takes_no_more_than_what_was_tried() -> None:
    def size() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

    for count in (1, 100, 5_000):
        before = size()
        made = pool.make_engine(Capacity(count))
        assert made.pooled
        # Less than half of the slots would mean that the sum is of something else.
        assert sum(pool._bytes(count)) / 2 < size() - before <= sum(pool._bytes(count))
        del made
        gc.collect()


def test_a_machine_with_few_mappings_holds_fewer_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    read = pool._read
    monkeypatch.setattr(
        pool, "_read", lambda p: "800\n" if p.endswith("max_map_count") else read(p)
    )
    assert pool.make_engine(Capacity(4_000)).instances == 150
    assert pool.make_engine(Capacity(10)).instances == 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_tables_are_kept_in_small_pages_where_huge_ones_are_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def marked() -> int:
        size = count = 0
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if line.startswith("Size:"):
                size = int(line.split()[1]) * 1024
            elif line.startswith("VmFlags:") and size >= pool._bytes(100)[1]:
                count += " nh" in line
        return count

    read = pool._read
    before = marked()
    assert pool.make_engine(Capacity(100)).pooled
    assert marked() == before
    monkeypatch.setattr(
        pool, "_read", lambda p: "[always] never" if "transparent" in p else read(p)
    )
    kept = pool.make_engine(Capacity(100))
    assert kept.pooled
    assert marked() == before + 1


# -- stores ------------------------------------------------------------------------------------------------


@pytest.mark.case("LIFE-01", "LIFE-03")
def test_a_store_is_closed_once_whoever_asks_how_often(engine: PluginEngine) -> None:
    store = engine.new_store(DEFAULTS)
    assert engine.live == 1
    threads = [threading.Thread(target=store.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert engine.live == 0
    # The address may be another store's by now.
    others = [engine.new_store(DEFAULTS) for _ in range(20)]
    store.close()
    del store
    gc.collect()
    assert engine.live == 20
    for other in others:
        other.set_fuel(5)
        assert other.get_fuel() == 5


@pytest.mark.case("LIFE-04")
def test_a_closed_store_reaches_no_function_of_the_engine(engine: PluginEngine) -> None:
    store = engine.new_store(DEFAULTS)
    linked = tenant(engine)
    store.close()
    uses = (lambda: store.set_fuel(1), store.get_fuel, lambda: linked.startable.start(store))
    for use in uses:
        with pytest.raises(ctypes.ArgumentError):
            use()


@pytest.mark.case("LIFE-12")
def test_a_store_that_nobody_holds_is_given_back(engine: PluginEngine) -> None:
    store = engine.new_store(DEFAULTS)
    del store
    gc.collect()
    assert engine.live == 0


def test_a_guest_without_fuel_does_not_run(engine: PluginEngine) -> None:
    from capwasm.call import CallRecord, entered
    from capwasm.engine.crossing import EngineFault

    linked = tenant(engine)
    store = engine.new_store(DEFAULTS)
    store.set_fuel(1_000)
    with entered(CallRecord("t@1", "x", DEFAULTS)):
        started = linked.startable.start(store)
    func = started.func(("", "mark"))
    bound = linked.plans.export("", "mark").bind(store, func, object())
    fresh = engine.new_store(DEFAULTS)
    assert fresh.get_fuel() == 0
    store.set_fuel(0)
    with entered(CallRecord("t@1", "x", DEFAULTS)), pytest.raises(EngineFault, match="fuel"):
        bound((0, 10))
    store.close()
    fresh.close()


# -- many --------------------------------------------------------------------------------------------------


def _files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("pooled", [True, False])
def test_memory_and_descriptors_stay_flat_over_thousands_of_instances(pooled: bool) -> None:
    engine = PluginEngine(Capacity(300, pooled=pooled))
    linked = tenant(engine)

    def generation() -> None:
        held = [opened(engine, linked) for _ in range(300)]
        for instance in held:
            call(instance, "mark", 0, 10_000)
        for instance in held:
            instance.close()
        with pytest.raises(InstanceClosedError):
            call(held[0], "mark", 0, 1)

    for _ in range(2):
        generation()
    gc.collect()
    before, files = _resident(), _files()
    for _ in range(10):
        generation()
    gc.collect()
    # 3,000 instances: a single page that stays for each would be 12 MB.
    assert _resident() - before < 4 << 20
    assert _files() == files
    assert engine.live == 0
    engine.close()


def test_starts_that_fail_give_their_slots_back(one_slot: PluginEngine) -> None:
    linked = tenant(one_slot)
    for _ in range(50):
        with pytest.raises(CapwasmError):
            opened(one_slot, linked, memory=PAGE)
    opened(one_slot, linked).close()
