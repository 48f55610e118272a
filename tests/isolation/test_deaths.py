"""Processes that crash, hang, starve or are killed: a named error, a record, and a fresh one after it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import (
    ArtifactError,
    CallInterrupted,
    CapwasmError,
    DeadlineExceeded,
    GrantDeniedError,
    GuestCrashed,
    GuestError,
    GuestTrap,
    InstanceClosedError,
    LinkError,
    OutputLimitExceeded,
    ShimError,
)
from capwasm.events import NullRecorder
from capwasm.isolation import backoff
from capwasm.isolation.apart import Apart
from capwasm.isolation.supervisor import Supervisor
from capwasm.limits import Limits
from capwasm.plugin import Plugin
from tests.kit import Refused, World, guest

from .ways import library, load_native, load_way, native_capsule, native_probe, policy_for

FEW = os.environ.get("CAPWASM_CRASHES", "30")
"""How many crashes in a row memory must stand; 1000 for the whole proof."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.policy(
        '[isolation]\nnative = ["test.*"]\nprocess = ["test.apart"]\n'
        '[plugins."test.guest".log]\n[plugins."test.guest".kv]\n'
        "[strikes]\nsuspend = 0\n"  # they die many deaths here
    )
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No back-off."""
    monkeypatch.setattr(backoff, "_UNIT_SECONDS", 0.0)


def native(world: World, limits: str = "", **about: Any) -> Plugin:
    return load_native(world, library("prober"), limits, **about)


def apart(world: World, manifest: str = "", **about: Any) -> Plugin:
    return world.load(guest("hostile"), manifest, id="test.apart", **about)


def run(plugin: Any, operation: str, *arguments: str) -> str:
    """Call the native prober, in a session or without."""
    return native_probe(plugin)(operation, *arguments)


def spin(plugin: Any) -> None:
    """Call what never returns, in native code or in a component."""
    if is_native(plugin):
        run(plugin, "spin")
    else:
        plugin.call("spin")


def works(plugin: Any) -> bool:
    if is_native(plugin):
        return run(plugin, "echo", "x") == "x"
    return bool(plugin.call("divide", 6, 2) == 3)


def is_native(plugin: Any) -> bool:
    return any(export.name == "handle" for export in plugin.functions)


def supervisor(plugin: Plugin) -> Supervisor:
    code = plugin._opener.code
    assert isinstance(code, Apart)
    return code.supervisor


def pids(plugin: Plugin) -> list[int]:
    return [p._started.pid for p in supervisor(plugin).processes]


def gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def later(seconds: float, work: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


# -- what a plugin does to itself ---------------------------------------------------------------------


@pytest.mark.case("NAT-17", "IPC-11")
@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (
            ("panic", ""),
            "killed by SIG(ABRT|SEGV)",
        ),  # the first process of a namespace ignores its own
        (("std.exit", "0"), "exited with status 0"),
        (("std.exit", "3"), "exited with status 3"),
        (("alloc", "400"), "ended"),
    ],
)
def test_the_end_of_a_process_is_a_named_error_and_the_next_call_is_served(
    world: World, operation: tuple[str, str], words: str
) -> None:
    plugin = native(world)
    with pytest.raises(GuestCrashed, match=words) as caught:
        run(plugin, *operation)
    assert caught.value.code == "guest.crashed"
    assert run(plugin, "echo", "still here") == "still here"
    assert [e["reason"] for e in world.events("crash")] == ["guest.crashed"]


@pytest.mark.case("NAT-17")
def test_the_deadline_ends_a_process_that_spins(world: World) -> None:
    plugin = native(world, "[limits]\nwall-ms = 300\n")
    (pid,) = pids(plugin)
    with pytest.raises(DeadlineExceeded):
        run(plugin, "spin")
    assert gone(pid)
    assert run(plugin, "echo", "x") == "x"
    assert [e["reason"] for e in world.events("limit")] == ["limit.deadline"]


def test_a_number_that_is_no_status_is_a_trap(world: World) -> None:
    plugin = native(world)
    with pytest.raises(GuestTrap, match="returned 77"):
        run(plugin, "abi.returns", "77")
    assert run(plugin, "echo", "x") == "x"


def test_state_stays_in_an_instance_and_nowhere_else(world: World) -> None:
    single = native(world, instance="single", id="test.single")
    assert [run(single, "count") for _ in range(3)] == ["1", "2", "3"]
    with pytest.raises(GuestCrashed):
        run(single, "panic")
    assert run(single, "count") == "1"
    each = native(world, instance="per-call", id="test.each")
    assert [run(each, "count") for _ in range(3)] == ["1", "1", "1"]
    pooled = native(world, instance="pooled", id="test.pooled")
    with pooled.session() as session:
        assert [run(session, "count") for _ in range(2)] == ["1", "2"]
        assert run(pooled, "count") == "1"


def test_what_it_writes_is_bounded_here(world: World) -> None:
    plugin = native(world, "[log]\n[limits]\noutput-bytes = 10000\n")
    with pytest.raises(OutputLimitExceeded):
        run(plugin, "log.flood", "10000")
    assert run(plugin, "echo", "x") == "x"


# -- what others do to it -----------------------------------------------------------------------------


@pytest.mark.case("LIFE-01")
@pytest.mark.parametrize("way", ["native", "process"])
def test_a_kill_ends_a_call_and_the_plugin_goes_on(world: World, way: str) -> None:
    plugin = native(world) if way == "native" else apart(world)
    later(0.2, lambda: plugin.kill("enough"))
    with pytest.raises(CallInterrupted, match="enough"):
        spin(plugin)
    assert works(plugin)


@pytest.mark.case("LIFE-01")
@pytest.mark.parametrize("way", ["native", "process"])
def test_an_eviction_ends_calls_and_processes(world: World, way: str) -> None:
    plugin = native(world) if way == "native" else apart(world)
    works(plugin)
    before = pids(plugin)
    assert before
    later(0.2, lambda: plugin.evict("no more"))
    with pytest.raises((CallInterrupted, InstanceClosedError)):
        spin(plugin)
    assert all(gone(pid) for pid in before)
    assert supervisor(plugin).processes == ()
    with pytest.raises(InstanceClosedError):
        works(plugin)


@pytest.mark.case("NAT-18")
def test_the_end_of_the_runtime_ends_every_process(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.policy('[isolation]\nnative = ["test.*"]\nprocess = ["test.apart"]\n')
    plugins = native(world), apart(world)
    before = [pid for plugin in plugins for pid in pids(plugin)]
    server = world.runtime._shim.pid
    assert len(before) >= 2
    world.close()
    assert server is not None
    assert all(gone(pid) for pid in [*before, server])


def test_a_deadline_ends_a_component_and_not_its_process(world: World) -> None:
    plugin = apart(world, "[limits]\nwall-ms = 300\n", instance="pooled")
    before = pids(plugin)
    with pytest.raises(DeadlineExceeded):
        spin(plugin)
    assert works(plugin)
    assert pids(plugin) == before


def test_a_process_that_dies_takes_all_its_instances_with_it(world: World) -> None:
    plugin = apart(world, instance="pooled")
    with plugin.session() as first, plugin.session() as second, plugin.session() as idle:
        assert works(idle)
        (process,) = supervisor(plugin).processes
        errors: list[BaseException] = []

        def end(session: Any) -> None:
            try:
                spin(session)
            except GuestError as exc:
                errors.append(exc)

        threads = [threading.Thread(target=end, args=(s,)) for s in (first, second)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        os.kill(process._started.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(20)
        assert [type(e) for e in errors] == [GuestCrashed, GuestCrashed]
        assert all("SIGKILL" in str(e) for e in errors)
        with pytest.raises(GuestError):
            works(idle)
    assert works(plugin)
    assert process not in supervisor(plugin).processes


def test_threads_share_a_process_and_each_has_a_lane(world: World) -> None:
    plugin = apart(world, "[limits]\nconcurrency = 4\n")
    found: list[int] = []

    def work(n: int) -> None:
        found.extend(plugin.call("divide", 100 * n + i, 1) for i in range(10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == [100 * n + i for n in range(4) for i in range(10)]
    assert len(pids(plugin)) == 1


class Alarm(Exception):
    """What a signal's handler raises."""


