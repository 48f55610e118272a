"""Reviews of plugins that run: what let one serve may end while it does.

A key is revoked, an exception's time is over, a scan finds more, somebody rejects it: then the same
function that refuses the next load says so of what runs.  It is asked again when the registry or the
trust store has changed, and at the time at which it said that its answer ends.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from capwasm.capability import Capability
from capwasm.capsule.trust import TrustStore, utc_now
from capwasm.capsule.verify import VerifiedArtifact
from capwasm.errors import Fault, PolicyError, RegistryError
from capwasm.grants.manifest import Manifest
from capwasm.grants.review import ReviewRule
from capwasm.plugin import Plugin
from capwasm.registry.reviews import Reviews, check_standing
from capwasm.registry.shelf import Shelf
from capwasm.review.rules import Matter, Standing

__all__ = ["Lapses"]

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Lapses:
    """The reviews of the plugins of one runtime.  For any thread."""

    def __init__(
        self,
        registry: Shelf | None,
        rule: ReviewRule,
        capabilities: Sequence[Capability[Any, Any]],
    ) -> None:
        """Know nothing that runs.

        Args:
            registry: where the records are; None, and nothing was said of anything.
            rule: the policy's.
            capabilities: those that there are.
        """
        self._registry = registry
        self._reviews = (
            Reviews(rule, capabilities, TrustStore.empty, lambda: None, utc_now)
            if registry is None
            else dataclasses.replace(registry.reviews, rule=rule)
        )
        self._lock = threading.Lock()
        self._running: dict[Plugin, Matter] = {}
        self._seen: tuple[object, TrustStore | None] | None = None
        self._until: dict[Plugin, datetime] = {}

    def matter(self, artifact: VerifiedArtifact, manifest: Manifest) -> Matter:
        """A capsule that is to be loaded."""
        return self._reviews.matter_of(artifact, manifest)

    def admit(self, matter: Matter) -> None:
        """Pass if a version may serve, by all that was said of it and counts now.

        Raises:
            RegistryError: `review.rejected`, `review.blocked`, `review.lapsed`, `review.missing`,
                `review.unscanned`; the registry can't be read, or can't be believed.
            PolicyError: the trust store of today can't be read.
        """
        check_standing(self._standing(matter), f"{matter.bond.plugin}@{matter.bond.version}")

    def enter(self, plugin: Plugin, matter: Matter) -> None:
        """Know a plugin, before its code runs; whoever loads it asks `admit` once more after this."""
        with self._lock:
            self._running[plugin] = matter
            self._seen = None

    def leave(self, plugin: Plugin) -> None:
        """Forget a plugin that has ended."""
        with self._lock:
            self._running.pop(plugin, None)

    def look(self) -> list[tuple[Plugin, Standing]]:
        """What runs and may not any more; quick as long as nothing has changed.

        Raises:
            RegistryError, PolicyError: it can't be told.  What runs runs on, until the time at which
                its last answer ends, and no load is let by.
        """
        if self._registry is None or not self._running:
            return []
        now = self._reviews.now()
        try:
            return self._asked(self._registry, now)
        except (RegistryError, PolicyError) as exc:
            why = f"what let it serve has ended, and nothing newer can be read: {exc.message}"
            over = Standing(ok=False, needs=(Fault("", why),), code="review.lapsed")
            with self._lock:
                late = [p for p in self._running if p in self._until and self._until[p] <= now]
            if not late:
                raise
            return [(plugin, over) for plugin in late]

    def _asked(self, registry: Shelf, now: datetime) -> list[tuple[Plugin, Standing]]:
        reviews = self._reviews
        seen = registry.stamp(), reviews.today() if reviews.rule.required else None
        with self._lock:
            before, running = self._seen, list(self._running.items())
            self._seen = seen
        if (
            before is not None
            and before[0] == seen[0]
            and before[1] is seen[1]
            and now < min(self._until.values(), default=_NEVER)
        ):
            return []
        try:
            found = [(plugin, self._standing(matter)) for plugin, matter in running]
        except BaseException:
            self._seen = None  # asked again at the next look
            raise
        self._until = {plugin: s.until for plugin, s in found if s.until is not None}
        return [(plugin, standing) for plugin, standing in found if not standing.ok]

    def _standing(self, matter: Matter) -> Standing:
        plugin = None if self._registry is None else self._registry.find(matter.bond.plugin)
        return self._reviews.standing(matter, plugin)
