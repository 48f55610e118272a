"""What stops a guest, wherever it is: in its start, in a plugin that it called, at the very end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import wasmtime

from capwasm.call import current_call
from capwasm.capability import Interface
from capwasm.engine.compile import Compiler
from capwasm.engine.engine import PluginEngine
from capwasm.engine.link import link
from capwasm.errors import (
    AuditError,
    CallInterrupted,
    CapwasmError,
    ConcurrencyExceeded,
    DeadlineExceeded,
    GuestTrap,
    InstanceClosedError,
    RecursionLimitExceeded,
    StackExhausted,
)
from capwasm.handles import Handle, HandleTable, Lease
from capwasm.instance import Instance
from capwasm.limits import DEFAULTS
from capwasm.threads import GUEST_STACK_BYTES, LOCAL, Here, Workers
from tests.kit import ListServed, World, guest

ENDLESS = f"[limits]\nfuel = {2**50}\nwall-ms = 60000\n"
SPINNING_START = bytes(
    wasmtime.wat2wasm(
        "(component (core module $m (func $f (loop $l (br $l))) (start $f))"
        " (core instance (instantiate $m)))"
    )
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


class Elsewhere:
    """Runs `work` on a thread and keeps what it raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self.value: Any = None
        self._work = work
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.value = self._work()
        except BaseException as exc:
            self.error = exc

    def join(self, seconds: float = 5.0) -> BaseException | None:
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "it still runs"
        return self.error


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def script(text: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


# -- closing, with calls under way -----------------------------------------------------------------


@pytest.mark.case("LIFE-01", "LIFE-11")
def test_closing_the_runtime_ends_a_call_on_a_thread_of_the_cores_own(world: World) -> None:
    # Its clock must not stop before it has seen that it is over.
    plugin = world.load(guest("hostile"), ENDLESS)
    call = Elsewhere(lambda: plugin.call("spin"))
    until(plugin.under_way)
    time.sleep(0.05)
    world.runtime.close()
    assert isinstance(call.join(), CallInterrupted)


@pytest.mark.case("LIFE-01", "RES-25")
def test_closing_the_runtime_ends_a_load_whose_start_is_endless(world: World) -> None:
    runtime = world.runtime
    load = Elsewhere(lambda: world.load(SPINNING_START, ENDLESS))
    until(lambda: runtime._engine.running)
    runtime.close()
    assert isinstance(load.join(), CapwasmError)


def test_a_hook_may_close_the_runtime_within_a_call(tmp_path: Path) -> None:
    world: World

    def hook(event: Any) -> None:
        if event.kind == "crash":
            world.runtime.close()

    world = World(tmp_path, hook=hook)
    plugin = world.load(guest("hostile"))
    began = time.monotonic()
    with pytest.raises(GuestTrap):
        plugin.call("trap")
    assert time.monotonic() - began < 3
    with pytest.raises(InstanceClosedError):
        plugin.call("count")


def test_a_handle_that_can_not_be_closed_keeps_no_other_open() -> None:
    closed: list[int] = []

    class Stuck(Handle):
        def __init__(self, n: int) -> None:
            super().__init__(Lease())
            self.n = n

        def release(self) -> None:
            if self.n == 2:
                raise OSError(5, "input/output error")
            closed.append(self.n)

    table = HandleTable(10)
    for n in range(4):
        table.add(Stuck(n))
    with pytest.raises(CapwasmError) as caught:
        table.close_all()
    assert caught.value.code == "internal"
    assert closed == [3, 1, 0]


# -- starting ----------------------------------------------------------------------------------------


def spinning_later(world: World) -> Any:
    """A plugin whose start ends at its load and never again."""
    code = guest("hostile")
    plugin = world.load(code, ENDLESS)
    component = Compiler(world.runtime._engine, None).compile(SPINNING_START)
    opener = plugin._opener
    linked = link(opener.engine, component, [], owners={}, unserved=lambda _: None)
    plugin._opener = replace(opener, code=linked)
    plugin._ready.drop()
    return plugin


@pytest.mark.case("LIFE-01", "RES-25")
@pytest.mark.parametrize("word", ["kill", "evict"])
def test_a_start_that_runs_is_killed_like_any_call(world: World, word: str) -> None:
    plugin = spinning_later(world)
    call = Elsewhere(lambda: plugin.call("count"))
    until(lambda: world.runtime._engine.running)
    getattr(plugin, word)("enough")
    assert isinstance(call.join(), CallInterrupted)
    # One that was being made ahead of need ends on a thread of its own.
    until(lambda: not plugin._live, 20)
    kinds = [(e["kind"], e.get("action")) for e in world.events()]
    assert ("call", "(start)") in kinds


@pytest.mark.case("RES-25")
def test_cancelling_a_task_ends_the_start(world: World) -> None:
    plugin = spinning_later(world)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(plugin.acall("count"), 0.2)

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 5


@pytest.mark.case("LIFE-13", "RES-25")
@pytest.mark.parametrize("proven", [True, False])
def test_a_guest_runs_on_the_main_thread_only_where_that_is_known_to_be_safe(
    world: World, monkeypatch: pytest.MonkeyPatch, proven: bool
) -> None:
    seen: list[threading.Thread] = []
    start = Instance.start
    if not proven:  # as on a Python that `threads.PROVEN` does not name
        monkeypatch.setattr(LOCAL, "here", Here(0))

    def watched(instance: Instance, *args: Any) -> Any:
        seen.append(threading.current_thread())
        return start(instance, *args)

    with mock.patch.object(Instance, "start", watched):
        plugin = world.load(guest("hostile"))
        with plugin.session() as session, plugin.session():
            assert plugin.call("count") == session.call("count") == 1
            assert session.exports.count() == 2
    assert len(seen) >= 3  # some may be made ahead, by a worker
    assert (threading.main_thread() in seen) is proven


@pytest.mark.case("LIFE-13", "LIFE-09")
def test_ctrl_c_ends_an_endless_destructor(tmp_path: Path) -> None:
    run = script(
        f"""
        import os, pathlib, signal, threading, time, wasmtime
        from tests.kit import World, guest
        world = World(pathlib.Path({str(tmp_path)!r}))
        text = pathlib.Path("tests/guests/resource.wat").read_text()
        text = text.replace("(then unreachable)", "(then (loop $l (br $l)))")
        plugin = world.load(bytes(wasmtime.wat2wasm(text)), {ENDLESS!r})
        with plugin.session() as session:
            thing = session.call("make", 1)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            try:
                session.drop(thing)
            except KeyboardInterrupt:
                print("seen", time.monotonic() - began < 5)
        world.close()
        """
    )
    assert run.stdout.strip() == "seen True", run.stderr


@pytest.mark.case("LIFE-09")
def test_a_trap_in_a_destructor_is_recorded(world: World) -> None:
    with world.load(guest("resource")).session() as session:
        odd = session.call("make", 41)
        with pytest.raises(GuestTrap):
            session.drop(odd)
    crash = world.events("crash")[-1]
    assert crash["action"] == "drop thing"


def test_refuses_to_drop_what_is_no_resource(world: World) -> None:
    with world.load(guest("resource")).session() as session, pytest.raises(TypeError):
        session.drop("a thing")


# -- what can't be recorded is stopped all the same ---------------------------------------------------


def failing(world: World) -> Any:
    return mock.patch.object(world.runtime.recorder, "record", side_effect=AuditError("full"))


@pytest.mark.case("LOG-09", "LIFE-01")
def test_a_full_disk_does_not_keep_a_plugin_from_being_killed(world: World) -> None:
    plugin = world.load(guest("hostile"), ENDLESS)
    call = Elsewhere(lambda: plugin.call("spin"))
    until(plugin.under_way)
    with failing(world):
        with pytest.raises(AuditError):
            plugin.kill("enough")
        assert isinstance(call.join(), CapwasmError)


@pytest.mark.case("LOG-09", "SEC-06")
def test_a_full_disk_does_not_keep_grants_and_secrets_in_force(
    world: World, tmp_path: Path
) -> None:
    world.vault(a_token="x" * 20, b_token="y" * 20)
    policy = '[[plugins."test.guest".secret]]\nname = "{0}"\nuse = "reveal"\n'
    world.policy(policy.format("a-token") + policy.format("b-token"))
    manifest = '[[secret]]\nname = "{0}"\nuse = "reveal"\n'
    probe = world.prober(manifest.format("a-token") + manifest.format("b-token"))
    assert probe("secret.reveal", "a-token") == "x" * 20
    with failing(world), pytest.raises(AuditError):
        probe.plugin.revoke("secret", "both")
    assert not any(g.lease.alive for g in probe.plugin.grants.by_capability["secret"].allow)
    again = world.prober(manifest.format("a-token") + manifest.format("b-token"))
    assert again("secret.reveal", "b-token") == "y" * 20
    with failing(world), pytest.raises(AuditError):
        world.runtime.revoke_secret("b-token", "leaked")
    with pytest.raises(Exception, match=r"closed|denied|not-found"):
        again("secret.reveal", "b-token")


def test_a_call_that_found_no_free_place_is_recorded(world: World) -> None:
    plugin = world.load(guest("hostile"), instance="single")
    with plugin.session(), pytest.raises(ConcurrencyExceeded):
        plugin.call("count", wait_seconds=0)
    assert world.events("limit")[-1]["reason"] == "limit.concurrency"


# -- plugins that call plugins -------------------------------------------------------------------------

API = {"number": "func(n: u32) -> u32"}


class Chain:
    """A guest whose import calls another instance of it, so many times."""

    def __init__(self, engine: PluginEngine, times: int = 0, argument: int = 0) -> None:
        self.engine, self.left, self.argument = engine, times, argument
        self.served = [Interface("test:host/api@1.0.0", {"number": self.number}, signatures=API)]
        component = Compiler(engine, None).compile(guest("deep"))
        self.linked = link(engine, component, self.served, owners={}, unserved=lambda _: None)

    def number(self, _n: int) -> int:
        if not self.left:
            return 0
        self.left -= 1
        return self()

    def __call__(self, argument: int | None = None) -> int:
        limits = replace(DEFAULTS, depth=32)
        instance = Instance(self.engine, self.linked, "t@1", limits, ListServed(self.served))
        instance.start()
        try:
            n = self.argument if argument is None else argument
            value: int = instance.call(self.linked.exports.find("number"), (n,))[0]
            return value
        finally:
            instance.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[PluginEngine]:
    engine = PluginEngine()
    yield engine
    engine.close()


def deepest(engine: PluginEngine) -> int:
    chain, low, high = Chain(engine), 1_000, 1_000_000
    while high - low > 50:
        middle = (low + high) // 2
        try:
            chain(middle)
            low = middle
        except StackExhausted:
            high = middle
    return low


@pytest.mark.case("RES-12", "LIFE-08")
def test_guests_that_call_each_other_with_all_their_stack_used_do_not_end_the_process() -> None:
    # In a process of its own: what is tested against is a segmentation fault.
    run = script(
        """
        import threading
        from tests.stages.test_stopping import *
        engine = PluginEngine()
        seen = []
        def work():
            depth = deepest(engine)
            for times in (3, 8, 20, 31):
                try:
                    seen.append(Chain(engine, times, depth - 200)())
                except CapwasmError as exc:
                    seen.append(exc.code)
        for size in (8, 1, 64):
            threading.stack_size(size * 2**20)
            if size == 1:
                def work():
                    try:
                        Chain(engine)(1_000_000)
                    except CapwasmError as exc:
                        seen.append(exc.code)
            elif size == 64:
                def work():
                    seen.append(Chain(engine, 31, 20_000)())
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        print(*[s if isinstance(s, str) else "ok" for s in seen])
        """,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    words = run.stdout.split()
    assert words == ["ok", *["limit.recursion"] * 4, "ok"], run.stdout + run.stderr


def test_refuses_deeper_nesting_than_the_stack_has_room_for(engine: PluginEngine) -> None:
    call = Elsewhere(Chain(engine, 12))
    assert isinstance(call.join(), RecursionLimitExceeded)


@pytest.mark.case("RES-12")
def test_a_stack_size_that_another_thread_sets_meanwhile_is_kept_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The size is a setting of the process: it may change between our setting and the start.
    plain = ThreadPoolExecutor.submit

    def interfered(self: Any, fn: Any, *args: Any) -> Any:
        threading.stack_size(512 * 1024)
        return plain(self, fn, *args)

    before = threading.stack_size()
    workers = Workers(1)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(ThreadPoolExecutor, "submit", interfered)
            assert workers.submit(lambda: LOCAL.here.room).result() == 0
        assert threading.stack_size() == 512 * 1024
    finally:
        threading.stack_size(before)
        workers.close()
    workers = Workers(1)
    assert workers.submit(lambda: LOCAL.here.room).result() > 20
    assert threading.stack_size() == before
    workers.close()


@pytest.mark.case("RES-12")
def test_a_thread_too_small_for_a_guest_has_it_run_elsewhere(world: World) -> None:
    plugin = world.load(guest("hostile"))
    before = threading.stack_size(256 * 1024)
    try:
        small = Elsewhere(lambda: (LOCAL.here.room, plugin.call("recurse")))
    finally:
        threading.stack_size(before)
    assert isinstance(small.join(), StackExhausted)


def test_a_thread_of_ours_has_room_for_the_deepest_nesting() -> None:
    workers = Workers(1)
    assert workers.submit(lambda: LOCAL.here.room).result() >= 32
    workers.close()
    assert LOCAL.here.room * GUEST_STACK_BYTES < 8 * 2**20


@pytest.mark.case("LIFE-01", "LIFE-08")
def test_a_kill_reaches_the_plugin_that_the_killed_one_called(engine: PluginEngine) -> None:
    hostile = link(
        engine,
        Compiler(engine, None).compile(guest("hostile")),
        [],
        owners={},
        unserved=lambda _: None,
    )
    inner = Instance(engine, hostile, "b@1", replace(DEFAULTS, fuel=2**50), ListServed([]))
    inner.start()
    chain = Chain(engine)
    records: list[Any] = []
    errors: list[BaseException] = []

    def number(_n: int) -> int:
        records.append(current_call())
        try:
            inner.call(hostile.exports.find("spin"), ())
        except BaseException as exc:
            errors.append(exc)
            raise
        return 0

    chain.number = number  # type: ignore[method-assign]
    chain.served[0] = Interface("test:host/api@1.0.0", {"number": number}, signatures=API)
    call = Elsewhere(chain)
    until(lambda: inner.running)
    began = time.monotonic()
    records[0].interrupt("the first was killed")
    error = call.join()
    assert time.monotonic() - began < 2
    assert isinstance(error, CallInterrupted)
    assert error.message == "the first was killed"
    assert [type(e) for e in errors] == [CallInterrupted]


@pytest.mark.case("LIFE-08")
def test_the_deadline_of_the_outer_call_is_not_told_as_the_inner_ones(
    engine: PluginEngine,
) -> None:
    chain = Chain(engine)
    inner = CallInterrupted

    def number(_n: int) -> int:
        current_call().deadline = time.monotonic()
        with pytest.raises(inner):
            chain()
        return 0

    chain.served[0] = Interface("test:host/api@1.0.0", {"number": number}, signatures=API)
    call = Elsewhere(chain)
    assert isinstance(call.join(), DeadlineExceeded)


@pytest.mark.case("LIFE-08")
def test_a_plugin_that_calls_itself_waits_for_no_place_that_it_holds(world: World) -> None:
    plugin = world.load(guest("hostile"), "[limits]\nwall-ms = 60000\n", instance="single")
    from capwasm.call import CallRecord, entered

    def nested() -> None:
        limits = replace(DEFAULTS, wall_ms=100)
        with plugin.session(), entered(CallRecord("outer", "f", limits)):
            plugin.call("count")

    began = time.monotonic()
    assert isinstance(Elsewhere(nested).join(), ConcurrencyExceeded)
    assert time.monotonic() - began < 3


# -- one plugin does not hold up another -----------------------------------------------------------------


def test_many_waiting_calls_of_one_plugin_hold_up_no_other(world: World) -> None:
    busy = world.load(guest("hostile"), ENDLESS)
    other = world.load(guest("hostile"), id="test.other")

    async def main() -> float:
        tasks = [asyncio.create_task(busy.acall("spin")) for _ in range(400)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        assert await other.acall("count") == 1
        assert other.call("count") == 1
        took = time.monotonic() - began
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return took

    assert asyncio.run(main()) < 2
    assert busy.call("count") == 1


def test_eviction_wakes_the_calls_that_wait_for_a_place(world: World) -> None:
    plugin = world.load(guest("hostile"), ENDLESS, instance="single")
    session = plugin.session()
    call = Elsewhere(lambda: plugin.call("count"))
    until(lambda: plugin._turns.waiting)
    plugin.evict("enough")
    assert isinstance(call.join(), InstanceClosedError)
    session.close()
