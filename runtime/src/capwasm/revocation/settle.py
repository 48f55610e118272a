"""What a feed denies for good is revoked in the registry too: a step with who and why."""

from __future__ import annotations

from collections.abc import Callable

from capwasm.errors import RegistryError
from capwasm.registry.model import Outcome, State, VersionRecord
from capwasm.registry.registry import Registry

from .guard import Guard
from .index import Index, Subject

__all__ = ["settle", "settle_once", "subject_of_record"]


def settle_once(
    registry: Registry, guard: Guard, stop: Callable[[], bool] = lambda: False
) -> list[Outcome]:
    """Bring the registry in line with the feed in force, unless that was done before.

    What is installed later is asked for when it is installed.

    Raises:
        RevocationError: that it was done can't be noted.
        RegistryError, AuditError: as `settle`.
    """
    feed = guard.feed
    if feed is None or guard.keeper.is_settled(feed.digest):
        return []
    changed = settle(registry, feed.index, stop)
    if not stop():
        guard.keeper.note_settled(feed.digest)
    return changed


def settle(
    registry: Registry, index: Index, stop: Callable[[], bool] = lambda: False
) -> list[Outcome]:
    """Bring the registry in line with a feed.

    A version that the feed names (its content, its version, its plugin) becomes revoked.  One that
    serves and was signed by a denied key is suspended: signed anew, it may serve again.

    Args:
        registry: what is installed.
        index: of the feed in force.
        stop: asked between plugins whether to leave the rest.

    Raises:
        RegistryError: it can't be read or written, or can't be believed.
        AuditError: a change can't be recorded, and so did not happen.
    """
    changed = []
    who = f"revocation feed {index.sequence}"
    for listed in registry.list():
        if stop():
            break
        plugin = registry.find(listed.id)
        for record in plugin.versions if plugin is not None else ():
            if record.state is State.REVOKED:
                continue
            entry = index.find(subject_of_record(record))
            if entry is None:
                continue
            why = str(entry)[:500]
            try:
                if entry.is_final:
                    changed.append(registry.revoke(record.plugin, record.version, who=who, why=why))
                elif entry.kind == "signer" and record.state is State.ACTIVE:
                    changed.append(registry.suspend(record.plugin, who=who, why=why))
            except RegistryError as exc:
                # Somebody else was faster, and it is gone or revoked.
                if exc.code not in ("registry.state", "registry.unknown"):
                    raise
    return changed


def subject_of_record(record: VersionRecord) -> Subject:
    """An installed version, as a feed may speak of it."""
    digests = {record.archive, record.manifest} | ({record.code} if record.code else set())
    return Subject(record.plugin, record.version, frozenset(digests), record.key_ids)
