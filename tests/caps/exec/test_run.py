"""Commands that really run: what crosses, what is bounded, and what ends them."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from capwasm.caps.exec import ExecClause
from capwasm.caps.exec.handle import MAX_ERRORS
from capwasm.errors import AuditError, CallInterrupted, CapError, DeadlineExceeded
from capwasm.isolation.commands import Commands
from capwasm.isolation.server import ShimServer
from capwasm.limits import Limits
from tests.helpers import in_call

from .desk import CAT, SLEEP, Desk, gone, python, real

FORMS = ExecClause("seq", real("seq"), (("{last:[0-9]{1,3}}",), ("--", "{a:.*}", "{b:.*}")))


@pytest.fixture
def desk(spawner: Commands, tmp_path: Path) -> Desk:
    sum_ = ExecClause("sum", real("sha256sum"), ((),))
    return Desk(spawner, tmp_path, CAT, SLEEP, sum_, FORMS)


# -- what crosses ---------------------------------------------------------------------------------


def test_allows_a_command_to_read_its_input_and_to_answer(desk: Desk) -> None:
    out = desk("sum", data=b"hello")

    assert out.stdout == hashlib.sha256(b"hello").hexdigest().encode() + b"  -\n"
    assert (out.code, out.stderr, out.stdout_truncated, out.stderr_truncated) == (
        0,
        b"",
        False,
        False,
    )


def test_allows_as_much_as_fits_both_ways_at_once(desk: Desk) -> None:
    data = os.urandom(1 << 20)

    assert desk("cat", data=data).stdout == data


def test_allows_arguments_in_the_form_that_fits(desk: Desk) -> None:
    assert desk("seq", "3").stdout == b"1\n2\n3\n"
    assert desk("seq", "-1", "1").stdout == b"-1\n0\n1\n"
    assert desk.word("seq", "-1") == "denied"
    assert desk.word("seq", "3\n") == "invalid"
    assert desk.word("seq", "3", "4", "5") == "denied"


def test_allows_a_command_to_fail_in_its_own_way(desk: Desk) -> None:
    out = desk("seq", "x", "y")

    assert out.code == 1
    assert out.stdout == b""
    assert b"invalid" in out.stderr


def test_allows_a_command_that_reads_nothing(spawner: Commands, tmp_path: Path) -> None:
    desk = Desk(spawner, tmp_path, ExecClause("true", real("true")))

    assert desk("true", data=b"x" * (1 << 20)).code == 0


def test_tells_a_signal_from_an_exit(attacker: Desk) -> None:
    assert attacker("attacker", data=b"raise SystemExit(7)").code == 7
    out = attacker("attacker", data=b"import ctypes; ctypes.string_at(0)")
    assert out.code is None
    assert attacker.events("end")[-1].details["signal"] == signal.SIGSEGV


# -- what is asked before -------------------------------------------------------------------------


def test_refuses_what_was_not_granted(desk: Desk) -> None:
    assert desk.word("sh") == "denied"
    assert desk.word("/bin/cat") == "denied"
    assert desk.word("cat", "/etc/passwd") == "denied"
    assert desk.word("") == "denied"
    assert {e.verdict for e in desk.events("run")} == {"denied"}
    assert not desk.events("end")


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "\x7f", "\x85", "\ud800", "a" * 4097, "é" * 2049])
def test_refuses_an_argument_that_is_no_word(desk: Desk, text: str) -> None:
    assert desk.word("seq", "1", text) == "invalid"
    assert desk.word(text) == "invalid"
    assert desk.events("run") == []


def test_refuses_more_arguments_than_any_form_has(desk: Desk) -> None:
    assert desk.word("seq", *["1"] * 65) == "invalid"
    assert desk.word("seq", *["1"] * 64) == "denied"


def test_refuses_more_input_than_granted(spawner: Commands, tmp_path: Path) -> None:
    desk = Desk(spawner, tmp_path, ExecClause("cat", CAT.program, input_bytes=10))

    assert desk("cat", data=b"x" * 10).stdout == b"x" * 10
    assert desk.word("cat", data=b"x" * 11) == "too-large"


@pytest.mark.case("RES-03")
def test_refuses_more_runs_in_one_call_than_granted(spawner: Commands, tmp_path: Path) -> None:
    desk = Desk(spawner, tmp_path, ExecClause("cat", CAT.program, runs=2))
    run = desk.functions["run"]

    for _ in range(2):
        with in_call():
            run("cat", [], b"")
            run("cat", [], b"")
            with pytest.raises(CapError, match="denied"):
                run("cat", [], b"")


def test_charges_a_run_and_its_bytes(desk: Desk) -> None:
    with in_call() as call:
        desk.functions["run"]("cat", [], b"x" * 1000)

        assert call.host_fuel >= 1_000_000 + 2000


# -- floods ---------------------------------------------------------------------------------------


@pytest.mark.case("RES-21")
def test_refuses_output_over_the_bound_and_ends_who_floods(
    spawner: Commands, tmp_path: Path
) -> None:
    yes = ExecClause("yes", real("yes"), output_bytes=100_001, timeout_ms=60_000)
    desk = Desk(spawner, tmp_path, yes, ExecClause("cat", CAT.program, output_bytes=5))

    out = desk("yes")
    assert out.stdout == (b"y\n" * 50_001)[:100_001]
    assert out.stdout_truncated
    assert out.code != 0
    assert desk("cat", data=b"12345").stdout_truncated is False
    cut = desk("cat", data=b"123456")
    assert (cut.stdout, cut.stdout_truncated) == (b"12345", True)


@pytest.mark.case("RES-21")
def test_refuses_a_flood_on_both_outputs_while_the_input_waits(attacker: Desk) -> None:
    code = b"""
