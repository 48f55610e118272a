"""What a plugin may know of time: how finely, whether the date, whether it may wait."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field

from capwasm.caps._tables import Table
from capwasm.lattice import Clause, _Bottom, meet_same, within_same

__all__ = ["ClockClause", "ClockTable", "Operation"]

MAX_RESOLUTION_MS: Final = 3_600_000

Operation = Literal["monotonic", "wall", "sleep"]

_SECOND: Final = "%Y-%m-%dT%H:%M:%SZ"


def _moment(text: str) -> str:
    """The text itself.

    Raises:
        ValueError: it is no second since 1970, in UTC.
    """
    try:
        when = datetime.strptime(text, _SECOND)  # noqa: DTZ007  the Z is checked as text
    except ValueError:
        when = None
    if when is None or when.strftime(_SECOND) != text or when.year < 1970:
        raise ValueError("not a moment such as 2027-01-31T00:00:00Z, from 1970 on")
    return text


class ClockTable(Table):
    """The `[clock]` table, the same on each side.  An empty one is an ordinary clock."""

    resolution_ms: Annotated[
        int,
        Field(ge=1, le=MAX_RESOLUTION_MS, description="How finely it sees time, in milliseconds."),
    ] = 1
    wall: Annotated[
        bool, Field(description="Whether it may read the date and the time of day.")
    ] = True
    sleep: Annotated[bool, Field(description="Whether it may wait.")] = True
    date: Annotated[
        str | None,
        AfterValidator(lambda text: text if text is None else _moment(text)),
        Field(description="What the date is, always, such as 2027-01-31T00:00:00Z."),
    ] = None

    def clauses(self) -> list[ClockClause]:
        """One."""
        return [ClockClause(self.resolution_ms, self.wall, self.sleep, self.date)]


@dataclass(frozen=True, slots=True)
class ClockClause(Clause):
    """Elapsed time, always; the date and waiting, where granted.

    The defaults are the most there is, so they are the unit of the meet and no field need be open.
    One millisecond is the finest: finer clocks serve attacks on caches more than plugins.

    Attributes:
        resolution_ms: both clocks are rounded down to a multiple of it; coarser is stricter.
        wall: whether the date and time of day may be read.
        sleep: whether the plugin may wait.
        date: what the date is, always; None for the true one.  Elapsed time goes on.
    """

    resolution_ms: int = 1
    wall: bool = True
    sleep: bool = True
    date: str | None = None

    @property
    def date_ns(self) -> int | None:
        """The date in nanoseconds since 1970, if it stands still."""
        if self.date is None:
            return None
        return int(datetime.strptime(self.date, _SECOND).replace(tzinfo=UTC).timestamp()) * 10**9

    def meet(self, other: Self) -> Self | None:
        """The coarser clock that does what both may; None where each has a date of its own."""
        date = meet_same(self.date, other.date)
        if isinstance(date, _Bottom):
            return None
        return type(self)(
            max(self.resolution_ms, other.resolution_ms),
            self.wall and other.wall,
            self.sleep and other.sleep,
            date,
        )

    def within(self, other: Self) -> bool:
        """Whether it is no finer than `other`, does no more, and has its date."""
        return (
            self.resolution_ms >= other.resolution_ms
            and within_same(self.date, other.date)
            and self.satisfied_by(other)
        )

    def satisfied_by(self, granted: Self) -> bool:
        """Whether `granted` reads and waits as asked; how finely, and which date, is a quantity."""
        return (granted.wall or not self.wall) and (granted.sleep or not self.sleep)

    def allows(self, operation: Operation) -> bool:
        """Whether the operation is within the clause."""
        return {"monotonic": True, "wall": self.wall, "sleep": self.sleep}[operation]

    def denied_by(self, rule: Self) -> bool:
        """Whether `rule` takes everything; one that takes the date leaves elapsed time."""
        return rule.denies("monotonic")

    def denies(self, operation: Operation) -> bool:
        """Whether the clause, as a deny rule, ends the operation."""
        return {"monotonic": self.wall and self.sleep, "wall": self.wall, "sleep": self.sleep}[
            operation
        ]

    def describe(self) -> str:
        """One line for a person."""
        what = ["read elapsed time"]
        if self.wall:
            what.append("read the date" if self.date is None else f"read the date {self.date}")
        if self.sleep:
            what.append("wait")
        return f"{', '.join(what)}, to {self.resolution_ms} ms"

    def to_toml(self) -> dict[str, Any]:
        """The table; a date only if it stands still."""
        table = {"resolution-ms": self.resolution_ms, "wall": self.wall, "sleep": self.sleep}
        return table if self.date is None else {**table, "date": self.date}