@pytest.mark.case("LIFE-13")
@pytest.mark.parametrize("way", ["native", "process"])
def test_what_a_signals_handler_raises_ends_the_call(world: World, way: str) -> None:
    plugin = native(world) if way == "native" else apart(world)

    def handler(_number: int, _frame: Any) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Alarm):
            spin(plugin)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert works(plugin)
    assert not [record for record in plugin.under_way() if record.function != "(start)"]


# -- in a row -----------------------------------------------------------------------------------------


def test_the_third_crash_in_a_row_makes_it_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "_UNIT_SECONDS", 2.0)
    plugin = native(world)
    for _ in range(3):
        with pytest.raises(GuestCrashed):
            run(plugin, "panic")
    with pytest.raises(
        GuestError, match=r"3 times in a row; it starts again in \d+\.\d seconds"
    ) as caught:
        run(plugin, "echo", "x")
    assert caught.value.code == "guest.backoff"
    assert len(world.events("crash")) == 3, "a refusal is no crash"
    (waits,) = [e for e in world.events("instance") if e["action"] == "back-off"]
    assert (waits["reason"], waits["details"]["crashes"]) == ("guest.backoff", 3)
    supervisor(plugin).backoff._until = 0.0  # it has waited
    assert run(plugin, "echo", "x") == "x"
    for _ in range(2):
        with pytest.raises(GuestCrashed):
            run(plugin, "panic")
    assert run(plugin, "echo", "good calls count anew") == "good calls count anew"


