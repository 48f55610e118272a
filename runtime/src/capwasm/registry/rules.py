"""The update rules: one pure function over what is installed and what wants to be.

A refusal beats all else, then what a person must see first, then time.  Whoever wants to know what
happens to an update reads `_refused` and `_waits`, from above; tests/registry/test_rules.py is the
same as a table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from capwasm.capability import Risk
from capwasm.errors import Fault
from capwasm.grants.policy import Policy
from capwasm.review.rules import Standing

from .changes import Changes
from .model import (
    Candidate,
    Current,
    Decision,
    Permit,
    PermitKind,
    PluginRecord,
    State,
    Verdict,
    VersionRecord,
    is_older,
    publishers,
    utc_text,
)

__all__ = ["decide", "reviewed", "serves_from"]

MAX_REASONS: Final = 50


def decide(
    current: Current | None,
    candidate: Candidate,
    changes: Changes,
    policy: Policy,
    now: datetime,
) -> Decision:
    """What becomes of a verified candidate.

    Args:
        current: what is known of the plugin, with its floor, pin and exceptions; None if nobody has
            seen it.
        candidate: verified, its manifest parsed.
        changes: from the version that serves to the candidate.
        policy: the operator's.
        now: with a time zone.
    """
    record = candidate.record
    plugin = None if current is None else current.plugin
    if plugin is not None:
        refused = list(_refused(plugin, record))
        if refused:
            faults = tuple(fault for _, fault in refused)
            reasons = tuple(fault.message for fault in faults)
            return Decision(Verdict.REFUSE, refused[0][0], reasons, faults)
    used: list[Permit] = []
    reasons_to_wait = (
        [] if current is None else list(_waits(current, candidate, changes, policy, used))
    )
    until = serves_from(plugin, record, policy, now)
    if until is not None and until <= now:
        until = None
    if until is not None and plugin is not None:
        waived = _permits(plugin, PermitKind.MIN_AGE, frozenset({record.version}))
        used += waived
        until = None if waived else until
    if until is not None:
        hours = policy.updates.min_age_hours
        reasons_to_wait.append(f"younger than {hours} hours: until {utc_text(until)}")
    if reasons_to_wait:
        more = len(reasons_to_wait) - MAX_REASONS
        if more > 0:
            reasons_to_wait[MAX_REASONS:] = [f"and {more} reasons more"]
        return Decision(
            Verdict.PENDING, reasons=tuple(reasons_to_wait), used=tuple(used), until=until
        )
    first = ("the first version of this plugin",) if current is None else ()
    return Decision(Verdict.ACCEPT, reasons=first, used=tuple(used))


def reviewed(decision: Decision, found: Standing) -> Decision:
    """What the rules decided, given what its review came to.

    Args:
        decision: by the rules above.
        found: how the candidate stands.
    """
    if found.ok or decision.verdict is Verdict.REFUSE:
        return decision
    texts = tuple(fault.message for fault in found.needs)
    if found.code == "review.rejected":
        return Decision(Verdict.REFUSE, found.code, texts, found.needs)
    before = decision.reasons if decision.verdict is Verdict.PENDING else ()
    return dataclasses.replace(
        decision, verdict=Verdict.PENDING, reasons=(*before, *texts), lacks=found
    )


def serves_from(
    plugin: PluginRecord | None, record: VersionRecord, policy: Policy, now: datetime
) -> datetime | None:
    """When a version has come of age; None for one that was accepted before.

    It counts from its release, by the word of its repository, or from when it was first seen here:
    where nobody says when it was released, or says that it was later than that.
    """
    known = None if plugin is None else plugin.version(record.version)
    if plugin is not None and plugin.accepted(record.version):
        return None
    seen = now if known is None else datetime.fromisoformat(known.installed.when)
    published = record.published
    if known is not None and known.published is not None:
        # What was said first counts: nobody makes a release older than it was.
        published = max(known.published, published or known.published)
    born = seen if published is None else min(seen, published)
    return born + timedelta(hours=policy.updates.min_age_hours)


def _refused(plugin: PluginRecord, record: VersionRecord) -> Iterator[tuple[str, Fault]]:
    """Why it can't be taken at all, the gravest first."""
    known = plugin.version(record.version)
    if known is not None and known.state is State.REVOKED:
        yield "verify.revoked", Fault("", "this version was revoked")
    if known is not None and known.archive != record.archive:
        text = f"another content was installed as {record.version}: {known.archive}"
        yield "registry.version-taken", Fault("", text)
    if (
        plugin.highest is not None
        and is_older(record.version, plugin.highest)
        and not plugin.permits_for(PermitKind.DOWNGRADE, record.version)
    ):
        yield (
            "verify.rollback",
            Fault(
                "",
                f"{plugin.highest} was accepted before",
                f"capwasm permit {plugin.id} downgrade {record.version} --reason TEXT",
            ),
        )
    keys = publishers(record.signers)
    if (
        plugin.serving is None
        and plugin.owners
        and not keys & plugin.owners
        and not _permits(plugin, PermitKind.SIGNER, keys)
    ):
        key = min(keys, default="KEY")
        yield (
            "registry.name-taken",
            Fault(
                "",
                "the id belongs to the keys that signed before: "
                + ", ".join(sorted(plugin.owners)),
                f"capwasm permit {plugin.id} signer {key} --reason TEXT",
            ),
        )
    if plugin.pinned is not None and record.version != plugin.pinned:
        yield (
            "registry.pinned",
            Fault("", f"it is pinned to {plugin.pinned}", f"capwasm unpin {plugin.id}"),
        )


