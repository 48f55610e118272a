"""Attacks on the audit log by somebody who had not written it: each a hole that was there once."""

from __future__ import annotations

from pathlib import Path

from capwasm.events import DENIED, Event
from capwasm.record.audit import AuditLog
from capwasm.record.redact import Redactor
from capwasm.record.search import Follow


def test_refuses_to_fall_over_very_many_empty_segments(tmp_path: Path) -> None:
    with AuditLog.open(tmp_path, Redactor()) as log:
        follow = Follow(tmp_path)
        log.record(Event("fs", DENIED, "acme.a@1.0.0", "open", "/x"))
    while follow.new():
        pass
    for number in range(2, 1_500):
        (tmp_path / f"{number:06d}.jsonl").touch()
    (tmp_path / "001500.jsonl").write_bytes((tmp_path / "000001.jsonl").read_bytes())

    assert follow.new()
