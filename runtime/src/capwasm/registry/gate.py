"""What may follow from a plugin's record: pure questions that pass, or raise what is in the way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from capwasm.capsule.identity import check_version
from capwasm.capsule.verify import VerifiedArtifact
from capwasm.errors import Fault, RegistryError, VerificationError

from .draft import Draft
from .model import (
    Candidate,
    Decision,
    PermitKind,
    PluginRecord,
    State,
    Step,
    Verdict,
    VersionRecord,
    is_older,
    publishers,
    utc_text,
)
from .reviews import check_standing

__all__ = [
    "active",
    "admit",
    "came_before",
    "check_subject",
    "is_reviewed",
    "obey",
    "of_age",
    "served_before",
    "take_in",
    "to_activate",
    "version_of",
]

_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")


def version_of(plugin: PluginRecord, version: str) -> VersionRecord:
    """That version's record.

    Raises:
        RegistryError: `registry.unknown`.
    """
    record = plugin.version(version)
    if record is None:
        have = ", ".join(v.version for v in plugin.versions) or "none"
        raise RegistryError(
            f"no version {ascii(version)[1:-1]} is installed; there is: {have}",
            code="registry.unknown",
            context=plugin.id,
        )
    return record


def same(plugin: PluginRecord | None, record: VersionRecord) -> PluginRecord:
    """The plugin, if that version of it is still as it was when it was proven.

    Raises:
        RegistryError: `registry.state`.
    """
    now = None if plugin is None else plugin.version(record.version)
    if plugin is None or now is None or now.archive != record.archive:
        raise RegistryError(
            "it was changed meanwhile; try again", code="registry.state", context=record.name
        )
    return plugin


def active(plugin: PluginRecord) -> VersionRecord:
    """The version whose code may run.

    Raises:
        RegistryError: `registry.unknown` for a tombstone, `registry.pending` when the first version
            waits for a person, `registry.state` for one that was suspended.
        VerificationError: `verify.revoked`.
    """
    if plugin.serving is None:
        if plugin.waiting is not None:
            raise RegistryError(
                f"version {plugin.waiting} waits for a person's decision",
                code="registry.pending",
                context=plugin.id,
                faults=[Fault("", "not active", f"capwasm activate {plugin.id}")],
            )
        since = f": it was removed at {plugin.removed}" if plugin.removed else ""
        raise RegistryError(
            f"no version of it is installed{since}", code="registry.unknown", context=plugin.id
        )
    record = version_of(plugin, plugin.serving)
    if record.state is State.REVOKED:
        raise VerificationError(
            f"it was revoked: {record.changed.why}", code="verify.revoked", context=record.name
        )
    if record.state is not State.ACTIVE:
        raise RegistryError(
            f"it is {record.state}: {record.changed.why}",
            code="registry.state",
            context=record.name,
        )
    return record


def admit(plugin: PluginRecord, artifact: VerifiedArtifact) -> None:
    """Pass if a verified capsule of this plugin may be loaded, wherever it comes from.

    Raises:
        VerificationError: `verify.revoked`, `verify.rollback`.
        RegistryError: `registry.version-taken`, `registry.name-taken`, `registry.state`.
    """
    name = f"{artifact.id}@{artifact.version}"
    record = plugin.version(artifact.version)
    if record is not None and record.state is State.REVOKED:
        raise VerificationError(
            f"it was revoked: {record.changed.why}", code="verify.revoked", context=name
        )
    if record is not None and record.archive != artifact.digest:
        raise RegistryError(
            f"another content was installed as this version: {record.archive}",
            code="registry.version-taken",
            context=name,
        )
    if plugin.state is State.SUSPENDED or (record and record.state is State.SUSPENDED):
        raise RegistryError("the plugin is suspended", code="registry.state", context=name)
    if (
        plugin.highest is not None
        and is_older(artifact.version, plugin.highest)
        and not plugin.permits_for(PermitKind.DOWNGRADE, artifact.version)
    ):
        raise VerificationError(
            f"version {plugin.highest} was accepted before", code="verify.rollback", context=name
        )
    if plugin.owners and not plugin.is_by_owner(artifact.signers):
        raise RegistryError(
            "the id belongs to other keys: " + ", ".join(sorted(plugin.owners)),
            code="registry.name-taken",
            context=name,
        )


def of_age(decision: Decision, candidate: Candidate) -> None:
    """Pass if the rules do not hold it for its age, over which nobody but an exception helps.

    Raises:
        RegistryError: `registry.min-age`.
    """
    if decision.until is not None:
        record = candidate.record
        raise RegistryError(
            f"it is too new: until {utc_text(decision.until)}",
            code="registry.min-age",
            context=record.name,
            faults=[
                Fault(
                    "",
                    "policy wants new versions to be older ([updates] min-age-hours)",
                    f"capwasm permit {record.plugin} min-age {record.version} --reason TEXT",
                )
            ],
        )


def is_reviewed(decision: Decision, name: str) -> None:
    """Pass if nothing lacks of its review, over which nobody's word helps.

    Raises:
        RegistryError: as `check_standing`.
    """
    if decision.lacks is not None:
        check_standing(decision.lacks, name)


def obey(decision: Decision, name: str) -> None:
    """Raise what the rules refuse.

    Raises:
        VerificationError: for a `verify.` code.
        RegistryError: for any other.
    """
    if decision.verdict is not Verdict.REFUSE:
        return
    message = "; ".join(decision.reasons)
    kind = VerificationError if decision.code.startswith("verify.") else RegistryError
    raise kind(message, code=decision.code, context=name, faults=decision.faults)


def take_in(
    draft: Draft,
    plugin: PluginRecord | None,
    candidate: Candidate,
    decision: Decision,
    *,
    hold: bool = False,
) -> tuple[str, str, tuple[str, ...]]:
    """Enter a candidate that the rules don't refuse; what was done, its version, and reasons.

    Args:
        draft: the change.
        plugin: the record before it.
        candidate: what is to be entered.
        decision: of the rules.
        hold: whether it waits, even if the rules accept it.

    Raises:
        RegistryError: `registry.name-taken`: the same content, but signed by others.
    """
    record = candidate.record
    version = record.version
    before = None if plugin is None else plugin.version(version)
    pending = hold or decision.verdict is Verdict.PENDING
    reasons = decision.reasons if decision.verdict is Verdict.PENDING else ("a review of it",)
    waits = before is not None and draft.waiting == version
    ripe = waits and not pending
    back = before is not None and _goes_back(draft, before) and not pending
    if before is not None and before.bundle == record.bundle and not ripe and not back:
        return "unchanged", version, before.pending or (f"it is {before.state}",)
    ours = bool(publishers(record.signers) & draft.owners)
    if before is not None and before.bundle != record.bundle and pending and (waits or not ours):
        raise RegistryError(
            "the same content, signed by others: " + "; ".join(decision.reasons),
            code="registry.name-taken",
            context=record.name,
        )
    if before is not None:
        if before.bundle != record.bundle:
            draft.renew(record)
            if draft.owners and not ours:  # by an exception, which lets the id pass to them
                draft.hand_over(publishers(record.signers))
                draft.use(*decision.used)
        if not ripe and not back:
            return "renewed", version, ()
    else:
        looked_at = not hold and decision.lacks is None
        draft.submit(candidate, reasons if pending else (), looked_at=looked_at)
    if pending:
        draft.park(version)
        return "submitted" if hold else "pending", version, reasons
    draft.use(*decision.used)
    draft.serve(version)
    return "installed" if plugin is None or plugin.serving is None else "updated", version, ()


def _goes_back(draft: Draft, before: VersionRecord) -> bool:
    """Whether this is an older version that was permitted to serve again."""
    return (
        before.state is State.REVIEWED
        and draft.serving != before.version
        and draft.has_permit(PermitKind.DOWNGRADE, before.version)
    )


def to_activate(plugin: PluginRecord, version: str | None) -> str:
    """The version that is meant: the one named, the one that waits, or the one that was suspended.

    Raises:
        RegistryError: `registry.unknown`: there is none; `registry.state`: there are two, and who
            means to resume one must not say yes to another that asks for more.
    """
    suspended = plugin.serving if plugin.state is State.SUSPENDED else None
    if version is None and suspended and plugin.waiting:
        both = (suspended, plugin.waiting)
        raise RegistryError(
            f"{suspended} was suspended and {plugin.waiting} waits: say which",
            code="registry.state",
            context=plugin.id,
            faults=[Fault(v, "is one of them", f"capwasm activate {plugin.id} {v}") for v in both],
        )
    chosen = version or plugin.waiting or suspended
    if chosen is None:
        raise RegistryError("no version of it waits", code="registry.unknown", context=plugin.id)
    return chosen


def came_before(plugin: PluginRecord, version: str) -> str:
    """That version, if it was accepted once and is not the one that serves.

    Raises:
        RegistryError: `registry.unknown`, `registry.state`.
    """
    record = version_of(plugin, version)
    if version in (plugin.serving, plugin.waiting):
        what = "it is the version that serves" if version == plugin.serving else "it never served"
        raise RegistryError(what, code="registry.state", context=record.name)
    return version


def served_before(plugin: PluginRecord, steps: Sequence[Step]) -> str:
    """The version that served last before the one that serves now, and may serve again.

    Raises:
        RegistryError: `registry.unknown`.
    """
    for step in reversed(steps):
        record = plugin.version(step.version)
        if (
            step.before is State.ACTIVE
            and step.after is State.REVIEWED
            and step.version != plugin.serving
            and record is not None
            and record.state is State.REVIEWED
        ):
            return step.version
    raise RegistryError(
        "no version that served before is still here", code="registry.unknown", context=plugin.id
    )


def check_subject(kind: PermitKind, subject: str) -> None:
    """Pass if an exception can speak of that: a version, or a key id.

    Raises:
        ValueError: it can't.
    """
    if kind is not PermitKind.SIGNER:
        check_version(subject)
    elif not _KEY_ID.fullmatch(subject):
        raise ValueError("not a key id: 64 hex digits, as `capwasm inspect` shows them")