def _waits(
    current: Current,
    candidate: Candidate,
    changes: Changes,
    policy: Policy,
    used: list[Permit],
) -> Iterator[str]:
    """What a person must see first; exceptions that this rests on go to `used`."""
    plugin, record = current.plugin, candidate.record
    known = plugin.version(record.version)
    accepted = plugin.accepted(record.version)
    yield from _other_signers(plugin, record, used, accepted=accepted)
    if plugin.state is State.SUSPENDED and record.version != plugin.serving:
        yield "the plugin is suspended"
    elif known is not None and known.state is State.SUSPENDED:
        yield "it was taken out of service"
    if accepted or plugin.serving is None:
        return  # seen before, or nothing that it could be held against: a consent decides
    if not policy.updates.automatic:
        yield "no update is automatic ([updates] automatic = false)"
    if current.manifest is None or not changes.comparable:
        yield "what serves does not verify any more, so there is nothing to compare with"
        return
    if changes.kind is not None:
        yield "from {} to {}".format(*changes.kind)
    for permission in changes.new:
        high = "high-risk " if permission.risk is Risk.HIGH else ""
        yield f"new {high}permission: {permission}"
    for permission in changes.widened:
        high = " to a high risk" if permission.risk is Risk.HIGH else ""
        yield f"widened{high}: {permission}"
    for word, before, after in changes.raised:
        yield f"more of limits.{word}: {before:,} before, now {after:,}"
    if candidate.denied and not current.denied:
        yield f"a load of it would be denied: {candidate.denied[0]}"


def _other_signers(
    plugin: PluginRecord, record: VersionRecord, used: list[Permit], *, accepted: bool
) -> Iterator[str]:
    """Whether others sign than before.  A key that joins gets the name for good, so a person looks."""
    keys = publishers(record.signers)
    if not plugin.owners or (accepted and keys & plugin.owners):
        return  # more signatures on what was accepted make nobody an owner
    used += _permits(plugin, PermitKind.SIGNER, keys - plugin.owners)
    strangers = sorted(keys - plugin.owners - {p.subject for p in used})
    missing = sorted(plugin.owners - keys)
    if strangers:
        yield "another signer: " + ", ".join(strangers)
    elif missing and not used:
        yield "signed by fewer keys than before, without: " + ", ".join(missing)


def _permits(plugin: PluginRecord, kind: PermitKind, subjects: frozenset[str]) -> list[Permit]:
    return sorted(
        (p for p in plugin.permits if p.kind is kind and p.subject in subjects),
        key=lambda p: p.subject,
    )
