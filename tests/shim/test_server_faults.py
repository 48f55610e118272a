"""The fork server outlives every bad message and every child, and says what was wrong."""

from __future__ import annotations

import array
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capwasm.errors import ShimError
from capwasm.isolation import launch
from capwasm.isolation.server import ShimServer
from capwasm_shim import control
from capwasm_shim.layers import Limits
from capwasm_shim.protocol import ServerKind
from tests.shim.servers import (
    Plugin,
    bootstrapped,
    children,
    descriptors,
    hanging,
    native,
    soon,
    there,
)


@pytest.fixture
def server() -> Iterator[ShimServer]:
    with ShimServer() as made:
        yield made


def pid_of(server: ShimServer) -> int:
    assert server.pid is not None
    return server.pid


# -- children that hang, or fail ------------------------------------------------------------------


@pytest.mark.case("NAT-17", "NAT-23")
def test_a_set_up_that_hangs_is_killed_and_holds_up_nobody(
    server: ShimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = hanging(monkeypatch, 1)
    failed: list[ShimError] = []

    def hang() -> None:
        with pytest.raises(ShimError) as caught:
            Plugin(server, spec)
        failed.append(caught.value)

    threads = [threading.Thread(target=hang) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert soon(lambda: len(children(server.pid or 0)) == 3 if server.pid else False)
    with Plugin(server) as plugin:  # while they hang
        assert plugin.hello()
        assert not failed
    for thread in threads:
        thread.join()
    assert {e.code for e in failed} == {"shim.start"}
    assert {e.message for e in failed} == {"its set-up took longer than 1 seconds"}
    assert not children(pid_of(server))


@pytest.mark.case("NAT-23")
def test_a_set_up_that_dies_is_told(server: ShimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrapped(
        monkeypatch,
        "from capwasm_shim import sandbox\nsandbox.enter = lambda *_: os.kill(os.getpid(), 9)\n",
    )
    with pytest.raises(ShimError, match=r"ended in its set-up: signalled, 9"):
        # In a pid namespace of its own nobody can kill it but from outside.
        Plugin(server, native(layers=()))
    assert not children(pid_of(server))


def test_a_start_that_is_given_up_leaves_no_process(
    server: ShimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = hanging(monkeypatch, 2)
    server.warm()
    before = len(descriptors())

    class GiveUp(Exception):
        pass

    def ring(*_: object) -> None:
        raise GiveUp

    handler = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(GiveUp):
            Plugin(server, spec)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert soon(lambda: not children(pid_of(server)))
    assert soon(lambda: len(descriptors()) <= before)
    link = server._link
    assert link is not None
    assert not link._starting


def test_a_start_that_comes_after_it_was_given_up_is_ended(
    server: ShimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child is ready after a second; its host has waited for half of one.
    bootstrapped(
        monkeypatch,
        "import time\nfrom capwasm_shim import sandbox\nenter = sandbox.enter\n"
        "def slow(*args):\n    time.sleep(1)\n    return enter(*args)\nsandbox.enter = slow\n",
    )
    monkeypatch.setattr("capwasm.isolation.server._START_SECONDS", 0.5)
    server.warm()
    before = len(descriptors())
    with pytest.raises(ShimError, match="does not answer"):
        Plugin(server)
    assert children(pid_of(server))
    assert soon(lambda: not children(pid_of(server)), 5)
    assert soon(lambda: len(descriptors()) <= before)


def test_a_loader_that_fails_in_the_sandbox_is_an_ended_process(server: ShimServer) -> None:
    with Plugin(server, code=b"no library") as plugin:
        kind, code, text = plugin.hello()
        assert (kind, code) == (11, "link.instantiate")
        assert "can't be loaded" in text
        ended = plugin.started.ended(10)
        assert ended is not None
        assert ended.how == "exited"


# -- descriptors ----------------------------------------------------------------------------------


def ends() -> tuple[int, int]:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return first.detach(), second.detach()


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["lane"], "shorter"),
        (["lane", "up", "down", "down"], "Invalid argument"),  # a socket is no window
        (["lane", "up", "down", "file"], "Invalid argument"),
        (["file", "file"], "as many descriptors"),
        ([], "as many descriptors"),
    ],
)
def test_refuses_descriptors_that_do_not_fit(
    server: ShimServer, names: list[str], why: str
) -> None:
    pairs = [ends() for _ in names]
    fds = [(name, pair[0]) for name, pair in zip(names, pairs, strict=True)]
    try:
        with pytest.raises(ShimError) as caught:
            server.start(native(), fds, {"limit": 1})
        assert caught.value.code == "shim.start"
        assert why in caught.value.message
    finally:
        for pair in pairs:
            for fd in pair:
                os.close(fd)
    with Plugin(server) as plugin:
        assert plugin.hello()


def test_refuses_a_descriptor_that_is_closed(server: ShimServer) -> None:
    server.warm()
    with pytest.raises(ShimError, match="Bad file descriptor"):
        server.start(native(), [("side", 987_654)])
    with Plugin(server) as plugin:
        assert plugin.hello()


def test_takes_more_descriptors_than_fit_one_message(server: ShimServer) -> None:
    spec = native(limits=Limits(files=2000))
    with Plugin(server) as plugin:
        plugin.hello()
        before = len(descriptors(pid_of(server)))
        reader, writer = os.pipe()
        try:
            many = [("side", reader)] * 700
            with pytest.raises(ShimError, match="as many descriptors"):
                server.start(spec, many, {"limit": 1})
            fds = [("file", os.memfd_create("empty"))]
            started = server.start(spec, [*many, *fds], {"limit": 1})
            os.close(fds[0][1])
            # It has no lane, so it ends; until then it holds all 700.
            assert started.ended(10)
            started.close()
        finally:
            os.close(reader)
            os.close(writer)
        assert soon(lambda: len(descriptors(pid_of(server))) <= before)


# -- messages -------------------------------------------------------------------------------------


def raw(server: ShimServer, data: bytes, fds: list[int]) -> None:
    server.warm()
    link = server._link
    assert link is not None
    control.send(link._sock, data, fds)


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x00",
        msgpack.packb({}),
        msgpack.packb([]),
        msgpack.packb(["START"]),
        msgpack.packb([99, 1, 2]),
        msgpack.packb([ServerKind.START]),
        msgpack.packb([ServerKind.START, "one", {}, []]),
        msgpack.packb([ServerKind.START, 2**40]),
        msgpack.packb([ServerKind.START, 2**40, {"kind": "native"}, []]),
        msgpack.packb([ServerKind.START, 2**40, native().to_map(), [1, 2]]),
        msgpack.packb([ServerKind.START, 2**40, native().to_map(), ["lane"] * 9]),
        msgpack.packb([ServerKind.MORE]),
        msgpack.packb([ServerKind.WARM, 1]),
        b"\x94" * 1000,
        msgpack.packb([7, "x" * control.MAX_MESSAGE]),
    ],
    ids=lambda data: data[:12].hex(),
)
def test_a_bad_message_is_passed_over_and_its_descriptors_are_closed(
    server: ShimServer, data: bytes
) -> None:
    server.warm()
    reader, writer = os.pipe()
    try:
        raw(server, data, [reader, writer, writer])
        with Plugin(server) as plugin:
            assert plugin.hello()
            assert not [n for n in descriptors(pid_of(server)).values() if n == _name(writer)]
    finally:
        os.close(reader)
        os.close(writer)


