"""How much a plugin may keep in its store.  Whose store it is, is never a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import Field

from capwasm.caps._tables import Size, Table, show_size
from capwasm.lattice import Clause, meet_min, within_min

__all__ = ["KvClause", "KvTable"]

DEFAULT_QUOTA: Final = 1024 * 1024
DEFAULT_KEYS: Final = 1_000
DEFAULT_VALUE: Final = 64 * 1024

MAX_QUOTA: Final = 1024 * 1024 * 1024
MAX_KEYS: Final = 1_000_000
MAX_VALUE: Final = 4 * 1024 * 1024


class KvTable(Table):
    """The `[kv]` table, the same on each side."""

    quota: Annotated[Size, Field(ge=1, le=MAX_QUOTA)] | None = Field(
        default=None, description="Bytes of all keys and values; 1MiB if no side says."
    )
    keys: Annotated[int, Field(ge=1, le=MAX_KEYS)] | None = Field(
        default=None, description="How many keys; 1000 if no side says."
    )
    value_bytes: Annotated[Size, Field(ge=1, le=MAX_VALUE)] | None = Field(
        default=None, description="Bytes of one value; 64KiB if no side says."
    )

    def clauses(self) -> list[KvClause]:
        """One."""
        return [KvClause(self.quota, self.keys, self.value_bytes)]


@dataclass(frozen=True, slots=True)
class KvClause(Clause):
    """A store of the plugin's own, so large and no larger.

    What every side leaves open is the default: 1 MiB, 1,000 keys, values of 64 KiB.

    Attributes:
        quota: bytes of all keys and values together.
        keys: how many keys.
        value_bytes: bytes of one value.
    """

    quota: int | None = None
    keys: int | None = None
    value_bytes: int | None = None

    def meet(self, other: Self) -> Self:
        """The smaller of each."""
        return type(self)(
            meet_min(self.quota, other.quota),
            meet_min(self.keys, other.keys),
            meet_min(self.value_bytes, other.value_bytes),
        )

    def within(self, other: Self) -> bool:
        """Whether nothing here is more than in `other`."""
        return (
            within_min(self.quota, other.quota)
            and within_min(self.keys, other.keys)
            and within_min(self.value_bytes, other.value_bytes)
        )

    def satisfied_by(self, granted: Self) -> bool:  # noqa: ARG002  only quantities differ
        """Any store satisfies: its size is a quantity."""
        return True

    def holds(self, size: int, keys: int) -> bool:
        """Whether a store of so many bytes and keys is within the clause."""
        return size <= (self.quota or DEFAULT_QUOTA) and keys <= (self.keys or DEFAULT_KEYS)

    def takes(self, size: int) -> bool:
        """Whether a value of so many bytes is within the clause."""
        return size <= (self.value_bytes or DEFAULT_VALUE)

    def describe(self) -> str:
        """One line for a person."""
        return (
            f"keep up to {show_size(self.quota or DEFAULT_QUOTA)} under"
            f" {self.keys or DEFAULT_KEYS} keys in a store of its own"
        )

    def to_toml(self) -> dict[str, Any]:
        """The table, with what is not open."""
        table: dict[str, Any] = {}
        if self.quota is not None:
            table["quota"] = show_size(self.quota)
        if self.keys is not None:
            table["keys"] = self.keys
        if self.value_bytes is not None:
            table["value-bytes"] = show_size(self.value_bytes)
        return table
