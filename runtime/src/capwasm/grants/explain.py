"""Why a plugin may do what it may: a `Resolution` as plain data, and as a page for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from capwasm.capability import Risk
from capwasm.record.redact import printable

from .decide import Decision, LimitRow, Resolution
from .policy import Rule

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["render", "to_dict"]

_LABEL: Final = 11
_STYLES: Final = {
    "granted": "green",
    "narrowed": "yellow",
    "left out": "yellow",
    "denied": "bold red",
    Risk.LOW: "green",
    Risk.MEDIUM: "yellow",
    Risk.HIGH: "bold red",
}
_CONSENTS: Final = {
    "automatic": "by the policy itself (consent.automatic)",
    "narrower": "given for less",
    "withdrawn": "withdrawn",
    "other-bytes": "given for other bytes of this plugin, not for these",
    "none": "none",
}


def to_dict(found: Resolution) -> dict[str, Any]:
    """The whole of a resolution as JSON can hold it."""
    entry = found.consent
    return {
        "plugin": found.subject.plugin,
        "version": found.subject.version,
        "code-digest": found.subject.code_digest,
        "manifest-digest": found.subject.manifest_digest,
        "policy": found.policy,
        "owner": found.owner,
        "granted": not found.faults,
        "isolation": found.isolation.to_dict(),
        "consent": None
        if entry is None
        else {
            "number": entry.number,
            "who": entry.record.who,
            "when": entry.record.when,
            "reason": entry.record.reason,
        },
        "permissions": [_decision(d) for d in found.decisions],
        "limits": [_limit(row) for row in found.limits],
        "faults": [{"path": f.path, "message": f.message, "fix": f.fix} for f in found.faults],
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "path": decision.path,
        "capability": decision.capability,
        "status": decision.status,
        "optional": decision.optional,
        "why": decision.why,
        "risk": decision.risk.value,
        "risk-why": decision.risk_why,
        "asked": {"text": decision.asked.describe(), "toml": decision.asked.to_toml()},
        "policy": [_rule(r) for r in decision.allowed_by],
        "denied-by": [_rule(r) for r in decision.denied_by],
        "cut-by": [_rule(r) for r in decision.cut_by],
        "consent": decision.consent,
        "effective": [{"text": c.describe(), "toml": c.to_toml()} for c in decision.effective],
        "narrowed-by": list(decision.narrowed_by),
        "faults": [{"message": f.message, "fix": f.fix} for f in decision.faults],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "rule": rule.path,
        "line": rule.line,
        "clauses": [{"text": c.describe(), "toml": c.to_toml()} for c in rule.clauses],
    }


def _limit(row: LimitRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "unit": row.unit,
        "asked": row.asked,
        "named": row.named,
        "policy": row.policy,
        "rule": row.source,
        "consent": row.consent,
        "effective": row.effective,
        "narrowed-by": list(row.narrowed_by),
    }


def render(found: Resolution, console: Console, *, all_limits: bool = False) -> None:
    """Print a resolution for people: each permission from what is asked to what it gets.

    Lines of TOML and commands are never wrapped, so that they can be copied.
    """
    from rich.text import Text

    head = Text.assemble(
        (f"{found.subject.plugin} {found.subject.version}", "bold"),
        "  ",
        ("denied", "bold red") if found.faults else ("granted", "bold green"),
    )
    console.print(head)
    owner = f", of {printable(found.owner)}" if found.owner else ""
    console.print(Text(f"policy {printable(found.policy)}{owner}", "dim"))
    _render_isolation(found, console)
    if not found.decisions:
        console.print("\nIt asks for no permission.")
    for decision in found.decisions:
        _render_decision(decision, found, console)
    if found.core:
        console.print()
        _row("missing", f"{found.core.path}: {found.core.message}", console, "red")
    _render_limits(found, console, all_limits=all_limits)
    _render_fixes(found, console)


def _render_isolation(found: Resolution, console: Console) -> None:
    isolation = found.isolation
    console.print()
    _row("runs", isolation.describe(), console)
    if isolation.process:
        _row("behind", ", ".join(isolation.layers()) or "whatever layers can be had", console)
    if isolation.fault:
        _row("missing", isolation.fault.message, console, "red")


def _render_decision(decision: Decision, found: Resolution, console: Console) -> None:
    from rich.text import Text

    optional = "  optional" if decision.optional else ""
    console.print()
    console.print(
        Text.assemble(
            (decision.path, "bold"),
            "  ",
            (decision.status, _STYLES[decision.status]),
            "  ",
            (f"{decision.risk.value} risk", _STYLES[decision.risk]),
            (optional, "dim"),
        )
    )
    for label, text in _rows(decision, found):
        _row(label, text, console)
    for fault in decision.faults:
        _row("missing", fault.message, console, "red")


def _row(label: str, text: str, console: Console, style: str = "") -> None:
    """A label, and beside it text in as many lines as the terminal needs."""
    from rich.text import Text

    width = max(console.width - _LABEL, 20)
    lines = textwrap.wrap(printable(text), width, break_on_hyphens=False) or [""]
    for index, line in enumerate(lines):
        head = f"  {label}" if index == 0 else ""
        console.print(Text.assemble((head.ljust(_LABEL), "dim"), (line, style)))


def _rows(decision: Decision, found: Resolution) -> Iterator[tuple[str, str]]:
    yield "asks", decision.asked.describe()
    if decision.why:
        yield "why", f"“{decision.why}” (the plugin's words)"
    yield "risk", decision.risk_why
    for rule in decision.allowed_by:
        yield "policy", f"{_place(rule)}: {_described(rule)}"
    if not decision.allowed_by:
        yield "policy", "no rule"
    for rule in decision.denied_by:
        yield "deny", f"{_place(rule)}: {_described(rule)}"
    for rule in decision.cut_by:
        yield "except", f"{_described(rule)}, by {_place(rule)}"
    yield "consent", _consent(decision, found)
    for clause in decision.effective:
        yield "gets", clause.describe()
    if not decision.effective:
        yield "gets", "nothing"
    if decision.narrowed_by and decision.effective:
        yield "less by", " and ".join(decision.narrowed_by)


def _consent(decision: Decision, found: Resolution) -> str:
    if found.consent is not None and decision.consent in ("given", "narrower"):
        record = found.consent.record
        less = " for less" if decision.consent == "narrower" else ""
        reason = f": {record.reason}" if record.reason else ""
        return (
            f"given{less} by {record.who} at {record.when} (record {found.consent.number}){reason}"
        )
    return _CONSENTS[decision.consent]


def _described(rule: Rule) -> str:
    return "; ".join(c.describe() for c in rule.clauses) or "nothing"


def _place(rule: Rule) -> str:
    return f"{rule.path} (line {rule.line})" if rule.line else rule.path


def _render_fixes(found: Resolution, console: Console) -> None:
    """What would allow all that is missing, each once, ready to be copied."""
    from rich.text import Text

    # Lines of the policy first, then commands.
    unique = dict.fromkeys(f.fix for f in found.faults if f.fix)
    fixes = sorted(unique, key=lambda fix: not fix.startswith("["))
    if not fixes:
        return
    console.print()
    console.print(Text("What would allow it:", "bold"))
    for fix in fixes:
        console.print()
        for line in fix.splitlines():
            console.print(Text(printable(line), "cyan"))


def _render_limits(found: Resolution, console: Console, *, all_limits: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    rows = [r for r in found.limits if all_limits or r.named or r.effective != r.asked]
    console.print()
    if not rows:
        console.print(Text("limits: the defaults (--all-limits shows them)", "dim"))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("limit")
    for title in ("asked", "policy", "consent", "gets"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("less by", overflow="fold")
    for row in rows:
        by = [
            f"policy ({row.source})" if s == "policy" and row.source else s for s in row.narrowed_by
        ]
        table.add_row(
            Text(row.name),
            *(Text(n) for n in _numbers(row)),
            Text(" and ".join(by)),
        )
    console.print(table, soft_wrap=False)


def _numbers(row: LimitRow) -> Iterable[str]:
    from capwasm.limits import CEILING

    most = CEILING.to_table()[row.name]
    asked = f"{row.asked:,}" if row.named else f"({row.asked:,})"
    bounds = ("-" if n == most else f"{n:,}" for n in (row.policy, row.consent))
    return (asked, *bounds, f"{row.effective:,}")
