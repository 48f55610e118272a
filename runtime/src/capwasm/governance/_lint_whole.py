"""Rules of `lint` on the policy as a whole: its owner, its tables, its selectors, what is dead in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from capwasm.capability import Risk
from capwasm.caps.exec.model import ExecClause
from capwasm.caps.fs.model import Access, FsClause
from capwasm.caps.secrets.model import SecretClause
from capwasm.capsule.identity import id_matches
from capwasm.grants.policy import Rule
from capwasm.grants.tables import Tables
from capwasm.lattice import Clause

from ._ground import Check, Ground, Lint, Place, found, overlaps, wider

__all__ = ["CHECKS"]


def _governance(ground: Ground) -> Iterator[Lint]:
    due = ground.policy.governance(ground.today)
    if not due.written:
        return
    if not due.owner:
        yield found("governance.owner", "owner", None, "nobody answers for this policy")
    rule = {
        "no-date": "governance.review-by",
        "soon": "governance.due",
        "overdue": "governance.overdue",
    }.get(due.due)
    if rule is not None:
        yield found(rule, "review-by", None, due.when() or "")


def _high(ground: Ground) -> list[Place]:
    return [p for p in ground.places if any(r is Risk.HIGH for _, r, _ in p.risks())]


def _absent(ground: Ground) -> Iterator[Lint]:
    high = _high(ground)
    for word in ("updates", "review", "strikes"):
        if high and word in Tables.model_fields and word not in ground.policy.words:
            what = f"there is no [{word}], though {high[0].rule.path} is a high risk"
            yield found(f"{word}.absent", word, None, what)


def _consent(ground: Ground) -> Iterator[Lint]:
    line = ground.policy.lines.get("consent")
    mine = [p for p in ground.places if p.capability.name in ground.policy.automatic]
    for place in mine:
        for clause, risk, _ in place.risks():
            if risk is Risk.HIGH:
                what = (
                    f"to {clause.describe()} is a high risk: a person decides ({place.rule.path})"
                )
                yield found("consent.no-effect", "consent.automatic", line, what)
            elif risk is Risk.MEDIUM and place.selector.pattern == "*":
                what = f"every plugin may {clause.describe()}, and no person is asked"
                yield found("consent.automatic-for-all", place.rule.path, place.rule.line, what)


def _tables(ground: Ground) -> Iterator[Lint]:
    policy = ground.policy
    if policy.updates.error_budget.failures == 0:
        line = policy.lines.get("updates")
        what = "a new version that fails is never taken back"
        yield found("updates.no-way-back", "updates.error-budget.failures", line, what)
    if policy.revocation.url.startswith("http://"):
        line = policy.lines.get("revocation")
        what = "the revocation feed comes over http"
        yield found("revocation.plain-http", "revocation.url", line, what)
    line = policy.isolation.line_number
    if policy.isolation.left_out:
        what = f"lets processes start that lack {', '.join(policy.isolation.left_out)}"
        yield found("isolation.weakened", "isolation.require", line, what)
    if "*" in policy.isolation.rule.native:
        what = "the native code of every plugin may run"
        yield found("isolation.native-for-all", "isolation.native", line, what)


def _selectors(ground: Ground) -> Iterator[Lint]:
    for selector in ground.policy.selectors:
        line = ground.policy.lines.get(selector.path)
        if not (any(selector.allow.values()) or any(selector.deny.values()) or selector.named):
            what = "says nothing"
            yield found("selector.says-nothing", selector.path, line, what)
        elif ground.installed is not None and not any(
            id_matches(selector.pattern, i) for i in ground.installed
        ):
            what = f"no installed plugin is named by {selector.pattern}"
            yield found("selector.not-installed", selector.path, line, what)
    for place in ground.places:
        if place.selector.pattern != "*":
            continue
        for clause, risk, _ in place.risks():
            if risk is Risk.HIGH or isinstance(clause, SecretClause):
                what = f"every plugin may ask to {clause.describe()}"
                yield found("selector.high-for-all", place.rule.path, place.rule.line, what)


def _limits(ground: Ground) -> Iterator[Lint]:
    policy, ceiling = ground.policy, ground.policy.ceiling.to_table()
    tables = [(s.path, s.limits.to_table(), s.named) for s in policy.selectors]
    for path, table, named in tables:
        where = f"{path}.limits"
        line = policy.lines.get(where, policy.lines.get(path))
        for word in sorted(named):
            if table[word] > ceiling[word]:
                what = f"{table[word]:,} is above the ceiling of all plugins, {ceiling[word]:,}"
                yield found("limits.above-ceiling", f"{where}.{word}", line, what)
        if ground.memory is not None and "memory" in named and table["memory"] > ground.memory:
            what = f"{table['memory']:,} bytes; this machine has {ground.memory:,}"
            yield found("limits.above-machine", f"{where}.memory", line, what)
    for place in ground.places:
        for clause in place.rule.clauses:
            if ground.memory is None or not isinstance(clause, ExecClause):
                continue
            if clause.memory is not None and clause.memory > ground.memory:
                what = f"{clause.memory:,} bytes; this machine has {ground.memory:,}"
                path = f"{place.rule.path}.memory"
                yield found("limits.above-machine", path, place.rule.line, what)


def _dead(ground: Ground) -> Iterator[Lint]:
    for place in ground.places:
        path, line, clauses = place.rule.path, place.rule.line, place.rule.clauses
        if not clauses or all(map(_is_nothing, clauses)):
            yield found("rule.nothing", path, line, "allows nothing")
            continue
        denials = ground.denials(place.capability.name, place.selector.pattern)
        ends = [_ended_by(clause, denials) for clause in clauses]
        if all(end is not None for end in ends):
            names = ", ".join(dict.fromkeys(_where(e) for e in ends if e is not None))
            yield found("rule.denied", path, line, f"is denied as a whole by {names}")
            continue
        mine = ground.allowed[place.capability.name]
        groups = [[p.rule for p in mine.get(w, ())] for w in wider(place.selector.pattern)]
        if (other := _outer(place.rule, groups)) is not None:
            yield found("rule.repeated", path, line, f"lies within {_where(other)}")


def _is_nothing(clause: Clause) -> bool:
    """Whether it is to be filled and can't be: changes in a directory that may hold no byte or name."""
    if not isinstance(clause, FsClause) or clause.access is not Access.READ_WRITE:
        return False
    return 0 in (clause.quota_bytes, clause.quota_files)