import os, threading
def flood(fd):
    try:
        while True: os.write(fd, b"x" * 65536)
    except BrokenPipeError: pass
for fd in (1, 2): threading.Thread(target=flood, args=(fd,)).start()
"""
    out = attacker("attacker", data=code)

    assert (out.code, out.stdout_truncated, out.stderr_truncated) == (0, True, True)
    assert len(out.stdout) == 1 << 20
    assert len(out.stderr) == MAX_ERRORS


def test_refuses_more_than_one_value_may_hold(spawner: Commands, tmp_path: Path) -> None:
    desk = Desk(spawner, tmp_path, ExecClause("yes", real("yes")))

    out = desk("yes", limits=Limits(value_bytes=2000))
    assert 0 < len(out.stdout) <= 1500
    assert out.stdout_truncated
    assert desk("yes", limits=Limits(value_bytes=1)).stdout == b""


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.case("RES-04")
def test_refuses_a_command_more_time_than_its_own(spawner: Commands, tmp_path: Path) -> None:
    desk = Desk(spawner, tmp_path, python(timeout_ms=1500))
    code = b"""
import signal, time
for n in range(1, 32):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: time.sleep(60)
"""
    with desk.under_way("attacker", data=code) as running:
        pass
    assert isinstance(running.error, CapError)
    assert running.error.word == "timeout"
    assert gone(running.pids)
    assert [e.reason for e in desk.events("end")] == ["timeout"]


def test_refuses_a_command_more_time_than_a_host_call(desk: Desk) -> None:
    assert desk.word("sleep", limits=Limits(host_call_ms=300)) == "timeout"


@pytest.mark.case("RES-04")
def test_refuses_a_command_more_time_than_its_call(desk: Desk) -> None:
    with pytest.raises(DeadlineExceeded):
        desk("sleep", limits=Limits(wall_ms=300))
    assert [e.reason for e in desk.events("end")] == ["interrupted"]


@pytest.mark.case("LIFE-05")
def test_refuses_a_running_command_once_its_grant_is_revoked(desk: Desk) -> None:
    with desk.under_way("sleep") as running:
        desk.grant.allow[1].lease.revoke("a test")
    assert isinstance(running.error, CapError)
    assert running.error.word == "closed"
    assert gone(running.pids)
    assert desk.word("sleep") == "closed"
    assert desk("cat", data=b"x").stdout == b"x"
    assert [(e.verdict, e.reason) for e in desk.events("end")] == [
        ("denied", "closed"),
        ("allowed", ""),
    ]


@pytest.mark.case("LIFE-01")
def test_refuses_a_running_command_once_its_call_is_killed(desk: Desk) -> None:
    with desk.under_way("sleep") as running:
        running.call.interrupt("evicted")
    assert isinstance(running.error, CallInterrupted)
    assert gone(running.pids)


# -- others ---------------------------------------------------------------------------------------


def test_one_plugins_command_knows_nothing_of_anothers(spawner: Commands, tmp_path: Path) -> None:
    desks = [Desk(spawner, tmp_path, SLEEP, python(), plugin_id=p) for p in ("acme.a", "acme.b")]

    with desks[0].under_way("sleep") as first, desks[1].under_way("sleep") as second:
        seen = desks[1].attack(
            "import os\ntry: print(os.kill(-1, 9))\nexcept OSError as e: print(e)"
        )
        assert "No such process" in seen
        desks[0].grant.allow[0].lease.revoke("a test")
        first.thread.join(30)
        assert gone(first.pids)
        assert second.thread.is_alive()
        desks[1].grant.allow[0].lease.revoke("a test")
    assert gone(second.pids)


def test_allows_runs_on_many_threads(desk: Desk) -> None:
    found: list[bytes] = []

    def work(n: int) -> None:
        found.append(desk("cat", data=b"%d" % n).stdout)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(b"%d" % n for n in range(8))


@pytest.mark.case("NAT-18")
def test_allows_runs_again_when_the_fork_server_was_killed(tmp_path: Path) -> None:
    with ShimServer() as server:
        desk = Desk(Commands(server), tmp_path, CAT, SLEEP)
        with desk.under_way("sleep") as running:
            pid = server.pid
            assert pid
            os.kill(pid, signal.SIGKILL)
        assert isinstance(running.error, CapError)
        assert running.error.word == "unavailable"
        assert gone(running.pids)
        until = time.monotonic() + 20
        while server.pid is not None:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert desk("cat", data=b"x").stdout == b"x"
    assert desk.word("cat") == "unavailable"


@pytest.mark.case("RES-04")
def test_refuses_to_wait_longer_for_a_fork_server_that_was_stopped(tmp_path: Path) -> None:
    with ShimServer() as server:
        desk = Desk(Commands(server), tmp_path, CAT)
        pid = server.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            assert desk.word("cat", limits=Limits(host_call_ms=300)) == "unavailable"
            assert time.monotonic() - started < 10
        finally:
            os.kill(pid, signal.SIGCONT)
        assert desk("cat", data=b"x").stdout == b"x"


def test_leaves_no_descriptor_behind(desk: Desk) -> None:
    desk("cat")
    before = len(list(Path("/proc/self/fd").iterdir()))
    desk("cat", data=b"x" * 100_000)
    desk.word("sleep", limits=Limits(host_call_ms=100))

    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- records --------------------------------------------------------------------------------------


def test_records_each_run_before_and_after_without_what_was_in_it(desk: Desk) -> None:
    desk("seq", "-7", "-5")
    [run], [end] = desk.events("run"), desk.events("end")

    assert (run.verdict, run.target, end.verdict, end.target) == ("allowed", "seq") * 2
    assert run.details["program"] == FORMS.program
    assert run.details["arguments"] == hashlib.sha256(b"--\0-7\0-5").hexdigest()
    assert run.details["run"] == end.details["run"]
    assert end.details.keys() >= {"ms", "in", "out", "err", "cpu-ms", "code"}
    assert (end.details["code"], end.details["out"], end.reason) == (0, 9, "")
    assert "-7" not in repr(desk.events("run") + desk.events("end"))


def test_refuses_a_run_that_can_not_be_recorded(spawner: Commands, tmp_path: Path) -> None:
    class Full:
        def record(self, event: object) -> None:
            raise AuditError("the disk is full")

    desk = Desk(spawner, tmp_path, CAT, recorder=Full())

    with pytest.raises(AuditError):
        desk("cat")
