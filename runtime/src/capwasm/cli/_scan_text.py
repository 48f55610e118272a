"""The words of `capwasm scan`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from capwasm.review.finding import Finding, Report, Severity

from ._output import shown

__all__ = ["report_lines"]

_COLOURS: Final = {
    Severity.CRITICAL: "red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
}


def report_lines(report: Report) -> Iterator[str]:
    """A report for people: what it comes to, then the findings, the gravest first, by their rule."""
    counts = ", ".join(f"{n} {severity}" for severity, n in report.counts.items())
    yield f"{report.plugin} {report.version}: {counts or 'nothing found'}; risk {report.score} of 100"
    for reason in report.reasons:
        yield f"  {shown(reason)}"
    last: Finding | None = None
    for finding in report.findings:
        if last is None or (last.rule, last.severity, last.message) != (
            finding.rule,
            finding.severity,
            finding.message,
        ):
            yield from _fix(last)
            word = click.style(
                f"{finding.severity:<8}", fg=_COLOURS.get(finding.severity), bold=True
            )
            yield ""
            yield f"{word} {finding.rule}"
            yield f"  {shown(finding.message)}"
        evidence = f"  {shown(finding.evidence)}" if finding.evidence else ""
        yield f"  at {shown(finding.place)}{evidence}"
        last = finding
    yield from _fix(last)
    skipped = [run for run in report.scanners if run.skipped]
    if skipped:
        yield ""
        yield from (f"not looked at: {shown(run.name)}: {shown(run.skipped)}" for run in skipped)


def _fix(finding: Finding | None) -> Iterator[str]:
    if finding is not None and finding.fix:
        yield f"  fix: {shown(finding.fix)}"
