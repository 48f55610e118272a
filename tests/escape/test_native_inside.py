"""What a hostile plugin finds in its own process: nothing of the host's, and no way to stay."""

from __future__ import annotations

import os
import re
import secrets
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from capwasm.errors import GuestError, LinkError
from capwasm.session import Session
from capwasm_shim.layers import Layer, Limits
from tests.escape.kernelcalls import call, calls, out
from tests.escape.prey import LIBC
from tests.escape.shooting import Range, Shot
from tests.isolation.ways import library, load_native

ROOT = Path(__file__).resolve().parents[2]
THREADS = Limits(threads=8)


@pytest.fixture(scope="module")
def range_() -> Iterator[Range]:
    range_ = Range()
    yield range_
    range_.close()


def _gone(pids: set[int], seconds: float = 5.0) -> bool:
    """Whether all of these have ended, or do soon."""
    until = time.monotonic() + seconds
    while pids and time.monotonic() < until:
        pids = {pid for pid in pids if Path(f"/proc/{pid}").exists()}
        time.sleep(0.01)
    return not pids


# -- secrets -----------------------------------------------------------------------------------------


@pytest.mark.case("NAT-03", "SEC-01")
def test_refuses_the_host_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LD_PRELOAD_X", "PYTHONPATH", "CAPWASM_TOKEN"):
        monkeypatch.setenv(name, "/marked")
    range_ = Range()
    try:
        assert range_.shoot("environment").answer == "ok:"
    finally:
        range_.close()


@pytest.mark.case("NAT-03", "NAT-02")
def test_refuses_what_the_host_has_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secrets.token_bytes(16)
    # As text in the environment, and as bytes in the memory of the host, when the server starts.
    text = secret.hex()[:16].encode()
    monkeypatch.setenv("CAPWASM_TOKEN", secret.hex())
    LIBC.setenv(b"CAPWASM_OTHER", secret.hex().encode(), 1)
    range_ = Range()
    try:
        for needle in (secret, text):
            hidden = bytes(b ^ 0xAA for b in needle)
            assert range_.shoot("scan", hidden).answer.startswith("none:")
            # The twin: it is found where it is, so the search sees all there is.
            assert range_.shoot("scan", hidden + needle).answer.startswith("ok:found")
    finally:
        range_.close()
        LIBC.unsetenv(b"CAPWASM_OTHER")


@pytest.mark.case("NAT-02", "NAT-03")
def test_refuses_what_another_plugin_was_told(range_: Range) -> None:
    secret = secrets.token_bytes(16)
    hidden = bytes(b ^ 0xAA for b in secret)

    assert range_.shoot("scan", hidden + secret).answer.startswith("ok:found")
    assert range_.shoot("scan", hidden).answer.startswith("none:")


@pytest.mark.case("IPC-09", "NAT-16")
def test_refuses_to_let_it_write_what_the_host_hands_over(range_: Range) -> None:
    # Large, so that it is read where the host has put it; a small one is the plugin's own copy.
    assert range_.shoot("window", b"x" * 10_000).answer == "errno:EACCES@0"
    assert range_.shoot("window", b"x" * 100).answer == "ok:written"


# -- who may look at it, and from where ---------------------------------------------------------------


@pytest.mark.case("NAT-02", "NAT-19")
def test_others_of_its_user_may_not_look_into_it(range_: Range) -> None:
    ask = calls(call("prctl", 3, 0, 0, 0, 0))
    shot = range_.shoot("calls", ask)
    assert shot.answer.startswith("ok:0:")
    assert os.geteuid() or shot.before["owner"] == 0

    # A change of user does the same, so the layer is what is left where there is none.
    down = {Layer.OWN_USER, Layer.USER_NAMESPACE}
    alone = range_.shoot("calls", ask, without=frozenset(down))
    bare = range_.shoot("calls", ask, without=frozenset(down | {Layer.NON_DUMPABLE}))

    assert alone.answer.startswith("ok:0:")
    assert bare.answer.startswith("ok:1:")


@pytest.mark.case("NAT-06", "NAT-17")
def test_it_has_a_session_of_its_own(range_: Range) -> None:
    shot = range_.shoot("environment")
    group, session = shot.before["session"]
    assert group == session != str(range_.server.pid)

    bare = range_.shoot("environment", without=frozenset({Layer.SESSION}))

    assert bare.before["session"] == [str(range_.server.pid)] * 2


