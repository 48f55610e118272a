"""Loaded plugins: instances, threads, asyncio, and the switches that stop them."""

from __future__ import annotations

import asyncio
import copy
import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from capwasm.errors import (
    CallInterrupted,
    CapwasmError,
    ConcurrencyExceeded,
    DeadlineExceeded,
    GrantDeniedError,
    GuestTrap,
    InstanceClosedError,
    LinkError,
    VerificationError,
)
from capwasm.plugin import Plugin
from tests.kit import Refused, World, guest

CLOCK = '[plugins."test.guest".clock]\n'
ENDLESS = f"[limits]\nfuel = {2**50}\nwall-ms = 60000\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def until(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def calls_under_way(plugin: Plugin) -> int:
    """How many of its functions run right now; the start of an instance is not counted."""
    running = [instance.running for instance in list(plugin._live)]
    return sum(record is not None and record.function != "(start)" for record in running)


# -- how instances serve calls ---------------------------------------------------------------------


def test_each_call_gets_a_fresh_instance_unless_the_manifest_says_otherwise(world: World) -> None:
    plugin = world.load(guest("hostile"))
    assert [plugin.call("count") for _ in range(3)] == [1, 1, 1]


def test_a_pooled_instance_is_used_again(world: World) -> None:
    plugin = world.load(guest("hostile"), instance="pooled")
    assert [plugin.call("count") for _ in range(3)] == [1, 2, 3]


def test_a_single_instance_keeps_its_state_under_threads(world: World) -> None:
    plugin = world.load(guest("hostile"), instance="single")
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.extend(plugin.call("count") for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == list(range(1, 201))


@pytest.mark.case("LIFE-04")
@pytest.mark.parametrize("mode", ["per-call", "pooled", "single"])
def test_recovers_from_a_trap_with_a_fresh_instance(world: World, mode: str) -> None:
    plugin = world.load(guest("hostile"), instance=mode)
    plugin.call("count")
    with pytest.raises(GuestTrap):
        plugin.call("trap")
    assert plugin.call("count") == 1


def test_a_session_keeps_one_instance(world: World) -> None:
    plugin = world.load(guest("hostile"))
    with plugin.session() as session:
        assert [session.call("count") for _ in range(3)] == [1, 2, 3]
        assert session.exports.divide(9, 3) == 3
    with pytest.raises(InstanceClosedError):
        session.call("count")
    assert plugin.call("count") == 1


def test_exports_are_attributes(world: World) -> None:
    plugin = world.load(guest("hostile"))
    assert plugin.exports.divide(9, 3) == 3
    assert plugin.exports.grow_memory.__doc__ == "grow-memory(pages: u32) -> s32"
    assert "not_utf8" in dir(plugin.exports)
    with pytest.raises(AttributeError, match="there are"):
        plugin.exports.nothing_such


def test_exports_can_be_asked_for_anything(world: World) -> None:
    exports = world.load(guest("hostile")).exports
    for name in ("__deepcopy__", "_call_", "__wrapped__", "x" * 10_000):
        assert not hasattr(exports, name)
    assert copy.copy(exports).divide(9, 3) == 3


@pytest.mark.case("LIFE-03")
def test_calls_from_many_threads_run_side_by_side(world: World) -> None:
    plugin = world.load(guest("hostile"), "[limits]\nconcurrency = 4\n")
    answers: list[int] = []
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            answers.extend(plugin.call("divide", k * 10, 10) for _ in range(100))
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sorted(answers) == sorted(k for k in range(8) for _ in range(100))


def test_refuses_more_calls_at_a_time_than_the_limit(world: World) -> None:
    plugin = world.load(guest("hostile"), ENDLESS + "concurrency = 2\n")

    def interrupted() -> None:
        with pytest.raises(CallInterrupted):
            plugin.call("spin")

    threads = [threading.Thread(target=interrupted) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: calls_under_way(plugin) == 2)
    with pytest.raises(ConcurrencyExceeded):
        plugin.call("count", wait_seconds=0.05)
    assert plugin.kill("enough") == 2
    for thread in threads:
        thread.join(5)
    assert plugin.call("count") == 1


# -- asyncio and the main thread -------------------------------------------------------------------


def test_acall_runs_beside_the_loop(world: World) -> None:
    plugin = world.load(guest("hostile"), "[limits]\nconcurrency = 4\n")

    async def main() -> list[int]:
        return await asyncio.gather(*(plugin.acall("divide", n, 1) for n in range(20)))

    assert asyncio.run(main()) == list(range(20))


def test_cancelling_a_task_interrupts_the_guest(world: World) -> None:
    plugin = world.load(guest("hostile"), ENDLESS)

    async def main() -> float:
        task = asyncio.create_task(plugin.acall("spin"))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(main()) < 2.0
    assert plugin.call("count") == 1


@pytest.mark.case("LIFE-13")
def test_ctrl_c_ends_an_endless_guest_and_nothing_else(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import os, pathlib, signal, threading, time
        from tests.kit import World, guest
        world = World(pathlib.Path({str(tmp_path)!r}))
        plugin = world.load(guest("hostile"), {ENDLESS!r})
        for round in range(5):
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            try:
                plugin.call("spin")
            except KeyboardInterrupt:
                assert time.monotonic() - began < 5
            assert plugin.call("count") == 1
        world.close()
        print("alive")
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "alive"
    assert "ignored" not in run.stderr


def test_a_signal_handler_that_raises_can_not_reach_into_a_guest(world: World) -> None:
    class Alarm(Exception):
        pass

    def ring(_signal: int, _frame: object) -> None:
        raise Alarm

    plugin = world.load(guest("hostile"), ENDLESS)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Alarm):
            plugin.call("spin")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert plugin.call("count") == 1


# -- kill, evict, revoke ---------------------------------------------------------------------------


def test_kill_takes_effect_within_50_ms(world: World) -> None:
    plugin = world.load(guest("hostile"), ENDLESS)
    times = []
    for _ in range(5):
        done = threading.Event()

        def spin(done: threading.Event = done) -> None:
            with pytest.raises(CallInterrupted):
                plugin.call("spin")
            done.set()

        threading.Thread(target=spin).start()
        until(lambda: calls_under_way(plugin))
        time.sleep(0.02)
        began = time.monotonic()
        plugin.kill("enough")
        assert done.wait(5)
        times.append(time.monotonic() - began)
    assert min(times) < 0.050


@pytest.mark.case("LIFE-01")
def test_eviction_ends_calls_and_refuses_new_ones(world: World) -> None:
    plugin = world.load(guest("hostile"), ENDLESS)
    errors: list[BaseException] = []

    def spin() -> None:
        try:
            plugin.call("spin")
        except CapwasmError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=spin) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: calls_under_way(plugin) == 3)
    plugin.evict("it misbehaved")
    for thread in threads:
        thread.join(5)
    assert [type(e) for e in errors] == [CallInterrupted] * 3
    with pytest.raises(InstanceClosedError, match="it misbehaved"):
        plugin.call("count")
    assert world.runtime.plugins == ()
    assert not plugin._live


