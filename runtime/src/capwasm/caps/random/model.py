"""How many random bytes a plugin may ask for at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import Field

from capwasm.caps._tables import Size, Table, show_size
from capwasm.lattice import Clause

__all__ = ["MAX_BYTES", "RandomClause", "RandomTable"]

# What any one call may ask for, whatever is granted (RES-15).
MAX_BYTES: Final = 64 * 1024


class RandomTable(Table):
    """The `[random]` table, the same on each side."""

    bytes_per_call: Annotated[
        Size, Field(ge=8, le=MAX_BYTES, description="The most that one call returns.")
    ] = MAX_BYTES

    def clauses(self) -> list[RandomClause]:
        """One."""
        return [RandomClause(self.bytes_per_call)]


@dataclass(frozen=True, slots=True)
class RandomClause(Clause):
    """Random bytes, so many a call.  The default is the most there is: the unit of the meet."""

    bytes_per_call: int = MAX_BYTES

    def meet(self, other: Self) -> Self:
        """The smaller of both."""
        return type(self)(min(self.bytes_per_call, other.bytes_per_call))

    def within(self, other: Self) -> bool:
        """Whether it is no more than `other`."""
        return self.bytes_per_call <= other.bytes_per_call

    def satisfied_by(self, granted: Self) -> bool:  # noqa: ARG002  only a quantity differs
        """Any grant of random bytes satisfies: how many at once is a quantity."""
        return True

    def describe(self) -> str:
        """One line for a person."""
        return f"get random bytes, {show_size(self.bytes_per_call)} a call"

    def to_toml(self) -> dict[str, Any]:
        """The table."""
        return {"bytes-per-call": self.bytes_per_call}
