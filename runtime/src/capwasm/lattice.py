"""The algebra of permissions: clauses, and sets of clauses, that can only narrow.

A *clause* is one box of operations ("GET and HEAD on https://api.acme.com:443/v1/*").  A
`ClauseSet` is a union of boxes.  Manifest, policy, consent and the effective grant are all clause
sets of one type, so `effective = manifest ∧ policy ∧ consent` is one operation, `meet`, which is
commutative, associative, idempotent, and never allows what one of its sides does not.

A field that one side leaves open is `None`, which stands for "anything" and is the unit of every
meet below.  The empty clause set allows nothing; it is what every absent table means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, Self, TypeVar, final

__all__ = [
    "BOTTOM",
    "Clause",
    "ClauseSet",
    "meet_max",
    "meet_min",
    "meet_same",
    "meet_set",
    "within_min",
    "within_same",
    "within_set",
]


@final
class _Bottom:
    """The impossible value: its clause allows nothing and is dropped."""

    def __repr__(self) -> str:
        return "BOTTOM"


BOTTOM: Final = _Bottom()

T = TypeVar("T", bound=Hashable)
N = TypeVar("N", int, float)


def meet_same(a: T | None, b: T | None) -> T | _Bottom | None:
    """Equal or open: the flat lattice of names and paths."""
    if a is None or a == b:
        return b
    return a if b is None else BOTTOM


def meet_set(a: frozenset[T] | None, b: frozenset[T] | None) -> frozenset[T] | _Bottom | None:
    """Intersection; an empty one is impossible."""
    if a is None:
        return b
    if b is None:
        return a
    return (a & b) or BOTTOM


def meet_min(a: N | None, b: N | None) -> N | None:
    """The smaller of two limits."""
    if a is None:
        return b
    return a if b is None else min(a, b)


def meet_max(a: N | None, b: N | None) -> N | None:
    """The larger of two, for fields where larger is stricter (a clock's resolution)."""
    if a is None:
        return b
    return a if b is None else max(a, b)


def within_same(inner: T | None, outer: T | None) -> bool:
    """Whether `inner` asks for no more than `outer` gives."""
    return outer is None or inner == outer


def within_set(inner: frozenset[T] | None, outer: frozenset[T] | None) -> bool:
    """Whether `inner` asks for no more than `outer` gives."""
    return outer is None or (inner is not None and inner <= outer)


def within_min(inner: N | None, outer: N | None) -> bool:
    """Whether `inner` asks for no more than `outer` gives."""
    return outer is None or (inner is not None and inner <= outer)


class Clause(ABC):
    """One box of operations.  Subclasses are frozen dataclasses with hashable fields.

    The order `within` and the operation `meet` must agree: `a.meet(b)` is the largest clause
    within both.  tests/property/test_grant_laws.py holds every subclass to the laws.
    """

    __slots__ = ()

    @abstractmethod
    def meet(self, other: Self) -> Self | None:
        """The largest clause within both, or None when they share no operation."""

    @abstractmethod
    def within(self, other: Self) -> bool:
        """Whether every operation (and every quantity) this clause allows, `other` allows too."""

    @abstractmethod
    def satisfied_by(self, granted: Self) -> bool:
        """Whether `granted` gives all the authority asked for here.

        Authority is what an operation may touch and do.  Quantities (quotas, rates, sizes) are
        left out: they narrow without a denial, as an operator expects.
        """

    def denied_by(self, rule: Self) -> bool:
        """Whether a deny rule ends this clause as a whole.

        One that only takes operations out of it does not: it is asked at each operation.
        """
        return self.satisfied_by(rule)

    @abstractmethod
    def describe(self) -> str:
        """One line for a person who decides on it: "read files under /data (app-data)"."""

    @abstractmethod
    def to_toml(self) -> dict[str, Any]:
        """The clause as a table of plugin.toml or policy.toml; parsing it gives an equal clause."""


ClauseT = TypeVar("ClauseT", bound=Clause)


@dataclass(frozen=True, slots=True)
class ClauseSet(Generic[ClauseT]):
    """A union of clauses in normal form: none lies within another, and order means nothing."""

    clauses: frozenset[ClauseT]

    @classmethod
    def of(cls, clauses: Iterable[ClauseT] = ()) -> Self:
        """The set of these clauses, less those that lie within another."""
        unique = frozenset(clauses)
        return cls(
            frozenset(
                c for c in unique if not any(c is not d and c != d and c.within(d) for d in unique)
            )
        )

    def __iter__(self) -> Iterator[ClauseT]:
        """The clauses in a stable order."""
        return iter(sorted(self.clauses, key=repr))

    def __len__(self) -> int:
        return len(self.clauses)

    def __bool__(self) -> bool:
        return bool(self.clauses)

    def meet(self, other: Self) -> Self:
        """What both allow: pairwise meets, normalised."""
        met = (a.meet(b) for a in self.clauses for b in other.clauses)
        return self.of(c for c in met if c is not None)

    def within(self, other: Self) -> bool:
        """Whether each clause lies within one of `other`'s."""
        return all(any(c.within(d) for d in other.clauses) for c in self.clauses)

    def any(self, allows: Callable[[ClauseT], bool]) -> ClauseT | None:
        """The first clause for which `allows` is true: the one that an audit record names."""
        return next((c for c in self if allows(c)), None)

    def missing_from(self, granted: Self) -> list[ClauseT]:
        """The clauses of this request whose authority no clause of `granted` gives in full."""
        return [c for c in self if not any(c.satisfied_by(g) for g in granted.clauses)]
