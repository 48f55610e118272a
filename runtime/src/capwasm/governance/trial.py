"""Cases, tried on a policy through the stages that a load goes through: manifest, decision, grants.

Every difference is told, not only the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Final

from capwasm.capability import Capability, Grant
from capwasm.errors import CapwasmError, ManifestError
from capwasm.grants.consent import Consent, ConsentEntry, ConsentRecord, Subject, consent_for
from capwasm.grants.decide import Resolution
from capwasm.grants.manifest import Manifest, parse_manifest
from capwasm.grants.policy import Policy
from capwasm.grants.resolve import Grants, rehearse
from capwasm.lattice import ClauseSet

from .cases import Case, Operation
from .operations import question

__all__ = ["Difference", "Outcome", "junit", "try_case"]

# When a consent was given plays no part in what it covers.
_THEN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_ZERO: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Difference:
    """What did not come out as expected.

    Attributes:
        what: `expect`, `limits.memory`, `net: GET https://…`.
        expected, got: in words.   why: what made it so, or empty.
    """

    what: str
    expected: str
    got: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case; it passed if nothing differs."""

    name: str
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether all came out as expected."""
        return not self.differences


def try_case(
    case: Case, policy: Policy, capabilities: Sequence[Capability[Any, Any]], beside: Path
) -> Outcome:
    """Try one case.

    Raises:
        PolicyError: `policy.cases`: the file of its manifest can't be read.
    """
    try:
        manifest = parse_manifest(case.manifest_bytes(beside), capabilities, context=case.name)
    except ManifestError as exc:
        return Outcome(case.name, tuple(_refused(case, exc)))
    unknown = [p for p in case.without if p not in _paths(manifest)]
    if unknown:
        gone = (Difference("without", ", ".join(unknown), "no table of the manifest"),)
        return Outcome(case.name, gone)
    consent = _consent(case, manifest)
    found, result = rehearse(manifest, policy, consent, capabilities, core=case.core)
    grants = result if isinstance(result, Grants) else None
    code = "granted" if isinstance(result, Grants) else result.code
    return Outcome(case.name, tuple(_differences(case, found, grants, code)))


def _paths(manifest: Manifest) -> set[str]:
    return {a.path for request in manifest.requests.values() for a in request.asked}


def _consent(case: Case, manifest: Manifest) -> Consent:
    subject = Subject.of(manifest, _ZERO)
    if case.consent == "none":
        return consent_for(subject)
    agreed = {
        name: ClauseSet.of(
            c for a in request.asked if a.path not in case.without for c in a.clauses
        )
        for name, request in manifest.requests.items()
    }
    record = ConsentRecord.of(
        subject,
        {name: clauses for name, clauses in agreed.items() if clauses},
        manifest.limits,
        who="the case",
        when=_THEN,
    )
    return consent_for(subject, [ConsentEntry(1, record)])


def _refused(case: Case, exc: CapwasmError) -> Iterator[Difference]:
    """What differs where the manifest itself is refused: it is denied, and nothing is granted."""
    why = "; ".join(str(f).partition("\n")[0] for f in exc.faults[:5]) or exc.message
    got = f"denied: {exc.code}"
    if case.code != exc.code:
        yield Difference("expect", _wanted(case), got, why)
    for word in ("missing", "granted", "narrowed", "isolation"):
        if getattr(case, word):
            yield Difference(word, "something", got)
    for name in case.limits:
        yield Difference(f"limits.{name}", str(case.limits[name]), got)
    for operation, want in case.operations:
        if want:
            yield Difference(str(operation), "allowed", "refused", got)


def _wanted(case: Case) -> str:
    word = case.expect or ("denied" if case.code else "a manifest that is sound")
    return f"{word}: {case.code}" if case.code else word


def _differences(
    case: Case, found: Resolution, grants: Grants | None, code: str
) -> Iterator[Difference]:
    denied = code != "granted"
    got = f"denied: {code}" if denied else "granted"
    why = "; ".join(f"{f.path}: {f.message}" for f in found.faults)
    if (case.expect is not None and (case.expect == "denied") != denied) or (
        case.code is not None and case.code != code
    ):
        yield Difference("expect", _wanted(case), got, why)
    yield from _paths_differ("missing", case.missing, _missing(found))
    yield from _paths_differ(
        "granted", case.granted, {d.path for d in found.decisions if d.effective and not denied}
    )
    yield from _paths_differ(
        "narrowed", case.narrowed, {d.path for d in found.decisions if d.narrowed_by}
    )
    rows = {row.name: row for row in found.limits}
    for name, want in case.limits.items():
        row = rows[name]
        if row.effective != want:
            by = " and ".join(row.narrowed_by)
            yield Difference(f"limits.{name}", f"{want}", f"{row.effective}", by and f"by {by}")
    if case.isolation is not None:
        place = "process" if found.isolation.process else "in-process"
        if place != case.isolation:
            yield Difference("isolation", case.isolation, place, ", ".join(found.isolation.by))
    for operation, wanted in case.operations:
        if _is_allowed(operation, grants) != wanted:
            words = ("allowed", "refused") if wanted else ("refused", "allowed")
            yield Difference(str(operation), *words, _why(operation, found, denied=denied))


def _is_allowed(operation: Operation, grants: Grants | None) -> bool:
    """By the real grant; a plugin that is not loaded does nothing."""
    if grants is None:
        return False
    grant: Grant[Any] | None = grants.by_capability.get(operation.capability)
    return grant is not None and question(operation.capability, operation.text)(grant)


def _why(operation: Operation, found: Resolution, *, denied: bool) -> str:
    if denied:
        return "the load is denied"
    mine = [d for d in found.decisions if d.capability == operation.capability]
    in_force = [c.describe() for d in mine for c in d.effective]
    cut = [r.path for d in mine for r in d.cut_by]
    told = f"in force: {'; '.join(in_force) or 'nothing'}"
    return f"{told}; except by {', '.join(dict.fromkeys(cut))}" if cut else told


def _missing(found: Resolution) -> set[str]:
    """`net[0]: policy`: what is missing, and whose word is."""
    sides = {f"{f.path}: {_side(f.message)}" for d in found.decisions for f in d.faults}
    if found.core:
        sides.add(f"{found.core.path}: core")
    if found.isolation.fault:
        sides.add(f"{found.isolation.fault.path}: policy")
    return sides


def _side(message: str) -> str:
    """Whose word is missing: `policy`, `consent`, or `both`, which only together leave too little."""
    side = message.partition(":")[0]
    return side if side in ("policy", "consent") else "both"


def _paths_differ(what: str, wanted: Sequence[str] | None, got: set[str]) -> Iterator[Difference]:
    if wanted is not None and set(wanted) != got:
        yield Difference(what, _listed(wanted), _listed(got))


def _listed(paths: Iterable[str]) -> str:
    return ", ".join(sorted(paths)) or "none"


_UNFIT: Final = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd]")


def junit(outcomes: Sequence[Outcome], suite: str) -> str:
    """The outcomes as JUnit's XML, which most build servers read."""
    failed = sum(not o.passed for o in outcomes)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="{_xml(suite)}" tests="{len(outcomes)}" failures="{failed}" errors="0">',
    ]
    for outcome in outcomes:
        head = f'  <testcase classname="policy" name="{_xml(outcome.name)}"'
        if outcome.passed:
            lines.append(f"{head}/>")
            continue
        text = "\n".join(
            f"{d.what}: expected {d.expected}, got {d.got}" + (f" ({d.why})" if d.why else "")
            for d in outcome.differences
        )
        first = _xml(f"{len(outcome.differences)} differ")
        lines.append(f'{head}><failure message="{first}">{_xml(text)}</failure></testcase>')
    return "\n".join([*lines, "</testsuite>", ""])


def _xml(text: str) -> str:
    return escape(_UNFIT.sub("?", text))
