"""One thing that a plugin tried, in the few words that are safe to show, and a table made of some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from capwasm._model import hidden
from capwasm.events import Event
from capwasm.record.redact import printable

__all__ = ["Attempt", "Table", "attempt_of", "one_line"]

MAX_LINE: Final = 300


class Attempt(NamedTuple):
    """One thing that was tried, however often.

    Attributes:
        kind: the capability.   action, target: as the audit log has them.
        reason: why it was refused.
        detail: the one more thing that the table depends on: a file's mode, a length.
    """

    kind: str
    action: str
    target: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        """`open /etc/passwd (read): not-granted`."""
        what = " ".join(part for part in (self.action, self.target) if part)
        detail = f" ({self.detail})" if self.detail else ""
        return one_line(f"{what}{detail}: {self.reason}")


@dataclass(frozen=True, slots=True)
class Table:
    """One proposed table.

    Attributes:
        capability: whose.   words: what it says.
        notes: for the person who decides, each one line.
    """

    capability: str
    words: Mapping[str, Any]
    notes: tuple[str, ...] = ()


_DETAILS: Final = {"fs": "mode", "random": "length", "net": "detail"}


def attempt_of(event: Event, known: set[str]) -> Attempt | None:
    """What a refusal tells of, or None if it tells of no capability."""
    if event.kind == "wasi":
        # WASI knows the table that would grant a function; a few are granted to nobody.
        table = str(event.details.get("table", ""))
        function = event.action.rpartition("/")[2]
        return Attempt(table if table in known else "wasi", function, "", event.reason)
    if event.kind not in known:
        return None
    detail = event.details.get(_DETAILS.get(event.kind, ""), "")
    return Attempt(event.kind, event.action, event.target, event.reason, str(detail)[:200])


def one_line(text: str) -> str:
    """Text of a plugin's as one line of a comment, which a manifest's reader lets pass."""
    plain = printable(text)[:MAX_LINE]
    return "".join(c if hidden(c) is None else f"\\u{{{ord(c):x}}}" for c in plain)
