"""Events: what is recorded, and the one protocol by which it is.

Capabilities and stages build an `Event` and hand it to the `Recorder` that they were given.  What
becomes of it (hash chain, file, metrics, log lines) is the business of `audit` and `metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = [
    "ALLOWED",
    "ASKED",
    "DENIED",
    "FAILED",
    "KINDS",
    "Event",
    "NullRecorder",
    "Recorder",
    "record_all",
]

ALLOWED, DENIED, FAILED = "allowed", "denied", "failed"

# kind -> what it records.  Stable words: dashboards and alerts depend on them.
KINDS: dict[str, str] = {
    "runtime.start": "A runtime was made; the policy's and the trust store's digests.",
    "load": "A capsule was verified and loaded, or refused.",
    "consent": "A consent was recorded or withdrawn.",
    "install": "A plugin was installed, updated, activated, rolled back, suspended or removed.",
    "review": "A plugin was submitted, scanned, approved, rejected or excepted.",
    "revocation": "A revocation feed was accepted or refused, or is too old.",
    "repository": "A plugin repository was asked for what is new.",
    "grant": "One permission of a plugin, with what narrowed it.",
    "instance": "An instance was opened, closed or discarded, or must wait before it starts.",
    "call": "A call into a plugin: outcome, time, fuel, host calls.",
    "fs": "A file operation that opens, changes or was refused.",
    "net": "One hop of a fetch: origin, address, verdict, bytes.",
    "secret": "A secret was used, revealed or refused.",
    "exec": "A command was run, ended, or was refused.",
    "kv": "A key-value operation was refused or failed.",
    "log": "A plugin's log lines were dropped or cut.",
    "clock": "A clock was refused.",
    "random": "Random bytes were refused.",
    "config": "A setting was refused.",
    "wasi": "A WASI call was refused.",
    "limit": "A limit was reached.",
    "crash": "A plugin trapped.",
    "revoke": "A secret, grant or plugin was revoked.",
    "kill": "A plugin or call was killed or evicted.",
    "admin": "Somebody signed in to the admin page or out of it, or was refused.",
    "gap": "Records were lost or dropped; how many.",
    "anchor": "A signed head of the chain.",
    "retention": "The oldest records were removed by policy; up to which.",
}

ASKED = frozenset(
    "fs net secret exec kv clock random config wasi".split()  # noqa: SIM905  one line
)
"""Kinds that tell of what a plugin asked for by itself."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: a word of `KINDS`.   verdict: `allowed`, `denied` or `failed`.
        plugin: the plugin's id and version, `id@version`, or empty.
        action: the operation (`open`, `GET`, `reveal`).
        target: what it was applied to, as the policy names it (a mount path, an origin, a name);
            never a secret, never a body.
        reason: a stable code or word; for a denial, why.
        details: small plain values only.
    """

    kind: str
    verdict: str
    plugin: str = ""
    action: str = ""
    target: str = ""
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class Recorder(Protocol):
    """Takes events.  Safe to call from any thread."""

    def record(self, event: Event) -> None:
        """Record `event` before the operation it tells of has an effect.

        Raises:
            AuditError: it could not be kept; the operation must not happen.
        """


def record_all(recorder: Recorder, events: Sequence[Event]) -> None:
    """Record what happens together, in order; a log on a disk then waits for the disk once.

    A recorder that has a `record_all` of its own is asked for that, and another for each event.

    Raises:
        AuditError: they could not all be kept; none of the operations may happen.
    """
    together = getattr(recorder, "record_all", None)
    if together is not None:
        together(events)
        return
    for event in events:
        recorder.record(event)


class NullRecorder:
    """Keeps nothing.  For tools that inspect, never for a runtime."""

    def record(self, event: Event) -> None:
        """Drop it."""
