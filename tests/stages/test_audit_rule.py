"""The `[audit]` table of a policy: what each word does to the log of a home."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from capwasm.errors import PolicyError
from capwasm.events import ALLOWED, DENIED, Event
from capwasm.grants.policy import Policy
from capwasm.home import Home
from capwasm.record.audit import AuditLog, verify_log
from capwasm.record.redact import Redactor

CALL = Event("call", ALLOWED, "acme.x@1.0.0", "handle")
DENIAL = Event("fs", DENIED, "acme.x@1.0.0", "open", "/data", "denied")
# Some 3.3 kB; allowed, for denials that are alike are merged.
LARGE = Event("fs", ALLOWED, "acme.x@1.0.0", "x y" * 340, "x y" * 340, "x y" * 340)


def rule(text: str) -> Any:
    return Policy.load(f"schema = 1\n[audit]\n{text}\n".encode(), []).audit


def record(tmp_path: Path, text: str, *events: Event) -> list[dict[str, Any]]:
    """What is on the disk once these were recorded under that rule, and before it is closed."""
    with Home(tmp_path).recorder(Redactor(), rule=rule(text)) as recorder:
        for event in events:
            recorder.record(event)
        return on_disk(tmp_path)


def on_disk(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for f in segments(tmp_path) for line in f.read_bytes().splitlines()]


def segments(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "audit").glob("*.jsonl"))


def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """A log that was written so long ago, in several segments."""
    real = time.time_ns
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: real() - hours * 3_600_000_000_000)
        with AuditLog.open(tmp_path / "audit", Redactor(), segment_bytes=3_000) as log:
            for _ in range(20):
                log.record(DENIAL)
    assert len(segments(tmp_path)) > 2


def test_keep_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older(tmp_path, monkeypatch, 50)
    before = segments(tmp_path)
    assert "retention" not in {r["kind"] for r in record(tmp_path, "keep-days = 3", DENIAL)}
    assert segments(tmp_path) == before
    told = record(tmp_path, "keep-days = 2", DENIAL)
    assert [r["reason"] for r in told if r["kind"] == "retention"] == ["age"]
    assert segments(tmp_path) == before[-1:]
    assert verify_log(tmp_path / "audit").ok


def test_max_megabytes_and_segment_megabytes(tmp_path: Path) -> None:
    record(tmp_path, "segment-megabytes = 1", *[LARGE] * 1_100)
    sizes = [f.stat().st_size for f in segments(tmp_path)]
    assert len(sizes) >= 3
    assert all(2**20 <= size < 2 * 2**20 for size in sizes[:-1])
    told = record(tmp_path, "segment-megabytes = 1\nmax-megabytes = 2", DENIAL)
    assert [r["reason"] for r in told if r["kind"] == "retention"] == ["size"]
    assert sum(f.stat().st_size for f in segments(tmp_path)) <= 3 * 2**20
    assert verify_log(tmp_path / "audit").ok


def test_segment_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older(tmp_path, monkeypatch, 3)
    count = len(segments(tmp_path))
    record(tmp_path, "segment-hours = 4", DENIAL)
    assert len(segments(tmp_path)) == count
    record(tmp_path, "segment-hours = 3", DENIAL)
    assert len(segments(tmp_path)) == count + 1


def test_anchor_records(tmp_path: Path) -> None:
    def anchors(text: str) -> int:
        found = record(tmp_path, text, *[CALL] * 20, DENIAL)
        return sum(r["action"] == "periodic" for r in found)

    assert anchors("") == 0
    assert anchors("anchor-records = 5") == 4


def test_flush_ms(tmp_path: Path) -> None:
    assert record(tmp_path, "flush-ms = 10000", CALL)[-1]["kind"] == "anchor"
    with Home(tmp_path).recorder(Redactor(), rule=rule("flush-ms = 1")) as recorder:
        recorder.record(CALL)
        end = time.monotonic() + 10
        while on_disk(tmp_path)[-1]["kind"] != "call" and time.monotonic() < end:
            time.sleep(0.005)
        assert on_disk(tmp_path)[-1]["kind"] == "call"


def test_flush_records(tmp_path: Path) -> None:
    found = record(tmp_path, "flush-ms = 10000\nflush-records = 3", *[CALL] * 8)
    assert sum(r["kind"] == "call" for r in found) >= 6


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("keep-days = -1", "keep-days"),
        ("keep-days = 1.5", "keep-days"),
        ("max-megabytes = 100", ""),
        ("segment-megabytes = 0", "segment-megabytes"),
        ("flush-ms = 0", "flush-ms"),
        ("flush-ms = true", "flush-ms"),
        ("keep = 1", ""),
    ],
)
def test_refuses_what_makes_no_sense(text: str, path: str) -> None:
    with pytest.raises(PolicyError) as caught:
        rule(text)
    assert [f.path for f in caught.value.faults] == [f"audit.{path}" if path else "audit"]


def test_allows_all_to_be_kept_if_nobody_says() -> None:
    assert Policy.nothing().audit.options()["keep_days"] == 0
    assert rule("").options() == Policy.nothing().audit.options()
