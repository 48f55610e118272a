"""The overview, exceptions, the policy, and what this is."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from capwasm.errors import AuditError
from capwasm.events import DENIED
from capwasm.grants.policy import Policy, Rule
from capwasm.limits import CEILING
from capwasm.record.search import Query, search
from capwasm.registry.desk import Waiver
from capwasm.registry.model import State

from .asking import Ask, Page, Text
from .counts import RANGES
from .office import LOGS

__all__ = ["about", "exceptions", "overview", "policy", "stamp"]

RECENT: Final = 8
MAX_LOOKED: Final = 1_000


def overview(ask: Ask) -> Page:
    """What wants somebody's attention."""
    office = ask.office
    span = ask.query.word("range", RANGES) or "day"
    with office.desk() as desk:
        cases = desk.queue()
        waivers = desk.exceptions()
    with office.reading() as registry:
        listed = registry.list()
    return Page(
        "overview.html",
        {
            "cases": cases,
            "suspended": [p for p in listed if p.state == State.SUSPENDED],
            "active": sum(p.state == State.ACTIVE for p in listed),
            "installed": len(listed),
            "chains": [(LOGS[log], office.chain(log)) for log in LOGS],
            "governance": office.policy().governance(office.now().date()),
            "in_force": [w for w in waivers if w.state is Waiver.IN_FORCE],
            "denials": _denials(ask),
            "chart": office.counts.chart(None, span, office.now()),
            "partial": office.counts.partial,
            "range": span,
            "ranges": [(word, about[0]) for word, about in RANGES.items()],
        },
    )


def _denials(ask: Ask) -> list[dict[str, Any]]:
    try:
        query = Query(verdicts=frozenset({DENIED}))
        found = search(ask.office.home.audit, query, limit=RECENT, budget=4 * 2**20)
    except AuditError:
        return []
    names = ("seq", "time", "kind", "plugin", "action", "target", "reason")
    return [{n: r.get(n) for n in names} for r in found.records if "broken" not in r]


def stamp(ask: Ask) -> Text:
    """Differs once something was changed."""
    with ask.office.reading() as registry:
        return Text(ask.office.stamp(registry))


def exceptions(ask: Ask) -> Page:
    """What may serve in spite of something, and until when."""
    with ask.office.desk() as desk:
        found = desk.exceptions()
    with ask.office.reading() as registry:
        listed = registry.list(removed=True)
        permits = [p for one in listed[:MAX_LOOKED] for p in registry.show(one.id).permits]
    order = [Waiver.IN_FORCE, Waiver.PENDING, Waiver.LAPSED]
    return Page(
        "exceptions.html",
        {
            "waivers": sorted(found, key=lambda w: (order.index(w.state), w.plugin, w.what)),
            "permits": permits,
            "more": max(0, len(listed) - MAX_LOOKED),
            "now": ask.office.now(),
        },
    )


def policy(ask: Ask) -> Page:
    """What plugins may be granted at most, by whose word, and until when that was looked at."""
    found = ask.office.policy()
    today = ask.office.now().date()
    limits = found.ceiling.to_table()
    return Page(
        "policy.html",
        {
            "policy": found,
            "governance": found.governance(today),
            "remarks": found.remarks(ask.office.capabilities, today),
            "selectors": _rules(found),
            "limits": [(w, v) for w, v in limits.items() if v != CEILING.to_table()[w]],
            "tables": _tables(found),
        },
    )


def _rules(found: Policy) -> list[tuple[str, list[tuple[str, str, Rule]]]]:
    """Of each selector: capability, `allow` or `deny`, and rule."""

    def rows(sides: dict[str, Mapping[str, tuple[Rule, ...]]]) -> list[tuple[str, str, Rule]]:
        return [
            (name, verdict, rule)
            for verdict, side in sides.items()
            for name, rules in side.items()
            for rule in rules
        ]

    whole = [("every plugin", rows({"deny": found.deny}))] if found.deny else []
    return whole + [(s.pattern, rows({"allow": s.allow, "deny": s.deny})) for s in found.selectors]


def _tables(found: Policy) -> list[tuple[str, list[tuple[str, str]]]]:
    """The policy's own tables, each word with the value in force."""
    models = {
        "review": found.review,
        "updates": found.updates,
        "strikes": found.strikes,
        "revocation": found.revocation,
    }
    return [
        (name, [(word.replace("_", "-"), _value(value)) for word, value in model])
        for name, model in models.items()
    ]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list | frozenset):
        return ", ".join(sorted(map(str, value))) or "none"
    if hasattr(value, "model_fields_set"):
        return ", ".join(f"{w.replace('_', '-')} {_value(v)}" for w, v in value)  # type: ignore[attr-defined]
    return str(value) if value not in (None, "") else "none"


def about(ask: Ask) -> Page:
    """What runs here, for whom, and what guards it."""
    store = ask.office.trust()
    return Page(
        "about.html",
        {
            "version": version("capwasm"),
            "python": platform.python_version(),
            "engine": version("wasmtime"),
            "home": str(ask.office.home.root),
            "keys": store.keys,
            "identities": store.identities,
            "now": ask.office.now(),
        },
    )
