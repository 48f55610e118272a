"""How an audit log is written and kept: what the `[audit]` table of a policy says."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a log is written.

    Attributes:
        flush_ms: milliseconds after which an allowed call is on the disk.
        flush_records: records that may wait for that.
        anchor_records: records from one anchor to the next.
        segment_bytes: size at which a new segment is begun.   segment_seconds: age at which one is.
        keep_days: days after which a segment is removed; 0: never.
        keep_bytes: size of the log above which its oldest segments are removed; 0: none.
    """

    flush_ms: int = 100
    flush_records: int = 256
    anchor_records: int = 1_000
    segment_bytes: int = 64 * 2**20
    segment_seconds: int = 30 * 86_400
    keep_days: int = 0
    keep_bytes: int = 0