@pytest.mark.case("NAT-11")
def test_privileges_are_off_for_good(range_: Range) -> None:
    shot = range_.shoot("environment")

    assert shot.before["NoNewPrivs"] == "1"
    assert shot.before["Seccomp"] == "2"
    assert {int(shot.before[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
    assert shot.before["Groups"] == "" or os.geteuid()


@pytest.mark.case("NAT-08")
def test_a_name_that_it_sets_is_its_own(range_: Range) -> None:
    if os.geteuid():
        pytest.skip("it takes root to tear these walls down")
    before = os.uname()
    down = frozenset({Layer.SECCOMP, Layer.OWN_USER, Layer.NO_CAPABILITIES})

    shot = range_.shoot("calls", calls(call("sethostname", "captured", 8)), without=down)

    assert shot.answer.startswith("ok:0")
    assert os.uname() == before


@pytest.mark.case("NAT-22")
def test_what_no_process_can_be_kept_from_is_said(range_: Range) -> None:
    """Time and caches leak what they leak; whoever relies on us must be told."""
    assert range_.shoot("calls", calls(call("clock_gettime", 1, out(16)))).evidence
    for page in ("README.md", "docs/isolation.md"):
        text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
        assert re.search(r"out of scope[^.]*Spectre|Spectre[^.]*out of scope", text), page


# -- staying -----------------------------------------------------------------------------------------

# What keeps it from having children.
CHILDLESS = frozenset({Layer.SECCOMP, Layer.RLIMITS, Layer.CGROUP_PIDS})


def _children(shot: Shot) -> set[int]:
    return set(map(int, shot.after["children"].split()))


@pytest.mark.case("NAT-17", "NAT-15")
@pytest.mark.parametrize("also", [frozenset(), frozenset({Layer.PID_NAMESPACE})], ids=["", "pid"])
def test_what_it_leaves_behind_ends_with_it(range_: Range, also: frozenset[Layer]) -> None:
    """In a pid namespace the kernel sees to it, without one the fork server."""
    shot = range_.shoot(
        "calls", calls(call("clone", 17, 0, 0, 0, 0, times=3)), without=CHILDLESS | also
    )

    children = _children(shot)
    assert len(children) == 3
    # They would stay for three seconds by themselves.
    assert _gone(children, 2.5)


@pytest.mark.case("NAT-17", "RES-01")
def test_it_has_one_processor_and_no_more(range_: Range) -> None:
    """Whatever its threads do, also between calls, when no deadline runs."""
    with range_.plugin.session():
        started = range_.server.started
        if Layer.CGROUP_CPU not in started.report.applied:
            pytest.skip("no cgroups are to be had here")
        lines = Path(f"/proc/{started.pid}/cgroup").read_text().splitlines()
        places = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
        one = next((name for name in places if "cpu" in name.split(",")), None)
        if one is None:
            quota, period = Path(f"/sys/fs/cgroup{places['']}/cpu.max").read_text().split()
        else:
            place = Path(f"/sys/fs/cgroup/cpu{places[one]}")
            quota, period = ((place / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
    assert 0 < int(quota) <= int(period)


@pytest.mark.case("NAT-17")
@pytest.mark.parametrize("topic", ["spin", "stop"])
def test_it_is_killed_whatever_it_does(topic: str) -> None:
    """Deaf to all signals, or stopped by itself: the host waits no longer than it wants to."""
    range_ = Range("[limits]\nwall-ms = 300\n")
    try:
        began = time.monotonic()
        shot = range_.shoot(topic)

        assert shot.answer.startswith("limit.deadline:")
        assert time.monotonic() - began < 5
        assert _gone({shot.before["pid"]})
    finally:
        range_.close()


@pytest.mark.case("NAT-18")
@pytest.mark.parametrize("down", [frozenset(), frozenset({Layer.PARENT_DEATH})], ids=["", "down"])
def test_it_ends_when_the_server_is_killed(down: frozenset[Layer]) -> None:
    if down and os.geteuid():
        pytest.skip("an ordinary user's processes end with the server in any case")
    range_ = Range("[limits]\nwall-ms = 1000\n")
    try:
        with range_.torn(down), range_.plugin.session() as session:
            pidfd = os.pidfd_open(range_.server.started.pid)
            run = threading.Thread(target=_spin, args=(session,))
            run.start()
            assert range_.server.pid
            os.kill(range_.server.pid, signal.SIGKILL)
            # Without the layer only the host's own patience ends it.
            assert bool(select.select([pidfd], [], [], 0.3 if down else 5)[0]) != bool(down)
            run.join(10)
            assert select.select([pidfd], [], [], 5)[0]
            os.close(pidfd)
    finally:
        range_.close()


def _spin(session: Session) -> None:
    with pytest.raises(GuestError):
        session.call("handle", "spin", b"")


@pytest.mark.case("NAT-19")
@pytest.mark.parametrize(
    ("how", "ends"),
    [
        ("s", "killed:SIGSEGV"),
        ("a", "killed:SIG(ABRT|SEGV)"),
        ("d", "killed:SIGSEGV"),
        ("e", "exited:3"),
        ("i", "killed:SIG(ILL|TRAP)"),
        ("k", "ok:|unknown"),
    ],
)
def test_however_it_ends_the_host_knows(range_: Range, how: str, ends: str) -> None:
    assert re.match(ends, range_.shoot("crash", how.encode()).answer)


# -- what it would be loaded with -------------------------------------------------------------------------


@pytest.mark.case("NAT-21")
def test_refuses_a_library_that_it_needs(range_: Range) -> None:
    """Whatever path it names for it: there is none but its own file."""
    code = library("needy")
    with pytest.raises(LinkError, match="libBrokenLocale") as caught:
        load_native(range_.world, code, id="test.needy")
    assert caught.value.code == "link.instantiate"

    with range_.torn(frozenset({Layer.MOUNT_NAMESPACE, Layer.LANDLOCK_FILES})):
        load_native(range_.world, code, id="test.needy").close()


# -- the host's functions ------------------------------------------------------------------------------


@pytest.mark.case("IPC-06")
def test_refuses_the_host_s_functions_on_other_threads(range_: Range) -> None:
    assert range_.shoot("elsewhere", limits=THREADS).answer == "ok:-1"
