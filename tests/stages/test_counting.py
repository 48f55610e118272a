"""Calls that are counted first and recorded later: none is lost, none is told of twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import AuditError
from capwasm.events import Event
from capwasm.record import audit, sinks
from capwasm.record.redact import Redactor
from capwasm.record.tally import Tallies
from tests.kit import World, guest
from tests.stages.test_stopping import script


@pytest.fixture
def open_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(**options: Any) -> World:
        worlds.append(World(tmp_path, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


def counted(events: list[Event]) -> int:
    return sum(e.details.get("calls", 1) for e in events)


def on_disk(world: World) -> int:
    return sum(e["details"].get("calls", 1) for e in world.events("call"))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_refuses_to_count_a_call_twice_when_a_flush_was_interrupted(tmp_path: Path) -> None:
    told: list[Event] = []
    interrupted = True

    def note(event: Event) -> None:
        if interrupted:
            raise KeyboardInterrupt
        told.append(event)

    with audit.AuditLog.open(tmp_path / "audit", Redactor()) as ledger:
        tallies = Tallies(note, ledger)
        tally = tallies.tally("test.guest@1.0.0", "run")
        for _ in range(3):
            tally.add(0.001, 10, 0, 0, 0)
        with pytest.raises(KeyboardInterrupt):
            tallies.settle()
        tally.add(0.001, 10, 0, 0, 0)  # on the list a second time
        interrupted = False
        tallies.settle()
        assert counted(told) == 4
        assert sum(e.details["fuel"] for e in told) == 40
        tallies.settle()
        assert counted(told) == 4


@pytest.mark.case("LOG-09")
@pytest.mark.filterwarnings("error")
def test_refuses_to_lose_the_flusher_to_a_hook_that_ends_threads(
    open_world: Callable[..., World],
) -> None:
    def hook(event: Event) -> None:
        if threading.current_thread().name == "capwasm-audit":
            raise SystemExit

    world = open_world(hook=hook)
    plugin = world.load(guest("hostile"), instance="pooled")
    for calls in range(1, 4):
        plugin.call("count")
        until(lambda calls=calls: on_disk(world) == calls)  # type: ignore[misc]


@pytest.mark.case("LOG-09")
def test_refuses_calls_while_the_disk_hangs_and_tells_of_those_before(
    open_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    sync = sinks._FileSegment.sync

    def hang(segment: Any) -> None:
        assert answers.wait(30)
        sync(segment)

    world = open_world()
    plugin = world.load(guest("hostile"), instance="pooled")
    monkeypatch.setattr(audit, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(sinks._FileSegment, "sync", hang)
    calls = 0

    def call_on() -> None:
        nonlocal calls
        while calls < 10_000:
            plugin.call("count")
            calls += 1
            time.sleep(0.001)

    try:
        with pytest.raises(AuditError):
            call_on()
    finally:
        answers.set()
    until(lambda: on_disk(world) == calls)
    plugin.call("count")
    until(lambda: on_disk(world) == calls + 1)


def test_calls_of_daemon_threads_are_all_on_record_when_the_process_ends(tmp_path: Path) -> None:
    run = script(
        f"""
        import pathlib, sys, threading, time
        from tests.kit import World, guest
        world = World(pathlib.Path({str(tmp_path)!r}))
        plugin = world.load(guest("hostile"), instance="pooled")
        def call_on():
            with open({str(tmp_path / "done")!r}, "ab", buffering=0) as done:
                while True:
                    plugin.call("count")
                    done.write(b".")
        for _ in range(3):
            threading.Thread(target=call_on, daemon=True).start()
        time.sleep(0.3)
        """
    )
    assert run.returncode == 0, run.stderr
    events = audit.tail(tmp_path / "home" / "audit", 100_000)
    returned = (tmp_path / "done").stat().st_size
    recorded = sum(
        e["details"].get("calls", 1)
        for e in events
        if e["kind"] == "call" and e["verdict"] == "allowed"
    )
    # A thread may end between its call and its note of it.
    assert 0 < returned <= recorded <= returned + 3
