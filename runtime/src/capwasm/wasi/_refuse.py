"""How WASI says no: one place for what a refusal records and what the guest meets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from capwasm.errors import CapError, Fault, GuestTrap
from capwasm.events import DENIED

__all__ = ["VERSION", "Ledger", "Refused", "named"]

VERSION = "0.2.12"
"""The newest WASI 0.2 whose every function is served; older 0.2 imports are a subset of it."""


def named(interface: str) -> str:
    """`io/streams` as components import it: `wasi:io/streams@0.2.12`."""
    return f"wasi:{interface}@{VERSION}"


class Ledger:
    """The refusals of one instance.

    Each function is recorded once: a guest that asks a million times must not fill the audit log.
    It holds at most one entry a function, whatever the guest does.
    """

    __slots__ = ("_record", "_seen")

    def __init__(self, record: Callable[..., None]) -> None:
        """Record with `OpenContext.record`."""
        self._record = record
        self._seen: set[str] = set()

    def note(self, function: str, reason: str, **details: Any) -> None:
        """Record that `function` (`wasi:io/streams.x`) was refused, the first time that it is.

        Raises:
            AuditError: it could not be recorded.
        """
        if function not in self._seen:
            self._record("wasi", DENIED, action=function, reason=reason, details=details)
            self._seen.add(function)

    def trap(self, function: str, table: str, reason: str = "not-granted") -> NoReturn:
        """Refuse where WIT has no error to return: the call ends, and says which line is missing.

        Args:
            function: its full name.
            table: the manifest table that would grant it, or empty: nothing does.
            reason: a word; `not-granted`, or why what was granted did not work.

        Raises:
            GuestTrap: always, with the code `grant.denied`.
            AuditError: the refusal could not be recorded.
        """
        self.note(function, reason, table=table)
        fix = [Fault(table, "not granted", fix=f"[{table}]")] if table else []
        raise GuestTrap(f"the plugin called {function}: {reason}", code="grant.denied", faults=fix)


@dataclass(frozen=True, slots=True)
class Refused:
    """A host function that refuses every call.

    Attributes:
        function: its full name, `wasi:sockets/tcp.[method]tcp-socket.accept`.
        word: the case of the function's `error-code` to return, or None where it has none.
        table: the manifest table that would grant it, or empty: nothing does.
    """

    ledger: Ledger
    function: str
    word: str | None = None
    table: str = ""

    def __call__(self, *_args: object) -> NoReturn:
        """Refuse.

        Raises:
            CapError: with `word`.
            GuestTrap: there is no word; the call ends.
            AuditError: the refusal could not be recorded.
        """
        if self.word is None:
            self.ledger.trap(self.function, self.table)
        self.ledger.note(self.function, self.word)
        raise CapError(self.word, f"{self.function} is never granted")
