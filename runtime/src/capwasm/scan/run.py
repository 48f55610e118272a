"""Runs scanners over one capsule, each within bounds, and makes a report of what they say.

A scanner meets hostile bytes, so it may fail, never end, or say more than anybody reads.  Each runs in
a thread of its own with a deadline; what fails or does not end is itself a grave finding.  It is never
a crash and never silence: a plugin that can break a scanner must not look clean.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from capwasm.capsule.members import SBOM
from capwasm.errors import CapwasmError
from capwasm.review.finding import (
    MAX_FINDINGS,
    Finding,
    Report,
    ScannerRun,
    Severity,
    gravest_first,
)
from capwasm.threads import interrupt

from .model import Context, NotLooked, Rule, Scanner, cut
from .score import Facts, score
from .subject import Subject

__all__ = ["RULES", "scan"]

MOST_OF_A_RULE: Final = 20
"""Findings of one rule that are told; the others are counted.  No flood of one hides another."""
MAX_YIELDED: Final = 100_000
_GRACE_SECONDS: Final = 1.0

FAILED: Final = Rule(
    "scan.failed",
    Severity.HIGH,
    "A scanner failed on this capsule, so one side of it was not looked at.",
    "If the capsule is sound, this is a defect of the scanner: report it.",
)
TIMEOUT: Final = Rule(
    "scan.timeout",
    Severity.HIGH,
    "A scanner did not end in its time, so one side of the capsule was not looked at in full.",
    "Make what it looks at smaller, or give the scanner more time.",
)
SKIPPED: Final = Rule(
    "scan.skipped",
    Severity.MEDIUM,
    "A scanner that the policy asks for did not look, so nobody knows what it would have found.",
    "Have it look: its words say what it lacks.",
)
CUT: Final = Rule(
    "scan.cut",
    Severity.LOW,
    "More was found than a report holds; the least grave findings were left off.",
)
RULES: Final = (FAILED, TIMEOUT, SKIPPED, CUT)


def scan(
    subject: Subject,
    context: Context,
    scanners: Sequence[Scanner],
    tell: Callable[[str, float], None] = lambda _name, _seconds: None,
) -> Report:
    """Have every scanner look at a capsule.  Raises nothing that a scanner raises.

    Args:
        subject: the capsule.
        context: what the operator gives them.
        scanners: in the order in which they run; their names differ.
        tell: told which scanner runs, and for how long by now, ten times a second.
    """
    runs: list[ScannerRun] = []
    findings: list[Finding] = []
    for scanner in scanners:
        why_not = _why_not(scanner, subject)
        if not why_not:
            found, why_not = _bounded(scanner, subject, context, tell)
            findings += found
        # The plugin itself may be why: it leaves out its SBOM, say, and no advisory is looked up.
        if why_not and _is_for(scanner, subject) and context.rule.wants(scanner.name):
            findings.append(SKIPPED.at(scanner.name, why_not))
        runs.append(ScannerRun(scanner.name, why_not))
    told = _fitting(gravest_first(findings))
    points, reasons = score(_facts(subject, context), told)
    return Report(
        plugin=subject.identity.id,
        version=subject.identity.version,
        archive=subject.digest,
        when=context.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        score=points,
        reasons=reasons,
        scanners=tuple(runs),
        findings=told,
    )


def _fitting(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """As many as a report holds, the gravest, and if some are left off, a finding that says so."""
    if len(findings) <= MAX_FINDINGS:
        return findings
    kept, left = findings[: MAX_FINDINGS - 1], findings[MAX_FINDINGS - 1 :]
    cut_off = CUT.at("elsewhere", f"{len(left)} findings", severity=left[0].severity)
    return gravest_first([*kept, cut_off])


def _facts(subject: Subject, context: Context) -> Facts:
    age = None if context.published is None else context.now - context.published
    return Facts(
        permissions=Counter(risk for _, _, risk in subject.permissions()),
        verified=subject.verified is not None,
        native=not subject.is_component,
        sbom=SBOM in subject.members,
        known_publisher=context.known_publisher,
        hours=None if age is None else age.total_seconds() / 3600,
    )


def _is_for(scanner: Scanner, subject: Subject) -> bool:
    return subject.identity.kind in scanner.kinds


def _why_not(scanner: Scanner, subject: Subject) -> str:
    if not _is_for(scanner, subject):
        return f"it looks at {' and '.join(sorted(scanner.kinds))} plugins"
    missing = [name for name in scanner.needs if importlib.util.find_spec(name) is None]
    if missing:
        return f"needs {', '.join(missing)}: pip install 'capwasm[{scanner.extra}]'"
    return ""


class _Look(threading.Thread):
    """One scanner at work."""

    def __init__(self, scanner: Scanner, subject: Subject, context: Context) -> None:
        super().__init__(name=f"capwasm-scan-{scanner.name}", daemon=True)
        self.scanner, self.subject, self.context = scanner, subject, context
        self.kept: dict[str, list[Finding]] = {}
        self.counts: Counter[str] = Counter()
        self.failure: BaseException | None = None
        self.over = False

    def run(self) -> None:
        rules = {rule.id for rule in self.scanner.rules}
        try:
            for number, finding in enumerate(self.scanner.scan(self.subject, self.context)):
                if self.over:
                    return
                self._keep(finding, rules)
                if number >= MAX_YIELDED:
                    raise RuntimeError(f"it yielded more than {MAX_YIELDED} findings")
        except BaseException as exc:  # noqa: BLE001  whatever it is, it is told of
            self.failure = exc

    def _keep(self, finding: object, rules: set[str]) -> None:
        if type(finding) is not Finding or finding.rule not in rules:
            raise TypeError("it yielded something that is no finding of its rules")
        self.counts[finding.rule] += 1
        kept = self.kept.setdefault(finding.rule, [])
        clean = Rule(finding.rule, Severity(finding.severity), finding.message, finding.fix)
        # The gravest are kept, whenever they come: a flood of slight ones hides none.
        if len(kept) == MOST_OF_A_RULE:
            least = min(range(len(kept)), key=lambda at: kept[at].severity.rank)
            if clean.severity.rank <= kept[least].severity.rank:
                return
            del kept[least]
        kept.append(clean.at(finding.place, finding.evidence))


def _bounded(
    scanner: Scanner,
    subject: Subject,
    context: Context,
    tell: Callable[[str, float], None],
) -> tuple[list[Finding], str]:
    """What a scanner says, and why it did not look, within its bounds."""
    look = _Look(scanner, subject, context)
    try:
        look.start()
    except RuntimeError as exc:  # there may be no more threads
        return [FAILED.at(scanner.name, _told(exc))], ""
    began = time.monotonic()
    while look.is_alive() and (seconds := time.monotonic() - began) < scanner.seconds:
        look.join(min(0.1, scanner.seconds - seconds))
        tell(scanner.name, time.monotonic() - began)
    late = look.is_alive()
    if late:
        look.over = True
        interrupt(look)
        look.join(_GRACE_SECONDS)
    found = [f for kept in [*look.kept.values()] for f in [*kept]]
    found += _more(look.counts, look.kept)
    if late:
        message = f"{TIMEOUT.meaning[:-1]}: {scanner.seconds:g} s."
        return [*found, TIMEOUT.at(scanner.name, message=message)], ""
    if isinstance(look.failure, NotLooked):
        return found, cut(str(look.failure), 500)
    if look.failure is not None:
        return [*found, FAILED.at(scanner.name, _told(look.failure))], ""
    return found, ""


def _more(counts: Counter[str], kept: Mapping[str, Sequence[Finding]]) -> Iterable[Finding]:
    """One finding for those of a rule that are not told one by one.

    It is as grave as the least of those that are, for none that was left off is graver.  Its
    evidence is their number, so that whoever answers for it answers for no more than these.
    """
    for rule, found in [*kept.items()]:
        if (left := counts[rule] - MOST_OF_A_RULE) > 0:
            least = min(found, key=lambda f: f.severity.rank)
            message = f"{left} more of this kind."
            yield Finding(rule, least.severity, message, "elsewhere", f"{left} more", least.fix)


def _told(failure: BaseException) -> str:
    if isinstance(failure, CapwasmError):
        return f"[{failure.code}] {failure.message}"
    # Its text may hold anything of the plugin's; `Rule.at` makes it printable and cuts it.
    return f"{type(failure).__name__}: {failure}"
