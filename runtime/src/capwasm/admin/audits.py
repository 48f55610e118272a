"""The audit: looked through by words, page by page, with the state of its chain."""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import urlencode

from capwasm.errors import AdminError, AuditError
from capwasm.events import ALLOWED, DENIED, FAILED, KINDS
from capwasm.record.at import record_at
from capwasm.record.search import Page as Found
from capwasm.record.search import Query, moment, search

from .asking import Ask, Go, Page
from .office import LOGS

__all__ = ["log", "record", "verify"]

PAGE: Final = 50
BRIEF: Final = 4
"""Details that stand in the list."""
_DIGEST: Final = re.compile(r"[0-9a-f]{40,}")
BUDGET: Final = 16 * 2**20
VERDICTS: Final = (ALLOWED, DENIED, FAILED)
FIELDS: Final = ("kind", "verdict", "plugin", "action", "target", "reason")


def log(ask: Ask) -> Page:
    """Records that fit, the newest first."""
    asked = ask.query
    which = asked.word("log", LOGS) or "runtime"
    words = {
        "log": which,
        "plugin": asked.text("plugin", 200),
        "kind": asked.word("kind", KINDS),
        "verdict": asked.word("verdict", frozenset(VERDICTS)),
        "since": asked.text("since", 32),
        "until": asked.text("until", 32),
        "text": asked.text("text", 128),
    }
    try:
        query = Query(
            plugin=words["plugin"],
            kinds=frozenset(filter(None, [words["kind"]])),
            verdicts=frozenset(filter(None, [words["verdict"]])),
            since=words["since"] and moment(words["since"], ask.office.now()),
            until=words["until"] and moment(words["until"], ask.office.now()),
            text=words["text"],
        )
    except ValueError as exc:
        raise AdminError(str(exc)) from None
    before = asked.text("before", 40) or None
    found, problem = _found(ask, which, query, before)
    kept = {k: v for k, v in words.items() if v}
    older = urlencode({**kept, "before": found.next}) if found.next else ""
    return Page(
        "audit.html",
        {
            "words": words,
            "logs": LOGS,
            "kinds": sorted(KINDS),
            "verdicts": VERDICTS,
            "records": [_row(r, brief=True) for r in found.records],
            "looked": found.looked_at,
            "older": older,
            "newest": urlencode(kept) if before else "",
            "problem": problem,
            "chain": ask.office.chain(which),
        },
    )


def _found(ask: Ask, which: str, query: Query, before: str | None) -> tuple[Found, str]:
    directory = ask.office.chains.directory(which)
    try:
        return search(directory, query, limit=PAGE, before=before, budget=BUDGET), ""
    except AuditError as exc:
        return Found((), None, 0), exc.message
    except ValueError:
        raise AdminError("there is no such page", code="admin.not-found") from None


def _row(found: dict[str, Any], *, brief: bool = False) -> dict[str, Any]:
    """A record as text, whatever its fields hold; in brief, with digests cut and the last left out."""
    if "broken" in found:
        return {"broken": str(found["broken"])}
    details = found.get("details")
    items = list(details.items()) if isinstance(details, dict) else []
    text = _briefly if brief else str
    shown = items[:BRIEF] if brief else items
    return {
        "broken": "",
        "seq": found.get("seq"),
        "time": str(found.get("time")),
        **{name: text(str(found.get(name) or "")) for name in FIELDS},
        "details": [(str(k), text(_flat(v))) for k, v in shown],
    }


def _briefly(text: str) -> str:
    return _DIGEST.sub(lambda m: f"{m[0][:12]}…", text)[:200]


def _flat(value: object) -> str:
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        return "[nested too deeply]"


def record(ask: Ask) -> Page:
    """One record, as it stands in the file."""
    which, seq = ask.words["log"], int(ask.words["seq"])
    found = record_at(ask.office.chains.directory(which), seq)
    if found is None:
        raise AdminError("there is no such record", code="admin.not-found")
    fields, line = found
    return Page(
        "record.html",
        {
            "log": which,
            "title": LOGS[which],
            "seq": seq,
            "row": _row(fields),
            "prev": fields.get("prev"),
            "line": line,
            "chain": ask.office.chain(which),
        },
    )


def verify(ask: Ask) -> Go:
    """Hold the whole log to its chain now."""
    which = ask.words["log"]
    chain = ask.office.chain(which, check=True)
    return Go(f"/audit?log={which}", f"The chain was checked: {chain.word}.")
