"""What the audit log is told of changes here, before they are committed, and of what was refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from capwasm.errors import AuditError, CapwasmError
from capwasm.events import ALLOWED, DENIED, Event, Recorder

from .model import Outcome

__all__ = ["refusals", "tell"]

# What is done to a version on its way through a review, and not to what serves.
_REVIEWS: Final = frozenset({"submitted", "scanned", "approved", "refused", "excepted"})
_VERBS: Final = frozenset({"submit", "scan", "approve", "reject", "except"})


def tell(recorder: Recorder, sequence: int, outcome: Outcome) -> None:
    """Record a change.

    Args:
        recorder: takes the event.
        sequence: how many changes the registry has counted with this one.
        outcome: what it comes to.

    Raises:
        AuditError: it can't be recorded, and must not happen.
    """
    after, version, before = outcome.plugin, outcome.version, outcome.before
    record = after.version(version)
    details: dict[str, Any] = {"who": after.changed.who, "sequence": sequence}
    if before not in (None, version):
        details["before"] = before
    if record is not None:
        details |= {"bundle": record.bundle, "signers": sorted(record.key_ids)}
    if outcome.reasons:
        details["reasons"] = list(outcome.reasons)
    recorder.record(
        Event(
            "review" if outcome.action in _REVIEWS else "install",
            ALLOWED,
            plugin=f"{after.id}@{version}" if version else after.id,
            action=outcome.action,
            target="" if record is None else record.archive,
            reason=after.changed.why,
            details=details,
        )
    )


@contextlib.contextmanager
def refusals(recorder: Recorder, action: str, name: Callable[[], str]) -> Iterator[None]:
    """Record what was refused, and why.

    Args:
        recorder: takes the event.
        action: the verb.
        name: what the plugin is called, as far as that is known when it is refused.
    """
    try:
        yield
    except CapwasmError as exc:
        if not isinstance(exc, AuditError):
            recorder.record(
                Event(
                    "review" if action in _VERBS else "install",
                    DENIED,
                    plugin=name(),
                    action=action,
                    target=exc.message[:300],
                    reason=exc.code,
                    details={"faults": [f"{f.path}: {f.message}" for f in exc.faults[:20]]},
                )
            )
        raise
