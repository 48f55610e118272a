"""A plugin whose instances trap when they start waits, in process too; and the core is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from capwasm.errors import GuestError
from capwasm.monitor.told import Lifecycle, LifecycleKind
from tests.kit import World, guest

# Its start traps from that moment on, in nanoseconds since 1970.
MORTAL = """
(component
  (import "capwasm:clock/clock@0.1.0" (instance $clock (export "now" (func (result u64)))))
  (alias export $clock "now" (func $now))
  (core func $now' (canon lower (func $now)))
  (core module $m
    (import "host" "now" (func $now (result i64)))
    (func $begin (if (i64.gt_u (call $now) (i64.const {until})) (then unreachable)))
    (start $begin)
    (func (export "one") (result i32) (i32.const 1)))
  (core instance $i (instantiate $m (with "host" (instance (export "now" (func $now'))))))
  (func (export "one") (result u32) (canon lift (core func $i "one"))))
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.policy('[plugins."test.*".clock]\n')
    yield world
    world.close()


def fails(plugin: Any) -> str:
    with pytest.raises(GuestError) as caught:
        plugin.call("one")
    return caught.value.code


def test_starts_that_trap_in_a_row_must_wait(world: World) -> None:
    end = time.time() + 2
    code = bytes(wasmtime.wat2wasm(MORTAL.format(until=int(end * 1e9))))
    plugin = world.load(code, "[clock]\n")
    got: list[Lifecycle] = []
    world.runtime.subscribe(got.append)
    assert [plugin.call("one") for _ in range(5)] == [1] * 5
    time.sleep(max(0.0, end - time.time()) + 0.2)
    plugin.forget_ready()

    assert [fails(plugin) for _ in range(6)] == ["guest.trap"] * 3 + ["guest.backoff"] * 3
    assert len(world.events("crash")) == 3, "a refusal is no crash"
    world.runtime.recorder.flush()  # type: ignore[attr-defined]
    (waits,) = [e for e in world.events("instance") if e["action"] == "back-off"]
    assert waits["details"] == {"crashes": 3, "seconds": 0.8}
    time.sleep(0.9)
    assert [fails(plugin) for _ in range(2)] == ["guest.trap", "guest.backoff"], "and it is tried"
    kinds = [e.kind for e in got]
    assert kinds.count(LifecycleKind.BACK_OFF) >= 1
    told = next(e for e in got if e.kind is LifecycleKind.BACK_OFF)
    assert (told.plugin, told.code) == ("test.guest", "guest.backoff")
    assert told.text == "test.guest keeps crashing; it is tried again in a moment."


def test_refuses_to_make_a_plugin_wait_for_traps_in_calls(world: World) -> None:
    plugin = world.load(guest("hostile"))
    for _ in range(10):
        with pytest.raises(GuestError) as caught:
            plugin.call("trap")
        assert caught.value.code == "guest.trap"
    assert [e for e in world.events("instance") if e["action"] == "back-off"] == []


def test_refuses_to_count_what_the_host_ended(world: World) -> None:
    plugin = world.load(guest("hostile"))
    plugin.evict("enough")
    for _ in range(5):
        with pytest.raises(GuestError) as caught:
            plugin.call("trap")
        assert caught.value.code == "guest.closed"
