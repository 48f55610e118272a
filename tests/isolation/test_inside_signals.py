"""Signal handlers that raise while another process runs the guest: nothing is left there either."""

from __future__ import annotations

import gc
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.threads import LOCAL
from tests.kit import World, guest

ROUNDS = 150


class Alarm(BaseException):
    pass


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.policy('[isolation]\nprocess = ["test.*"]\n')
    yield world
    world.close()


@pytest.mark.case("LIFE-13")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mode", ["per-call", "pooled", "single"])
def test_refuses_to_lose_an_instance_to_a_signal_handler_that_raises(
    world: World, mode: str
) -> None:
    plugin = world.load(guest("hostile"), "[limits]\nconcurrency = 2\n", instance=mode)
    engine, room = world.runtime._engine, LOCAL.here.room
    rung, on, chance = 0, False, random.Random(1)

    def ring(_signal: int, _frame: object) -> None:
        if on:
            raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for _ in range(ROUNDS):
            try:
                on = True
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1e-3))
                plugin.call("count")
            except Alarm:
                rung += 1
            on = False
            assert (LOCAL.here.call, LOCAL.here.room) == (None, room)
            # Others are made ahead, on another thread.
            assert all(r.here is not LOCAL.here for r in list(engine.running.values()))
            assert all(i.alive and i.holder is None for i in plugin._live)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rung > ROUNDS / 100  # else nothing was tried
    assert plugin.call("count") >= 1
    plugin.close()
    gc.collect()
    deadline = time.monotonic() + 5
    while engine.live and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.live == 0
