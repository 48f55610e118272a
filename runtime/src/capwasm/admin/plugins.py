"""What is installed, and one plugin with its versions, its history and what it does."""

from __future__ import annotations

from typing import Final

from capwasm.monitor.docket import Docket, End
from capwasm.registry.model import State

from .asking import Ask, Page
from .counts import RANGES

__all__ = ["listing", "plugin", "strikes_of"]

MAX_LISTED: Final = 500
MAX_STEPS: Final = 100


def listing(ask: Ask) -> Page:
    """Everything that is installed."""
    everything = ask.query.ticked("removed")
    word = ask.query.text("q", 128).lower()
    with ask.office.reading() as registry:
        found = [p for p in registry.list(removed=everything) if word in p.id]
    return Page(
        "plugins.html",
        {
            "plugins": found[:MAX_LISTED],
            "more": max(0, len(found) - MAX_LISTED),
            "removed": everything,
            "q": word,
        },
    )


def plugin(ask: Ask) -> Page:
    """One plugin."""
    id_, office = ask.words["id"], ask.office
    span = ask.query.word("range", RANGES) or "day"
    with office.reading() as registry:
        found = registry.show(id_)
        steps = registry.history(id_)
    names = {k.key_id: k.name for k in office.trust().keys}
    points, ends = strikes_of(ask, id_)
    serving = found.version(found.serving) if found.serving else None
    return Page(
        "plugin.html",
        {
            "plugin": found,
            "serving": serving,
            "state": "removed" if found.removed else found.state or "waiting",
            "owners": [
                (key, names.get(key, "not in the trust store")) for key in sorted(found.owners)
            ],
            "versions": tuple(reversed(found.versions)),
            "steps": tuple(reversed(steps))[:MAX_STEPS],
            "more_steps": max(0, len(steps) - MAX_STEPS),
            "chart": office.counts.chart(id_, span, office.now()),
            "partial": office.counts.partial,
            "range": span,
            "ranges": [(word, about[0]) for word, about in RANGES.items()],
            "points": points,
            "ends": ends,
            "strikes": office.policy().strikes,
            "may_suspend": found.state is State.ACTIVE,
            "may_resume": found.state is State.SUSPENDED,
        },
    )


def strikes_of(ask: Ask, plugin_id: str) -> tuple[int, tuple[End, ...]]:
    """Its points now, and each time that it was stopped for them, the newest first."""
    rule = ask.office.policy().strikes
    docket = Docket(ask.office.home.root)
    try:
        points = docket.points(int(ask.office.now().timestamp()), 60 * rule.minutes)
        return points.get(plugin_id, 0), tuple(reversed(docket.ends(plugin_id)))
    finally:
        docket.close()
