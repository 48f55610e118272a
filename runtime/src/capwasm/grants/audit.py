"""The `[audit]` table of a policy: how the audit log is written, and how long it is kept."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from capwasm._model import Model

__all__ = ["AuditRule"]

MEGABYTE = 2**20


class AuditRule(Model):
    """The `[audit]` table: how the audit log is written, and how long it is kept."""

    keep_days: Annotated[
        int,
        Field(
            ge=0,
            le=36_500,
            description="Days that a record is kept at least; whole segments then go. 0: for ever.",
        ),
    ] = 0
    max_megabytes: Annotated[
        int,
        Field(
            ge=0,
            le=10_000_000,
            description="Size above which the oldest segments go, however young. 0: no bound.",
        ),
    ] = 0
    segment_megabytes: Annotated[
        int, Field(ge=1, le=1024, description="Size at which a segment ends.")
    ] = 64
    segment_hours: Annotated[
        int, Field(ge=1, le=8760, description="Age at which a segment ends.")
    ] = 720
    anchor_records: Annotated[
        int, Field(ge=1, le=1_000_000, description="Records from one signed anchor to the next.")
    ] = 1_000
    flush_ms: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="Milliseconds of allowed calls that a power cut may cost. Denials: none.",
        ),
    ] = 100
    flush_records: Annotated[
        int, Field(ge=1, le=100_000, description="Allowed records that may wait for the disk.")
    ] = 256

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if 0 < self.max_megabytes < 2 * self.segment_megabytes:
            raise ValueError("max-megabytes must be twice segment-megabytes at least")
        return self

    def options(self) -> dict[str, int]:
        """As the log takes them, see `record.options.Options`."""
        return {
            "flush_ms": self.flush_ms,
            "flush_records": self.flush_records,
            "anchor_records": self.anchor_records,
            "segment_bytes": self.segment_megabytes * MEGABYTE,
            "segment_seconds": self.segment_hours * 3600,
            "keep_days": self.keep_days,
            "keep_bytes": self.max_megabytes * MEGABYTE,
        }
