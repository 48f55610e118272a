"""How risky a plugin is, from 0 to 100, and what that is made of.  Pure.

It is for putting a queue in order, never for a decision: `review` decides by findings and permissions.
It is monotone: a finding, a permission or a doubt more never lowers it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from capwasm.capability import Risk
from capwasm.review.finding import Finding, Severity

__all__ = ["Facts", "score"]

# Points for each, and for all of a kind together.
_FINDINGS: Final = {
    Severity.CRITICAL: (70, 100),
    Severity.HIGH: (30, 90),
    Severity.MEDIUM: (8, 40),
    Severity.LOW: (2, 10),
    Severity.NOTE: (0, 0),
}
_PERMISSIONS: Final = {Risk.HIGH: (10, 30), Risk.MEDIUM: (3, 12), Risk.LOW: (1, 3)}
_NEW_HOURS: Final = 72.0


@dataclass(frozen=True, slots=True)
class Facts:
    """What counts besides findings.

    Attributes:
        permissions: how many it asks for, by risk.
        verified: whether trusted keys signed it.
        native: whether it is native code.
        sbom: whether it tells what it is made of.
        known_publisher: whether anything of its signers is installed.
        hours: since its release; None if that is not known.
    """

    permissions: Mapping[Risk, int] = field(default_factory=dict)
    verified: bool = True
    native: bool = False
    sbom: bool = True
    known_publisher: bool = True
    hours: float | None = None


def score(facts: Facts, findings: Iterable[Finding]) -> tuple[int, tuple[str, ...]]:
    """The score, and its reasons with their points, the weightiest first."""
    parts = [part for part in _parts(facts, Counter(f.severity for f in findings)) if part[0]]
    parts.sort(key=lambda part: -part[0])
    return min(100, sum(points for points, _ in parts)), tuple(f"{p}: {why}" for p, why in parts)


def _parts(facts: Facts, counts: Counter[Severity]) -> Iterator[tuple[int, str]]:
    for severity, (each, most) in _FINDINGS.items():
        count = counts[severity]
        yield min(most, each * count), f"{count} finding{'s' * (count != 1)} of {severity} severity"
    for risk, (each, most) in _PERMISSIONS.items():
        count = facts.permissions.get(risk, 0)
        yield (
            min(most, each * count),
            f"{count} permission{'s' * (count != 1)} of {risk.value} risk",
        )
    yield 25 * (not facts.verified), "no trusted key signed it"
    yield 15 * facts.native, "it is native code"
    yield 5 * (not facts.known_publisher), "nothing of its publisher is installed"
    yield 3 * (not facts.sbom), "it does not tell what it is made of"
    new = facts.hours is not None and facts.hours < _NEW_HOURS
    yield 3 * new, f"it was released less than {_NEW_HOURS:g} hours ago"