def test_a_wait_is_bounded() -> None:
    made = backoff.Backoff("x", NullRecorder())
    for _ in range(200):
        made.crashed()
    assert made._until - time.monotonic() <= 30.0
    with pytest.raises(GuestError):
        made.check()
    made.went_well()
    made.check()


@pytest.mark.usefixtures("patient")
def test_memory_and_descriptors_stand_many_crashes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # pytest keeps them all
    plugin = native(world)

    def crash(times: int) -> None:
        for _ in range(times):
            with pytest.raises(GuestCrashed):
                run(plugin, "panic")

    crash(20)
    gc.collect()
    fds, kib = len(list(Path("/proc/self/fd").iterdir())), rss_kib()
    crash(int(FEW))
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= fds + 2
    assert rss_kib() - kib < 1024
    assert len(world.runtime._engine._live) <= 1
    assert run(plugin, "echo", "x") == "x"


def rss_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


# -- grants -------------------------------------------------------------------------------------------

FILES = '[[fs]]\nmount = "/data"\nbind = "app"\naccess = "read"\n'


@pytest.mark.case("NAT-14", "LIFE-05")
def test_a_descriptor_reads_and_never_writes_and_a_revocation_ends_its_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("hello")
    world = World(tmp_path)
    world.policy(
        '[isolation]\nnative = ["test.*"]\n'
        f'[[plugins."test.guest".fs]]\nbind = "app"\npath = "{tmp_path}/data"\naccess = "read"\n'
    )
    with contextlib.closing(world):
        plugin = load_native(world, library("prober"), FILES)
        assert run(plugin, "abi.descriptor", "/data/a.txt") == "write Bad file descriptor: hello"
        world.runtime.recorder.flush()  # type: ignore[attr-defined]
        (allowed,) = [e for e in world.events("fs") if e.get("action") == "descriptor"]
        assert allowed["target"] == "/data/a.txt"
        (pid,) = pids(plugin)
        plugin.revoke("fs", "no more")
        assert gone(pid)
        with pytest.raises(Refused, match="closed"):
            run(plugin, "fs.read", "/data/a.txt")


