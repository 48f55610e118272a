"""The review queue, and a case: what somebody sees before he signs."""

from __future__ import annotations

from typing import Final

from capwasm.capability import Risk
from capwasm.registry.desk import Case
from capwasm.registry.model import TRANSITIONS, State
from capwasm.review.finding import Severity
from capwasm.review.record import UNREVIEWED, RecordKind

from .asking import Ask, Page

__all__ = ["case", "queue"]

MAX_FINDINGS: Final = 200


def queue(ask: Ask) -> Page:
    """What waits for somebody."""
    with ask.office.desk() as desk:
        cases = desk.queue()
    return Page("queue.html", {"cases": [_brief(c) for c in cases]})


def _brief(case: Case) -> dict[str, object]:
    risks = [p.risk for p in case.permissions]
    gravest = next((r for r in (Risk.HIGH, Risk.MEDIUM, Risk.LOW) if r in risks), None)
    return {
        "case": case,
        "risk": gravest.value if gravest else "none",
        "approvals": sum(v.record.kind is RecordKind.APPROVAL and not v.doubt for v in case.votes),
    }


def case(ask: Ask) -> Page:
    """All that is known of one version."""
    id_, version = ask.words["id"], ask.words["version"]
    office = ask.office
    with office.desk() as desk:
        found = desk.case(id_, version)
    report, record, me = found.report, found.record, office.me
    policy = office.policy()
    waits = record.state in (State.SUBMITTED, State.SCANNED, State.REVIEWED)
    counts = report.counts if report else {}
    return Page(
        "case.html",
        {
            "case": found,
            "record": record,
            "report": report,
            "findings": report.findings[:MAX_FINDINGS] if report else (),
            "more_findings": max(0, len(report.findings) - MAX_FINDINGS) if report else 0,
            "counts": [(s.value, counts[s]) for s in reversed(Severity) if s in counts],
            "shown": found.seen,
            "rule": policy.review,
            "rejected": any(
                v.record.kind is RecordKind.REJECTION and not v.doubt for v in found.votes
            ),
            "waits": waits,
            "may_sign": me.key is not None,
            "may_except": bool(me.roles & {"security", "engineering"}),
            "may_activate": State.ACTIVE in TRANSITIONS[record.state]
            or record.state is State.SCANNED,
            "may_revoke": State.REVOKED in TRANSITIONS[record.state],
            "subjects": _subjects(found),
            "today": office.now().date().isoformat(),
        },
    )


def _subjects(case: Case) -> list[tuple[str, str]]:
    """What an exception may be about: the whole review, a rule, a single finding."""
    found = [(UNREVIEWED, "the review as a whole (unreviewed)")]
    if case.report is not None:
        grave = case.report.at_least(Severity.MEDIUM)
        found += [(rule, f"every finding of {rule}") for rule in sorted({f.rule for f in grave})]
        found += [(f.fingerprint, f"{f.rule} at {f.place}") for f in grave[:50]]
    return found
