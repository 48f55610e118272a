"""What a scanner is, what it may say, and what the operator gives it to look with.

A scanner is a function of a `Subject` and a `Context` that yields findings.  It declares its rules,
each once: what it means, how grave it is, what an author can do.  The docs, SARIF and the findings are
all made of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from capwasm.capability import Capability
from capwasm.capsule.identity import Kind
from capwasm.grants.scan import ScanRule
from capwasm.record.redact import printable
from capwasm.review.finding import Finding, Severity

from .subject import Subject

__all__ = ["Context", "NotLooked", "Rule", "Scanner", "cut"]

MAX_EVIDENCE: Final = 200
MAX_TEXT: Final = 500


def cut(text: str, limit: int = MAX_EVIDENCE) -> str:
    """Text of a plugin's, fit for a report: one line, nothing invisible, at most so long."""
    plain = printable(text[:limit])
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of finding.

    Attributes:
        id: `area.word`, stable: exceptions name it.
        severity: how grave a finding of it is, if the scanner does not say otherwise.
        meaning: what is wrong, in one sentence.
        fix: what an author can do, or empty.
    """

    id: str
    severity: Severity
    meaning: str
    fix: str = ""

    def at(
        self,
        place: str,
        evidence: str = "",
        *,
        message: str = "",
        severity: Severity | None = None,
        fix: str = "",
    ) -> Finding:
        """A finding of this rule.

        Args:
            place: where: a member of the capsule, and where in it: `plugin.wasm@0x1f3`.
            evidence: what shows it.  It is made printable and cut; a secret MUST be cut by the
                scanner itself.
            message: what is wrong here; the rule's meaning if none.
            severity: how grave it is here.
            fix: what to do here.
        """
        return Finding(
            self.id,
            severity or self.severity,
            cut(message or self.meaning, MAX_TEXT),
            cut(place, MAX_TEXT),
            cut(evidence),
            cut(fix or self.fix, MAX_TEXT),
        )


@dataclass(frozen=True, slots=True)
class Context:
    """What the operator gives every scanner.

    Attributes:
        rule: the `[scan]` table of the policy.
        now: with a time zone.
        known_bad: SHA-256 in hex → what it is, in the operator's words.
        revoked: why the revocation feed denies the subject, or empty.
        mirror: the mirror of the OSV database that the policy names, if it does.
        ids: plugins that are installed or well known, which no other may be taken for.
        published: when the version was released, where that is known.
        known_publisher: whether other versions or plugins of its signers are installed.
        capabilities: those that there are.
        offline: whether nothing may be asked of a network.
    """

    rule: ScanRule = field(default_factory=ScanRule)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    known_bad: Mapping[str, str] = field(default_factory=dict)
    revoked: Callable[[Subject], str] = lambda _subject: ""
    mirror: Path | None = None
    ids: frozenset[str] = frozenset()
    published: datetime | None = None
    known_publisher: bool = True
    capabilities: Sequence[Capability[Any, Any]] = ()
    offline: bool = True


class NotLooked(Exception):
    """Raised by a scanner that could not look, with why, in one sentence: it is then `skipped`."""


@dataclass(frozen=True, slots=True)
class Scanner:
    """Looks at one side of a capsule.

    Attributes:
        name: stable; a third party's is its entry point's.
        scan: yields findings of `rules` and of no others.  It runs in a thread of its own, and may
            be ended at any moment.  The subject is hostile; what the scanner raises is told of as a
            grave finding, except `NotLooked`.
        rules: what it may find.
        kinds: of which plugins.
        needs: modules that it imports when it runs; `extra` is the extra that has them.
        seconds: how long it may take.
    """

    name: str
    scan: Callable[[Subject, Context], Iterator[Finding]]
    rules: tuple[Rule, ...]
    kinds: frozenset[Kind] = frozenset({"component", "native"})
    needs: tuple[str, ...] = ()
    extra: str = "scan"
    seconds: float = 20.0
