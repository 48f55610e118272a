"""`capwasm top`, `kill`, `strikes`: from the log alone, bounded, and fit for any terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from capwasm.cli import capwasm
from capwasm.errors import GuestError
from capwasm.events import ALLOWED, DENIED, FAILED, Event
from capwasm.monitor.docket import Docket
from capwasm.monitor.live import MAX_PLUGINS, MAX_WORDS, Live
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from tests.kit import World, guest


def at(second: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + ".123456789Z"


NOW = 1_800_000_000


def record(kind: str, verdict: str, plugin: str = "acme.x@1.0.0", **words: Any) -> dict[str, Any]:
    return {
        "time": at(words.pop("at", NOW)),
        "kind": kind,
        "verdict": verdict,
        "plugin": plugin,
    } | words


def call(calls: int = 1, **words: Any) -> dict[str, Any]:
    within = {"0.1": calls - 1, "50": 1}
    many = {"calls": calls, "within-ms": within} if calls > 1 else {}
    return record("call", ALLOWED, details={"ms": 30, "fuel": 100, "net-bytes": 7} | many, **words)


# -- the numbers ------------------------------------------------------------------------------------------


def test_tells_of_the_window_and_of_nothing_older() -> None:
    live = Live(window=10)
    for second in range(-20, 0):
        live.take(call(100, at=NOW + second))
    live.take(record("call", FAILED, reason="guest.trap", details={"ms": 2}))
    live.take(record("net", DENIED, reason="not-granted", details={"times": 40}))
    live.take(record("net", DENIED, reason="not-granted"))
    (row,) = live.rows(NOW)

    assert row.plugin == "acme.x"
    assert row.version == "1.0.0"
    assert row.calls == pytest.approx(100, rel=0.15)
    assert row.fuel == pytest.approx(100, rel=0.15)
    assert row.net == pytest.approx(7, rel=0.15)
    assert row.failures == 1
    assert row.outcomes == {"guest.trap": 1}
    assert row.denials == {"net not-granted": 41}
    assert row.p50 == 0.1
    assert live.rows(NOW + 60)[0].calls == 0


def test_latencies_are_the_bounds_of_the_log() -> None:
    live = Live()
    for ms in [0.05] * 90 + [30.0] * 9 + [70_000.0]:
        live.take(record("call", ALLOWED, details={"ms": ms}))
    (row,) = live.rows(NOW)
    assert (row.p50, row.p95) == (0.1, 50.0)
    slow = Live()
    slow.take(record("call", ALLOWED, details={"ms": 70_000.0}))
    assert slow.rows(NOW)[0].p95 == float("inf")


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ([record("load", ALLOWED, action="load")], "loaded"),
        ([record("load", DENIED, action="load", reason="grant.denied")], "refused"),
        ([record("load", ALLOWED), record("load", DENIED, reason="grant.denied")], "loaded"),
        ([record("kill", DENIED, action="evict", reason="suspended here: a test")], "suspended"),
        ([record("kill", DENIED, action="evict", reason="evicted: 9 strikes")], "evicted"),
        ([record("kill", DENIED, action="evict", reason="any word")], "ended"),
        ([record("kill", DENIED, action="hold", reason="9 strikes")], "held"),
        ([record("load", ALLOWED), record("kill", DENIED, action="kill")], "loaded"),
        ([record("instance", FAILED, action="back-off", reason="guest.backoff")], "back-off"),
        ([record("instance", FAILED, action="back-off"), call()], "loaded"),
        ([record("kill", DENIED, action="evict", reason="suspended: x"), call()], "suspended"),
        ([record("load", ALLOWED), record("runtime.start", ALLOWED, "")], ""),
    ],
)
def test_the_state_is_the_last_that_the_log_tells_of(
    records: list[dict[str, Any]], state: str
) -> None:
    live = Live()
    for each in records:
        live.take(each)
    assert [r.state for r in live.rows(NOW)] == [state]


@pytest.mark.parametrize(
    "odd",
    [
        {"broken": "not a record"},
        {},
        {"time": 7, "kind": "call"},
        {"time": "soon", "kind": "call", "plugin": "a.b@1"},
        {"time": at(NOW), "kind": ["call"], "plugin": "a.b@1"},
        record("call", ALLOWED, details="x"),
        record("call", ALLOWED, details={"ms": "x", "fuel": -1, "within-ms": {"0.1": -4}}),
        record("call", ALLOWED, details={"ms": float("1e300"), "fuel": 2**80}),
        record("fs", DENIED, reason=None, details={"times": -5}),
        record("call", FAILED, plugin=7, reason={}),
        record("load", ALLOWED, action=["x"]),
    ],
)
def test_refuses_to_fall_over_anything(odd: dict[str, Any]) -> None:
    live = Live()
    live.take(odd)
    live.take(call())
    assert sum(r.calls for r in live.rows(NOW)) > 0
    json.dumps([r.calls for r in live.rows(NOW)], allow_nan=False)


def test_what_is_kept_is_bounded() -> None:
    live = Live(window=60)
    for n in range(MAX_PLUGINS + 500):
        live.take(record("call", ALLOWED, f"acme.p{n}@1.0.0"))
    for n in range(1_000):
        live.take(record("fs", DENIED, reason=f"reason-{n}"))
    for second in range(5_000):
        live.take(call(at=NOW + second))
    rows = live.rows(NOW + 5_000)
    assert len(rows) <= MAX_PLUGINS + 1
    assert all(len(r.denials) <= MAX_WORDS + 1 for r in rows)
    assert max(len(p.cells) for p in live._plugins.values()) <= 61


# -- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def run(home: Path, *words: str) -> Result:
    return CliRunner().invoke(capwasm, [*words, "--home", str(home)])


def test_shows_a_running_core(world: World) -> None:
    plugin = world.load(guest("hostile"))
    for _ in range(50):
        plugin.call("bytes", 2)
    with pytest.raises(GuestError):
        plugin.call("trap")
    world.runtime.recorder.flush()  # type: ignore[attr-defined]

    shown = run(world.home, "top", "--once")
    assert shown.exit_code == 0
    assert re.search(r"test\.guest +loaded +\d+ +1 ", shown.output)
    assert "guest.trap 1" in shown.output
    data = json.loads(run(world.home, "top", "--once", "--json").output)
    (row,) = data["plugins"]
    assert row["outcomes"] == {"guest.trap": 1}
    assert row["calls_per_second"] >= 50 / 60
    assert row["state"] == "loaded"


def test_refuses_where_there_is_no_log(tmp_path: Path) -> None:
    result = run(tmp_path, "top", "--once")
    assert result.exit_code == 1
    assert "audit.sink" in result.output


@pytest.mark.parametrize("width", [20, 40, 46, 60, 80, 200])
def test_fits_every_width_and_shows_no_control_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    with AuditLog.open(tmp_path / "audit", Redactor()) as log:
        log.record(Event("load", ALLOWED, "test.a-rather-long-name.for-a-plugin@1.0.0"))
        log.record(
            Event("fs", DENIED, "evil\x1b[2J\u202e@1", reason="\x1b]0;pwned\x07" + "x" * 300)
        )
        log.record(Event("kill", DENIED, "test.x@1", "evict", reason="suspended: \x1b[31m\r\n" * 9))
    monkeypatch.setenv("COLUMNS", str(width))
    output = run(tmp_path, "top", "--once").output
    assert output.count("\n") >= 5
    assert all(len(line) <= width for line in output.splitlines())
    assert output.isprintable() or set(output) - set("\n") == {c for c in output if c.isprintable()}


def test_reads_the_end_of_a_huge_log_alone(tmp_path: Path) -> None:
    with AuditLog.open(tmp_path / "audit", Redactor()) as log:
        for n in range(60_000):
            log.note(Event("call", ALLOWED, f"test.p{n // 20_000}@1.0.0", "f", details={"ms": 1}))
    data = json.loads(run(tmp_path, "top", "--once", "--json").output)
    assert next(p["plugin"] for p in data["plugins"]) == "test.p2"
    assert "test.p0" not in {p["plugin"] for p in data["plugins"]}


def test_lives_in_a_terminal_and_obeys_its_keys(world: World) -> None:
    plugin = world.load(guest("hostile"))
    plugin.call("bytes", 2)
    master, slave = pty.openpty()
    code = "from capwasm.cli import main; main()"
    program = subprocess.Popen(
        [sys.executable, "-c", code, "top", "--home", str(world.home), "--interval", "0.2"],
        stdin=slave, stdout=slave, stderr=slave, env=os.environ | {"COLUMNS": "90", "LINES": "20"},
    )  # fmt: skip
    os.close(slave)
    seen = ""

    def until(what: str) -> None:
        nonlocal seen
        end = time.monotonic() + 20
        while what not in seen and time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65_536).decode("utf-8", "replace")
        assert what in seen, seen[-2_000:]

    try:
        until("by calls")
        until("test.guest")
        for key, what in (("d", "by denials"), ("h", "q quit"), ("p", "PAUSED"), ("n", "by name")):
            os.write(master, key.encode())
            until(what)
        os.write(master, b"\x1b[A")  # an arrow is no key, and ends nothing
        os.write(master, b"r")
        assert program.poll() is None
        os.write(master, b"q")
        assert program.wait(20) == 0
        until("\x1b[?1049l")  # the terminal is as it was
    finally:
        program.kill()
        program.wait()
        os.close(master)


# -- kill, strikes ------------------------------------------------------------------------------------------


def test_kill_is_a_step_without_a_change_and_ends_what_runs(world: World) -> None:
    plugin = world.load(guest("hostile"), instance="pooled")
    before = set(plugin._live)
    done = run(world.home, "kill", "test.guest", "--by", "ann", "--reason", "hangs")
    assert done.exit_code == 0, done.output
    assert "killed: test.guest" in done.output

    end = time.monotonic() + 20
    while plugin._live & before and time.monotonic() < end:
        time.sleep(0.02)
    assert not plugin._live & before
    assert plugin.alive
    shown = json.loads(run(world.home, "show", "test.guest", "--history", "--json").output)
    (step,) = shown["history"]
    assert (step["command"], step["who"], step["why"]) == ("kill", "ann", "hangs")
    assert step["before"] == step["after"]
    commands = run(world.home, "audit", "tail", "--commands", "--json").output
    assert '"action": "killed"' in commands


@pytest.mark.parametrize("plugin_id", ["test.nobody", "No Id", "../x"])
def test_refuses_to_kill_who_is_not_known(world: World, plugin_id: str) -> None:
    world.load(guest("hostile"))
    result = run(world.home, "kill", plugin_id)
    assert result.exit_code == 1
    assert "registry.unknown" in result.output


def test_strikes_are_listed_and_forgiven(world: World) -> None:
    assert "no plugin has strikes" in run(world.home, "strikes", "list").output
    with contextlib.closing(Docket(world.home)) as docket:
        docket.add("test.busy", 40, int(time.time()), 600)
        docket.end("test.guest", "1.0.0", "suspended", "9 strikes", int(time.time()), held=True)
    listed = json.loads(run(world.home, "strikes", "list", "--json").output)
    assert listed["strikes"] == {"test.busy": 40}
    assert [(s["plugin"], s["held"]) for s in listed["stopped"]] == [("test.guest", True)]
    assert "held" in run(world.home, "strikes", "list").output

    done = run(world.home, "strikes", "forgive", "test.guest", "--by", "ann", "--reason", "fixed")
    assert done.exit_code == 0, done.output
    assert world.load(guest("hostile")).call("bytes", 1)
    told = run(world.home, "audit", "tail", "--commands", "--kind", "kill", "--json").output
    assert '"forgive"' in told
    again = run(world.home, "strikes", "forgive", "test.guest")
    assert again.exit_code == 1
    assert "registry.unknown" in again.output
