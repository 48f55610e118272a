"""A loop of denials: the first on the disk at once, the rest counted, and none left out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, DENIED, Event
from capwasm.record.audit import AuditLog, MemorySink, tail, verify_log
from capwasm.record.metrics import Metrics
from capwasm.record.recorders import Recorders
from capwasm.record.redact import Redactor
from capwasm.record.repeats import FIRST
from tests.helpers import ListRecorder
from tests.kit import World

DENIAL = Event("fs", DENIED, "acme.x@1.0.0", "open", "/etc", "not-granted", {"access": "read"})


def told(directory: Path) -> tuple[int, int]:
    """How many denials the log tells of, and by how many records."""
    found = [r for r in tail(directory, 100_000) if r.get("kind") == "fs"]
    return sum(r["details"].get("times", 1) for r in found), len(found)


@pytest.mark.case("RES-21")
def test_a_loop_of_denials_is_few_records_that_tell_of_all(tmp_path: Path) -> None:
    metrics, seen, shown = Metrics(), ListRecorder(), ListRecorder()
    with AuditLog.open(tmp_path / "a", Redactor()) as log:
        recorders = Recorders(log, Redactor(), metrics=metrics, hook=shown.record)
        recorders.listen(seen.record)
        for _ in range(50_000):
            recorders.record(DENIAL)
        assert len(seen.events) == 50_000, "what watches sees each, at once"
    count, records = told(tmp_path / "a")

    assert count == 50_000
    assert records < 2_000
    assert verify_log(tmp_path / "a").ok
    text = metrics.render().decode()
    assert 'denials_total{kind="fs",plugin="acme.x",reason="not-granted"} 50000.0' in text
    assert sum(e.details.get("times", 1) for e in shown.events) == 50_000
    assert len(shown.events) == records


def test_the_first_ones_and_those_that_differ_are_on_the_disk_at_once(tmp_path: Path) -> None:
    with AuditLog.open(tmp_path / "a", Redactor(), flush_ms=60_000) as log:
        recorders = Recorders(log, Redactor(), log=False)
        for n in range(FIRST):
            recorders.record(DENIAL)
            assert told(tmp_path / "a") == (n + 1, n + 1)
        others: list[dict[str, Any]] = [
            {"target": "/root"},
            {"action": "stat"},
            {"reason": "revoked"},
            {"plugin": "acme.y@1.0.0"},
            {"details": {"access": "write"}},
        ]
        for n, words in enumerate(others, FIRST + 1):
            recorders.record(Event(**({f: getattr(DENIAL, f) for f in DENIAL.__slots__} | words)))
            assert told(tmp_path / "a") == (n, n)
        recorders.record(DENIAL)
        assert told(tmp_path / "a") == (n, n)
        recorders.flush()
        assert told(tmp_path / "a") == (n + 1, n + 1)


@pytest.mark.parametrize(
    "event",
    [
        Event("fs", ALLOWED, "acme.x@1.0.0", "open", "/data"),
        Event("kill", DENIED, "acme.x@1.0.0", "kill", reason="a person"),
        Event("load", DENIED, "acme.x@1.0.0", reason="grant.denied"),
        Event("limit", DENIED, "acme.x@1.0.0", reason="limit.fuel"),
        Event("net", DENIED, "acme.x@1.0.0", "GET", details={"tried": ["::1"]}),
    ],
)
def test_refuses_to_merge_anything_else(event: Event) -> None:
    sink = MemorySink()
    log = AuditLog(sink, Redactor())
    recorders = Recorders(log, Redactor(), log=False)
    for _ in range(3 * FIRST):
        recorders.record(event)
    log.close()
    lines = b"".join(bytes(s.data) for s in sink.segments).splitlines()
    assert sum(f'"kind":"{event.kind}"'.encode() in line for line in lines) == 3 * FIRST


def test_many_threads_lose_none(tmp_path: Path) -> None:
    with AuditLog.open(tmp_path / "a", Redactor(), flush_ms=1) as log:
        recorders = Recorders(log, Redactor(), log=False)
        threads = [
            threading.Thread(target=lambda: [recorders.record(DENIAL) for _ in range(3_000)])
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert told(tmp_path / "a")[0] == 18_000


def test_a_log_that_can_t_be_written_refuses_the_repeats_too(tmp_path: Path) -> None:
    log = AuditLog.open(tmp_path / "a", Redactor())
    recorders = Recorders(log, Redactor(), log=False)
    for _ in range(FIRST + 5):
        recorders.record(DENIAL)
    log.close()
    with pytest.raises(AuditError):
        recorders.record(DENIAL)
    assert told(tmp_path / "a")[0] == FIRST + 5


def test_a_process_that_is_killed_loses_no_first_one_and_the_chain_holds(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from tests.monitor.test_repeats import *\n"
        "log = AuditLog.open(sys.argv[1], Redactor())\n"
        "recorders = Recorders(log, Redactor(), log=False)\n"
        "for n in range(FIRST): recorders.record(DENIAL)\n"
        "print('now', flush=True)\n"
        "while True: recorders.record(DENIAL)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a"), root], stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"now\n"
        os.kill(run.pid, signal.SIGKILL)
    assert told(tmp_path / "a")[0] >= FIRST
    assert verify_log(tmp_path / "a").ok
    with AuditLog.open(tmp_path / "a", Redactor()):
        pass
    assert verify_log(tmp_path / "a").ok


def test_a_plugin_that_asks_in_a_loop_is_told_of_in_full(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.policy("[strikes]\nsuspend = 0\n")
    try:
        prober = world.prober()
        for _ in range(100):
            with pytest.raises(Exception, match="denied"):
                prober("fs.read", "/data/x")
        world.runtime.recorder.flush()  # type: ignore[attr-defined]
        found: Counter[str] = Counter()
        for record in world.events():
            if record["verdict"] == DENIED:
                found[record["kind"]] += record["details"].get("times", 1)
    finally:
        world.close()
    assert max(found.values()) == 100