def _ended_by(clause: Clause, denials: list[Rule]) -> Rule | None:
    return next((r for r in denials if any(clause.denied_by(d) for d in r.clauses)), None)


def _outer(rule: Rule, groups: Sequence[Sequence[Rule]]) -> Rule | None:
    """Another rule that says all that this one says; of two that are the same, the earlier.

    Args:
        rule: one of the last group.
        groups: rules for at least the same plugins, by pattern.
    """
    after = False
    for group in groups:
        for other in group:
            if other is rule:
                after = True
            elif _all_within(rule, other) and not (after and _all_within(other, rule)):
                return other
    return None


def _all_within(inner: Rule, outer: Rule) -> bool:
    return bool(inner.clauses) and all(
        any(c.within(o) for o in outer.clauses) for c in inner.clauses
    )


def _denials(ground: Ground) -> Iterator[Lint]:
    for capability, by_pattern in ground.denied.items():
        allowed = ground.allowed.get(capability, {})
        for pattern, rules in by_pattern.items():
            groups = [by_pattern.get(wide, ()) for wide in wider(pattern)]
            near = [
                p for other, those in allowed.items() if overlaps(other, pattern) for p in those
            ]
            for rule in rules:
                if (other_rule := _outer(rule, groups)) is not None:
                    what = f"lies within {_where(other_rule)}"
                    yield found("deny.repeated", rule.path, rule.line, what)
                elif not any(_touches(rule, place) for place in near):
                    what = f"no rule allows what it denies: {_described(rule)}"
                    yield found("deny.no-effect", rule.path, rule.line, what)


def _touches(denial: Rule, place: Place) -> bool:
    return any(
        clause.meet(denied) is not None or clause.denied_by(denied)
        for clause in place.rule.clauses
        for denied in denial.clauses
    )


def _described(rule: Rule) -> str:
    return "; ".join(c.describe() for c in rule.clauses) or "nothing"


def _where(rule: Rule) -> str:
    return f"{rule.path} (line {rule.line})" if rule.line else rule.path


CHECKS: Final[tuple[Check, ...]] = (
    _governance,
    _consent,
    _absent,
    _tables,
    _selectors,
    _limits,
    _dead,
    _denials,
)