@pytest.mark.case("LIFE-05", "SEC-06")
def test_revoking_a_grant_takes_effect_within_the_running_call(
    world: World, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text("hello")
    world.policy(
        f'{CLOCK}[[plugins."test.guest".fs]]\nbind = "app"\npath = "{data}"\naccess = "read"\n'
    )
    manifest = '[clock]\n[[fs]]\nmount = "/data"\nbind = "app"\naccess = "read"\n'
    assert world.prober(manifest)("fs.read-sleep-read", "/data/a.txt", "3") == "read to the end"
    probe = world.prober(manifest)
    words: list[str] = []

    def read() -> None:
        try:
            probe("fs.read-sleep-read", "/data/a.txt", "400")
        except Refused as exc:
            words.append(exc.word)

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: calls_under_way(probe.plugin))
    time.sleep(0.1)
    assert probe.plugin.revoke("fs", "the user changed his mind") == 1
    thread.join(10)
    assert words == ["closed"]
    with pytest.raises(Refused):
        probe("fs.read", "/data/a.txt")
    assert any(e["reason"] == "the user changed his mind" for e in world.events("revoke"))


def test_closing_the_runtime_closes_the_plugins(world: World) -> None:
    plugin = world.load(guest("hostile"))
    runtime = world.runtime
    world.close()
    with pytest.raises(InstanceClosedError):
        plugin.call("count")
    with pytest.raises(RuntimeError):
        runtime.load(b"")


def test_a_thousand_rounds_leave_memory_flat(world: World) -> None:
    capsule = world.capsule(guest("hostile"))
    world.consent(capsule)
    process = psutil.Process()

    def rounds(count: int) -> None:
        for _ in range(count):
            plugin = world.runtime.load(capsule)
            assert plugin.call("count") == 1
            plugin.evict("done")

    rounds(200)
    gc.collect()
    before, fds = process.memory_info().rss, process.num_fds()
    rounds(1_000)
    gc.collect()
    grown = process.memory_info().rss - before
    assert grown < 20 * 2**20, f"grew by {grown / 2**20:.1f} MiB"
    assert process.num_fds() <= fds + 2
    assert not gc.garbage


# -- what a load refuses -----------------------------------------------------------------------------


def test_refuses_what_no_trusted_key_signed(world: World, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = World(tmp_path / "other")
    with pytest.raises(VerificationError):
        world.runtime.load(stranger.capsule(guest("hostile")))
    stranger.close()


def test_refuses_an_import_that_the_manifest_does_not_declare(world: World) -> None:
    with pytest.raises(LinkError) as caught:
        world.load(guest("prober"), "[log]\noptional = true\n")
    assert caught.value.code == "link.undeclared-import"
    fixes = {f.fix for f in caught.value.faults}
    assert {"[[net]]", "[[fs]]", "[[secret]]", "[kv]", "[clock]", "[random]", "[config]"} <= fixes


def test_refuses_to_run_without_a_policy_and_names_every_line_to_add(world: World) -> None:
    (world.home / "policy.toml").unlink()
    capsule = world.capsule(guest("prober"), '[clock]\n[[net]]\nallow = "https://a.example/"\n')
    world.consent(capsule)
    with pytest.raises(GrantDeniedError) as caught:
        world.runtime.load(capsule)
    text = str(caught.value)
    assert len(caught.value.faults) == 2
    assert '[plugins."test.guest".clock]' in text
    assert '[[plugins."test.guest".net]]' in text
    denied = world.events("load")[-1]
    assert denied["verdict"] == "denied"
    assert denied["reason"] == "grant.denied"


@pytest.mark.case("RES-24")
def test_a_guest_that_sleeps_is_ended_by_its_deadline(world: World) -> None:
    world.policy(CLOCK)
    probe = world.prober("[clock]\n[limits]\nwall-ms = 200\n")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        probe("clock.sleep", str(10**18))
    assert time.monotonic() - began < 10