def test_a_revocation_spares_a_process_that_has_only_handles(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.txt").write_text("hello")
    world = World(tmp_path)
    world.policy(
        '[isolation]\nnative = ["test.*"]\n'
        f'[[plugins."test.guest".fs]]\nbind = "app"\npath = "{tmp_path}/data"\naccess = "read"\n'
    )
    with contextlib.closing(world):
        plugin = load_native(world, library("prober"), FILES)
        assert run(plugin, "fs.read", "/data/a.txt") == "hello"
        before = pids(plugin)
        plugin.revoke("fs", "no more")
        with pytest.raises(Refused, match="closed"):
            run(plugin, "fs.read", "/data/a.txt")
        assert pids(plugin) == before


def test_refuses_what_the_manifest_does_not_declare(world: World) -> None:
    plugin = load_native(world, library("prober"), "[kv]\n")
    with pytest.raises(Refused, match="denied"):
        run(plugin, "fs.read", "/data/a.txt")
    with pytest.raises(LinkError) as caught:
        run(plugin, "clock.now")
    assert caught.value.code == "link.undeclared-import"
    assert caught.value.faults[0].fix == "[clock]"
    assert run(plugin, "kv.get", "k") == "(none)"
    assert [e["reason"] for e in world.events("fs")] == ["not-declared"]


# -- loads --------------------------------------------------------------------------------------------


def test_refuses_native_code_that_the_policy_does_not_name(tmp_path: Path) -> None:
    world = World(tmp_path)
    with contextlib.closing(world):
        capsule = native_capsule(world, library("prober"))
        world.consent(capsule)
        with pytest.raises(GrantDeniedError) as caught:
            world.runtime.load(capsule)
        assert caught.value.code == "grant.native"
        assert world.runtime._shim.pid is None, "nothing was started"


def test_refuses_code_for_another_machine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    capsule = native_capsule(world, library("prober"))
    world.consent(capsule)
    monkeypatch.setattr("capwasm.capsule.target.this_triple", lambda: "riscv64-linux-gnu")
    with pytest.raises(ArtifactError) as caught:
        world.runtime.load(capsule)
    assert caught.value.code == "artifact.platform"


def test_refuses_a_library_that_can_not_be_loaded(world: World) -> None:
    with pytest.raises(LinkError, match="can't be loaded") as caught:
        load_native(world, b"not a library")
    assert caught.value.code == "link.instantiate"
    assert [e["reason"] for e in world.events("load") if e["verdict"] == "denied"] == [
        "link.instantiate"
    ]


@pytest.mark.case("NAT-13", "NAT-23")
@pytest.mark.parametrize("way", ["native", "process"])
def test_refuses_to_start_without_a_layer_that_must_hold(tmp_path: Path, way: str) -> None:
    # The one that this user can never have.
    layer = "user-namespace" if os.geteuid() == 0 else "own-user"
    world = World(tmp_path)
    world.policy(policy_for(way) + f'require = ["seccomp", "{layer}"]\n')
    with contextlib.closing(world):
        with pytest.raises(ShimError) as caught:
            load_way(world, way)
        assert caught.value.code == "shim.layer"
        (fault,) = caught.value.faults
        assert fault.path == layer
        assert fault.fix is not None
        assert 'require = ["seccomp"]' in fault.fix
        (denied,) = [e for e in world.events("load") if e["verdict"] == "denied"]
        assert denied["reason"] == "shim.layer"
        assert world.runtime.plugins == ()


def test_the_core_can_ask_for_a_process(tmp_path: Path) -> None:
    world = World(tmp_path)
    with contextlib.closing(world):
        capsule = world.capsule(guest("hostile"))
        world.consent(capsule)
        with world.runtime.load(capsule, isolation="process") as plugin:
            assert plugin.call("divide", 6, 2) == 3
            assert len(pids(plugin)) == 1
            with pytest.raises(TypeError, match="argument"):
                plugin.call("divide", "6", 2)
            with pytest.raises(GuestTrap):
                plugin.call("divide", 6, 0)
            assert plugin.call("divide", 6, 3) == 2


def test_a_plugin_that_may_hold_no_instance_more_is_refused(tmp_path: Path) -> None:
    from capwasm.engine.pool import Capacity

    world = World(tmp_path, capacity=Capacity(instances=1, pooled=False, ready=0))
    world.policy('[isolation]\nnative = ["test.*"]\n')
    with contextlib.closing(world):
        plugin = native(world, instance="pooled")
        with plugin.session(), pytest.raises(CapwasmError) as caught:
            plugin.session()
        assert caught.value.code == "limit.capacity"
        assert run(plugin, "echo", "x") == "x"


def test_limits_are_checked_when_they_are_made() -> None:
    with pytest.raises(ValueError):
        Limits(value_bytes=0)
