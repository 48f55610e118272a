"""A kill, a full disk and a broken one at every system call: the old state, or the new one."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.registry.breaking import VERBS
from tests.registry.shop import SHM

ROOT = Path(__file__).resolve().parents[2]


@cache
def broken(verb: str, how: str, stride: int = 1) -> dict[str, Any]:
    """What breaking a verb came to; in memory where there is any, for the disk is the slow part."""
    with tempfile.TemporaryDirectory(dir=SHM) as base:
        done = subprocess.run(
            [sys.executable, "-m", "tests.registry.breaking", verb, how, base, str(stride)],
            cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    if "skip" in report:
        pytest.skip(report["skip"])
    return report


@pytest.mark.case("PER-01")
@pytest.mark.parametrize("verb", VERBS)
def test_allows_a_kill_at_every_system_call_to_leave_the_old_state_or_the_new(verb: str) -> None:
    report = broken(verb, "kill")

    assert report["faults"] == []
    few = verb in ("collect", "count")
    assert report["steps"] >= (5 if few else 40)
    assert report["seen"]["old"] > (3 if few else 10)
    assert verb == "collect" or report["seen"]["new"] > (3 if few else 10)


@pytest.mark.case("PER-02")
@pytest.mark.parametrize(
    ("verb", "how", "stride"),
    [
        ("first", "full", 3),
        ("update", "full", 2),
        ("rollback", "full", 3),
        ("update", "broken", 3),
        ("remove", "broken", 4),
        ("first", "read-only", 9),
        ("update", "read-only", 6),
        ("pending", "full", 4),
        ("ripe", "full", 5),
        ("sent-back", "full", 5),
        ("sent-back", "broken", 6),
        ("sent-back", "read-only", 5),
    ],
)
def test_refuses_by_name_where_the_disk_does_not_take_it(verb: str, how: str, stride: int) -> None:
    report = broken(verb, how, stride)

    assert report["faults"] == []
    assert report["seen"]["refused"] > 4
    # An error of the very last sync may come after the change: both are whole states.
    assert report["seen"]["old"] >= report["seen"]["refused"] - (how != "full")


@pytest.mark.case("PER-07")
def test_the_capsule_is_durable_before_the_registry_speaks_of_it() -> None:
    calls = [(name, Path(target).name) for name, target in broken("update", "kill")["calls"]]

    def first(name: str, end: str, after: int = 0) -> int:
        found = (
            i for i, (n, t) in enumerate(calls) if i >= after and n == name and t.endswith(end)
        )
        return next(found)

    written = first("write", ".tmp")
    synced = first("fsync", ".tmp", written)
    named = first("rename", ".capsule", synced)
    folder = first("fsync", calls[named][1][:2], named)
    told = first("fsync", ".journal", folder)
    entered = first("pwrite64", "registry.db-wal", told)
    last = max(i for i, call in enumerate(calls) if call == ("pwrite64", "registry.db-wal"))
    durable = first("fdatasync", "registry.db-wal", last)
    head = first("rename", "registry.head", durable)

    assert written < synced < named < folder < told < entered <= last < durable < head
