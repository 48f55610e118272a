"""The update rules: one pure function over what is installed and what wants to be."""

from __future__ import annotations

from datetime import datetime

from capwasm.errors import Fault
from capwasm.grants.policy import Policy

from .model import (
    Candidate,
    Current,
    Decision,
    PermitKind,
    State,
    Verdict,
    is_older,
    publishers,
)

__all__ = ["decide"]


def decide(
    current: Current | None,
    candidate: Candidate,
    policy: Policy,  # noqa: ARG001
    now: datetime,  # noqa: ARG001
) -> Decision:
    """What becomes of a verified candidate.

    Args:
        current: what is known of the plugin; None if nobody has seen it.
        candidate: verified, its manifest parsed.
        policy: the operator's.
        now: with a time zone.
    """
    if current is None:
        return Decision(Verdict.ACCEPT, reasons=("the first version of this plugin",))
    plugin, record = current.plugin, candidate.record
    known = plugin.version(record.version)
    if known is not None and known.state is State.REVOKED:
        return _refuse("verify.revoked", "this version was revoked")
    if known is not None and known.archive != record.archive:
        return _refuse(
            "registry.version-taken",
            f"another content was installed as {record.version}: {known.archive}",
        )
    if (
        plugin.highest is not None
        and is_older(record.version, plugin.highest)
        and not plugin.permits_for(PermitKind.DOWNGRADE, record.version)
    ):
        return _refuse(
            "verify.rollback",
            f"{plugin.highest} was accepted before",
            f"capwasm permit {plugin.id} downgrade {record.version} --reason TEXT",
        )
    keys = sorted(publishers(record.signers))
    used = [p for p in plugin.permits if p.kind is PermitKind.SIGNER and p.subject in keys]
    if plugin.owners and not plugin.is_by_owner(record.signers) and not used:
        if plugin.serving is not None:
            return Decision(Verdict.PENDING, reasons=("another signer: " + ", ".join(keys),))
        return _refuse(
            "registry.name-taken",
            "the id belongs to the keys that signed before: " + ", ".join(sorted(plugin.owners)),
            f"capwasm permit {plugin.id} signer {keys[0] if keys else 'KEY'} --reason TEXT",
        )
    if plugin.state is State.SUSPENDED and record.version != plugin.serving:
        return Decision(Verdict.PENDING, reasons=("the plugin is suspended",))
    if plugin.pinned is not None and record.version != plugin.pinned:
        return Decision(Verdict.PENDING, reasons=(f"pinned to {plugin.pinned}",))
    return Decision(Verdict.ACCEPT, used=tuple(used))


def _refuse(code: str, message: str, fix: str | None = None) -> Decision:
    return Decision(Verdict.REFUSE, code, (message,), (Fault("", message, fix),))
