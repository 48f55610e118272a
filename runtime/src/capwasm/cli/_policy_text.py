"""What `capwasm policy` found, as people read it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ._output import console, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capwasm.governance.lint import Lint
    from capwasm.governance.single import Answer
    from capwasm.governance.trial import Outcome

__all__ = ["outcomes_data", "show_answer", "show_findings", "show_outcomes"]

_COLOURS: Final = {"high": "bold red", "medium": "yellow", "low": "cyan", "note": "dim"}


def show_findings(file: Path, found: Sequence[Lint]) -> None:
    """Print findings, the gravest first."""
    from rich.text import Text

    out = console()
    for finding in found:
        line = f":{finding.line}" if finding.line else ""
        out.print(
            Text.assemble(
                (f"{finding.severity:<7}", _COLOURS[finding.severity]),
                (f" {finding.rule}", "bold"),
                f"  {shown(file)}{line}  {shown(finding.path)}",
            )
        )
        out.print(Text(f"        {shown(finding.message)}"))
        out.print(Text(f"        fix: {shown(finding.fix)}", "dim"))
    text = f"{len(found)} finding(s)" if found else "nothing unwise was found"
    out.print(Text(text, "bold" if found else "bold green"))


def show_answer(found: Answer) -> None:
    """Print which rules speak of an operation, and what comes of it."""
    from rich.text import Text

    out = console()
    for word, rules in (("allowed by", found.allowed_by), ("denied by", found.denied_by)):
        for rule in rules:
            line = f" (line {rule.line})" if rule.line else ""
            clauses = "; ".join(c.describe() for c in rule.clauses)
            out.print(Text(f"{word}  {shown(rule.path)}{line}: {shown(clauses)}"))
    if found.person is None:
        why = "a denial beats every rule" if found.allowed_by else "no rule allows it"
        out.print(Text(f"refused: {why}", "bold red"))
    else:
        who = "a person has to agree" if found.person else "the policy consents by itself"
        out.print(Text(f"allowed, if the manifest asks for it: {who}", "bold green"))


def outcomes_data(file: Path, outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The outcomes of cases as JSON can hold them."""
    return {
        "policy": str(file),
        "passed": all(o.passed for o in outcomes),
        "cases": [
            {
                "name": o.name,
                "passed": o.passed,
                "differences": [
                    {"what": d.what, "expected": d.expected, "got": d.got, "why": d.why}
                    for d in o.differences
                ],
            }
            for o in outcomes
        ],
    }


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print each case, and all that differs in it."""
    from rich.text import Text

    out = console()
    for outcome in outcomes:
        word = ("ok    ", "green") if outcome.passed else ("FAILED", "bold red")
        out.print(Text.assemble(word, "  ", shown(outcome.name)))
        for d in outcome.differences:
            out.print(Text(f"        {shown(d.what)}", "bold"))
            out.print(Text(f"          - expected  {shown(d.expected)}", "red"))
            out.print(Text(f"          + got       {shown(d.got)}", "green"))
            if d.why:
                out.print(Text(f"            because   {shown(d.why)}", "dim"))
    failed = sum(not o.passed for o in outcomes)
    text = f"{len(outcomes)} case(s), {failed} failed"
    out.print(Text(text, "bold red" if failed else "bold green"))
