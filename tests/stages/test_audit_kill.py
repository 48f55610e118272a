"""kill -9 of a writer at any moment: what it was told had been recorded is there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from capwasm.record.audit import AuditLog, verify_log
from capwasm.record.redact import Redactor

WRITER = """
    import sys, time
    from capwasm.record.audit import AuditLog
    from capwasm.events import Event
    from capwasm.record.redact import Redactor
    log = AuditLog.open(sys.argv[1], Redactor(), segment_bytes=60_000, keep_bytes=10**9)
    n = 0
    while True:
        for _ in range(7):
            n += 1
            log.record(Event("call", "allowed", target=f"{sys.argv[2]}-{n}"))
            print(f"a {n} {time.monotonic()}", flush=True)
        n += 1
        kind, verdict = [("fs", "denied"), ("grant", "allowed"), ("install", "allowed")][n % 3]
        log.record(Event(kind, verdict, target=f"{sys.argv[2]}-{n}"))
        print(f"d {n} {time.monotonic()}", flush=True)
"""


@pytest.mark.case("PER-01", "LOG-09")
def test_refuses_to_lose_more_than_the_window_to_kill_9(tmp_path: Path) -> None:
    log, lost_in_all = tmp_path / "log", 0
    for round_ in range(15):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), log, str(round_)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        time.sleep(0.013 * (round_ % 7))
        child.send_signal(signal.SIGKILL)
        lines += child.communicate()[0].splitlines(keepends=True)
        told = [line.split() for line in lines if line.endswith("\n")]
        # As the kill left it: nobody has opened it since.
        report = verify_log(log)
        assert report.ok, report.problems
        kept = {
            int(str(record["target"]).split("-")[1])
            for file in sorted(log.glob("*.jsonl"))
            for record in map(json.loads, file.read_bytes().splitlines())
            if str(record["target"]).startswith(f"{round_}-")
        }
        numbers = [int(number) for _, number, _ in told]
        durable = [int(number) for how, number, _ in told if how == "d"]
        lost = [number for number in numbers if number not in kept]
        lost_in_all += len(lost)
        # None that had to be on the disk, none before it, and no hole: only the newest are missing.
        assert not set(lost) & set(durable)
        assert not lost or min(lost) > max(durable, default=0)
        assert kept == set(range(1, max(kept, default=0) + 1))
        # The window, with room for a machine that is busy.
        when = {int(number): float(at) for _, number, at in told}
        assert all(when[numbers[-1]] - when[number] < 3 for number in lost)
    with AuditLog.open(log, Redactor()):
        pass
    assert verify_log(log).ok
    assert lost_in_all < 15 * 7  # at most what follows a round's last durable record
