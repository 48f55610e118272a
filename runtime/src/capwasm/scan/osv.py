"""Whether the parts of a plugin have known flaws, by a mirror of the OSV database on this machine.

Nothing is asked of a network.  What the mirror can't answer is told as that: a part of which it knows
nothing, an advisory that can't be decided, a mirror that is old or is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from capwasm.capsule.members import SBOM
from capwasm.errors import ScanError
from capwasm.review.finding import Finding, Severity

from .advisory import Version, is_withdrawn, judge, severity_of
from .bill import Component, OddBill, read_bill
from .mirror import Mirror, Row, open_mirror
from .model import Context, NotLooked, Rule, Scanner
from .subject import Subject
from .versions import GIT, Package, package_of

__all__ = ["SCANNERS"]

_S = Severity

AFFECTED: Final = Rule(
    "osv.affected", _S.MEDIUM, "A part of the plugin has a known flaw.",
    "Update it, or say why the plugin is not affected and ask for an exception.",
)  # fmt: skip
MALWARE: Final = Rule(
    "osv.malware", _S.CRITICAL, "A part of the plugin is a package that is known to be malicious.",
    "Remove it, and look at every machine that it was installed on.",
)  # fmt: skip
UNDECIDED: Final = Rule(
    "osv.undecided", _S.MEDIUM,
    "There is an advisory about a part of the plugin, and its version can't be told from those affected.",
    "Give the part its exact version in the SBOM, or look at the advisory.",
)  # fmt: skip
UNCOVERED: Final = Rule(
    "osv.uncovered", _S.LOW,
    "Parts of the plugin are of an ecosystem that the mirror does not hold, or no database knows.",
    "Add that ecosystem to the mirror: capwasm osv import.",
)  # fmt: skip
STALE: Final = Rule(
    "osv.stale", _S.MEDIUM, "The mirror is old, so newer flaws are not known to it.",
    "Fetch the database anew, and run capwasm osv import.",
)  # fmt: skip
MIRROR: Final = Rule(
    "osv.mirror", _S.HIGH, "The mirror that the policy names can't be used, or not all of it.",
    "Make it anew with capwasm osv import, or take [scan] osv out of the policy.",
)  # fmt: skip


@dataclass
class _Flaw:
    """One flaw of one package, under all its names."""

    severity: Severity
    undecided: bool
    ids: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    summary: str = ""
    fixed: list[str] = field(default_factory=list)


def _scan(subject: Subject, context: Context) -> Iterator[Finding]:
    if context.mirror is None:
        raise NotLooked("the policy names no mirror of the OSV database: [scan] osv")
    data = subject.members.get(SBOM)
    if data is None:
        raise NotLooked("the plugin has no SBOM to look advisories up by")
    try:
        bill = read_bill(data)
    except OddBill as exc:
        raise NotLooked(f"the SBOM can't be read: {exc}") from None
    named = [(c, package_of(c)) for c in bill.components]
    wanted = {package for _, package in named if package is not None}
    try:
        mirror = open_mirror(context.mirror)
        rows = mirror.find(wanted)
    except ScanError as exc:
        yield MIRROR.at("[scan] osv", exc.message)
        return
    yield from _about_the_mirror(mirror, wanted, context)
    # `generic` is what has no home: the author's own, or a repository that was looked up.
    types = {c.purl.type for c, p in named if p is None and c.purl is not None} - {"generic"}
    if types:
        yield UNCOVERED.at(SBOM, ", ".join(f"pkg:{name}" for name in sorted(types)))
    seen: set[tuple[Package, str, str]] = set()
    for component, package in named:
        key = (package or Package("", ""), component.known_version, component.commit)
        if package is None or key in seen:
            continue
        seen.add(key)
        for flaw in _flaws(component, package, rows.get(package, []), context):
            yield _finding(component, flaw)


def _about_the_mirror(mirror: Mirror, wanted: set[Package], context: Context) -> Iterator[Finding]:
    asked = sorted({package.ecosystem for package in wanted} - {GIT})
    missing = [name for name in asked if name not in mirror.newest]
    if missing:
        yield UNCOVERED.at("[scan] osv", ", ".join(missing))
    oldest = context.now - timedelta(days=context.rule.osv_days)
    # What is not asked about does not matter here; if nothing is, the newest of all does.
    when = {name: mirror.newest[name] for name in asked if name in mirror.newest}
    stale = [f"{name}: {at:%Y-%m-%d}" for name, at in when.items() if at < oldest]
    if stale:
        yield STALE.at("[scan] osv", f"newest records: {', '.join(stale)}")
    if mirror.odd:
        yield MIRROR.at("[scan] osv", f"{mirror.odd} records can't be read", severity=_S.MEDIUM)


def _flaws(
    component: Component, package: Package, rows: list[Row], context: Context
) -> list[_Flaw]:
    """What is known of one part; records that are names of one flaw are one."""
    version = Version(component.known_version, component.commit)
    found: list[_Flaw] = []
    for row in rows:
        if is_withdrawn(row.record, context.now):
            continue
        verdict = judge(package, row.entry, version)
        if verdict.affected is False:
            continue
        names = _names(row.record)
        flaw = _Flaw(severity_of(row.record, row.entry), verdict.affected is None)
        same = [f for f in found if f.names & names]
        found = [f for f in found if f not in same]
        flaw.ids, flaw.names = {str(row.record["id"])}, names
        summary = row.record.get("summary")
        flaw.summary = summary if isinstance(summary, str) else ""
        flaw.fixed += verdict.fixed
        for other in same:
            flaw.ids |= other.ids
            flaw.names |= other.names
            flaw.summary = other.summary or flaw.summary
            flaw.fixed += other.fixed
            flaw.undecided = flaw.undecided and other.undecided
            flaw.severity = max(flaw.severity, other.severity, key=lambda s: s.rank)
        found.append(flaw)
    return found


def _names(record: Mapping[str, Any]) -> set[str]:
    aliases = record.get("aliases")
    more = {a for a in aliases if isinstance(a, str)} if isinstance(aliases, list) else set()
    return {str(record["id"])} | more


def _finding(component: Component, flaw: _Flaw) -> Finding:
    ids = ", ".join([*sorted(flaw.ids), *sorted(flaw.names - flaw.ids)])
    evidence = f"{component}: {ids}"
    malware = any(name.startswith("MAL-") for name in flaw.names)
    if flaw.undecided:
        # What can't be decided asks for a person, however grave or slight it would be.
        return UNDECIDED.at(component.place, evidence, severity=_S.HIGH if malware else None)
    summary = f" {flaw.summary.rstrip('.')}." if flaw.summary else ""
    fixed = (
        f"Update it to {' or '.join(dict.fromkeys(flaw.fixed))}, or later." if flaw.fixed else ""
    )
    if malware:
        return MALWARE.at(component.place, evidence)
    return AFFECTED.at(
        component.place,
        evidence,
        message=f"{AFFECTED.meaning[:-1]}, known as {min(flaw.ids)}.{summary}",
        severity=flaw.severity,
        fix=fixed,
    )


RULES: Final = (AFFECTED, MALWARE, UNDECIDED, UNCOVERED, STALE, MIRROR)

SCANNERS: Final = (
    Scanner("osv", _scan, RULES, needs=("packageurl", "packaging", "cvss"), seconds=60.0),
)
