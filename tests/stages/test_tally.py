"""Calls that went well, counted: nothing is lost, nothing is told twice, and all is in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import AuditError, GuestTrap
from capwasm.events import DENIED, Event
from capwasm.record.audit import AuditLog, MemorySink, verify_log
from capwasm.record.metrics import Metrics
from capwasm.record.recorders import Recorders
from capwasm.record.redact import Redactor
from capwasm.record.tally import SECONDS, Tallies, tallies_of
from tests.helpers import ListRecorder
from tests.kit import World, guest

WORDS = ["ms", "fuel", "host-calls", "output-bytes", "net-bytes"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def recorded(world: World, kind: str | None = None) -> list[dict[str, Any]]:
    """What is in the log, with all that was counted by now."""
    world.runtime.recorder.flush()  # type: ignore[attr-defined]
    return world.events(kind)


def told(events: list[dict[str, Any]], action: str) -> int:
    """How many calls of that function the records tell of."""
    details = [e["details"] for e in events if e["kind"] == "call" and e["action"] == action]
    return sum(d.get("calls", 1) for d in details)


def seen(sink: MemorySink) -> list[tuple[str, str, int]]:
    return [
        (r["kind"], r["action"], r["details"].get("calls", 1))
        for r in sink.records
        if r["kind"] != "anchor"
    ]


# -- what is recorded --------------------------------------------------------------------------------


def test_one_call_reads_as_itself(world: World) -> None:
    plugin = world.load(guest("hostile"))
    plugin.call("count")
    (event,) = recorded(world, "call")
    assert (event["verdict"], event["plugin"]) == ("allowed", "test.guest@1.0.0")
    assert (event["action"], event["reason"], event["target"]) == ("count", "", "")
    assert list(event["details"]) == WORDS
    assert 0 < event["details"]["fuel"] < 1000


def test_many_calls_are_one_record_a_function_with_all_that_they_came_to(world: World) -> None:
    plugin = world.load(guest("hostile"), instance="pooled")
    plugin.call("count")
    one = recorded(world, "call")[-1]["details"]["fuel"]
    for _ in range(1_000):
        plugin.call("count")
        plugin.call("divide", 9, 3)
    events = recorded(world, "call")
    assert told(events, "count") == 1_001
    assert told(events, "divide") == 1_000
    assert len(events) < 1_000
    many = [e["details"] for e in events if e["details"].get("calls", 1) > 1]
    assert all(sum(d["within-ms"].values()) == d["calls"] for d in many)
    counted = [e["details"]["fuel"] for e in events if e["action"] == "count"]
    assert sum(counted) == 1_001 * one


def test_counts_exactly_under_threads(tmp_path: Path) -> None:
    metrics = Metrics()
    world = World(tmp_path, metrics=metrics)
    plugin = world.load(guest("hostile"), "[limits]\nconcurrency = 8\n", instance="pooled")
    fresh = world.load(guest("hostile"), "[limits]\nconcurrency = 8\n", id="test.fresh")
    session = plugin.session()
    session.call("count")
    fuel = recorded(world, "call")[-1]["details"]["fuel"]

    def work() -> None:
        for n in range(500):
            plugin.call("count")
            if n % 10 == 0:
                fresh.call("count")

    threads = [threading.Thread(target=work) for _ in range(7)]
    for thread in threads:
        thread.start()
    for _ in range(500):
        session.call("count")
    for thread in threads:
        thread.join(60)
    events = [e for e in recorded(world, "call") if e["plugin"].startswith("test.guest@")]
    assert told(events, "count") == 1 + 7 * 500 + 500
    assert sum(e["details"]["fuel"] for e in events) == fuel * (1 + 7 * 500 + 500)
    text = metrics.render().decode()
    assert 'capwasm_calls_total{outcome="ok",plugin="test.guest"} 4001.0' in text
    assert 'capwasm_calls_total{outcome="ok",plugin="test.fresh"} 350.0' in text
    assert 'capwasm_call_seconds_count{plugin="test.guest"} 4001.0' in text
    assert 'capwasm_call_seconds_bucket{le="+Inf",plugin="test.guest"} 4001.0' in text
    world.close()


def test_a_histogram_of_many_is_the_one_of_each(tmp_path: Path) -> None:
    times = [s * f for s in SECONDS for f in (0.5, 1.0, 1.01)] + [61.0, 1000.0]
    together, apart = Metrics(), Metrics()
    with AuditLog(MemorySink(), Redactor(), flush_ms=60_000) as log:
        recorders = Recorders(log, Redactor(), metrics=together)
        tally = recorders.tallies.tally("a.b@1", "f")
        for seconds in times:
            tally.add(seconds, 1, 2, 3, 4)
            apart.observe(
                Event("call", "allowed", "a.b@1", "f", details={"ms": seconds * 1000, "fuel": 1})
            )
        recorders.flush()
    lines = [
        [x for x in m.render().decode().splitlines() if "seconds_bucket" in x]
        for m in (together, apart)
    ]
    assert lines[0] == lines[1]
    assert f'capwasm_host_calls_total{{plugin="a.b"}} {2.0 * len(times)}' in (
        together.render().decode()
    )


def test_the_hook_is_told_of_many_calls_once(tmp_path: Path) -> None:
    got: list[Event] = []
    world = World(tmp_path, hook=got.append)
    plugin = world.load(guest("hostile"), instance="pooled")
    for _ in range(2_000):
        plugin.call("count")
    world.runtime.recorder.flush()  # type: ignore[attr-defined]
    calls = [e for e in got if e.kind == "call"]
    assert sum(e.details.get("calls", 1) for e in calls) == 2_000
    assert len(calls) < 500
    world.close()


def test_a_hook_that_closes_the_runtime_closes_it(tmp_path: Path) -> None:
    # It runs on the thread that flushes, which can't wait for itself.
    world = World(tmp_path, hook=lambda e: e.kind == "call" and world.runtime.close())
    plugin = world.load(guest("hostile"))
    plugin.call("count")
    end = time.monotonic() + 10
    while plugin.alive and time.monotonic() < end:
        time.sleep(0.01)
    assert not plugin.alive
    assert told(json_lines(world.home / "audit"), "count") == 1


def json_lines(directory: Path) -> list[dict[str, Any]]:
    files = sorted(directory.glob("*.jsonl"))
    return [json.loads(line) for f in files for line in f.read_bytes().splitlines()]


# -- order -------------------------------------------------------------------------------------------


def test_what_went_well_is_told_before_what_went_wrong_after_it(world: World) -> None:
    plugin = world.load(guest("hostile"), instance="pooled")
    other = world.load(guest("hostile"), id="test.other", instance="pooled")
    for _ in range(3):
        plugin.call("count")
        other.call("count")
    with pytest.raises(GuestTrap):
        plugin.call("trap")
    # Read without a flush: a crash is on the disk at once, and what was before it with it.
    kinds = [
        (e["kind"], e["action"])
        for e in json_lines(world.home / "audit")
        if e["plugin"] == "test.guest@1.0.0" and e["kind"] in {"call", "crash"}
    ]
    assert kinds[-2:] == [("call", "trap"), ("crash", "trap")]
    assert kinds[0] == ("call", "count")
    assert told(json_lines(world.home / "audit"), "count") >= 3


def test_a_denial_of_one_plugin_does_not_make_others_write() -> None:
    sink = MemorySink()
    with AuditLog(sink, Redactor(), flush_ms=60_000) as log:
        recorders = Recorders(log, Redactor())
        mine, others = (recorders.tallies.tally(p, "f") for p in ("a.b@1", "c.d@1"))
        for _ in range(5):
            mine.add(0.00001, 1, 0, 0, 0)
            others.add(0.00001, 1, 0, 0, 0)
        recorders.record(Event("fs", DENIED, "a.b@1", "open"))
        assert seen(sink) == [("call", "f", 5), ("fs", "open", 1)]
        mine.add(0.00001, 1, 0, 0, 0)
        log.anchor()
        assert seen(sink)[2:] == [("call", "f", 1), ("call", "f", 5)]
        log.flush()
        assert len(seen(sink)) == 4


def test_what_is_counted_while_it_is_told_is_told_next() -> None:
    sink = MemorySink()
    with AuditLog(sink, Redactor(), flush_ms=5) as log:
        tallies = Recorders(log, Redactor()).tallies
        stop = threading.Event()
        counts = [0] * 4

        def work(k: int) -> None:
            while not stop.is_set():
                tallies.tally("a.b@1", "f").add(0.001, 1, 0, 0, 0)  # as a fresh instance does
                counts[k] += 1
                if counts[k] % 20 == 0:
                    time.sleep(0.001)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            tallies.settle("a.b@1")
            tallies.settle()
        stop.set()
        for thread in threads:
            thread.join(10)
    assert sum(n for _, _, n in seen(sink)) == sum(counts)


def test_a_recorder_without_a_flusher_is_told_of_each() -> None:
    recorder = ListRecorder()
    tally = tallies_of(recorder).tally("a.b@1", "f")
    for _ in range(3):
        tally.add(0.25, 7, 0, 0, 0)
    assert [e.details["ms"] for e in recorder.events] == [250.0] * 3
    everything = Recorders(recorder, Redactor())
    everything.tallies.tally("a.b@1", "g").add(0.25, 7, 0, 0, 0)
    assert recorder.events[-1].action == "g"


# -- when it can't be recorded -----------------------------------------------------------------------


@pytest.mark.case("LOG-09", "PER-02")
def test_refuses_calls_while_the_disk_is_full_and_loses_none(world: World) -> None:
    session = world.load(guest("hostile")).session()
    log: Any = world.runtime.recorder._audit  # type: ignore[attr-defined]
    assert [session.call("count") for _ in range(3)] == [1, 2, 3]
    segment = log._done.segment
    real, full = segment.fd, os.open("/dev/full", os.O_RDWR)
    segment.fd = full  # the kernel's own ENOSPC
    session.call("count")
    end = time.monotonic() + 10
    while not log.gate.shut and time.monotonic() < end:
        time.sleep(0.01)
    for _ in range(5):
        with pytest.raises(AuditError, match="No space left"):
            session.call("count")
    segment.fd = real
    os.close(full)
    # What was refused has not run; what ran is on record, and so is that something was refused.
    assert session.call("count") == 5
    events = recorded(world)
    assert told(events, "count") == 5
    gap = next(e for e in events if e["kind"] == "gap")
    assert gap["details"] == {"refused": 5}
    assert verify_log(world.home / "audit").ok


def test_a_note_that_fails_stays_to_be_told() -> None:
    noted: list[Event] = []
    broken = True

    def note(event: Event) -> None:
        if broken:
            raise AuditError("full")
        noted.append(event)

    tallies = Tallies(note)
    tally = tallies.tally("a.b@1", "f")
    with pytest.raises(AuditError):
        tally.add(0.1, 1, 0, 0, 0)
    with pytest.raises(AuditError):
        tally.add(0.1, 1, 0, 0, 0)
    broken = False
    tallies.settle()
    tallies.settle()
    assert [e.details["calls"] for e in noted] == [2]


@pytest.mark.case("PER-01", "LOG-09")
def test_a_killed_process_loses_no_more_than_the_window(tmp_path: Path) -> None:
    code = f"""
        import pathlib, sys, time
        from tests.kit import World, guest
        world = World(pathlib.Path({str(tmp_path)!r}))
        session = world.load(guest("hostile")).session()
        n = 0
        while True:
            end = time.monotonic() + 0.05
            while time.monotonic() < end:
                n = session.call("count")
            time.sleep(0.5)  # longer than the window, by far
            print(n, flush=True)
            for _ in range(1_000):
                session.call("count")
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    lines = [int(child.stdout.readline()) for _ in range(2)]
    child.send_signal(signal.SIGKILL)
    child.communicate()
    AuditLog.open(tmp_path / "home" / "audit", Redactor()).close()
    assert told(json_lines(tmp_path / "home" / "audit"), "count") >= lines[-1] > 100
    assert verify_log(tmp_path / "home" / "audit").ok


@pytest.mark.case("LIFE-10")
def test_a_forked_child_is_refused_and_holds_nothing_up(tmp_path: Path) -> None:
    code = f"""
        import os, pathlib, threading, warnings
        from tests.kit import World, guest
        warnings.simplefilter("ignore")  # that a process with threads forks is what is tested
        world = World(pathlib.Path({str(tmp_path)!r}))
        plugin = world.load(guest("hostile"), instance="pooled")
        session = plugin.session()
        session.call("count")
        plugin.call("count")
        child = os.fork()
        if not child:
            for call in (session.call, plugin.call, session.exports.count):
                try:
                    call("count") if call is not session.exports.count else call()
                except RuntimeError as exc:
                    assert "fork" in str(exc), exc
                else:
                    os._exit(1)
            world.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert session.call("count") == 2
        world.close()
        print("alive")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout.strip() == "alive", run.stderr
