"""Processes, their server and their host: whoever ends, and however, nothing of what he had is left."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from capwasm.errors import ShimError
from capwasm.isolation.server import ShimServer
from capwasm_shim.frames import PeerClosed
from capwasm_shim.layers import Layer, Limits, Spec
from tests.shim.servers import (
    Plugin,
    alive,
    children,
    descriptors,
    hanging,
    memory_of,
    misfit,
    native,
    soon,
    there,
)

HOST = """
import ctypes, os, sys, time
from capwasm.isolation.server import ShimServer
from tests.shim.servers import Plugin
server = ShimServer()
plugins = [Plugin(server) for _ in range(3)]
for plugin in plugins:
    plugin.hello()
plugins[0].begin("spin")
plugins[1].begin("stop")
if sys.argv[1:] == ["copied"]:
    # A copy that Python does not know of, and that keeps all descriptors.
    if ctypes.CDLL(None).fork() == 0:
        time.sleep(30)
        os._exit(0)
print(server.pid, *[p.pid for p in plugins], flush=True)
time.sleep(30)
"""


@pytest.fixture
def server() -> Iterator[ShimServer]:
    with ShimServer() as made:
        yield made


def pid_of(server: ShimServer) -> int:
    assert server.pid is not None
    return server.pid


def named(pid: int, name: str) -> list[int]:
    """Its children of that name."""
    return [p for p in children(pid) if Path(f"/proc/{p}/comm").read_text() == f"{name}\n"]


# -- one process ends -----------------------------------------------------------------------------


def test_tells_how_each_process_ended(server: ShimServer) -> None:
    with Plugin(server, code=misfit("e")) as plugin:
        with pytest.raises(PeerClosed):
            plugin.hello()
        ended = plugin.started.ended(10)
        assert ended is not None
        assert (ended.how, ended.number, ended.starved) == ("exited", 3, False)
        assert str(ended) == "it exited with status 3"
        assert ended.maxrss_kib > 1000
    with Plugin(server) as plugin:
        plugin.hello()
        plugin.begin("crash", b"s")
        with pytest.raises(PeerClosed):
            plugin.lane.recv()
        ended = plugin.started.ended(10)
        assert ended is not None
        assert (ended.how, ended.number) == ("signalled", signal.SIGSEGV)
        assert str(ended) == "it was killed by SIGSEGV"
        assert plugin.started.ended() == ended  # it can be asked again
    with Plugin(server) as plugin:
        plugin.hello()
        assert plugin.started.ended() is None
        plugin.lane.close()  # its host has no more to say
        ended = plugin.started.ended(10)
        assert ended is not None
        assert (ended.how, ended.number) == ("exited", 0)


def test_tells_how_much_processor_time_it_took(server: ShimServer) -> None:
    with Plugin(server) as plugin:
        plugin.hello()
        plugin.begin("spin")
        time.sleep(0.3)
        plugin.started.kill()
        ended = plugin.started.ended(10)
        assert ended is not None
        assert (ended.how, ended.number) == ("signalled", signal.SIGKILL)
        assert 50 < ended.cpu_ms < 5000


@pytest.mark.case("NAT-16")
def test_tells_that_a_process_ran_out_of_memory(server: ShimServer) -> None:
    layers = tuple(layer for layer in Layer if layer is not Layer.RLIMITS)  # which come first
    with Plugin(server, native(layers=layers, limits=Limits(memory=8 << 20))) as plugin:
        plugin.hello()
        if Layer.CGROUP_MEMORY in plugin.started.report.missing:
            pytest.skip(plugin.started.report.missing[Layer.CGROUP_MEMORY])
        assert plugin.ask("memory", b"1") == "ok:1"
        plugin.begin("memory", b"200")
        with pytest.raises(PeerClosed):
            plugin.lane.recv()
        ended = plugin.started.ended(10)
        assert ended is not None
        assert (ended.how, ended.number, ended.starved) == ("signalled", signal.SIGKILL, True)
        assert str(ended) == "it ran out of memory"


@pytest.mark.case("NAT-17")
@pytest.mark.parametrize("topic", ["spin", "stop"])
def test_ends_what_ignores_every_signal_or_has_stopped_itself(
    server: ShimServer, topic: str
) -> None:
    plugin = Plugin(server)
    plugin.hello()
    plugin.begin(topic)
    time.sleep(0.05)
    pid, started = plugin.pid, plugin.started
    plugin.close()
    assert started.ended(10)
    assert not there(pid)
    with Plugin(server) as other:  # and it held up nobody
        assert other.hello()


def test_a_process_does_not_outlive_what_stands_for_it(server: ShimServer) -> None:
    plugin = Plugin(server)
    pid = plugin.pid
    plugin.hello()
    lane, plugin._ends = plugin.lane, type(plugin._ends)()
    del plugin
    gc.collect()
    assert soon(lambda: not there(pid))
    lane.close()


@pytest.mark.case("NAT-17", "NAT-18")
def test_leaves_no_zombie_and_no_descriptor(server: ShimServer) -> None:
    for _ in range(5):
        Plugin(server).close()
    assert soon(lambda: not children(pid_of(server)))

    def held() -> int:
        return len(descriptors()) + len(descriptors(pid_of(server)))

    before = held()
    ours, theirs = memory_of(os.getpid()), memory_of(pid_of(server))
    for number in range(60):
        with Plugin(server) as plugin:
            if number % 3 == 0:
                plugin.hello()
                plugin.begin("crash", b"a")
            elif number % 3 == 1:
                plugin.hello()
    assert soon(lambda: not children(pid_of(server)))
    gc.collect()
    assert soon(lambda: held() <= before)
    assert memory_of(os.getpid()) < ours + (4 << 20)
    assert memory_of(pid_of(server)) < theirs + (1 << 20)


def test_starts_for_many_threads_at_a_time(server: ShimServer) -> None:
    def play(number: int) -> int:
        with Plugin(server) as plugin:
            plugin.hello()
            assert plugin.ask("environment").startswith("ok:")
            if number % 2:
                plugin.started.kill()
                assert plugin.started.ended(10)
            return plugin.pid

    with ThreadPoolExecutor(8) as pool:
        pids = list(pool.map(play, range(24)))
    assert len(set(pids)) == 24
    assert soon(lambda: not children(pid_of(server)))


# -- the server ends ------------------------------------------------------------------------------


def test_is_started_again_when_it_has_died(server: ShimServer) -> None:
    with Plugin(server) as plugin:
        plugin.hello()
        first = pid_of(server)
        os.kill(first, signal.SIGKILL)
        ended = plugin.started.ended(10)
        assert ended is not None
        assert ended.how == "lost"
        assert soon(lambda: not alive(plugin.pid))
        assert soon(lambda: server.pid is None)
        with Plugin(server) as again:
            assert again.hello()
            assert pid_of(server) != first


@pytest.mark.case("NAT-18")
def test_its_processes_die_with_it_although_the_host_holds_their_lanes(server: ShimServer) -> None:
    plugins = [Plugin(server) for _ in range(3)]
    for plugin in plugins:
        plugin.hello()
    plugins[0].begin("spin")
    plugins[1].begin("stop")
    os.kill(pid_of(server), signal.SIGKILL)
    assert soon(lambda: not any(alive(p.pid) for p in plugins), 5)
    for plugin in plugins:
        plugin.close()


def test_a_start_fails_at_once_when_the_server_dies(
    server: ShimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = hanging(monkeypatch, 30)
    server.warm()
    threading.Timer(0.3, os.kill, (pid_of(server), signal.SIGKILL)).start()
    began = time.monotonic()
    with pytest.raises(ShimError, match="has ended"):
        Plugin(server, spec)
    assert time.monotonic() - began < 10


def test_closing_ends_everything() -> None:
    server = ShimServer()
    plugins = [Plugin(server) for _ in range(3)]
    for plugin in plugins:
        plugin.hello()
    plugins[0].begin("spin")
    pids = [pid_of(server), *[p.pid for p in plugins]]
    server.close()
    assert not any(there(pid) for pid in pids)  # at once, and not even a zombie
    for plugin in plugins:
        assert plugin.started.ended(0) is not None
        plugin.close()
    server.close()
    assert server.pid is None
    with pytest.raises(RuntimeError, match="closed"):
        Plugin(server)


def test_closing_ends_a_server_that_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capwasm.isolation.server._BYE_SECONDS", 0.3)
    server = ShimServer()
    with Plugin(server) as plugin:
        plugin.hello()
        pid = pid_of(server)
        os.kill(pid, signal.SIGSTOP)
        server.close()
        assert not there(pid)
        assert soon(lambda: not alive(plugin.pid))


def test_closing_what_never_started_starts_nothing() -> None:
    server = ShimServer()
    server.close()
    assert server.pid is None


def test_signals_of_a_terminal_or_an_operator_do_not_end_it(server: ShimServer) -> None:
    with Plugin(server) as plugin:
        plugin.hello()
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGQUIT,
            signal.SIGTSTP,
        ):
            os.kill(pid_of(server), number)
        assert plugin.ask("environment").startswith("ok:")
        assert Plugin(server).close() is None


# -- the host ends --------------------------------------------------------------------------------


@pytest.mark.case("NAT-18")
@pytest.mark.parametrize("how", ["alone", "copied"])
def test_nothing_is_left_of_a_host_that_was_killed(how: str) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", HOST, how], cwd=root, stdout=subprocess.PIPE, text=True
    ) as host:
        copies: list[int] = []
        try:
            assert host.stdout is not None
            pids = [int(word) for word in host.stdout.readline().split()]
            assert len(pids) == 4
            assert all(alive(pid) for pid in pids)
            copies = [pid for pid in children(host.pid) if pid not in pids]
            assert bool(copies) == (how == "copied")
            host.kill()
            host.wait()
            # Init, which inherits the server, may take its time with what is left of it.
            assert soon(lambda: not any(alive(pid) for pid in pids), 5)
            assert not any(there(pid) for pid in pids[1:])
        finally:
            host.kill()
            for pid in copies:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.case("LIFE-10")
def test_a_fork_of_the_host_can_not_use_the_server_and_does_not_hold_it() -> None:
    server = ShimServer()
    plugin = Plugin(server)
    plugin.hello()
    link = server._link
    assert link is not None
    socket = descriptors()[link._sock.fileno()]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "nothing was raised"
        try:
            held = socket in descriptors().values()
            plugin.started.close()  # a copy kills nothing
            server.close()
            Plugin(server)
        except RuntimeError as exc:
            said = f"{exc}; {held=}"
        finally:
            os.write(writer, said.encode())
            time.sleep(30)
            os._exit(0)
    os.close(writer)
    try:
        said = os.read(reader, 1000).decode()
        assert "before a fork" in said
        assert said.endswith("held=False")
        assert plugin.ask("environment").startswith("ok:")
        pids = [pid_of(server), plugin.pid]
        server.close()
        assert not any(there(pid) for pid in pids)
        plugin.close()
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_host_that_ignores_its_children_is_served(server: ShimServer) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Plugin(server, code=misfit("e")) as plugin:
            ended = plugin.started.ended(10)
            assert ended is not None
            assert (ended.how, ended.number) == ("exited", 3)
        server.close()
    finally:
        signal.signal(signal.SIGCHLD, before)


# -- orphans --------------------------------------------------------------------------------------


@pytest.mark.case("NAT-17", "NAT-18")
@pytest.mark.parametrize("without", [[], [Layer.PID_NAMESPACE]], ids=["", "no-namespace"])
def test_what_a_process_has_left_behind_dies_with_it(
    server: ShimServer, without: list[Layer]
) -> None:
    shell, sleep = (os.path.realpath(path) for path in ("/bin/sh", "/bin/sleep"))
    loader = os.path.realpath("/lib64/ld-linux-x86-64.so.2")
    spec = Spec(
        kind="exec",
        layers=tuple(layer for layer in Layer if layer not in without),
        limits=Limits(threads=8, processes=8, files=64),
        # In the background: dash gives the first of a pipe a /dev/null, and here is none.
        argv=(shell, "-c", f": | (trap '' HUP TERM; exec {sleep} 300) & read line"),
        binds=tuple(p for p in ("/usr", "/lib", "/lib64") if Path(p).is_dir()),
        executables=(shell, sleep, loader),
    )
    with contextlib.ExitStack() as stack:

        def pipe() -> tuple[int, int]:
            ends = os.pipe()
            for fd in ends:
                stack.callback(os.close, fd)
            return ends

        program = os.open(shell, os.O_RDONLY)
        stack.callback(os.close, program)
        (stdin, ours), (_, stdout), (_, stderr), (status, said) = (pipe() for _ in range(4))
        fds = [("stdin", stdin), ("stdout", stdout), ("stderr", stderr)]
        started = server.start(spec, [*fds, ("program", program), ("status", said)])
        stack.callback(started.close)
        assert os.read(status, 100) == b"go"
        assert soon(lambda: bool(named(started.pid, "sleep")))
        [orphan] = named(started.pid, "sleep")
        os.write(ours, b"\n")
        ended = started.ended(10)
        assert ended is not None
        assert (ended.how, ended.number) == ("exited", 0)
        assert soon(lambda: not there(orphan), 5)
        assert soon(lambda: not children(pid_of(server)))
