"""Instances made ahead: as fresh as any, and never one from before a change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm import ready
from capwasm.engine.pool import Capacity
from capwasm.errors import CallInterrupted, CapwasmError, InstanceClosedError, InstancesExceeded
from capwasm.plugin import Plugin
from tests.kit import World, guest
from tests.stages.test_stopping import until

GRANTS = "[clock]\n[random]\n"
POLICY = '[plugins."test.*".clock]\n[plugins."test.*".random]\n'


@pytest.fixture
def open_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**options: Any) -> World:
        world = World(tmp_path, **options)
        world.policy(POLICY)
        made.append(world)
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(open_world: Callable[..., World]) -> World:
    return open_world()


def starter(world: World, limits: str = "") -> Plugin:
    """A plugin that is slow to start, with as many ready as are kept."""
    plugin = world.load(guest("starter"), GRANTS + limits)
    assert plugin.call("count") == 1
    until(lambda: len(plugin._ready) == 2)
    return plugin


def live(world: World) -> int:
    return world.runtime._engine.live


# -- that there are any ----------------------------------------------------------------------------------


def test_allows_calls_on_instances_that_were_made_ahead_and_each_is_fresh(world: World) -> None:
    plugin = starter(world)
    waiting = {instance for _, instance in plugin._ready._waiting}
    seeds = [plugin.call("seed"), plugin.call("seed")]
    assert len({*seeds}) == 2
    assert not any(instance.alive for instance in waiting), "they served the calls"
    for _ in range(20):
        assert plugin.call("count") == 1
    until(lambda: len(plugin._ready) == 2)
    assert live(world) == 2


def test_keeps_none_for_a_plugin_that_starts_at_once(world: World) -> None:
    plugin = world.load(guest("hostile"))
    plugin._ready._slow = False  # whatever a busy machine made of its first start
    for _ in range(5):
        assert plugin.call("count") == 1
    assert len(plugin._ready) == 0
    assert live(world) == 0


@pytest.mark.parametrize("mode", ["pooled", "single"])
def test_keeps_none_for_a_plugin_whose_instances_are_used_again(world: World, mode: str) -> None:
    plugin = world.load(guest("starter"), GRANTS, instance=mode)
    assert [plugin.call("count") for _ in range(3)] == [1, 2, 3]
    assert len(plugin._ready) == 0
    assert live(world) == 1


def test_keeps_none_when_the_core_wants_none(open_world: Callable[..., World]) -> None:
    world = open_world(capacity=Capacity(ready=0))
    plugin = world.load(guest("starter"), GRANTS)
    for _ in range(3):
        assert plugin.call("count") == 1
    assert (len(plugin._ready), live(world)) == (0, 0)


def test_a_call_has_all_its_fuel_whatever_its_start_used(world: World) -> None:
    # The start takes 2 million rounds, and so does the call; not both together.
    plugin = starter(world, "[limits]\nfuel = 20000000\n")
    for _ in range(4):
        plugin.call("work", 2_000_000)
    with pytest.raises(CapwasmError, match="fuel"):
        plugin.call("work", 4_000_000)


def test_many_callers_at_once_each_get_a_fresh_one(world: World) -> None:
    plugin = starter(world)
    counts: list[int] = []

    def some() -> None:
        counts.extend(plugin.call("count") for _ in range(10))

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 40


# -- that none is used after a change ------------------------------------------------------------------------


@pytest.mark.case("LIFE-05", "LIFE-06")
def test_refuses_an_instance_that_was_started_before_a_grant_was_revoked(world: World) -> None:
    plugin = starter(world)
    plugin.revoke("clock", "a test")
    assert (len(plugin._ready), live(world)) == (0, 0)
    # Its start asks for the time; one that had been told would answer.
    with pytest.raises(CallInterrupted):
        plugin.call("count")


@pytest.mark.case("LIFE-05")
def test_refuses_an_instance_that_was_being_started_when_a_grant_was_revoked(world: World) -> None:
    plugin = starter(world)
    make = plugin._ready._make
    revoked = threading.Event()

    def make_and_revoke() -> Any:
        instance = make()
        plugin.revoke("clock", "a test")
        revoked.set()
        return instance

    plugin._ready._make = make_and_revoke
    plugin.call("count")
    assert revoked.wait(10)
    until(lambda: not plugin._ready._making)
    assert (len(plugin._ready), live(world)) == (0, 0)
    with pytest.raises(CallInterrupted):
        plugin.call("count")


def test_refuses_an_instance_of_before_a_secret_was_revoked(world: World) -> None:
    world.vault(token="x")
    plugin = starter(world)
    waiting = [instance for _, instance in plugin._ready._waiting]
    world.runtime.revoke_secret("token", "a test")
    assert not any(instance.alive for instance in waiting)
    assert plugin.call("count") == 1


@pytest.mark.case("LIFE-01")
def test_refuses_to_keep_any_that_was_killed_and_makes_others(world: World) -> None:
    plugin = starter(world)
    waiting = [instance for _, instance in plugin._ready._waiting]
    plugin.kill("a test")
    assert (len(plugin._ready), live(world)) == (0, 0)
    assert not any(instance.alive for instance in waiting)
    assert plugin.call("count") == 1
    until(lambda: len(plugin._ready) == 2)


@pytest.mark.case("LIFE-01")
@pytest.mark.parametrize("end", ["evict", "close"])
def test_nothing_is_left_of_a_plugin_that_is_gone(world: World, end: str) -> None:
    plugin = starter(world)
    plugin.call("count")  # one is being made now
    plugin.evict("a test") if end == "evict" else plugin.close()
    until(lambda: live(world) == 0)
    with pytest.raises(InstanceClosedError):
        plugin.call("count")
    time.sleep(0.05)
    assert (len(plugin._ready), live(world)) == (0, 0)


def test_refuses_one_that_waited_too_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = starter(world)
    stale = [instance for _, instance in plugin._ready._waiting]
    monkeypatch.setattr(ready, "FRESH_SECONDS", -1.0)
    assert plugin.call("count") == 1
    assert not any(instance.alive for instance in stale)
    monkeypatch.undo()
    until(lambda: len(plugin._ready) == 2)


def test_refuses_a_first_instance_that_waited_too_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = world.load(guest("hostile"))
    plugin._ready._slow = False  # whatever a busy machine made of its first start
    ((_, first),) = plugin._ready._waiting
    monkeypatch.setattr(ready, "FRESH_SECONDS", -1.0)
    assert plugin.call("count") == 1
    assert not first.alive
    assert live(world) == 0


# -- that none is made where there is no room ------------------------------------------------------------------


@pytest.mark.parametrize("short", ["memory", "instances"])
def test_makes_none_where_something_is_short(
    open_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, short: str
) -> None:
    if short == "memory":
        monkeypatch.setattr(ready, "_memory_left", lambda: 0.1)
    world = open_world(capacity=Capacity(2 if short == "instances" else 100))
    plugin = world.load(guest("starter"), GRANTS)
    # With a capacity of two, one that is open leaves no half free.
    with plugin.session():
        assert plugin.call("count") == 1
        until(lambda: not plugin._ready._making)
        assert (len(plugin._ready), live(world)) == (0, 1)


def test_instances_that_wait_make_room_for_other_plugins(open_world: Callable[..., World]) -> None:
    world = open_world(capacity=Capacity(instances=2))
    plugins = [world.load(guest("hostile"), id=f"test.p{n}") for n in range(4)]
    assert [plugin.call("count") for plugin in plugins] == [1] * 4
    # What is in use makes none.
    with plugins[0].session() as one, plugins[1].session() as other:
        with pytest.raises(InstancesExceeded):
            plugins[2].call("count")
        assert one.call("count") == other.call("count") == 1
    assert plugins[2].call("count") == 1


def test_the_memory_that_is_left_is_a_share() -> None:
    assert 0 < ready._memory_left() <= 1


def test_a_start_that_fails_ahead_is_on_record_once_and_the_call_tells(world: World) -> None:
    plugin = starter(world)
    plugin.revoke("clock", "a test")
    before = len(world.events("call"))
    for _ in range(3):
        with pytest.raises(CallInterrupted):
            plugin.call("count")
        until(lambda: not plugin._ready._making)
    # The call's own start, and at most one that was made ahead for it.
    assert 3 <= len(world.events("call")) - before <= 6
    assert live(world) == 0
