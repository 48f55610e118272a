"""What the rules of `lint` are asked about, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from capwasm.capability import Capability, Risk
from capwasm.grants.policy import Policy, Rule, Selector
from capwasm.lattice import Clause
from capwasm.review.finding import Severity

from .rules import RULES

__all__ = ["Check", "Ground", "Lint", "Place", "covers", "found", "overlaps", "wider"]


@dataclass(frozen=True, slots=True)
class Lint:
    """One thing that is legal and unwise.

    Attributes:
        rule: its stable id, of `RULES`.   severity: the rule's.
        path: where it stands: `plugins."*".net[0]`.   line: in the file, if that can be told.
        message: what is unwise, for people.   fix: what to write or do.
    """

    rule: str
    severity: Severity
    path: str
    line: int | None
    message: str
    fix: str

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "rule": self.rule,
            "severity": str(self.severity),
            "path": self.path,
            "line": self.line,
            "message": self.message,
            "fix": self.fix,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """One rule that allows, and where it stands."""

    selector: Selector
    capability: Capability[Any, Any]
    rule: Rule

    def risks(self) -> Iterator[tuple[Clause, Risk, str]]:
        """Each clause with its risk."""
        for clause in self.rule.clauses:
            yield (clause, *self.capability.risk(clause))


@dataclass(frozen=True)
class Ground:
    """All that a rule may look at.  It is looked at often, so it is sorted once.

    Attributes:
        policy, capabilities: as parsed.   today: in UTC.
        installed: ids of what is installed, or None where that is not known.
        memory: bytes that the machine has, or None where that is not known.
    """

    policy: Policy
    capabilities: Sequence[Capability[Any, Any]]
    today: date
    installed: frozenset[str] | None = None
    memory: int | None = None

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Every rule that allows."""
        return tuple(
            Place(selector, capability, rule)
            for selector in self.policy.selectors
            for capability in self.capabilities
            for rule in selector.allow.get(capability.name, ())
        )

    @cached_property
    def allowed(self) -> Mapping[str, Mapping[str, Sequence[Place]]]:
        """The rules that allow, by capability and pattern."""
        found: dict[str, dict[str, list[Place]]] = {}
        for place in self.places:
            by_pattern = found.setdefault(place.capability.name, {})
            by_pattern.setdefault(place.selector.pattern, []).append(place)
        return found

    @cached_property
    def denied(self) -> Mapping[str, Mapping[str, Sequence[Rule]]]:
        """The denials, by capability and pattern."""
        found: dict[str, dict[str, list[Rule]]] = {}
        groups = [("*", self.policy.deny), *((s.pattern, s.deny) for s in self.policy.selectors)]
        for pattern, rules in groups:
            for capability, those in rules.items():
                found.setdefault(capability, {}).setdefault(pattern, []).extend(those)
        return found

    def denials(self, capability: str, pattern: str) -> list[Rule]:
        """The denials that hold for all that a pattern names."""
        mine = self.denied.get(capability, {})
        return [rule for wide in wider(pattern) for rule in mine.get(wide, ())]


Check = Callable[[Ground], Iterator[Lint]]


def found(rule: str, path: str, line: int | None, message: str, fix: str = "") -> Lint:
    """A finding, with the severity of its rule, and its general fix if there is none of its own."""
    return Lint(rule, RULES[rule].severity, path, line, message, fix or RULES[rule].fix)


def wider(pattern: str) -> list[str]:
    """The patterns that name all that this one names, itself last: `*`, `acme.*`, `acme.weather`."""
    labels = pattern.removesuffix(".*").split(".")
    above = [f"{'.'.join(labels[:n])}.*" for n in range(1, len(labels))]
    return list(dict.fromkeys(["*", *above, pattern]))


def covers(wide: str, narrow: str) -> bool:
    """Whether each id that the pattern `narrow` names, `wide` names too."""
    return wide in wider(narrow)


def overlaps(a: str, b: str) -> bool:
    """Whether two patterns can name one id: then one of them covers the other."""
    return covers(a, b) or covers(b, a)
