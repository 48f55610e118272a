"""Signal handlers that raise, in any moment of a call: nothing is left claimed, held or open."""

from __future__ import annotations

import gc
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capwasm.plugin import Plugin
from capwasm.threads import LOCAL
from tests.kit import World, guest
from tests.stages.test_stopping import script

ROUNDS = 800


class Alarm(BaseException):
    pass


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


class Bell:
    """Has a signal raise `Alarm` before long, if it is `on` by then."""

    def __init__(self) -> None:
        self.on = False
        self._chance = random.Random(1)

    def soon(self) -> None:
        self.on = True
        signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(1e-6, 120e-6))

    def ring(self, _signal: int, _frame: object) -> None:
        if self.on:
            raise Alarm


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    before = signal.signal(signal.SIGALRM, bell.ring)
    yield bell
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def call(plugin: Plugin) -> None:
    plugin.call("count")


def session(plugin: Plugin) -> None:
    with plugin.session() as one:
        one.call("count")


@pytest.mark.case("LIFE-13")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("use", [call, session])
@pytest.mark.parametrize("mode", ["per-call", "pooled", "single"])
def test_refuses_to_lose_an_instance_to_a_signal_handler_that_raises(
    world: World, mode: str, use: Callable[[Plugin], None], bell: Bell
) -> None:
    plugin = world.load(guest("hostile"), "[limits]\nconcurrency = 2\n", instance=mode)
    engine, room, rung = world.runtime._engine, LOCAL.here.room, 0
    for _ in range(ROUNDS):
        try:
            bell.soon()
            use(plugin)
        except Alarm:
            rung += 1
        bell.on = False
        assert (LOCAL.here.call, LOCAL.here.room) == (None, room)
        assert not engine.running
        assert not plugin._turns.holders
        assert all(i.alive and i.holder is None for i in plugin._live)
    assert rung > ROUNDS / 100  # else nothing was tried
    assert plugin.call("count") >= 1
    plugin.close()
    gc.collect()
    assert engine.live == 0


@pytest.mark.case("LIFE-13")
def test_allows_a_signal_handler_to_call_the_plugin_that_it_interrupts(world: World) -> None:
    plugin = world.load(guest("hostile"), "[limits]\nconcurrency = 4\n", instance="pooled")
    calls = 0

    def ring(_signal: int, _frame: object) -> None:
        nonlocal calls
        plugin.call("count")
        calls += 1

    before = signal.signal(signal.SIGALRM, ring)
    chance = random.Random(2)
    try:
        for _ in range(ROUNDS):
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 60e-6))
            plugin.call("count")
            calls += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    world.runtime.recorder._audit.flush()  # type: ignore[attr-defined]
    counted = [e["details"].get("calls", 1) for e in world.events("call")]
    assert sum(counted) == calls


def test_allows_a_signal_handler_to_kill_and_to_count_while_the_numbers_are_counted(
    tmp_path: Path,
) -> None:
    """In a process of its own: what it looks for is a lock that is never given back."""
    run = script(
        f"""
        import pathlib, random, signal
        from capwasm.events import Event
        from capwasm.record.metrics import Metrics
        from tests.kit import World, guest
        world = World(pathlib.Path({str(tmp_path)!r}), metrics=Metrics())
        plugin, metrics = world.load(guest("hostile")), world.options["metrics"]
        denied = Event("call", "denied", plugin.name, action="q", reason="cap.denied")
        counted = 0
        def ring(signal, frame):
            global counted
            assert world.runtime.plugins
            metrics.observe(denied)
            counted += 1
        signal.signal(signal.SIGALRM, ring)
        chance = random.Random(1)
        for _ in range(5_000):
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 60e-6))
            assert world.runtime.plugins
            metrics.observe(denied)
            counted += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        name = 'capwasm_denials_total{{kind="call",plugin="test.guest",reason="cap.denied"}}'
        print(f"{{name}} {{counted}}.0" in metrics.render().decode())
        world.close()
        """
    )
    assert run.stdout.split() == ["True"], run.stderr
