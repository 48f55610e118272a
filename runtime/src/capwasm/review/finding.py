"""Findings: what a scanner saw, how grave it is, where it stands, and what shows it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import Field

from capwasm._model import Model, parse_json, validate
from capwasm.errors import RegistryError

__all__ = ["MAX_FINDINGS", "Finding", "Report", "ScannerRun", "Severity", "gravest_first"]

MAX_FINDINGS: Final = 1_000
MAX_REPORT_BYTES: Final = 4 * 2**20


class Severity(StrEnum):
    """How grave a finding is; the order is that of the words here."""

    NOTE = "note"
    """Worth knowing; nothing to do."""
    LOW = "low"
    """Untidy, or tells more than it should."""
    MEDIUM = "medium"
    """A person should look before it serves."""
    HIGH = "high"
    """It should not serve, unless two people answer for it."""
    CRITICAL = "critical"
    """Known to be bad."""

    @property
    def rank(self) -> int:
        """From 0, the least."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a scanner saw.

    Attributes:
        rule: a stable id, `area.word`: `imports.undeclared`, `native.no-relro`.
        severity: how grave.
        message: what is wrong, for people, in one sentence.
        place: where: a member of the capsule, and where in it: `plugin.wasm@0x1f3`,
            `plugin.toml:net[0].allow`, `sbom.cdx.json:components[3]`.
        evidence: what shows it, cut to 200 characters; never a secret in the clear.
        fix: what its author could do, or empty.
    """

    rule: str
    severity: Severity
    message: str
    place: str
    evidence: str = ""
    fix: str = ""

    @property
    def fingerprint(self) -> str:
        """The same for the same finding in a later scan: 16 hex digits over rule, place, evidence."""
        text = f"{self.rule}\0{self.place}\0{self.evidence}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ScannerRun:
    """One scanner that ran, or why it could not.

    Attributes:
        name: its stable name.   skipped: why it did not look, in one sentence; empty if it did.
    """

    name: str
    skipped: str = ""


class _Finding(Model):
    rule: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*(\.[a-z0-9-]+)+$", max_length=64)]
    severity: Severity
    message: Annotated[str, Field(max_length=500)]
    place: Annotated[str, Field(max_length=500)]
    evidence: Annotated[str, Field(max_length=200)] = ""
    fix: Annotated[str, Field(max_length=500)] = ""


class _Run(Model):
    name: Annotated[str, Field(max_length=64)]
    skipped: Annotated[str, Field(max_length=500)] = ""


class _Report(Model):
    schema_number: Annotated[int, Field(alias="schema", ge=1, le=1)]
    plugin: Annotated[str, Field(max_length=128)]
    version: Annotated[str, Field(max_length=128)]
    archive: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    when: Annotated[str, Field(max_length=32)]
    score: Annotated[int, Field(ge=0, le=100)]
    reasons: Annotated[tuple[str, ...], Field(max_length=100)]
    scanners: Annotated[tuple[_Run, ...], Field(max_length=100)]
    findings: Annotated[tuple[_Finding, ...], Field(max_length=MAX_FINDINGS)]


@dataclass(frozen=True, slots=True)
class Report:
    """What all scanners said of one capsule.

    Attributes:
        plugin, version, archive: what was scanned; `archive` is the SHA-256 of what was signed.
        when: `2027-01-31T00:00:00Z`.
        score: the risk, 0 to 100.   reasons: what it is made of, the most first.
        scanners: which ran.   findings: the gravest first.
    """

    plugin: str
    version: str
    archive: str
    when: str
    score: int
    reasons: tuple[str, ...]
    scanners: tuple[ScannerRun, ...]
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Severity | None:
        """Of the gravest finding; None if there is none."""
        return max((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    @property
    def counts(self) -> dict[Severity, int]:
        """How many findings of each severity, the gravest first, without zeros."""
        found = Counter(f.severity for f in self.findings)
        return {s: found[s] for s in reversed(Severity) if found[s]}

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings that are so grave, or graver."""
        return tuple(f for f in self.findings if f.severity.rank >= severity.rank)

    def to_json(self) -> bytes:
        """The report as plain data, the same bytes for the same report."""
        doc: dict[str, Any] = {
            "schema": 1,
            "plugin": self.plugin,
            "version": self.version,
            "archive": self.archive,
            "when": self.when,
            "score": self.score,
            "reasons": list(self.reasons),
            "scanners": [_some(name=r.name, skipped=r.skipped) for r in self.scanners],
            "findings": [
                _some(
                    rule=f.rule,
                    severity=f.severity,
                    message=f.message,
                    place=f.place,
                    evidence=f.evidence,
                    fix=f.fix,
                )
                for f in self.findings
            ],
        }
        return json.dumps(doc, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, data: bytes, context: str = "") -> Self:
        """The report that `to_json` wrote.

        Raises:
            RegistryError: `review.record`, with all faults.
        """
        doc = parse_json(
            data, RegistryError, code="review.record", context=context, limit=MAX_REPORT_BYTES
        )
        made = validate(_Report, doc, RegistryError, code="review.record", context=context)
        return cls(
            made.plugin,
            made.version,
            made.archive,
            made.when,
            made.score,
            made.reasons,
            tuple(ScannerRun(r.name, r.skipped) for r in made.scanners),
            tuple(
                Finding(f.rule, f.severity, f.message, f.place, f.evidence, f.fix)
                for f in made.findings
            ),
        )


def gravest_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sorted by severity, then rule and place."""
    return tuple(sorted(findings, key=lambda f: (-f.severity.rank, f.rule, f.place, f.evidence)))


def _some(**words: str) -> dict[str, str]:
    return {name: word for name, word in words.items() if word}