def _name(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[ShimServer]:
    with ShimServer() as made:
        made.warm()
        yield made


WORDS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**63)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=9,
)
# Numbers of starts that nobody waits for, and no WARM: that takes its time.
MESSAGES = (
    st.binary(max_size=60)
    | st.lists(WORDS, max_size=5).map(msgpack.packb)
    | st.tuples(st.sampled_from([1, 2, 3, 4, 6, 7]), st.integers(2**40, 2**41), WORDS, WORDS).map(
        msgpack.packb
    )
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=MESSAGES)
def test_no_message_ends_the_server(fuzzed: ShimServer, data: bytes) -> None:
    if not data:
        return  # that would be the end of the socket
    before = pid_of(fuzzed)
    link = fuzzed._link
    assert link is not None
    with contextlib.suppress(BlockingIOError):
        control.send(link._sock, data)
    assert pid_of(fuzzed) == before


def test_it_is_still_there_after_all_that(fuzzed: ShimServer) -> None:
    before = pid_of(fuzzed)
    with Plugin(fuzzed) as plugin:
        assert plugin.hello()
    assert pid_of(fuzzed) == before
    assert soon(lambda: not children(before))


def test_control_messages_lose_no_descriptor_that_is_not_taken() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        before = len(descriptors())
        rights = array.array("i", [ours.fileno()] * 4)
        for data in (b"\xc1", msgpack.packb({}), msgpack.packb([1])):
            ours.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            if data == msgpack.packb([1]):
                message, fds = control.receive(theirs)
                assert message == [1]
                assert len(fds) == 4
                assert not any(os.get_inheritable(fd) for fd in fds)
                for fd in fds:
                    os.close(fd)
            else:
                with pytest.raises(control.Malformed):
                    control.receive(theirs)
        assert len(descriptors()) == before
        with pytest.raises(ValueError, match="over"):
            control.pack(["x" * control.MAX_MESSAGE])
        ours.close()
        with pytest.raises(EOFError):
            control.receive(theirs)


def test_a_server_that_talks_nonsense_is_given_up(
    server: ShimServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrapped(monkeypatch, "import time\nos.write(int(sys.argv[1]), b'\\xc1')\ntime.sleep(30)")
    with pytest.raises(ShimError, match=r"given up: not msgpack"):
        Plugin(server)
    monkeypatch.undo()
    with Plugin(server) as plugin:
        assert plugin.hello()


# -- an ordinary user -----------------------------------------------------------------------------

ORDINARY = """
import os, sys
from capwasm.isolation.server import ShimServer
from capwasm_shim.layers import Layer
from tests.shim.servers import Plugin
with ShimServer() as server, Plugin(server) as plugin:
    plugin.hello()
    assert plugin.ask("environment").startswith("ok:")
    missing = plugin.started.report.missing
    assert Layer.OWN_USER in missing and Layer.USER_NAMESPACE not in missing, missing
    plugin.started.kill()
    assert plugin.started.ended(10).number == 9
    print(server.pid, plugin.pid)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="this is an ordinary user's run already")
def test_serves_an_ordinary_user_too() -> None:
    nobody = pwd.getpwnam("nobody")
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    try:
        run = subprocess.run(
            [python, "-B", "-c", ORDINARY],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd=Path(__file__).parents[2],
            env={"PYTHONPATH": ":".join([*launch._directories(), *sys.path[1:]])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except OSError as exc:
        pytest.skip(f"no Python that everybody may run: {exc}")
    if "ModuleNotFoundError" in run.stderr or "PermissionError" in run.stderr:
        pytest.skip(f"not everybody may read what is needed: {run.stderr[-200:]}")
    assert run.returncode == 0, run.stderr
    assert not any(there(int(pid)) for pid in run.stdout.split())
