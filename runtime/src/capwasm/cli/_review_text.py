"""Reviews as text for people, and as data for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from capwasm.registry.case import Case, ExceptionState
from capwasm.registry.changes import Changes
from capwasm.registry.model import utc_text
from capwasm.review.rules import Vote

from ._output import shown

__all__ = [
    "case_data",
    "case_lines",
    "exception_data",
    "exception_lines",
    "queue_lines",
    "standing_lines",
]

_RISKS: Final = {"high": "red", "medium": "yellow", "low": "green"}
MAX_SHOWN: Final = 30


def queue_lines(cases: Sequence[Case]) -> Iterator[str]:
    """What waits, one block each."""
    if not cases:
        yield "nothing waits for a review"
    for number, case in enumerate(cases):
        if number:
            yield ""
        yield from _head(case)
        yield from standing_lines(case)
        yield f"    capwasm review {_name(case)}"


def case_lines(case: Case) -> Iterator[str]:
    """All that a reviewer wants to know of a version."""
    yield from _head(case)
    record = case.record
    yield f"  content   {record.archive}"
    for signer in record.signers:
        yield f"  signed    {shown(signer.name)} ({', '.join(sorted(signer.roles))})"
    if case.trouble:
        yield f"  broken    {shown(case.trouble)}"
        return
    yield ""
    yield click.style("asks for", bold=True) if case.permissions else "asks for nothing"
    for permission in case.permissions:
        risk = click.style(f"{permission.risk.value:<7}", fg=_RISKS[permission.risk.value])
        yield f"  {risk} {shown(permission.capability)}: {shown(permission.text)}"
        yield f"          {shown(permission.why)}"
    yield from _changes(case)
    yield ""
    yield from _findings(case)
    if case.votes:
        yield ""
        yield click.style("said", bold=True)
        for vote in case.votes:
            yield f"  {_vote(vote)}"
    yield ""
    yield from standing_lines(case)
    if case.standing.ok and record.state.value in ("submitted", "scanned", "reviewed"):
        yield f"    capwasm activate {record.plugin} {record.version}"


def standing_lines(case: Case) -> Iterator[str]:
    """What all that comes to, and what would help."""
    standing = case.standing
    if standing.ok:
        until = f" until {utc_text(standing.until)}" if standing.until else ""
        yield click.style(f"  its review lets it serve{until}", fg="green")
        return
    yield click.style(f"  its review does not let it serve [{standing.code}]", fg="yellow")
    for need in standing.needs:
        place = f"{shown(need.path)}: " if need.path else ""
        yield f"  - {place}{shown(need.message)}"
        if need.fix:
            seen = f" --seen {case.seen}" if "capwasm approve " in need.fix else ""
            yield f"      {shown(need.fix)}{seen}"


def exception_lines(found: Sequence[ExceptionState]) -> Iterator[str]:
    """Security exceptions, by plugin."""
    if not found:
        yield "there are no security exceptions"
    for made in found:
        until = f" until {utc_text(made.until)}" if made.until else ""
        word = click.style(
            made.state, fg={"in force": "green", "pending": "yellow"}.get(made.state)
        )
        yield f"{made.plugin}@{made.version}  {shown(made.what)}  {word}{until}"
        yield from (f"  {_vote(vote)}" for vote in made.votes)


def _name(case: Case) -> str:
    return f"{case.record.plugin}@{case.record.version}"


def _head(case: Case) -> Iterator[str]:
    serves = "nothing serves" if case.serving is None else f"{case.serving} serves"
    if case.serving == case.record.version:
        serves = "it serves"
    name = click.style(f"{case.record.plugin} {case.record.version}", bold=True)
    yield f"{name}  {case.record.state}  ({serves})"


def _changes(case: Case) -> Iterator[str]:
    changes = case.changes
    if changes is None or not changes.comparable or case.serving == case.record.version:
        return
    lines = list(_differences(changes))
    yield ""
    yield click.style(f"against {case.serving}, which serves", bold=True)
    yield from lines or ["  asks for the same"]


def _differences(changes: Changes) -> Iterator[str]:
    for sign, words in (("+", ("new", "widened")), ("-", ("narrowed", "gone"))):
        for word in words:
            yield from (f"  {sign} {word:<9} {shown(p)}" for p in getattr(changes, word))
    for limit, before, after in (*changes.raised, *changes.lowered):
        yield f"    {limit:<9} {before:,} → {after:,}"
    for sign, keys in (("+", changes.signers.added), ("-", changes.signers.gone)):
        yield from (f"  {sign} signer    {key}" for key in keys)


def _findings(case: Case) -> Iterator[str]:
    report = case.report
    if report is None:
        yield "it was not scanned"
        return
    counts = ", ".join(f"{n} {severity}" for severity, n in report.counts.items()) or "nothing"
    yield (
        click.style(f"found {counts}", bold=True) + f"  (risk {report.score} of 100, {report.when})"
    )
    for finding in report.findings[:MAX_SHOWN]:
        yield f"  {finding.severity:<8} {finding.rule}  [{finding.fingerprint}]"
        yield f"           {shown(finding.place)}: {shown(finding.message)}"
        if finding.evidence:
            yield f"           {shown(finding.evidence)}"
    if len(report.findings) > MAX_SHOWN:
        yield f"  and {len(report.findings) - MAX_SHOWN} more: --json shows all"
    yield from (
        f"  skipped  {shown(r.name)}: {shown(r.skipped)}" for r in report.scanners if r.skipped
    )


def _vote(vote: Vote) -> str:
    record = vote.record
    what = f" of {shown(record.what)}" if record.what else ""
    until = f" until {utc_text(record.expires)}" if record.expires else ""
    why = f": {shown(record.reason)}" if record.reason else ""
    doubt = click.style(f"  (does not count: {shown(vote.doubt)})", fg="red") if vote.doubt else ""
    return f"{utc_text(record.when)}  {record.kind}{what}{until} by {shown(vote.name)}{why}{doubt}"


# -- data ------------------------------------------------------------------------------------------------


def case_data(case: Case) -> dict[str, Any]:
    """A case, for `--json`."""
    record, standing = case.record, case.standing
    return {
        "plugin": record.plugin,
        "version": record.version,
        "state": record.state,
        "serving": case.serving,
        "digest": record.archive,
        "seen": case.seen or None,
        "trouble": case.trouble or None,
        "permissions": [
            {"capability": p.capability, "text": p.text, "risk": p.risk.value, "why": p.why}
            for p in case.permissions
        ],
        "new": None if case.changes is None else [str(p) for p in case.changes.beyond],
        "score": None if case.report is None else case.report.score,
        "findings": None
        if case.report is None
        else [
            {
                "rule": f.rule,
                "severity": f.severity,
                "place": f.place,
                "message": f.message,
                "evidence": f.evidence,
                "fingerprint": f.fingerprint,
            }
            for f in case.report.findings
        ],
        "said": [_vote_data(vote) for vote in case.votes],
        "ok": standing.ok,
        "code": standing.code or None,
        "until": standing.until and utc_text(standing.until),
        "needs": [{"path": f.path, "message": f.message, "fix": f.fix} for f in standing.needs],
    }


def exception_data(made: ExceptionState) -> dict[str, Any]:
    """An exception, for `--json`."""
    return {
        "plugin": made.plugin,
        "version": made.version,
        "what": made.what,
        "state": made.state,
        "until": made.until and utc_text(made.until),
        "said": [_vote_data(vote) for vote in made.votes],
    }


def _vote_data(vote: Vote) -> dict[str, Any]:
    record = vote.record
    return {
        "kind": record.kind,
        "who": vote.name,
        "key-id": record.key_id,
        "when": utc_text(record.when),
        "reason": record.reason,
        "what": record.what or None,
        "expires": record.expires and utc_text(record.expires),
        "counts": vote.counts,
        "doubt": vote.doubt or None,
    }
