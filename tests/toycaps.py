"""Two small capabilities, so that the stages are tested for what they do with any capability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field

from capwasm._model import Model
from capwasm.capability import Capability, Grant, Interface, OpenContext, Parsed, Risk, Side
from capwasm.caps._tables import parse_tables
from capwasm.lattice import (
    BOTTOM,
    Clause,
    meet_min,
    meet_same,
    meet_set,
    within_min,
    within_same,
    within_set,
)

Act = Literal["look", "enter", "paint"]


@dataclass(frozen=True, slots=True)
class DoorClause(Clause):
    """Acts on one door, or on any; so many times."""

    door: str | None = None
    acts: frozenset[str] | None = None
    times: int | None = None

    def meet(self, other: Self) -> Self | None:
        door, acts = meet_same(self.door, other.door), meet_set(self.acts, other.acts)
        if door is BOTTOM or acts is BOTTOM:
            return None
        return type(self)(door, acts, meet_min(self.times, other.times))  # type: ignore[arg-type]

    def within(self, other: Self) -> bool:
        return self.satisfied_by(other) and within_min(self.times, other.times)

    def satisfied_by(self, granted: Self) -> bool:
        return within_same(self.door, granted.door) and within_set(self.acts, granted.acts)

    def allows(self, operation: tuple[str, str]) -> bool:
        door, act = operation
        return self.door in (None, door) and (self.acts is None or act in self.acts)

    def describe(self) -> str:
        acts = " and ".join(sorted(self.acts)) if self.acts else "do anything to"
        return f"{acts} {self.door or 'any door'}"

    def to_toml(self) -> dict[str, Any]:
        table = {
            "door": self.door,
            "acts": sorted(self.acts) if self.acts else None,
            "times": self.times,
        }
        return {k: v for k, v in table.items() if v is not None}


class DoorTable(Model):
    door: Annotated[str, Field(pattern="^[a-z]+$")] | None = None
    acts: Annotated[tuple[Act, ...], Field(min_length=1)] | None = None
    times: Annotated[int, Field(ge=1, le=1000)] | None = None

    def clause(self) -> DoorClause:
        return DoorClause(self.door, frozenset(self.acts) if self.acts else None, self.times)


@dataclass(frozen=True, slots=True)
class BellClause(Clause):
    """Tunes that may be rung; each is one clause, and one table holds many."""

    tune: str

    def meet(self, other: Self) -> Self | None:
        return self if self == other else None

    def within(self, other: Self) -> bool:
        return self == other

    def satisfied_by(self, granted: Self) -> bool:
        return self == granted

    def allows(self, operation: str) -> bool:
        return self.tune == operation

    def describe(self) -> str:
        return f"ring {self.tune}"

    def to_toml(self) -> dict[str, Any]:
        return {"tunes": [self.tune]}


class BellTable(Model):
    tunes: tuple[str, ...] = ()


class _Toy(Capability[Any, None]):
    interfaces: ClassVar = ()
    table: ClassVar[type[Model]]

    def schema(self, side: Side) -> dict[str, Any]:
        return self.table.model_json_schema()

    def open(self, grant: Grant[Any], ctx: OpenContext) -> None:
        return None

    def serve(self, state: None) -> Sequence[Interface]:
        return ()


class Door(_Toy):
    """Painting is a high risk, and so is anything that may be painting; entering is medium."""

    name: ClassVar = "door"
    title: ClassVar = "Doors"
    repeated: ClassVar = True
    clause: ClassVar = DoorClause
    table: ClassVar = DoorTable

    def parse(self, tables: Sequence[Mapping[str, Any]], side: Side) -> Parsed[DoorClause]:
        return parse_tables(tables, DoorTable, lambda t: [t.clause()], repeated=True)

    def risk(self, clause: DoorClause) -> tuple[Risk, str]:
        if clause.acts is None or "paint" in clause.acts:
            return Risk.HIGH, "Paint stays."
        if "enter" in clause.acts:
            return Risk.MEDIUM, "Who enters sees."
        return Risk.LOW, "It only looks."


class Bell(_Toy):
    """One table, several clauses, all of low risk."""

    name: ClassVar = "bell"
    title: ClassVar = "Bell"
    repeated: ClassVar = False
    clause: ClassVar = BellClause
    table: ClassVar = BellTable

    def parse(self, tables: Sequence[Mapping[str, Any]], side: Side) -> Parsed[BellClause]:
        return parse_tables(
            tables, BellTable, lambda t: [BellClause(tune) for tune in t.tunes], repeated=False
        )

    def risk(self, clause: BellClause) -> tuple[Risk, str]:
        return Risk.LOW, "It is only a sound."


TOYS: tuple[Capability[Any, Any], ...] = (Door(), Bell())

PLUGIN = """schema = 1
[plugin]
id = "acme.weather"
name = "Weather"
version = "1.2.0"
requires-core = ">=0.3,<1"
kind = "component"
"""


def manifest_text(body: str = "", *, version: str = "1.2.0") -> bytes:
    """A manifest of the plugin that the tests use, with tables of its own."""
    return (PLUGIN.replace("1.2.0", version) + body).encode()
