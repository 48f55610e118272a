"""Old segments go; what is left verifies at each moment, and begins nowhere else."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from capwasm.capsule.keys import PrivateKey
from capwasm.errors import AuditError
from capwasm.events import DENIED, Event
from capwasm.record import _audit_check, _read
from capwasm.record.audit import AuditLog, Keeping, Pruning, verify_log
from capwasm.record.redact import Redactor
from capwasm.record.retention import plan, remove

DENIAL = Event("fs", DENIED, "acme.x@1.0.0", "open", "/data", "denied")
KEY = PrivateKey.generate()
KEYS = [KEY.public]


def open_log(path: Path, **options: int) -> AuditLog:
    return AuditLog.open(path, Redactor(), key=KEY, **{"segment_bytes": 3_000, **options})


def fill(log: AuditLog, count: int = 40) -> None:
    for _ in range(count):
        log.record(DENIAL)


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.glob("*.jsonl"))


def records(path: Path) -> Iterator[dict[str, Any]]:
    for name in names(path):
        yield from map(json.loads, (path / name).read_bytes().splitlines())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    with open_log(tmp_path / "log") as made:
        fill(made)
    assert len(names(tmp_path / "log")) > 5
    return tmp_path / "log"


def test_allows_the_oldest_segments_to_go_by_size_and_says_up_to_where(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open_log(path, keep_bytes=9_000) as log:
        fill(log, 100)
    assert sum(p.stat().st_size for p in path.glob("*.jsonl")) < 9_000 + 2 * 3_500
    told = [r for r in records(path) if r["kind"] == "retention"]
    report = verify_log(path, keys=KEYS)
    assert report.ok, report.problems
    assert told[-1]["details"]["seq"] == report.pruned_to == report.first - 1
    assert told[-1]["reason"] == "size"
    assert names(path)[0] > "000010"


def test_allows_what_is_old_to_go_when_the_log_is_opened(log: Path) -> None:
    middle = names(log)[3]
    for name in names(log)[:3]:  # made as if 10 days ago: the chain is not looked at for this
        assert name < middle
    now = datetime.now(UTC)
    assert plan(log, Keeping(days=1), now) is None
    found = plan(log, Keeping(days=1), now + timedelta(days=1, seconds=5))
    assert found is not None
    assert (found.why, found.first, len(found.segments)) == ("age", 1, len(names(log)) - 1)


def test_refuses_to_let_the_newest_segment_go(log: Path) -> None:
    later = datetime.now(UTC) + timedelta(days=999)
    found = plan(log, Keeping(days=1, bytes=1), later)
    assert found is not None
    assert len(found.segments) == len(names(log)) - 1
    assert plan(log, Keeping(), later) is None


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("more", [0, 1, 2])
def test_refuses_a_beginning_beyond_what_was_pruned(log: Path, more: int) -> None:
    with open_log(log) as made:
        pruned = made.prune(Keeping(bytes=12_000))
    assert pruned is not None
    before = len(names(log))
    for name in names(log)[:more]:
        (log / name).unlink()
    report = verify_log(log, keys=KEYS)
    assert len(names(log)) == before - more
    assert report.ok == (more == 0), report.problems
    if more:
        assert [(p.kind, p.line) for p in report.problems] == [("removed", 1)]
        assert f"pruned was only up to {pruned.upto.seq}" in report.problems[0].message


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("how", ["no record of it", "unsigned", "another key", "another hash"])
def test_refuses_a_pruned_beginning_that_the_key_does_not_vouch_for(log: Path, how: str) -> None:
    found = plan(log, Keeping(bytes=12_000))
    assert found is not None
    key = {"unsigned": None, "another key": PrivateKey.generate()}.get(how, KEY)
    if how != "no record of it":
        upto = found.upto._replace(hash="0" * 64) if how == "another hash" else found.upto
        with AuditLog.open(log, Redactor(), key=key) as forger:
            forger._sink.outlived = lambda _: Pruning(  # type: ignore[assignment,method-assign]
                found.segments, found.bytes, found.first, upto, "size"
            )
            forger.prune(Keeping(bytes=1))
    else:
        remove(log, found.segments)
    report = verify_log(log, keys=KEYS)
    assert "removed" in {p.kind for p in report.problems}


@pytest.mark.case("LOG-10")
@pytest.mark.parametrize("where", ["last of the old", "first of the new"])
def test_refuses_to_prune_evidence(log: Path, where: str) -> None:
    found = plan(log, Keeping(bytes=12_000))
    assert found is not None
    at = len(found.segments) - (where == "last of the old")
    file = log / names(log)[at]
    lines = file.read_bytes().splitlines(keepends=True)
    index = -1 if where == "last of the old" else 0
    lines[index] = lines[index].replace(b'"time":"2', b'"time":"1')
    file.write_bytes(b"".join(lines))
    before = names(log)
    with open_log(log, keep_bytes=12_000) as made:
        with pytest.raises(AuditError) as caught:
            made.prune()
        assert caught.value.code == "audit.retention"
        made.record(DENIAL)  # and it refuses nothing else
    assert names(log)[: len(before)] == before
    assert [r["reason"] for r in records(log) if r["kind"] == "gap"] == ["prune"]


@pytest.mark.case("PER-01", "LOG-10")
def test_allows_a_kill_at_each_step_of_rotating_and_pruning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill would leave on the disk is copied before each system call, verified and reopened."""
    path, states = tmp_path / "log", tmp_path / "states"
    count = 0

    def copied(call: Any) -> Any:
        def before(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            shutil.copytree(path, states / f"{count:04d}")
            return call(*args, **kwargs)

        return before

    with open_log(path, segment_bytes=1_500, flush_ms=60_000, keep_bytes=3_200) as log:
        fill(log, 4)
        with monkeypatch.context() as patch:
            for name in ("pwrite", "fdatasync", "fsync", "unlink", "open"):
                patch.setattr(os, name, copied(getattr(os, name)))
            fill(log, 5)
    assert count > 30
    pruned = set()
    for state in sorted(states.iterdir()):
        report = verify_log(state, keys=KEYS)
        assert report.ok, (state.name, report.problems)
        pruned.add((report.first, report.pruned_to))
        open_log(state, segment_bytes=1_500, keep_bytes=3_200).close()
        report = verify_log(state, keys=KEYS)
        assert report.ok, (state.name, report.problems)
        assert report.first == report.pruned_to + 1
    assert any(first <= upto for first, upto in pruned)  # said, and not yet removed


def test_allows_a_segment_to_end_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with open_log(tmp_path / "log", segment_bytes=10**6, segment_seconds=3_600) as log:
        log.record(DENIAL)
        monkeypatch.setattr(time, "time", lambda: now + 3_500)
        log.record(DENIAL)
        assert len(names(tmp_path / "log")) == 1
        monkeypatch.setattr(time, "time", lambda: now + 3_700)
        log.record(DENIAL)
        assert len(names(tmp_path / "log")) == 2
        log.flush()
        monkeypatch.setattr(time, "time", lambda: now + 9_000)
        log.flush()  # nothing but an anchor is in it
        assert len(names(tmp_path / "log")) == 2
    with open_log(tmp_path / "log", segment_bytes=10**6, segment_seconds=3_600) as log:
        log.record(DENIAL)  # the age counts from the first record, over openings
        assert len(names(tmp_path / "log")) == 3
    assert verify_log(tmp_path / "log", keys=KEYS).ok


def test_allows_a_full_disk_while_pruning_and_goes_on(log: Path) -> None:
    with open_log(log) as made:
        segment = made._done.segment
        real, full = segment.fd, os.open("/dev/full", os.O_RDWR)  # type: ignore[attr-defined]
        segment.fd = full  # type: ignore[attr-defined]
        before = names(log)
        with pytest.raises(AuditError):
            made.prune(Keeping(bytes=6_000))
        assert names(log) == before
        segment.fd = real  # type: ignore[attr-defined]
        os.close(full)
        made.record(DENIAL)
    assert verify_log(log, keys=KEYS).ok


def test_allows_verification_while_it_is_pruned(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, done = _read.open_segment, list[int]()

    def opened(path: Path) -> Any:
        if path.name == "000002.jsonl" and not done:
            done.append(1)
            with open_log(log) as made:
                made.prune(Keeping(bytes=12_000))
        return real(path)

    monkeypatch.setattr(_audit_check, "open_segment", opened)
    report = verify_log(log, keys=KEYS)
    assert done
    assert report.ok, report.problems
