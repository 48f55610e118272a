"""A record of the audit log by its number: found in any segment, also beside damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from capwasm.errors import AuditError
from capwasm.events import ALLOWED, Event
from capwasm.record.at import record_at
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from capwasm.record.search import tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Some hundred records of many sizes in many segments."""
    with AuditLog.open(tmp_path / "audit", Redactor(), segment_bytes=9_000) as made:
        for number in range(200):
            details = {"x": "y" * (number * 37 % 900)}
            made.record(Event("load", ALLOWED, f"a.b@{number}", details=details))
    return tmp_path / "audit"


def test_allows_every_record_to_be_found(log: Path) -> None:
    records = list(tail(log, 10_000))
    assert len(records) > 200
    for record in records:
        found = record_at(log, record["seq"])
        assert found is not None
        assert found[0] == record
        assert found[1].startswith('{"hash":"')


def test_refuses_numbers_that_are_not_there(log: Path, tmp_path: Path) -> None:
    last = next(iter(tail(log, 1)))["seq"]
    for number in (0, last + 1, 10**15, -1):
        assert record_at(log, number) is None
    with pytest.raises(AuditError):
        record_at(tmp_path / "none", 1)


@pytest.mark.parametrize("damage", [b"{}", b"", b"\xff" * 300, b"x" * 200_000])
def test_a_damaged_line_is_told_and_its_neighbours_are_found(log: Path, damage: bytes) -> None:
    records = {r["seq"]: r for r in tail(log, 10_000)}
    segment = sorted(p for p in log.iterdir() if p.stem.isdecimal())[2]
    lines = segment.read_bytes().splitlines()
    middle = len(lines) // 2
    seq = json.loads(lines[middle])["seq"]
    lines[middle] = damage
    segment.write_bytes(b"\n".join(lines) + b"\n")

    found = record_at(log, seq)
    assert found is not None
    assert "broken" in found[0]
    for number, record in records.items():
        if number != seq:
            found = record_at(log, number)
            assert found is not None
            assert found[0] == record
