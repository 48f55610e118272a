"""Which settings a plugin asks for, and the values that the operator gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import Field, StringConstraints

from capwasm.caps._tables import Table
from capwasm.lattice import Clause, _Bottom, meet_same, within_same

__all__ = ["AskedTable", "ConfigClause", "GivenTable"]

MAX_KEYS: Final = 256
MAX_VALUE: Final = 4096

Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]
Value = Annotated[str, StringConstraints(max_length=MAX_VALUE)]


class AskedTable(Table):
    """The `[config]` table of a manifest: only which keys."""

    keys: Annotated[
        tuple[Key, ...],
        Field(min_length=1, max_length=MAX_KEYS, description="The settings that it may read."),
    ]

    def clauses(self) -> Iterator[ConfigClause]:
        """One a key."""
        return (ConfigClause(key) for key in self.keys)


class GivenTable(Table):
    """The `[config]` table of a policy or a consent: values, or keys that have none."""

    keys: Annotated[
        tuple[Key, ...],
        Field(max_length=MAX_KEYS, description="Settings that it may read, whatever their value."),
    ] = ()
    values: Annotated[
        dict[Key, Value],
        Field(
            max_length=MAX_KEYS,
            default_factory=dict,
            description="Settings that it may read, with the value that each has.",
        ),
    ]

    def clauses(self) -> Iterator[ConfigClause]:
        """One a key; a key with a value is not left open as well."""
        yield from (ConfigClause(key, value) for key, value in self.values.items())
        yield from (ConfigClause(key) for key in self.keys if key not in self.values)


@dataclass(frozen=True, slots=True)
class ConfigClause(Clause):
    """One setting.

    Attributes:
        key: its name.
        value: its value, or None where it is left open: a manifest asks for the key alone, and
            what is still open in the effective grant reads as no value.
    """

    key: str
    value: str | None = None

    def meet(self, other: Self) -> Self | None:
        """The same key, with the value that one side gives, or that both agree on."""
        value = meet_same(self.value, other.value)
        if self.key != other.key or isinstance(value, _Bottom):
            return None
        return type(self)(self.key, value)

    def within(self, other: Self) -> bool:
        """Whether `other` gives this key with this value, or leaves it open."""
        return self.key == other.key and within_same(self.value, other.value)

    def satisfied_by(self, granted: Self) -> bool:
        """Whether `granted` gives the key; a manifest leaves the value to the operator."""
        return self.meet(granted) is not None

    def denied_by(self, rule: Self) -> bool:
        """Whether `rule` is about the key, whatever value stands in it."""
        return self.key == rule.key

    def describe(self) -> str:
        """One line for a person."""
        return f"read the setting {self.key}" + ("" if self.value is None else f" = {self.value!r}")

    def to_toml(self) -> dict[str, Any]:
        """The table, of one key."""
        if self.value is None:
            return {"keys": [self.key]}
        return {"values": {self.key: self.value}}
