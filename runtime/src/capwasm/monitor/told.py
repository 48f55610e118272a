"""What the core is told of its plugins, so that it can tell its user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from capwasm.registry.model import Listed, State

__all__ = ["Lifecycle", "LifecycleKind", "between"]


class LifecycleKind(StrEnum):
    """What became of a plugin."""

    INSTALLED = "installed"
    """Its first version serves."""
    PENDING = "pending"
    """A version waits for a person; the one before serves on."""
    ACTIVATED = "activated"
    """Another version serves now, or the same again."""
    SUSPENDED = "suspended"
    """It was taken out of service: by a person, its strikes, its errors, or a review that lapsed."""
    RESUMED = "resumed"
    """The version that was suspended serves again, or a plugin that was held may run again."""
    REMOVED = "removed"
    REVOKED = "revoked"
    """A version was ended for good, or one that ran was stopped."""
    EVICTED = "evicted"
    """It was stopped for its strikes, and policy says that this was once too often."""
    KILLED = "killed"
    """What ran of it was ended; it may be called again."""
    BACK_OFF = "back-off"
    """It crashed several times in a row, and must wait before it starts again."""
    STRIKE = "strike"
    """It was denied something, broke a limit or crashed; told at most once a second."""


_TEXTS: Final[Mapping[LifecycleKind, str]] = {
    LifecycleKind.INSTALLED: "{name} was installed.",
    LifecycleKind.PENDING: "{name} waits for somebody to look at it.",
    LifecycleKind.ACTIVATED: "{name} is in use now.",
    LifecycleKind.SUSPENDED: "{name} was taken out of service.",
    LifecycleKind.RESUMED: "{name} is back in service.",
    LifecycleKind.REMOVED: "{name} was removed.",
    LifecycleKind.REVOKED: "{name} may no longer run.",
    LifecycleKind.EVICTED: "{name} was stopped for good: it misbehaved.",
    LifecycleKind.KILLED: "{name} was stopped; it can be used again.",
    LifecycleKind.BACK_OFF: "{name} keeps crashing; it is tried again in a moment.",
    LifecycleKind.STRIKE: "{name} did what it may not do.",
}


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """One thing that became of a plugin.

    Attributes:
        kind: what.   plugin: its id.   version: the version it is about, or empty.
        reason: why, in the words of whoever decided.
        running: whether it ran in this runtime, and was stopped.
        code: what a load or a call says of it from now on, a code of `errors.CODES`; empty if they go
            on, or if it is the registry's word that they hear.
    """

    kind: LifecycleKind
    plugin: str
    version: str
    reason: str = ""
    running: bool = False
    code: str = ""

    @property
    def text(self) -> str:
        """One sentence for the application's user: what became of it, and no technical word.

        The id is the only word in it that is not ours; an application may know a better name.
        """
        return _TEXTS[self.kind].format(name=self.plugin)


_STATES: Final[Mapping[str | None, LifecycleKind]] = {
    State.ACTIVE: LifecycleKind.ACTIVATED,
    State.SUSPENDED: LifecycleKind.SUSPENDED,
    State.REVOKED: LifecycleKind.REVOKED,
}


def between(before: Listed | None, now: Listed) -> list[Lifecycle]:
    """What became of a plugin between two listings."""

    def event(kind: LifecycleKind, version: str | None) -> Lifecycle:
        return Lifecycle(kind, now.id, version or "", now.why)

    if now.removed is not None:
        gone = before is not None and before.removed is None
        return [event(LifecycleKind.REMOVED, before and before.serving)] if gone else []
    found = []
    was = (None, None) if before is None else (before.serving, before.state)
    if now.serving is not None and was != (now.serving, now.state):
        kind = _STATES.get(now.state)
        if kind is LifecycleKind.ACTIVATED and was[0] is None:
            kind = LifecycleKind.INSTALLED
        if kind is LifecycleKind.ACTIVATED and was == (now.serving, State.SUSPENDED):
            kind = LifecycleKind.RESUMED
        if kind is not None:
            found.append(event(kind, now.serving))
    if now.waiting is not None and now.waiting != (before and before.waiting):
        found.append(event(LifecycleKind.PENDING, now.waiting))
    return found
