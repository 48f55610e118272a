"""What a plugin may log: from which level, how fast, how much at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field

from capwasm.caps._tables import Size, Table, show_size
from capwasm.lattice import Clause, meet_max, meet_min, within_min

__all__ = ["LEVELS", "Level", "LogClause", "LogTable"]

Level = Literal["debug", "info", "warn", "error"]
LEVELS: Final[tuple[Level, ...]] = ("debug", "info", "warn", "error")

DEFAULT_RATE: Final = 100
DEFAULT_RECORD_BYTES: Final = 8 * 1024
MAX_RATE: Final = 10_000
MAX_RECORD_BYTES: Final = 64 * 1024


class LogTable(Table):
    """The `[log]` table, the same on each side.  An empty one asks for nothing special."""

    level: Annotated[
        Level | None, Field(description="The least level that is kept; every level if left out.")
    ] = None
    rate: Annotated[int, Field(ge=1, le=MAX_RATE)] | None = Field(
        default=None, description=f"Records a second; {DEFAULT_RATE} if no side says."
    )
    record_bytes: Annotated[Size, Field(ge=64, le=MAX_RECORD_BYTES)] | None = Field(
        default=None, description="Size to which a record is cut; 8KiB if no side says."
    )

    def clauses(self) -> list[LogClause]:
        """One."""
        return [LogClause(self.level, self.rate, self.record_bytes)]


@dataclass(frozen=True, slots=True)
class LogClause(Clause):
    """One box of records.  A field that is None is open: the default then holds.

    Attributes:
        level: the least level that is kept; higher is stricter.
        rate: records a second, of all instances of the plugin together.
        record_bytes: size to which a record is cut, its fields included.
    """

    level: Level | None = None
    rate: int | None = None
    record_bytes: int | None = None

    @property
    def rank(self) -> int:
        """The level as a number."""
        return 0 if self.level is None else LEVELS.index(self.level)

    def admits(self, rank: int) -> bool:
        """Whether records of that level are kept."""
        return rank >= self.rank

    def meet(self, other: Self) -> Self:
        """The stricter of each."""
        rank = meet_max(_rank(self.level), _rank(other.level))
        return type(self)(
            None if rank is None else LEVELS[rank],
            meet_min(self.rate, other.rate),
            meet_min(self.record_bytes, other.record_bytes),
        )

    def within(self, other: Self) -> bool:
        """Whether it keeps no more than `other`."""
        return (
            (other.level is None or (self.level is not None and self.rank >= other.rank))
            and within_min(self.rate, other.rate)
            and within_min(self.record_bytes, other.record_bytes)
        )

    def satisfied_by(self, granted: Self) -> bool:  # noqa: ARG002  see below
        """True: level, rate and size are quantities, and leave no authority to lack."""
        return True

    def describe(self) -> str:
        """One line for a person."""
        return (
            f"write log records of level {self.level or 'debug'} and above,"
            f" up to {self.rate or DEFAULT_RATE} a second"
            f" of {show_size(self.record_bytes or DEFAULT_RECORD_BYTES)}"
        )

    def to_toml(self) -> dict[str, Any]:
        """The table, without what is open."""
        table = {"level": self.level, "rate": self.rate, "record-bytes": self.record_bytes}
        return {word: value for word, value in table.items() if value is not None}


def _rank(level: Level | None) -> int | None:
    return None if level is None else LEVELS.index(level)
